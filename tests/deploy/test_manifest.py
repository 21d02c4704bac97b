"""The JSON beside an exported file."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lite_detr_d2.deploy.bounds import Bounds, Range
from lite_detr_d2.deploy.manifest import LAYOUT, Manifest, digest_of_weights, manifest_path
from lite_detr_d2.errors import InputError

from .manifests import manifest_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An exported file with a second one that it needs, and its JSON."""
    files = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 3_000_000)
    manifest_of(*files).write(files[0])
    return files[0]


def refusal(model: Path) -> str:
    with pytest.raises(InputError) as caught:
        Manifest.read(model)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_what_is_written_is_read(model: Path) -> None:
    manifest = Manifest.read(model)
    assert manifest == manifest_of(model, model.with_name("model.onnx.data"))
    assert manifest.bounds == Bounds(Range(1, 4), Range(192, 800), Range(640, 640))


def test_the_layout_is_the_stated_one(model: Path) -> None:
    content = json.loads(manifest_path(model).read_text())
    assert content["inputs"][0] == {
        "name": "images",
        "dtype": "uint8",
        "shape": [{"min": 1, "max": 4}, 3, {"min": 192, "max": 800}, 640],
    }
    assert content["resize"] == {"min_size": 480, "max_size": 640, "interpolation": "bilinear"}
    assert content["check"]["sizes"] == [[1, 480, 640], [2, 480, 640]]
    assert content["class_names"] == ["cat", "Hündchen"]
    assert content.keys() == {"layout", *(field.name for field in fields(Manifest))}


def test_what_a_later_version_adds_is_passed_over(model: Path) -> None:
    path = manifest_path(model)
    path.write_text(json.dumps({**json.loads(path.read_text()), "signature": "..."}))
    assert Manifest.read(model).format == "onnx"


def test_no_such_file(tmp_path: Path) -> None:
    assert "other.onnx is not there: name a file that was exported" in refusal(tmp_path / "other.onnx")
    assert "is a folder: name a file that was exported" in refusal(tmp_path)


def test_a_file_without_its_json(model: Path) -> None:
    manifest_path(model).unlink()
    assert "has no model.onnx.json beside it" in refusal(model)


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff\xfe\x00", b"null", b"[1]", b'{"a": 1}'])
def test_json_that_is_none_of_ours(model: Path, text: bytes) -> None:
    manifest_path(model).write_bytes(text)
    message = refusal(model)
    assert f"{manifest_path(model)} cannot be used" in message
    assert "export the model again" in message


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.pop(key)


def _with(value: Any, *keys: Any) -> Callable[[dict[str, Any]], object]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


CHANGES = {
    **{f"no {field.name}": (_without(field.name), f"it has no {field.name}") for field in fields(Manifest)},
    "another layout": (_with(LAYOUT + 1, "layout"), f"its layout is {LAYOUT + 1}, and this version of lite_detr_d2"),
    "number for text": (_with(3, "format"), "format is int: expected a text"),
    "text for number": (_with("18", "opset"), "opset is str: expected a whole number"),
    "true for a number": (_with(True, "check", "images"), "check.images is bool: expected a whole number"),
    "list for object": (_with([], "resize"), "resize is list: expected an object"),
    "object for list": (_with({}, "class_names"), "class_names is dict: expected a list"),
    "key inside": (lambda content: content["check"].pop("matched"), "check has no matched"),
    "names": (_with(1, "class_names", 0), "class_names[0] is int: expected a text"),
    "a range": (_with({"min": 1}, "inputs", 0, "shape", 0), "inputs[0].shape[0] is dict: expected a whole number"),
    "a range upside down": (_with({"min": 2, "max": 1}, "inputs", 1, "shape", 0), "has a min above its max"),
    "three sizes": (_with([[1, 2]], "check", "sizes"), "check.sizes[0] has 2 values: expected 3"),
    "no inputs": (_with([], "inputs"), "inputs[0].shape is not that of images"),
    "three dimensions": (_with([1, 3, 5], "inputs", 0, "shape"), "inputs[0].shape is not that of images"),
    "no files": (_with({}, "files"), "files are not names of files beside it"),
    "a path": (_with({"../model.onnx": "0"}, "files"), "files are not names of files beside it"),
    "a version": (_with(2.14, "versions", "torch"), "versions.torch is float: expected a text"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_json_with_something_wrong_in_it(model: Path, name: str) -> None:
    change, reason = CHANGES[name]
    path = manifest_path(model)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert reason in refusal(model)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_a_file_that_changed_after_its_json(model: Path, name: str) -> None:
    file = model.with_name(name)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert f"{file} was changed after model.onnx.json was written" in refusal(model)


def test_a_file_that_is_missing(model: Path) -> None:
    model.with_name("model.onnx.data").unlink()
    assert "model.onnx.data is missing" in refusal(model)


def test_a_file_that_has_another_name(model: Path) -> None:
    for path in (model, manifest_path(model)):
        path.rename(path.with_name(path.name.replace("model", "mine", 1)))
    assert "describes model.onnx, model.onnx.data, not mine.onnx" in refusal(model.with_name("mine.onnx"))


def test_the_digest_of_weights_is_that_of_the_tensors() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    digest = digest_of_weights(model)
    assert digest == digest_of_weights(model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    changes: list[Callable[[], object]] = [
        lambda: model[0].weight.data[0, 0].mul_(1 + 1e-6),
        lambda: model[1].running_var.fill_(2.0),
        lambda: model[1].num_batches_tracked.add_(1),
        lambda: model[0].bias.data.copy_(model[0].bias.data.flip(0)),
    ]
    for change in changes:
        change()
        changed = digest_of_weights(model)
        assert changed != digest
        digest = changed
