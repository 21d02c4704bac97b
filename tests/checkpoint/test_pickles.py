"""Pickled checkpoints are read without running what they name."""

import os
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lite_detr_d2.checkpoint import read_checkpoint
from lite_detr_d2.engine import SafeCheckpointer
from lite_detr_d2.errors import InputError

ARRAYS: dict[str, Any] = {
    "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
    "swapped": np.arange(6, dtype=">i8").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(16.0).reshape(4, 4)[::2],
    "empty": np.zeros((0, 2), np.float16),
    "flag": np.array(True),
    "number": np.float32(3),
}
TENSORS = {
    "strided": torch.arange(12.0).view(3, 4)[:, 1],
    "parameter": nn.Parameter(torch.ones(2)),
    "half": torch.ones(2, dtype=torch.bfloat16),
}


def write(path: Path, content: object, protocol: int = 2) -> str:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return str(path)


def as_python_2(data: bytes) -> bytes:
    """The names of the modules that an older NumPy has, or NumPy under Python 2."""
    for old, new in ((b"numpy._core", b"numpy.core"), (b"builtins", b"__builtin__")):
        data = data.replace(old, new)
    return data


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_tensors_are_read(tmp_path: Path, protocol: int) -> None:
    content = {"model": OrderedDict(ARRAYS | TENSORS), "__author__": "somebody", "matching_heuristics": True, "n": {1}}
    read = read_checkpoint(write(tmp_path / "model.pkl", content, protocol))
    assert {key: value for key, value in read.items() if key != "model"} == {
        "__author__": "somebody",
        "matching_heuristics": True,
    }
    assert list(read["model"]) == [*ARRAYS, *(name for name in TENSORS if name not in ARRAYS)]
    for name, value in (ARRAYS | TENSORS).items():
        found = read["model"][name]
        if isinstance(value, torch.Tensor):
            assert torch.equal(found, value)
        else:
            np.testing.assert_array_equal(found.numpy(), value, strict=name != "swapped")
    read["model"]["plain"] += 1  # a copy that can be written to


def test_both_of_numpys_names_are_known(tmp_path: Path) -> None:
    data = pickle.dumps({"model": {"a": ARRAYS["plain"], "b": ARRAYS["number"]}, "__author__": "x"}, protocol=2)
    names = {as_python_2(data), as_python_2(data).replace(b"numpy.core", b"numpy._core")}
    assert len(names) == 2
    for number, each in enumerate(names):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(each)
        assert read_checkpoint(path)["model"]["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_python_2s_strings_are_bytes_in_latin1(tmp_path: Path) -> None:
    """As Python 2 wrote an array: its numbers are a string."""
    numbers = np.array([1.5, -2.5], "<f4")
    raw = numbers.tobytes()
    opcodes = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
        b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nU" + bytes([len(raw)]) + raw + b"tb"
    )
    (tmp_path / "caffe2.pkl").write_bytes(b"}(U\x05blobs}(U\x06conv_w" + opcodes + b"U\x0fconv_w_momentumI1\nuu.")
    read = read_checkpoint(tmp_path / "caffe2.pkl")
    assert read == {"model": read["model"], "__author__": "Caffe2", "matching_heuristics": True}
    assert {name: tensor.tolist() for name, tensor in read["model"].items()} == {"conv_w": [1.5, -2.5]}


def test_pycls_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pyth"
    torch.save({"epoch": 3, "model_state": {"w": torch.ones(2), "n.num_batches_tracked": torch.tensor(1)}}, path)
    read = read_checkpoint(path)
    assert list(read["model"]) == ["w"]
    assert read["matching_heuristics"] is True


def test_a_file_of_torch_by_another_name_is_read(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}}, tmp_path / "model.pkl")
    assert read_checkpoint(tmp_path / "model.pkl")["model"]["w"].tolist() == [1, 1]


