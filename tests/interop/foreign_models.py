"""Small models of transformers with multi-scale deformable attention, and random weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import nn

STD = 0.3  # of the attention's weights: queries look in different ways, and it shows, as in a trained model
_SQUARE = 128  # pixels, of what a Swin Transformer is given


@dataclass(frozen=True)
class Foreign:
    """How to make a model and what it is given, and how many of its modules are such attention."""

    make: Callable[[], nn.Module]
    modules: int
    inputs: Callable[[], dict[str, Any]]
    labels: Callable[[], dict[str, Any]]
    # Some gradients are 0 but for rounding, which others magnify. Some losses know float32 alone.
    learns_in: torch.dtype = torch.float64

    def build(self) -> nn.Module:
        """The model, with attention that acts, and batch normalisation that knows the inputs."""
        torch.manual_seed(0)
        model = self.make().train()
        for name, module in model.named_modules():
            if name.endswith(("sampling_offsets", "attention_weights", "value_proj", "output_proj")):
                nn.init.normal_(module.weight, std=STD)
        with torch.no_grad():
            for _ in range(20):
                model(**self.inputs(), **self.labels())
        return model

    def attention_of(self, model: nn.Module) -> list[nn.Module]:
        """The modules that project, and attend by themselves or by a core."""
        return [module for module in model.modules() if hasattr(module, "sampling_offsets")]


def pictures(height: int = 96, width: int = 128) -> dict[str, Any]:
    return {"pixel_values": torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))}


def padded_pictures() -> dict[str, Any]:
    """The second one is smaller than the first."""
    mask = torch.ones(2, 96, 128, dtype=torch.long)
    mask[1, 64:] = mask[1, :, 96:] = 0
    return {**pictures(), "pixel_mask": mask}


def with_text() -> dict[str, Any]:
    words = torch.tensor([[101, 1037, 1012, 1038, 1012, 102]]).repeat(2, 1)
    return {**pictures(_SQUARE, _SQUARE), "input_ids": words, "attention_mask": torch.ones_like(words)}


def with_a_task() -> dict[str, Any]:
    words = torch.arange(2 * 6 * 7).view(2, 6, 7)
    return {**pictures(_SQUARE, _SQUARE), "task_inputs": torch.arange(7).repeat(2, 1), "text_inputs": words}


def boxes() -> dict[str, Any]:
    found = {"class_labels": torch.tensor([1, 0]), "boxes": torch.tensor([[0.5, 0.5, 0.3, 0.4], [0.3, 0.6, 0.2, 0.2]])}
    return {"labels": [found, found]}


def masks() -> dict[str, Any]:
    areas = torch.zeros(2, _SQUARE, _SQUARE)
    areas[0, :50, :60] = areas[1, 60:, 70:] = 1
    return {"mask_labels": [areas, areas], "class_labels": [torch.tensor([0, 1])] * 2}


def _resnet(*stages: str) -> Any:
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return hf.ResNetConfig(**sizes, out_features=list(stages))


LAST_THREE = ("stage2", "stage3", "stage4")
SMALL = {"d_model": 32, "num_queries": 12, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 32}
SMALL_ENCODER = {"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 32}
DETR = {**SMALL, **SMALL_ENCODER, "dropout": 0.0}


def deformable_detr(**more: Any) -> nn.Module:
    config = hf.DeformableDetrConfig(backbone_config=_resnet(*LAST_THREE), **DETR, **more)
    return hf.DeformableDetrForObjectDetection(config)


def _real_time(**more: Any) -> dict[str, Any]:
    return {
        **SMALL,
        "encoder_hidden_dim": 32,
        "encoder_ffn_dim": 32,
        "encoder_attention_heads": 4,
        "encoder_in_channels": [24, 32, 48],
        "decoder_in_channels": [32, 32, 32],
        "num_denoising": 0,
        **more,
    }


def rt_detr() -> nn.Module:
    return hf.RTDetrForObjectDetection(hf.RTDetrConfig(backbone_config=_rt_resnet(), **_real_time()))


def rt_detr_v2(**more: Any) -> nn.Module:
    return hf.RTDetrV2ForObjectDetection(hf.RTDetrV2Config(backbone_config=_rt_resnet(), **_real_time(), **more))


def _rt_resnet() -> Any:
    return hf.RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=list(LAST_THREE),
    )


def d_fine(**more: Any) -> nn.Module:
    return hf.DFineForObjectDetection(hf.DFineConfig(backbone_config=_rt_resnet(), **_real_time(), **more))


def _bert() -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return hf.BertConfig(**sizes, vocab_size=1100, max_position_embeddings=32)


def _swin() -> Any:
    sizes = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4, "image_size": 128}
    return hf.SwinConfig(**sizes, out_features=list(LAST_THREE), drop_path_rate=0.0)


def grounding_dino() -> nn.Module:
    config = hf.GroundingDinoConfig(
        backbone_config=_swin(), text_config=_bert(), **DETR, fusion_droppath=0.0, max_text_len=16
    )
    return hf.GroundingDinoForObjectDetection(config)


def mm_grounding_dino() -> nn.Module:
    config = hf.MMGroundingDinoConfig(
        backbone_config=_swin(), text_config=_bert(), **DETR, fusion_droppath=0.0, max_text_len=16
    )
    return hf.MMGroundingDinoForObjectDetection(config)


def mask2former() -> nn.Module:
    swin = _swin()
    swin.out_features = ["stage1", *LAST_THREE]
    config = hf.Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=4,
        dim_feedforward=32,
        num_queries=8,
        train_num_points=64,
    )
    return hf.Mask2FormerForUniversalSegmentation(config)


def oneformer() -> nn.Module:
    swin = _swin()
    swin.out_features = ["stage1", *LAST_THREE]
    config = hf.OneFormerConfig(
        backbone_config=swin,
        conv_dim=64,
        mask_dim=64,
        hidden_dim=64,
        encoder_feedforward_dim=32,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=4,
        dim_feedforward=32,
        num_queries=8,
        task_seq_len=7,
        dropout=0.0,
        is_training=True,
        text_encoder_n_ctx=2,
        text_encoder_width=64,
        text_encoder_context_length=7,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=100,
        train_num_points=64,
    )
    return hf.OneFormerForUniversalSegmentation(config)


MODELS = {
    "Deformable DETR": Foreign(deformable_detr, 4, padded_pictures, boxes),
    "Deformable DETR, two-stage": Foreign(
        lambda: deformable_detr(two_stage=True, with_box_refine=True, two_stage_num_proposals=12),
        4,
        padded_pictures,
        boxes,
    ),
    "RT-DETR": Foreign(rt_detr, 2, pictures, boxes),
    "RT-DETRv2": Foreign(rt_detr_v2, 2, pictures, boxes),
    "D-FINE": Foreign(d_fine, 2, pictures, boxes, torch.float32),
    "D-FINE, points by level": Foreign(lambda: d_fine(decoder_n_points=[3, 6, 3]), 2, pictures, boxes, torch.float32),
    "Grounding DINO": Foreign(grounding_dino, 4, with_text, boxes),
    "MM Grounding DINO": Foreign(mm_grounding_dino, 4, with_text, boxes),
    "Mask2Former": Foreign(mask2former, 2, lambda: pictures(_SQUARE, _SQUARE), masks, torch.float32),
    "OneFormer": Foreign(oneformer, 2, with_a_task, masks, torch.float32),
}
