"""The formats of exported models: how each is written, and how its file is run."""

from .aoti import AOTI
from .format import Format, Runtime, Settings, Written
from .onnx import ONNX, ONNX_GATHER
from .openvino import OPENVINO
from .torch_export import TORCH
from .torchscript import TORCHSCRIPT

FORMATS: dict[str, Format] = {each.name: each for each in (TORCH, AOTI, ONNX, ONNX_GATHER, OPENVINO, TORCHSCRIPT)}

__all__ = ["FORMATS", "Format", "Runtime", "Settings", "Written"]
