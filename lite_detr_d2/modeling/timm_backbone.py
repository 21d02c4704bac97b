"""Backbones of timm (PyTorch Image Models), of which most models serve; it is imported when one is built."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone, SimpleFeaturePyramid
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from ..extras import import_extra

# What lets models of a fixed image size take others: vision transformers the first two, Swin Transformers the third.
_ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True, "strict_img_size": False}
_DROP_PATH = "drop_path_rate"
_NOT_TAKEN = "unexpected keyword argument"
_PYRAMID_SCALES = (2.0, 1.0, 0.5)
_MOST_NAMES = 5
_DEFAULT_OUTPUTS = 3


@dataclass(frozen=True)
class Output:
    """A feature map that a model of timm can put out.

    Attributes:
        module: the name of the submodule that makes it.
        shape: its channels and stride.
    """

    module: str
    shape: ShapeSpec


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's "SAME" does, for maps whose sides are multiples of its stride.

    For these the padding is the same whatever the size, so that ``torch.export`` makes one program for all sizes;
    timm's own ``Conv2dSame`` computes it anew for each.
    """

    @classmethod
    def of(cls, module: nn.Conv2d) -> "SameConv2d":
        """With the weights of timm's ``module``."""
        names = ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups")
        options: dict[str, Any] = {name: getattr(module, name) for name in names}
        made = cls(**options, bias=module.bias is not None, device="meta")
        made.weight, made.bias = module.weight, module.bias
        return made

    def forward(self, maps: Tensor) -> Tensor:
        padding: list[int] = []  # of the last dimension first
        for kernel, dilation, stride in list(zip(self.kernel_size, self.dilation, self.stride, strict=True))[::-1]:
            both = max(dilation * (kernel - 1) + 1 - stride, 0)
            padding += [both // 2, both - both // 2]
        convolved: Tensor = self._conv_forward(F.pad(maps, padding), self.weight, self.bias)
        return convolved


class TimmStages(Backbone):
    """A model of timm whose inner feature maps are the outputs ``stage{i}``.

    Images are (N, C, H, W), H and W multiples of ``divisor``; the outputs (N, channels, H / stride, W / stride), fine
    to coarse, whatever layout the model works in.
    """

    model: Any

    def __init__(self, model: nn.Module, indices: Sequence[int]) -> None:
        """Keep of ``model`` what its outputs of these ``indices`` need; its head is removed."""
        super().__init__()
        self.model = model
        self.indices = sorted(indices)
        outputs = outputs_of(model)
        self.divisor = max(output.shape.stride for output in outputs)
        self._out_features = [f"stage{index}" for index in self.indices]
        shapes = [outputs[index].shape for index in self.indices]
        self._out_feature_channels = dict(zip(self._out_features, (shape.channels for shape in shapes), strict=True))
        self._out_feature_strides = dict(zip(self._out_features, (shape.stride for shape in shapes), strict=True))
        self.model.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Conv2d) and type(module).__name__ == "Conv2dSame":
                model.set_submodule(name, SameConv2d.of(module))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.model.forward_intermediates(
            images, indices=self.indices, norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return dict(zip(self._out_features, maps, strict=True))


class TimmBackbone(Backbone):
    """A model of timm, of which a pyramid may be made, for images of any size.

    Images are (N, C, H, W); an output of stride s is (N, channels, ceil(H / s), ceil(W / s)). They are padded with
    zeros to a multiple of the coarsest stride, as timm's models are trained, and what the padding adds is cut off.
    """

    def __init__(self, body: TimmStages | SimpleFeaturePyramid) -> None:
        """Let ``body`` see padded images."""
        super().__init__()
        self.body = body
        self._divisor = max([self._stages.divisor, *(shape.stride for shape in body.output_shape().values())])

    @property
    def _stages(self) -> TimmStages:
        stages: TimmStages = self.body if isinstance(self.body, TimmStages) else self.body.net
        return stages

    def output_shape(self) -> dict[str, ShapeSpec]:
        shapes: dict[str, ShapeSpec] = self.body.output_shape()
        return shapes

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        height, width = images.shape[-2:]
        # Products, of which torch.export knows that strides divide them.
        bottom, right = (self._divisor * _begun(side, self._divisor) - side for side in (height, width))
        padded = F.pad(images, (0, right, 0, bottom))
        shapes = self.output_shape()
        return {
            name: _first(features, *(_begun(side, shapes[name].stride) for side in (height, width)))
            for name, features in self.body(padded).items()
        }

    def recompute_activations(self) -> None:
        """Do not keep what layers compute for the backward pass, which computes it again.

        Raises:
            InputError: timm does not offer it for this model.
        """
        model = self._stages.model
        try:
            model.set_grad_checkpointing(True)
        except (AssertionError, AttributeError) as error:
            raise InputError(
                f"SOLVER.RECOMPUTE has 'backbone', which timm does not offer for {type(model).__name__}: leave it out."
            ) from error


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A model of timm as ``cfg.MODEL.TIMM`` describes it; of a plain vision transformer, a pyramid over its last map.

    ``MODEL.BACKBONE.FREEZE_AT`` n freezes the layers up to the output of stride 2**n, or up to the first output where
    that is coarser, with their batch normalisations; 0 freezes none.

    Returns:
        A backbone with the outputs ``stage{i}``. Where all maps of the model have the same stride s, those of
        detectron2's ``SimpleFeaturePyramid`` (ViTDet, arXiv 2203.16527), of the strides s / 2, s and 2 s: ``p3``,
        ``p4`` and ``p5`` for patches of 16 pixels, as p{n} is of the stride 2**n.

    Raises:
        InputError: timm is not installed, has no such model or cannot get its weights; or the model does not have these
            outputs, or does not take images of any size, as some families do not.
    """
    timm = import_extra("timm", extra="timm")
    options, freeze_at = cfg.MODEL.TIMM, cfg.MODEL.BACKBONE.FREEZE_AT
    _check_name(timm, options.NAME)
    # Of a model that is trained, MODEL.WEIGHTS has all the weights.
    is_pretrained = options.PRETRAINED and not cfg.MODEL.WEIGHTS
    drop_path_rate = options.DROP_PATH_RATE
    model = _create(timm, options.NAME, is_pretrained, in_chans=input_shape.channels, drop_path_rate=drop_path_rate)
    outputs = outputs_of(model)
    is_plain = len({output.shape.stride for output in outputs}) == 1
    last = range(len(outputs))[-1 if is_plain else -_DEFAULT_OUTPUTS :]
    indices = list(options.OUT_INDICES) or list(last)
    _check_indices(options.NAME, indices, outputs, is_plain)
    frozen = _modules_to_freeze(model, outputs, freeze_at)
    _freeze(timm, model, [name for name, _ in model.named_modules()] if options.NORM == "FrozenBN" else frozen, frozen)
    stages = TimmStages(model, indices)
    _check_any_size(options.NAME, stages, input_shape.channels)
    return TimmBackbone(_pyramid(cfg, stages) if is_plain else stages)


def outputs_of(model: Any) -> list[Output]:
    """What a model of timm can put out, fine to coarse."""
    return [
        Output(info["module"], ShapeSpec(channels=info["num_chs"], stride=info["reduction"]))
        for info in model.feature_info
    ]


def _check_name(timm: Any, name: str) -> None:
    if timm.is_model(name.partition(".")[0]):
        return
    near = get_close_matches(name, timm.list_models(), n=_MOST_NAMES, cutoff=0.4)
    hint = f" Like it are {', '.join(near)}." if near else ""
    raise InputError(
        f"MODEL.TIMM.NAME is {name!r}, which timm {timm.__version__} does not have.{hint} timm.list_models() lists all."
    )


def _create(timm: Any, name: str, is_pretrained: bool, *, in_chans: int, drop_path_rate: float) -> nn.Module:
    """Make a model of those of the options that it takes: without a drop path, none is 0."""
    options: dict[str, Any] = {_DROP_PATH: drop_path_rate, **_ANY_SIZE}
    while True:
        try:
            model: nn.Module = timm.create_model(
                name, pretrained=is_pretrained, num_classes=0, in_chans=in_chans, **options
            )
            return model
        except Exception as error:  # each model, and each way to download, has errors of its own
            refused = [option for option in options if _NOT_TAKEN in str(error) and repr(option) in str(error)]
            if not refused:
                raise _cannot_create(name, is_pretrained, error) from error
            if _DROP_PATH in refused and drop_path_rate > 0:
                raise InputError(
                    f"MODEL.TIMM.DROP_PATH_RATE is {drop_path_rate}, and {name} has no drop path: set it to 0."
                ) from error
            options = {option: value for option, value in options.items() if option not in refused}


def _cannot_create(name: str, is_pretrained: bool, error: Exception) -> InputError:
    if is_pretrained:
        return InputError(
            f"MODEL.TIMM.PRETRAINED: the weights of {name} cannot be had ({_reason(error)}). Set it to False, and give "
            "a file with them as MODEL.WEIGHTS, with '?matching_heuristics=True' at its end."
        )
    return InputError(f"MODEL.TIMM.NAME is {name!r}, which timm cannot build: {_reason(error)}.")


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _check_indices(name: str, indices: Sequence[int], outputs: Sequence[Output], is_plain: bool) -> None:
    if max(indices) >= len(outputs):
        there = ", ".join(
            f"{index} (stride {output.shape.stride}, {output.shape.channels} channels)"
            for index, output in enumerate(outputs)
        )
        raise InputError(f"MODEL.TIMM.OUT_INDICES is {list(indices)}: {name} has {there}.")
    if is_plain and len(indices) > 1:
        raise InputError(
            f"MODEL.TIMM.OUT_INDICES is {list(indices)}: all outputs of {name} have stride {outputs[0].shape.stride}, "
            "and a pyramid is made of one of them. Name one, or [] for the last."
        )


def _modules_to_freeze(model: nn.Module, outputs: Sequence[Output], freeze_at: int) -> list[str]:
    """The names of the modules that come, in the order of their definition, up to the output of stride 2**freeze_at."""
    if freeze_at == 0:
        return []
    names = [name for name, _ in model.named_modules()]
    up_to = [output.module for output in outputs if output.shape.stride <= 2**freeze_at]
    before = outputs[0].module
    if not set(up_to or [before]) <= set(names):
        raise InputError(
            f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}, and the outputs of {type(model).__name__} are not those of its "
            "modules: set it to 0, and name what to freeze in SOLVER.FREEZE."
        )
    if not up_to:
        return names[: names.index(before)]
    prefixes = tuple(f"{name}." for name in up_to)
    return names[: max(place for place, name in enumerate(names) if f"{name}.".startswith(prefixes)) + 1]


def _freeze(timm: Any, model: nn.Module, norms: Sequence[str], frozen: Sequence[str]) -> None:
    """Freeze the batch normalisations among the modules ``norms``, and all parameters of the modules ``frozen``."""
    for name in frozen:
        for parameter in model.get_submodule(name).parameters(recurse=False):
            parameter.requires_grad_(False)
    for name in norms:
        module = model.get_submodule(name)
        if isinstance(module, _BatchNorm):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, timm.layers.freeze_batch_norm_2d(module))


def _check_any_size(name: str, stages: TimmStages, channels: int) -> None:
    """See what two sizes come to, neither of which is the model's own."""
    device = next(stages.parameters()).device
    shapes = stages.output_shape()
    stages.eval()
    try:
        for height, width in ((2, 3), (3, 2)):
            size = height * stages.divisor, width * stages.divisor
            with torch.no_grad():
                maps = stages(torch.zeros(1, channels, *size, device=device))
            found = {key: tuple(value.shape[1:]) for key, value in maps.items()}
            wanted = {key: (shape.channels, *(side // shape.stride for side in size)) for key, shape in shapes.items()}
            if found != wanted:
                raise ValueError(f"its outputs are {found}, not {wanted}")
    except Exception as error:  # each model has errors of its own
        raise InputError(
            f"MODEL.TIMM.NAME is {name!r}, which this timm does not run on images of any size ({_reason(error)}): "
            "choose another."
        ) from error
    finally:
        stages.train()


def _begun(side: int, stride: int) -> int:
    """How many times ``stride`` begins in a side: without negative numbers, which ONNX divides otherwise."""
    return (side + stride - 1) // stride


def _first(maps: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of maps."""
    if torch.compiler.is_exporting():  # it cannot tell of symbols that a slice ends where a map does, or before
        for dim, number in ((2, height), (3, width)):
            maps = maps.index_select(dim, torch.arange(number, device=maps.device))
        return maps
    return maps[..., :height, :width]


def _pyramid(cfg: CfgNode, stages: TimmStages) -> SimpleFeaturePyramid:
    (feature,) = stages.output_shape()
    stride = stages.output_shape()[feature].stride
    if stride & (stride - 1):
        raise InputError(
            f"MODEL.TIMM.NAME is {cfg.MODEL.TIMM.NAME!r}, whose patches have {stride} pixels a side: a pyramid needs a "
            "power of two, as 16."
        )
    return SimpleFeaturePyramid(
        net=stages,
        in_feature=feature,
        out_channels=cfg.MODEL.LITE_DETR.HIDDEN_DIM,
        scale_factors=_PYRAMID_SCALES,
        norm="LN",
    )
