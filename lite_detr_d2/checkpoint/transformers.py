"""Names of Hugging Face's ``DeformableDetrForObjectDetection``, to and from ours.

Source: github.com/huggingface/transformers, ``models/deformable_detr/modeling_deformable_detr.py`` and
``models/resnet/modeling_resnet.py``, of 5.24; older names, which ``save_pretrained`` still writes, as in
``conversion_mapping.py``.
"""

import re

import torch

from ..errors import InputError
from . import names
from .infer import inferred_config
from .names import ATTENTION, Copies, Part, Rule, Split, State, StateDict
from .report import ConversionReport, modules_of

KIND = "transformers (DeformableDetrForObjectDetection)"

_ENCODER, _DECODER = "model.encoder.layers.#", "model.decoder.layers.#"
_PAIRS = (
    ("model.level_embed", "flatten.level_embed"),
    *((f"{_ENCODER}.self_attn.{part}", f"encoder.layers.#.attention.{part}") for part in ATTENTION),
    (f"{_ENCODER}.self_attn_layer_norm", "encoder.layers.#.norm"),
    (f"{_ENCODER}.mlp.fc#", "encoder.layers.#.feed_forward.linear#"),
    (f"{_ENCODER}.final_layer_norm", "encoder.layers.#.feed_forward.norm"),
    (f"{_DECODER}.self_attn.v_proj", "decoder.layers.#.self_attention.value_proj"),
    (f"{_DECODER}.self_attn.o_proj", "decoder.layers.#.self_attention.output_proj"),
    (f"{_DECODER}.self_attn_layer_norm", "decoder.layers.#.self_attention_norm"),
    *((f"{_DECODER}.encoder_attn.{part}", f"decoder.layers.#.cross_attention.{part}") for part in ATTENTION),
    (f"{_DECODER}.encoder_attn_layer_norm", "decoder.layers.#.cross_attention_norm"),
    (f"{_DECODER}.mlp.fc#", "decoder.layers.#.feed_forward.linear#"),
    (f"{_DECODER}.final_layer_norm", "decoder.layers.#.feed_forward.norm"),
    ("model.reference_points", "query_selection.reference_points"),
    ("model.enc_output", "query_selection.proj"),
    ("model.enc_output_norm", "query_selection.norm"),
    ("model.pos_trans", "query_selection.proposal_embed.proj"),
    ("model.pos_trans_norm", "query_selection.proposal_embed.norm"),
)
# What names were before 5.0, and are in files.
_OLDER_PAIRS = (
    (f"{_ENCODER}.fc#", "encoder.layers.#.feed_forward.linear#"),
    (f"{_DECODER}.self_attn.out_proj", "decoder.layers.#.self_attention.output_proj"),
    (f"{_DECODER}.fc#", "decoder.layers.#.feed_forward.linear#"),
)
# ResNet as transformers has it itself; the one of timm, which it takes by default, has torchvision's names.
_RESNET = (
    ("embedder.embedder.convolution", "backbone.stem.conv1"),
    ("embedder.embedder.normalization", "backbone.stem.conv1.norm"),
    *(
        (f"encoder.stages.{stage}.layers.#.{theirs}", f"backbone.res{stage + 2}.#.{ours}")
        for stage in range(4)
        for theirs, ours in (
            ("shortcut.convolution", "shortcut"),
            ("shortcut.normalization", "shortcut.norm"),
            *((f"layer.{place}.convolution", f"conv{place + 1}") for place in range(3)),
            *((f"layer.{place}.normalization", f"conv{place + 1}.norm") for place in range(3)),
        )
    ),
)
_BACKBONE = r"model\.backbone\.(?:conv_encoder\.)?model\."
_QUERIES = "model.query_position_embeddings.weight"
_SELF_ATTENTION = r"{}.layers.\1.self_attn.{}_proj.\2"
_ALONE = "transformers has Deformable DETR alone, with plain attention on all levels and a ResNet"
_HEADS = {"class_embed": "class_embed", "bbox_embed": "box_embed"}