def test_the_backbone_of_a_model_zoo_is_loaded(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    model = nn.Module()
    model.backbone = nn.ModuleDict({"stem": nn.Linear(2, 3)})
    state = {"stem.weight": np.ones((3, 2), np.float32), "stem.bias": np.ones(3, np.float32)}
    content = {"model": state, "__author__": "torchvision", "matching_heuristics": True}
    SafeCheckpointer(model).resume_or_load(write(tmp_path / "R-50.pkl", content), resume=False)
    assert model.backbone["stem"].weight.tolist() == [[1, 1]] * 3
    assert any("R-50.pkl has no checksum" in message for message in log.messages)


class Calls:
    """What, when it is unpickled, calls a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


CANARY = "canary"


def raw(*opcodes: bytes) -> bytes:
    """A pickle that puts a dictionary beside what the opcodes leave."""
    return b"\x80\x02}(X\x05\x00\x00\x00model" + b"".join(opcodes) + b"u."


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def tensor(offset: int, size: int) -> bytes:
    """The opcodes of so many of a storage's two numbers."""
    storage = pickle.dumps(torch.ones(2)._typed_storage(), protocol=2)[2:-1]
    place = f"I{offset}\n(I{size}\nt(I1\ntI00\nNtR".encode()
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + place


MKDIR = named("os", "mkdir") + b"(S'canary'\ntR"
NESTED = pickle.dumps(Calls(os.mkdir, CANARY), protocol=2)
OBJECTS = named("numpy", "dtype") + b"(S'O8'\nI0\nI1\ntR"
FLOATS = named("numpy", "dtype") + b"(S'f4'\nI0\nI1\ntR"
ARRAY = named("numpy.core.multiarray", "_reconstruct") + b"(" + named("numpy", "ndarray") + b"(I0\ntS'b'\ntR"
ATTACKS = {
    "a function of os": raw(MKDIR),
    "by another module's name": raw(named("posix", "mkdir") + b"(S'canary'\ntR"),
    "eval": raw(named("builtins", "eval") + b'(S\'__import__("os").mkdir("canary")\'\ntR'),
    "exec under Python 2's name": raw(named("__builtin__", "exec") + b"(S'import os; os.mkdir(\"canary\")'\ntR"),
    "getattr": raw(named("builtins", "getattr") + b"(" + named("os", "mkdir") + b"S'__call__'\ntR"),
    "a chain of attributes": b"\x80\x04\x8c\x0bcollections\x8c\x1eOrderedDict.__init__.__class__\x93.",
    "a chain to a module": b"\x80\x04\x8c\x05numpy\x8c\x08os.mkdir\x93\x8c\x06canary\x85R.",
    "numpy.load of a pickle": raw(named("numpy", "load") + b"(S'nested.npy'\nNI01\ntR"),
    "a scalar of objects": raw(named("numpy.core.multiarray", "scalar") + b"(" + OBJECTS + b"S'x'\ntR"),
    "an array of objects": raw(ARRAY + b"(I1\n(I1\nt" + OBJECTS + b"I00\n(l" + MKDIR + b"atb"),
    "an array of a list": raw(ARRAY + b"(I1\n(I1\nt" + FLOATS + b"I00\n(lI1\natb"),
    "an array without a dtype": raw(ARRAY + b"(I1\n(I1\ntS'f4'\nI00\nS'1234'\ntb"),
    "an array of another class": raw(
        named("numpy.core.multiarray", "_reconstruct") + b"(" + named("numpy", "memmap") + b"(I0\ntS'b'\ntR"
    ),
    "an array of a class that is known": raw(
        named("numpy.core.multiarray", "_reconstruct") + b"(" + named("collections", "OrderedDict") + b"(I0\ntS'b'\ntR"
    ),
    "the array's class called": raw(named("numpy", "ndarray") + b"((I99\nttR"),
    "a dtype's state with references": raw(FLOATS + b"(I3\nS'<'\nN(S'a'\nt}I999\nI1\nI63\ntb"),
    "a dtype of a class": raw(named("numpy", "dtype") + b"(" + named("numpy", "ndarray") + b"tR"),
    "a dtype with fields": raw(named("numpy", "dtype") + b"((l(S'a'\nS'O'\ntatR"),
    "the state of a function": raw(
        named("numpy", "dtype") + b"(N}S'_function'\n" + named("_codecs", "encode") + b"stb"
    ),
    "the state of a class": raw(named("collections", "OrderedDict") + b"}S'__reduce__'\nI1\nsb"),
    "an instance the old way": b"(S'canary'\nios\nmkdir\n.",
    "a class called anew": b"\x80\x02cos\nmkdir\nX\x06\x00\x00\x00canary\x85\x81.",
    "a persistent id": b"Pcanary\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "a storage with a pickle": raw(
        named("torch.storage", "_load_from_bytes") + b"(" + pickle.dumps(NESTED, protocol=3)[2:-1] + b"tR"
    ),
    "a tensor beyond its storage": raw(tensor(0, 1000)),
    "a tensor before its storage": raw(tensor(-1, 2)),
    "a tensor of a negative size": raw(tensor(0, -1)),
    "the state of a tensor": raw(tensor(0, 2) + b"}S'_made'\nI1\nsb"),
    "a codec that reads files": raw(named("_codecs", "encode") + b"(S'canary'\nS'zip'\ntR"),
    "a lot of memory": raw(named("builtins", "bytes") + b"(I99999999999\ntR"),
    "partial": raw(named("functools", "partial") + b"(" + named("os", "mkdir") + b"S'canary'\ntR"),
    "object's own": raw(named("copyreg", "_reconstructor") + b"(" + named("numpy", "ndarray") + b"NNtR"),
    "torch.load": raw(named("torch", "load") + b"(S'nested.pkl'\ntR"),
    "torch's own reader": raw(named("torch.serialization", "load") + b"(S'nested.pkl'\ntR"),
}


