"""Checkpoints are written whole, and those of another model are refused."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from lite_detr_d2.checkpoint import write_checkpoint
from lite_detr_d2.engine import SafeCheckpointer
from lite_detr_d2.engine.transfer import InitReport
from lite_detr_d2.errors import InputError


def detector(width: int = 2, backbone: int = 2) -> nn.Module:
    model = nn.Module()
    model.backbone = nn.ModuleDict({name: nn.Linear(backbone, backbone) for name in ("stem", "res2")})
    model.decoder = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, width))
    return model


def save(path: Path, state: dict[str, Any]) -> str:
    torch.save(state, path)
    return str(path)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved, loaded = detector(), detector()
    optimizer = torch.optim.SGD(saved.parameters(), lr=0.5)
    SafeCheckpointer(saved, str(tmp_path), optimizer=optimizer).save("model_0000001", iteration=1)
    resumed = torch.optim.SGD(loaded.parameters(), lr=0.1)
    checkpointer = SafeCheckpointer(loaded, str(tmp_path), optimizer=resumed)
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 1
    assert resumed.param_groups[0]["lr"] == 0.5
    for key, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]


def test_class_names_are_saved(tmp_path: Path) -> None:
    SafeCheckpointer(detector(), str(tmp_path), class_names=("cat", "dog")).save("named")
    SafeCheckpointer(detector(), str(tmp_path)).save("unnamed")
    assert torch.load(tmp_path / "named.pth", weights_only=True)["class_names"] == ["cat", "dog"]
    assert "class_names" not in torch.load(tmp_path / "unnamed.pth", weights_only=True)


@pytest.mark.parametrize("names", [5, "cat", {"cat": 0}, [["cat"], ["dog"]]])
def test_class_names_that_are_no_list_are_refused(tmp_path: Path, names: Any) -> None:
    path = save(tmp_path / "model.pth", {"model": detector().state_dict(), "class_names": names})
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS: \S+model\.pth: its class_names must be a list of names"):
        SafeCheckpointer(detector(), class_names=["cat", "dog"]).load(path)


def test_safetensors_are_loaded(tmp_path: Path) -> None:
    saved, loaded = detector(), detector()
    write_checkpoint(tmp_path / "model.safetensors", saved.state_dict())
    SafeCheckpointer(loaded).load(str(tmp_path / "model.safetensors"))
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in saved.state_dict().items())


def test_a_crash_while_saving_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointer = SafeCheckpointer(detector(), str(tmp_path))
    checkpointer.save("model")
    before = (tmp_path / "model.pth").read_bytes()

    def crash(state: object, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", crash)
    for name in ("model", "model_0000009"):
        with pytest.raises(InputError, match=rf"{name}.pth cannot be written: no space left"):
            checkpointer.save(name)
    assert (tmp_path / "model.pth").read_bytes() == before
    assert not (tmp_path / "model_0000009.pth").exists()
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model.pth")


def test_resuming_passes_over_a_damaged_checkpoint(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    checkpointer = SafeCheckpointer(detector(), str(tmp_path))
    for iteration in (1, 2, 3):
        checkpointer.save(f"model_{iteration}", iteration=iteration)
        os.utime(tmp_path / f"model_{iteration}.pth", (iteration, iteration))
    last = tmp_path / "model_3.pth"
    last.write_bytes(last.read_bytes()[:-100])
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 2
    warning = f"The last checkpoint, {last}, is damaged: taking {tmp_path / 'model_2.pth'}, of iteration 2, instead."
    assert warning in log.messages
    for iteration in (1, 2):
        (tmp_path / f"model_{iteration}.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"model_3\.pth, is damaged, and .* has no intact one.*--overwrite"):
        checkpointer.resume_or_load("", resume=True)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    other = {f"roi_heads.{number}": torch.zeros(2) for number in range(8)}
    path = save(tmp_path / "other.pth", {"model": {**other, "backbone.stem.bias": torch.zeros(2)}})
    checkpointer = SafeCheckpointer(detector())
    with pytest.raises(InputError) as error:
        checkpointer.resume_or_load(path, resume=False)
    message = str(error.value)
    assert f"{path} is a checkpoint of another architecture: 15 tensors do not fit" in message
    assert "backbone.stem.weight is missing" in message
    assert "Give MODEL.WEIGHTS that fit the config" in message


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.pth", {"model": detector(backbone=5).state_dict()})
    with pytest.raises(InputError, match=r"backbone\.res2\.bias is \(5,\), not \(2,\)"):
        SafeCheckpointer(detector()).resume_or_load(path, resume=False)


def test_a_full_backbone_does_not_make_up_for_the_rest(tmp_path: Path) -> None:
    weights = {key: value for key, value in detector().state_dict().items() if key.startswith("backbone.")}
    path = save(tmp_path / "backbone.pth", {"model": weights})
    with pytest.raises(InputError, match=r"decoder\.0\.bias is missing.*matching_heuristics=True"):
        SafeCheckpointer(detector()).resume_or_load(path, resume=False)


def test_a_backbone_is_loaded_by_matching_names(tmp_path: Path) -> None:
    weights = detector().backbone.state_dict()
    path = save(tmp_path / "imagenet.pth", weights)
    model = detector()
    SafeCheckpointer(model).resume_or_load(f"{path}?matching_heuristics=True", resume=False)
    assert torch.equal(model.backbone["res2"].weight, weights["res2.weight"])
    with pytest.raises(InputError, match="is a checkpoint of another architecture"):
        SafeCheckpointer(detector(backbone=3)).resume_or_load(f"{path}?matching_heuristics=True", resume=False)


class Detector(nn.Module):
    """Named as the package's detectors are."""

    def __init__(
        self, classes: int = 3, queries: int = 5, position: int = 5, key_aware: bool = True, denoising: bool = True
    ) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.encoder = nn.ModuleDict({"value_proj": nn.Linear(2, 2)})
        if not key_aware:
            self.encoder["attention_weights"] = nn.Linear(2, 4)
        self.query_selection = nn.ModuleDict(
            {
                "content": nn.Embedding(queries, 2),
                "position": nn.Embedding(position, 2),
                "class_embed": nn.Linear(2, classes),
            }
        )
        if denoising:
            self.denoising = nn.ModuleDict({"label_embed": nn.Embedding(classes + 1, 2)})


