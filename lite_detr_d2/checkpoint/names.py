"""What the Lite-DETR repository calls a tensor, and what we call it."""

import re

_ATTENTION = r"(sampling_offsets|attention_weights|value_proj|key_proj|query_proj|output_proj)"
_ENCODER = r"transformer\.encoder\.layers\.(\d+)"
_DECODER = r"transformer\.decoder\.layers\.(\d+)"

# (published name, ours); the first match wins, and the tensor's last part (weight, bias, ...) follows unchanged.
_RULES = (
    (r"transformer\.level_embed", r"flatten.level_embed"),
    (rf"{_ENCODER}\.self_attn\.{_ATTENTION}", r"encoder.layers.\1.attention.\2"),
    (rf"{_ENCODER}\.norm1", r"encoder.layers.\1.norm"),
    (rf"{_ENCODER}\.linear([12])", r"encoder.layers.\1.feed_forward.linear\2"),
    (rf"{_ENCODER}\.norm2", r"encoder.layers.\1.feed_forward.norm"),
    (rf"{_ENCODER}\.linear([12])2", r"encoder.layers.\1.low_feed_forward.linear\2"),
    (rf"{_ENCODER}\.norm22", r"encoder.layers.\1.low_feed_forward.norm"),
    (rf"{_DECODER}\.cross_attn\.{_ATTENTION}", r"decoder.layers.\1.cross_attention.\2"),
    (rf"{_DECODER}\.norm1", r"decoder.layers.\1.cross_attention_norm"),
    (rf"{_DECODER}\.self_attn\.(query_key_proj|value_proj)", r"decoder.layers.\1.self_attention.\2"),
    (rf"{_DECODER}\.self_attn\.out_proj", r"decoder.layers.\1.self_attention.output_proj"),
    (rf"{_DECODER}\.norm2", r"decoder.layers.\1.self_attention_norm"),
    (rf"{_DECODER}\.linear([12])", r"decoder.layers.\1.feed_forward.linear\2"),
    (rf"{_DECODER}\.norm3", r"decoder.layers.\1.feed_forward.norm"),
    (r"transformer\.decoder\.norm", r"decoder.norm"),
    (r"transformer\.decoder\.ref_point_head\.layers\.(\d+)", r"decoder.position.mlp.layers.\1"),
    # One pair of heads, under two aliases for every decoder layer.
    (r"(?:transformer\.decoder\.)?bbox_embed\.\d+\.layers\.(\d+)", r"decoder.heads.0.box_embed.layers.\1"),
    (r"(?:transformer\.decoder\.)?class_embed\.\d+", r"decoder.heads.0.class_embed"),
    (r"transformer\.tgt_embed", r"query_selection.content"),
    (r"transformer\.enc_output", r"query_selection.proj"),
    (r"transformer\.enc_output_norm", r"query_selection.norm"),
    (r"transformer\.enc_out_bbox_embed\.layers\.(\d+)", r"query_selection.head.box_embed.layers.\1"),
    (r"transformer\.enc_out_class_embed", r"query_selection.head.class_embed"),
    (r"label_enc", r"denoising.label_embed"),
    (r"backbone\.0\.body\.conv1", r"backbone.stem.conv1"),
    (r"backbone\.0\.body\.bn1", r"backbone.stem.conv1.norm"),
)
_RESNET = re.compile(r"backbone\.0\.body\.layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(\w+)")
_SWIN = re.compile(r"backbone\.0\.((?:patch_embed|layers|norm\d)\..+)")
_PROJECTION = re.compile(r"input_proj\.(\d+)\.([01])\.(\w+)")
_NUM_INPUTS = 3  # of the backbone; the published configs all use three


def renamed(name: str) -> str | None:
    """Our name for a published tensor, or None for one that we do not know."""
    resnet = _RESNET.fullmatch(name)
    if resnet is not None:
        return _resnet_name(*resnet.groups())
    projection = _PROJECTION.fullmatch(name)
    if projection is not None:
        level, part, parameter = int(projection[1]), projection[2], projection[3]
        place = f"inputs.{level}" if level < _NUM_INPUTS else f"added.{level - _NUM_INPUTS}"
        return f"neck.{place}.{part}.{parameter}"
    swin = _SWIN.fullmatch(name)
    if swin is not None:
        return f"backbone.{swin[1]}"
    for pattern, replacement in _RULES:
        match = re.fullmatch(rf"{pattern}(?P<parameter>\.\w+)?", name)
        if match is not None:
            return match.expand(replacement) + (match["parameter"] or "")
    return None


def _resnet_name(layer: str, block: str, kind: str, index: str, parameter: str) -> str:
    """torchvision's ``layer1.0.bn2.weight`` is detectron2's ``res2.0.conv2.norm.weight``."""
    place = f"backbone.res{int(layer) + 1}.{block}"
    if kind == "downsample.":
        return f"{place}.shortcut.{parameter}" if index == "0" else f"{place}.shortcut.norm.{parameter}"
    return f"{place}.conv{index}.{parameter}" if kind == "conv" else f"{place}.conv{index}.norm.{parameter}"