# Of these Python's own unpickler knows nothing; the others are refused for what they name or ask of it.
UNKNOWN = ("a persistent id", "an extension")


def test_what_attacks_are_made_of_is_right(tmp_path: Path) -> None:
    """They are not refused because they are broken."""
    (tmp_path / "model.pkl").write_bytes(b"\x80\x02}(X\x05\x00\x00\x00model}X\x01\x00\x00\x00w" + tensor(0, 2) + b"su.")
    assert read_checkpoint(tmp_path / "model.pkl")["model"]["w"].tolist() == [1, 1]


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    attack = ATTACKS[name]
    list(pickletools.genops(attack))  # it is a pickle
    Path("nested.pkl").write_bytes(NESTED)
    Path("model.pkl").write_bytes(attack)
    reason = "is damaged" if name in UNKNOWN else r"holds \S+, not tensors"
    with pytest.raises(InputError, match=rf"^model\.pkl cannot be read: it {reason}"):
        read_checkpoint("model.pkl")
    assert sorted(os.listdir()) == ["model.pkl", "nested.pkl"]


def test_what_was_tried_does_not_last(tmp_path: Path) -> None:
    """No attack changes what the next file is read with."""
    for number, attack in enumerate(ATTACKS.values()):
        (tmp_path / f"{number}.pkl").write_bytes(attack)
        with pytest.raises(InputError):
            read_checkpoint(tmp_path / f"{number}.pkl")
    test_arrays_and_tensors_are_read(tmp_path, 2)


def test_the_message_names_the_object_and_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"model": ARRAYS, "__author__": "x", "extra": Calls(os.mkdir, CANARY)}
    path = write(tmp_path / "model.pkl", content)
    with pytest.raises(
        InputError, match=r"it holds \w+\.mkdir, not tensors .*--trust-pickle \(trust_pickle=True\) runs"
    ):
        read_checkpoint(path)
    assert not Path(CANARY).exists()
    assert read_checkpoint(path, trust_pickle=True)["model"]["plain"].shape == (2, 3)
    assert Path(CANARY).exists()


@pytest.mark.parametrize("name", ["model.pkl", "model.pyth"])
def test_what_the_message_advises_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of a file of torch.save by such a name, too."""
    monkeypatch.chdir(tmp_path)
    weights = {"w": torch.ones(2)}
    torch.save({"model": weights, "model_state": weights, "extra": Calls(os.mkdir, CANARY)}, name)
    with pytest.raises(InputError, match=r"it holds \w+\.mkdir, not tensors .*--trust-pickle"):
        read_checkpoint(name)
    assert not Path(CANARY).exists()
    assert read_checkpoint(name, trust_pickle=True)["model"]["w"].tolist() == [1, 1]
    assert Path(CANARY).exists()


def test_a_file_of_torch_is_never_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"w": torch.ones(2)}, "extra": Calls(os.mkdir, CANARY)}, "model.pth")
    with pytest.raises(InputError, match=r"it holds \w+\.mkdir") as error:
        read_checkpoint("model.pth", trust_pickle=True)
    assert "--trust-pickle" not in str(error.value)
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("content", [[1, 2], {"model": [1], "__author__": "x"}, {"a": 3}, {1: ARRAYS["plain"]}, {}, 5])
def test_a_pickle_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(InputError, match=r"model\.pkl is no checkpoint: it holds no tensors by name"):
        read_checkpoint(write(tmp_path / "model.pkl", content))


def test_a_structure_that_holds_itself_is_no_matter(tmp_path: Path) -> None:
    circle: list[Any] = []
    circle.append(circle)
    content = {"model": {"w": ARRAYS["plain"]}, "__author__": "x", "circle": {"of": circle}}
    assert list(read_checkpoint(write(tmp_path / "model.pkl", content))["model"]) == ["w"]