@pytest.mark.parametrize("change", [{"classes": 4}, {"queries": 6}, {"position": 6}, {"denoising": False}])
def test_training_may_start_from_other_classes_queries_and_denoising(tmp_path: Path, change: dict[str, Any]) -> None:
    for saved, model in ((Detector(), Detector(**change)), (Detector(**change), Detector())):
        path = save(tmp_path / "other.pth", {"model": saved.state_dict()})
        SafeCheckpointer(model).resume_or_load(path, resume=False)
        assert torch.equal(model.encoder["value_proj"].weight, saved.encoder["value_proj"].weight)


@pytest.mark.parametrize(
    ("saved", "model", "misfit"),
    [
        (Detector(key_aware=False), Detector(), "encoder.attention_weights.weight is not in the model"),
        (Detector(), Detector(key_aware=False), "encoder.attention_weights.weight is missing"),
        (detector(width=3), detector(), r"decoder\.1\.weight is \(3, 2\), not \(2, 2\)"),
    ],
)
def test_training_does_not_start_from_another_architecture(
    tmp_path: Path, saved: nn.Module, model: nn.Module, misfit: str
) -> None:
    path = save(tmp_path / "other.pth", {"model": saved.state_dict()})
    with pytest.raises(InputError, match=rf"of another architecture: 2 tensors do not fit \(.*{misfit}"):
        SafeCheckpointer(model).resume_or_load(path, resume=False)