def deformable_detr(state: State) -> tuple[Rule, ...]:
    """The rules for a checkpoint of any of its variants."""
    parts = {"query_selection.position.weight": 1, "query_selection.content.weight": 1}
    query_key = r"decoder.layers.\1.self_attention.query_key_proj"
    return (
        (re.escape(_QUERIES), Split(dim=1, shares=parts)),
        (r"model\.decoder\.layers\.(\d+)\.self_attn\.q_proj", Part(query_key, dim=0, place=0)),
        (r"model\.decoder\.layers\.(\d+)\.self_attn\.k_proj", Part(query_key, dim=0, place=1)),
        *_heads(state),
        *names.renamed((*_PAIRS, *_OLDER_PAIRS)),
        *names.neck(state, "model."),
        *names.resnet(_BACKBONE),
        *names.renamed(_RESNET, _BACKBONE),
    )


def _heads(state: State) -> tuple[Rule, ...]:
    """Of the heads that all modules share, a file may have the first alone."""
    layers = names.count(state, r"model\.decoder\.layers\.(\d+)\.")
    ours = [f"decoder.heads.{layer}" for layer in range(layers)]
    if "model.enc_output.weight" in state:
        ours.append("query_selection.head")
    elif not _refines_boxes(state):
        return names.shared_heads("model.decoder.")
    rules: list[Rule] = []
    for theirs, part in _HEADS.items():
        pattern, inner = rf"(?:model\.decoder\.)?{theirs}", r"(?P<inner>\.layers\.\d+)?"
        given = {int(match[1]) for name in state if (match := re.match(rf"{pattern}\.(\d+)\.", name))}
        if given == {0}:
            rules.append((rf"{pattern}\.0{inner}", Copies(tuple(rf"{head}.{part}\g<inner>" for head in ours))))
        else:
            rules += [(rf"{pattern}\.{place}{inner}", rf"{head}.{part}\g<inner>") for place, head in enumerate(ours)]
    return tuple(rules)


def _refines_boxes(state: State) -> bool:
    """Whether a single-stage decoder has a head for each layer.

    It then refers to them, but a file may have one name alone of those that a tensor has.
    """
    boxes = [(match[1], name) for name in state if (match := re.fullmatch(r"bbox_embed\.\d+\.(.+)", name))]
    first = {part: state[name] for part, name in reversed(boxes)}
    refers = any(name.startswith("model.decoder.bbox_embed.") for name in state)
    return refers or any(not torch.equal(state[name], first[part]) for part, name in boxes)


def to_transformers(state: State) -> tuple[StateDict, ConversionReport]:
    """Convert one of our Deformable DETRs for ``DeformableDetrForObjectDetection.load_state_dict``.

    Args:
        state: our names -> tensors, of a whole detector with a ResNet, which gets the names of timm's.

    Returns:
        The state dict with the names of transformers 5, and what became of every tensor.

    Raises:
        InputError: naming what it has that transformers' model does not.
    """
    _check_is_theirs(state)
    layers = names.count(state, r"decoder\.layers\.(\d+)\.")
    inputs = names.count(state, r"neck\.inputs\.(\d+)\.")
    projections = [(f"input_proj.{level}.#", f"neck.inputs.{level}.#") for level in range(inputs)]
    added = names.count(state, r"neck\.added\.(\d+)\.")
    projections += [(f"input_proj.{inputs + level}.#", f"neck.added.{level}.#") for level in range(added)]
    query_key = {_SELF_ATTENTION.format("model.decoder", part): 1 for part in "qk"}
    rules: tuple[Rule, ...] = (
        names.WITHOUT_COUNTERS,
        (r"query_selection\.position\.weight", Part(_QUERIES, dim=1, place=0)),
        # Learned with its position; alone, it is of mixed selection.
        *(
            [(r"query_selection\.content\.weight", Part(_QUERIES, dim=1, place=1))]
            if "query_selection.position.weight" in state
            else ()
        ),
        (
            r"decoder\.layers\.(\d+)\.self_attention\.query_key_proj\.(weight|bias)",
            Split(dim=0, shares=query_key),
        ),
        *_heads_back(state, layers),
        *names.renamed_back(_PAIRS),
        *names.renamed_back(projections, "model."),
        *names.renamed_back(names.RESNET, "model.backbone.model."),
    )
    report = ConversionReport(f"lite_detr_d2, for {KIND}")
    converted = names.apply_all(rules, state, report)
    if report.without_counterpart:
        raise InputError(f"{_ALONE}, and this model has {modules_of(report.without_counterpart, state)}.")
    return converted, report


