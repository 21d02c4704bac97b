"""Names of detrex's detectors.

Source: github.com/IDEA-Research/detrex, the modules of ``projects/dino``, ``projects/deformable_detr`` and
``projects/h_deformable_detr``, and of ``detrex/layers/transformer.py`` and ``detrex/modeling/neck/channel_mapper.py``.
"""

from . import names
from .names import ATTENTION, Rule, Split, State, WithLastRow

_ENCODER, _DECODER = "transformer.encoder.layers.#", "transformer.decoder.layers.#"
# Layers number their attentions, feed-forward networks and normalisations in the order in which they act.
_TRANSFORMER = (
    ("transformer.level_embeds", "flatten.level_embed"),
    *((f"{_ENCODER}.attentions.0.{part}", f"encoder.layers.#.attention.{part}") for part in ATTENTION),
    (f"{_ENCODER}.norms.0", "encoder.layers.#.norm"),
    (f"{_ENCODER}.ffns.0.layers.0.0", "encoder.layers.#.feed_forward.linear1"),
    (f"{_ENCODER}.ffns.0.layers.1", "encoder.layers.#.feed_forward.linear2"),
    (f"{_ENCODER}.norms.1", "encoder.layers.#.feed_forward.norm"),
    (f"{_DECODER}.attentions.0.attn.out_proj", "decoder.layers.#.self_attention.output_proj"),
    (f"{_DECODER}.norms.0", "decoder.layers.#.self_attention_norm"),
    *((f"{_DECODER}.attentions.1.{part}", f"decoder.layers.#.cross_attention.{part}") for part in ATTENTION),
    (f"{_DECODER}.norms.1", "decoder.layers.#.cross_attention_norm"),
    (f"{_DECODER}.ffns.0.layers.0.0", "decoder.layers.#.feed_forward.linear1"),
    (f"{_DECODER}.ffns.0.layers.1", "decoder.layers.#.feed_forward.linear2"),
    (f"{_DECODER}.norms.2", "decoder.layers.#.feed_forward.norm"),
    ("transformer.enc_output", "query_selection.proj"),
    ("transformer.enc_output_norm", "query_selection.norm"),
    ("transformer.pos_trans", "query_selection.proposal_embed.proj"),
    ("transformer.pos_trans_norm", "query_selection.proposal_embed.norm"),
)
_NECK = (
    ("neck.convs.#.conv", "neck.inputs.#.0"),
    ("neck.convs.#.norm", "neck.inputs.#.1"),
    ("neck.extra_convs.#.conv", "neck.added.#.0"),
    ("neck.extra_convs.#.norm", "neck.added.#.1"),
)
_IN_PROJ = Split(
    dim=0,
    shares={
        r"decoder.layers.\1.self_attention.query_key_proj.\2": 2,
        r"decoder.layers.\1.self_attention.value_proj.\2": 1,
    },
)


def dino(state: State) -> tuple[Rule, ...]:
    """Each layer of its decoder has heads of its own, and the labels of denoising no row that nothing reads."""
    return (
        (r"label_enc", WithLastRow("denoising.label_embed")),
        (r"transformer\.tgt_embed", "query_selection.content"),
        (r"transformer\.decoder\.norm", "decoder.norm"),
        (r"transformer\.decoder\.ref_point_head\.layers\.(\d+)", r"decoder.position.mlp.layers.\1"),
        *_heads(state),
        *_detector(),
    )


def two_stage(state: State) -> tuple[Rule, ...]:
    """Deformable DETR's and H-DETR's, of which that one also learns the queries' content."""
    return ((r"query_embedding", "query_selection.content"), *_heads(state), *_detector())


def single_stage(state: State) -> tuple[Rule, ...]:
    """Deformable DETR's, with box refinement or without."""
    refines_boxes = "transformer.decoder.bbox_embed.0.layers.0.weight" in state
    parts = {"query_selection.position.weight": 1, "query_selection.content.weight": 1}
    return (
        (r"query_embedding\.weight", Split(dim=1, shares=parts)),
        (r"transformer\.reference_points", "query_selection.reference_points"),
        *(names.heads_of_layers() if refines_boxes else names.shared_heads()),
        *_detector(),
    )


def _heads(state: State) -> tuple[Rule, ...]:
    layers = names.count(state, r"transformer\.decoder\.layers\.(\d+)\.")
    return (*names.head_of_encoder(layers), *names.heads_of_layers())


def _detector() -> tuple[Rule, ...]:
    """All but the queries and the heads; the backbones are detectron2's, as ours are."""
    return (
        (r"transformer\.decoder\.layers\.(\d+)\.attentions\.0\.attn\.in_proj_(weight|bias)", _IN_PROJ),
        *names.renamed((*_TRANSFORMER, *_NECK)),
        names.WITHOUT_COUNTERS,
        (r"(backbone\..+)", r"\1"),
    )