def test_evaluation_needs_just_the_model_without_denoising(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pth", {"model": Detector().state_dict()})
    SafeCheckpointer(Detector(denoising=False)).load(path)
    others = {name: value for name, value in Detector().state_dict().items() if not name.startswith("denoising.")}
    # DINO's label book can have another number of rows than its heads.
    for labels in ({}, {"denoising.label_embed.weight": torch.zeros(9, 2)}):
        evaluated = Detector()
        SafeCheckpointer(evaluated).load(save(tmp_path / "others.pth", {"model": others | labels}))
        assert torch.equal(evaluated.backbone.weight, others["backbone.weight"])
    with pytest.raises(InputError, match=r"class_embed\.bias is \(3,\), not \(4,\).*NUM_CLASSES"):
        SafeCheckpointer(Detector(classes=4)).load(path)
    path = save(tmp_path / "more.pth", {"model": Detector(key_aware=False).state_dict()})
    with pytest.raises(
        InputError, match=r"2 tensors do not fit \(encoder\.attention_weights\.bias is not in the model"
    ):
        SafeCheckpointer(Detector()).load(path)


def test_resuming_needs_denoising_too(tmp_path: Path) -> None:
    saved, model = Detector(), Detector(denoising=False)
    SafeCheckpointer(saved, str(tmp_path), optimizer=torch.optim.SGD(saved.parameters(), lr=0.5)).save("model")
    checkpointer = SafeCheckpointer(model, str(tmp_path), optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    with pytest.raises(InputError, match=r"denoising\.label_embed\.weight is not in the model.*OUTPUT_DIR"):
        checkpointer.resume_or_load("", resume=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS: there is no file .*gone\.pth"):
        SafeCheckpointer(detector()).load(str(tmp_path / "gone.pth"))


@pytest.mark.parametrize("name", ["model.pth", "model.pkl"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, detector().state_dict())
    whole = (tmp_path / name).read_bytes()
    for damaged in (whole[:300], b"", b"no checkpoint"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=rf"MODEL\.WEIGHTS: \S+{name} cannot be read: it is damaged"):
            SafeCheckpointer(detector()).load(path)


@pytest.mark.parametrize("content", [[1, 2], {"model": [torch.zeros(2)]}, {"a": 3}, {1: torch.zeros(2)}, 5])
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS: \S+model\.pth "):
        SafeCheckpointer(detector()).load(save(tmp_path / "model.pth", content))


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pth", detector().state_dict())
    with pytest.raises(InputError, match=r"only '\?matching_heuristics=True' may follow the file, not '\?matching=1'"):
        SafeCheckpointer(detector()).load(f"{path}?matching=1")


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["LITE_DETR_TEST_CANARY"],)


def test_a_file_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITE_DETR_TEST_CANARY", str(tmp_path / "canary"))
    path = save(tmp_path / "model.pth", {"model": detector().state_dict(), "args": Harmful()})
    with pytest.raises(InputError, match=r"it holds \w+\.mkdir, not tensors .*save just its tensors") as error:
        SafeCheckpointer(detector()).load(path)
    assert not (tmp_path / "canary").exists()
    assert "weights_only" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("checkpointables", [None, []])
def test_how_much_is_loaded_is_said_in_a_line(
    tmp_path: Path, log: pytest.LogCaptureFixture, checkpointables: list[str] | None
) -> None:
    path = save(tmp_path / "model.pth", {"model": detector().state_dict()})
    SafeCheckpointer(detector()).load(path, checkpointables)
    assert [message for message in log.messages if "tensors" in message] == [
        f"{path}: 8 of the model's 8 tensors are loaded"
    ]


def test_what_is_not_loaded_is_said_too(
    tmp_path: Path, log: pytest.LogCaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    state = {**detector().backbone.state_dict(), "fc.weight": torch.zeros(2)}
    path = save(tmp_path / "backbone.pth", {"model": state})
    SafeCheckpointer(detector()).load(f"{path}?matching_heuristics=True", [])
    told = f"{path}: 4 of the model's 8 tensors are loaded, and not decoder (4); the file has others, too: fc (1)"
    assert told in log.messages
    assert not [
        record for record in caplog.records if record.name.startswith("fvcore") and record.levelname == "WARNING"
    ]


def test_tensors_of_another_shape_are_not_loaded(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    state = {
        "class_embed.weight": torch.zeros(4, 2),
        "class_embed.bias": torch.zeros(4),
        "backbone.bias": torch.ones(1),
    }
    model = nn.Module()
    model.backbone, model.class_embed = nn.Module(), nn.Linear(2, 3)
    model.backbone.bias = nn.Parameter(torch.zeros(1))
    path = save(tmp_path / "model.pth", {"model": state})
    SafeCheckpointer(model).load(path, [])
    assert f"{path}: 1 of the model's 3 tensors are loaded, and not class_embed (2)" in log.messages


class Normalised(nn.Module):
    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*(norm(2) for _ in range(3)))
        self.decoder = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("saved", "loaded"), [(nn.BatchNorm2d, FrozenBatchNorm2d), (FrozenBatchNorm2d, nn.BatchNorm2d)]
)
def test_counters_of_batch_normalisation_do_not_matter(
    tmp_path: Path, log: pytest.LogCaptureFixture, saved: type[nn.Module], loaded: type[nn.Module]
) -> None:
    """A backbone of which more is frozen has fewer; they would be a fifth of this one's tensors."""
    state = Normalised(saved).state_dict()
    state = {name: torch.rand_like(value) if value.is_floating_point() else value for name, value in state.items()}
    path = save(tmp_path / "model.pth", {"model": state})
    for purpose in ("evaluate", "train", "resume", "init"):
        model = Normalised(loaded)
        optimizer = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1)} if purpose == "resume" else {}
        checkpointer = SafeCheckpointer(model, **optimizer)
        if purpose == "init":
            assert checkpointer.initialize(path).new == []
        else:
            checkpointer.load(path, [] if purpose == "train" else None)
        common = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
        assert len(common) == 3 * 4 + 2
        assert all(torch.equal(model.state_dict()[name], state[name]) for name in common)
    assert log.text.count(f"{path}: 14 of the model's 14 tensors are loaded\n") == 3
    assert "14 tensors are taken, 0 new" in log.text and "another backbone" not in log.text


def test_the_report_counts_each_tensor_once() -> None:
    state = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(2), "b.weight": torch.zeros(3), "c.bias": torch.zeros(1)}
    ours = {**state, "b.weight": torch.zeros(4), "d.weight": torch.zeros(1), "d.num_batches_tracked": torch.tensor(0)}
    del ours["c.bias"]
    assert InitReport.compare(state, ours).summary().splitlines() == [
        "2 tensors are taken, 1 new, 1 unused, 1 of another shape",
        "  new: d (1)",
        "  unused: c (1)",
        "  of another shape: b (1)",
    ]


def test_a_checkpoint_that_alone_knows_its_classes(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """Its names are compared with none: as many as the model's are these, and of others it is said what is unknown."""
    saved, same, fewer = Detector(), Detector(), Detector(classes=2)
    optimizers = [{"optimizer": torch.optim.SGD(each.parameters(), lr=0.1)} for each in (saved, same)]
    SafeCheckpointer(saved, str(tmp_path), class_names=["cat", "dog", "owl"], **optimizers[0]).save("model")
    path = str(tmp_path / "model.pth")
    for checkpointer in (SafeCheckpointer(same), SafeCheckpointer(same, **optimizers[1])):
        nn.init.zeros_(same.backbone.weight)
        checkpointer.load(path)  # to evaluate; to resume
        assert all(torch.equal(value, same.state_dict()[name]) for name, value in saved.state_dict().items())
    assert "was trained on" not in log.text and "not known" not in log.text
    SafeCheckpointer(fewer).load(path, [])
    told = "it has 3 classes, the model has 2, and the model's names are not known: none is matched. A dataset of 3 "
    assert f"{told}classes takes them all." in log.text
