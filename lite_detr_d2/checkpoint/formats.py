"""The published implementations whose checkpoints can be read: one :class:`Format` each."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from . import detrex, names, transformers
from .names import Rule, Split, State, Unused


@dataclass(frozen=True)
class Format:
    """A published implementation.

    Other detectors may have its marks, too: tensors that its rules do not know tell them from it.

    Attributes:
        kind: what people call it.
        marks: tensors that all its state dicts have. Of several formats whose marks are there, the first is meant.
        rules: the rules for a state dict, see :mod:`.names`.
        only_backbone: whether it is a backbone, trained to classify, and no detector.
        has_rows_of_ids: whether its heads have a row for each category id; else for each class.
        conventions: the ``MODEL.LITE_DETR.CONVENTIONS`` that its detectors compute by.
    """

    kind: str
    marks: tuple[str, ...]
    rules: Callable[[State], tuple[Rule, ...]]
    only_backbone: bool = False
    has_rows_of_ids: bool = True
    conventions: str = "published"


def detect(state: State) -> Format | None:
    """Whose state dict this is; None for our own, and for ones that nobody knows."""
    for published in FORMATS:
        if all(mark in state for mark in published.marks):
            return published
    return None


def _detector(state: State) -> tuple[Rule, ...]:
    body = r"backbone\.0\.(?:body\.)?"
    return (*names.TRANSFORMER, *names.neck(state), *names.resnet(body), *names.swin(body))


def _dino(state: State) -> tuple[Rule, ...]:
    plain = [
        name.removesuffix("attention_weights.weight") for name in state if name.endswith("attention_weights.weight")
    ]
    return (
        # The published Lite-DINO has them in every attention layer.
        *(
            (rf"{re.escape(attention)}(?:query|key)_proj", Unused("unused without key-aware attention"))
            for attention in plain
        ),
        (r"transformer\.decoder\.norm", r"decoder.norm"),
        (r"transformer\.decoder\.ref_point_head\.layers\.(\d+)", r"decoder.position.mlp.layers.\1"),
        (r"transformer\.tgt_embed", r"query_selection.content"),
        (r"transformer\.enc_out_bbox_embed\.layers\.(\d+)", r"query_selection.head.box_embed.layers.\1"),
        (r"transformer\.enc_out_class_embed", r"query_selection.head.class_embed"),
        (r"label_enc", r"denoising.label_embed"),
        *names.shared_heads(),
        *_detector(state),
    )


def _single_stage(state: State) -> tuple[Rule, ...]:
    refines_boxes = "transformer.decoder.bbox_embed.0.layers.0.weight" in state
    parts = {"query_selection.position.weight": 1, "query_selection.content.weight": 1}
    return (
        (r"query_embed\.weight", Split(dim=1, shares=parts)),
        (r"transformer\.reference_points", r"query_selection.reference_points"),
        *(names.heads_of_layers() if refines_boxes else names.shared_heads()),
        *_detector(state),
    )


def _two_stage(state: State) -> tuple[Rule, ...]:
    return (
        (r"transformer\.pos_trans", r"query_selection.proposal_embed.proj"),
        (r"transformer\.pos_trans_norm", r"query_selection.proposal_embed.norm"),
        *names.head_of_encoder(_layers(state, "decoder")),
        *names.heads_of_layers(),
        *_detector(state),
    )


def _mixed_two_stage(state: State) -> tuple[Rule, ...]:
    return ((r"query_embed", r"query_selection.content"), *_two_stage(state))


def _sparse(state: State) -> tuple[Rule, ...]:
    first, scorer = _layers(state, "decoder") + 1, r"transformer\.enc_mask_predictor"
    return (
        (rf"{scorer}\.layer1\.(\d+)", r"encoder.scorer.embed.\1"),
        (rf"{scorer}\.layer2\.(\d+)", r"encoder.scorer.score.\1"),
        *names.heads_of_encoder_layers(first, _layers(state, "encoder") - 1),
        *_two_stage(state),
    )


def _layers(state: State, part: str) -> int:
    return names.count(state, rf"transformer\.{part}\.layers\.(\d+)\.")


def _imagenet_resnet(_: State) -> tuple[Rule, ...]:
    return ((r"fc", Unused("of the classifier")), *names.resnet(""))


def _imagenet_swin(_: State) -> tuple[Rule, ...]:
    return ((r"head|norm", Unused("of the classifier")), *names.swin(""))


def _imagenet_efficientnet(state: State) -> tuple[Rule, ...]:
    return ((r"_conv_head|_bn1|_fc", Unused("of the classifier")), *names.efficientnet(state))


FORMATS = (
    Format(
        "DINO (Lite-DETR, IDEA-Research/DINO)",
        ("transformer.level_embed", "transformer.tgt_embed.weight", "transformer.enc_out_class_embed.weight"),
        _dino,
    ),
    Format(
        "Sparse DETR",
        ("transformer.level_embed", "transformer.pos_trans.weight", "transformer.enc_mask_predictor.layer1.0.weight"),
        _sparse,
    ),
    Format(
        "H-Deformable-DETR",
        ("transformer.level_embed", "transformer.pos_trans.weight", "query_embed.weight"),
        _mixed_two_stage,
    ),
    # H-Deformable-DETR without mixed selection has the same tensors.
    Format(
        "two-stage Deformable-DETR",
        ("transformer.level_embed", "transformer.pos_trans.weight"),
        _two_stage,
    ),
    Format(
        "Deformable-DETR",
        ("transformer.level_embed", "transformer.reference_points.weight", "query_embed.weight"),
        _single_stage,
    ),
    Format(
        "detrex's DINO",
        ("transformer.level_embeds", "transformer.tgt_embed.weight", "label_enc.weight"),
        detrex.dino,
        has_rows_of_ids=False,
        conventions="detrex",
    ),
    # H-DETR's is the same, with further queries whose content is learned.
    Format(
        "detrex's two-stage Deformable DETR or H-DETR",
        ("transformer.level_embeds", "transformer.pos_trans.weight"),
        detrex.two_stage,
        has_rows_of_ids=False,
        conventions="detrex",
    ),
    Format(
        "detrex's Deformable DETR",
        ("transformer.level_embeds", "transformer.reference_points.weight", "query_embedding.weight"),
        detrex.single_stage,
        has_rows_of_ids=False,
        conventions="detrex",
    ),
    Format(
        transformers.KIND,
        (
            "model.level_embed",
            "model.encoder.layers.0.self_attn.sampling_offsets.weight",
            "model.decoder.layers.0.encoder_attn.sampling_offsets.weight",
        ),
        transformers.deformable_detr,
    ),
    Format(
        "ImageNet ResNet (torchvision)", ("conv1.weight", "layer1.0.conv1.weight"), _imagenet_resnet, only_backbone=True
    ),
    Format(
        "ImageNet Swin Transformer",
        ("patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"),
        _imagenet_swin,
        only_backbone=True,
    ),
    Format(
        "ImageNet EfficientNet-Lite (EfficientNet-PyTorch)",
        ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_conv_head.weight"),
        _imagenet_efficientnet,
        only_backbone=True,
    ),
)