def differs_in_transformers(conventions: str) -> list[str]:
    """What no tensor tells of one of our Deformable DETRs, and transformers' computes in one way alone.

    Args:
        conventions: the ``MODEL.LITE_DETR.CONVENTIONS`` of the file that it is from, as far as that is known.

    Returns:
        Sentences for people.
    """
    lines = [
        "Not told by tensors, and there always: MODEL.LITE_DETR.POSITION_TEMPERATURE 10000 and CONVENTIONS published. "
        "A model of others computes something else there."
    ]
    if conventions != "published":
        lines.append(
            f"This one is of CONVENTIONS {conventions}: there, boxes come nearer to an edge than 0.001, and those that "
            "do differ."
        )
    return lines


def _check_is_theirs(state: State) -> None:
    """See that transformers has the detector, as far as tensors tell."""
    if "flatten.level_embed" not in state:
        raise InputError("This is no whole detector of lite_detr_d2, which --to transformers needs.")
    cfg = inferred_config(state)
    model = cfg.MODEL.LITE_DETR
    found = {
        "MODEL.META_ARCHITECTURE": (cfg.MODEL.META_ARCHITECTURE, "DeformableDETR"),
        "MODEL.BACKBONE.NAME": (cfg.MODEL.BACKBONE.NAME, "build_resnet_backbone"),
        "MODEL.LITE_DETR.ENCODER.NAME": (model.ENCODER.NAME, "DeformableEncoder"),
        "MODEL.LITE_DETR.ENCODER.KEY_AWARE": (model.ENCODER.KEY_AWARE, False),
        "MODEL.LITE_DETR.CONTENT_FROM_MEMORY": (model.CONTENT_FROM_MEMORY, False),
    }
    others = [f"{key} {value}" for key, (value, theirs) in found.items() if value != theirs]
    if others:
        raise InputError(f"{_ALONE}, and this is a model with {', '.join(others)}.")


def _heads_back(state: State, layers: int) -> tuple[Rule, ...]:
    is_two_stage = "query_selection.proj.weight" in state
    is_refined = is_two_stage or "decoder.heads.1.class_embed.weight" in state
    rules: list[Rule] = []
    for theirs, ours in _HEADS.items():
        # The decoder has its own references to the heads that it uses.
        owners = ["", "model.decoder."] if is_two_stage or (is_refined and theirs == "bbox_embed") else [""]
        inner = r"(?P<inner>\.layers\.\d+)?"
        indices = {f"decoder.heads.{layer}": [layer] for layer in range(layers)}
        if not is_refined:
            indices = {"decoder.heads.0": list(range(layers))}
        if is_two_stage:
            indices["query_selection.head"] = [layers]
        for head, places in indices.items():
            targets = tuple(rf"{owner}{theirs}.{place}\g<inner>" for owner in owners for place in places)
            rules.append((rf"{re.escape(head)}\.{ours}{inner}", Copies(targets)))
    return tuple(rules)


def config_for_transformers(state: State) -> dict[str, int | bool]:
    """Arguments of ``DeformableDetrConfig`` that the tensors of ours tell.

    Heads and points are not among them, nor in a two-stage model the queries (``two_stage_num_proposals``).
    """
    model = inferred_config(state).MODEL.LITE_DETR
    return {
        "num_labels": model.NUM_CLASSES,
        "d_model": model.HIDDEN_DIM,
        "num_feature_levels": model.NUM_LEVELS,
        "encoder_layers": model.ENCODER.NUM_LAYERS,
        "encoder_ffn_dim": model.ENCODER.DIM_FEEDFORWARD,
        "decoder_layers": model.DECODER.NUM_LAYERS,
        "decoder_ffn_dim": model.DECODER.DIM_FEEDFORWARD,
        "with_box_refine": model.BOX_REFINEMENT,
        "two_stage": model.TWO_STAGE,
        # Heads of its own for each layer; with True, transformers makes one of them all.
        "tie_word_embeddings": not model.BOX_REFINEMENT,
        **({} if model.TWO_STAGE else {"num_queries": model.NUM_QUERIES}),
    }
