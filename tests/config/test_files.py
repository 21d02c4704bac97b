"""Config files and overrides are data: whatever is wrong with them is one line, and nothing in them runs."""

import argparse
import json
import math
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.config import files, merge_file, merge_overrides
from lite_detr_d2.deploy.run import load_trained
from lite_detr_d2.engine import read_config
from lite_detr_d2.errors import InputError

from ..conftest import CONFIGS
from ..shipped_configs import LEAVES, read


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    return cfg


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_files_say_what_detectron2_reads_in_them(cfg: CfgNode, path: Path) -> None:
    merge_file(cfg, str(path))
    cfg.MODEL.DEVICE = "cpu"
    assert cfg == read(path)


def test_a_whole_config_is_read_as_it_was_written(cfg: CfgNode, tmp_path: Path) -> None:
    merge_file(cfg, str(CONFIGS / "dino" / "dino_swint_36ep.yaml"))
    cfg.OUTPUT_DIR = "dossier été"
    (tmp_path / "config.yaml").write_text(cfg.dump(allow_unicode=True), encoding="utf-8")
    again = get_cfg()
    add_lite_detr_config(again)
    merge_file(again, str(tmp_path / "config.yaml"))
    assert json.dumps(again) == json.dumps(cfg)  # in files, there are no tuples


RUNNING = [
    "!!python/object/apply:os.mkdir [{marker}]",
    "!!python/object/new:os.mkdir [{marker}]",
    "!!python/object/apply:os.system ['mkdir {marker}']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1]",
    "!mine 1",
]


@pytest.mark.parametrize("value", RUNNING)
@pytest.mark.parametrize("place", ["file", "base", "override", "key"])
def test_nothing_in_a_config_runs(cfg: CfgNode, tmp_path: Path, value: str, place: str) -> None:
    marker, file = tmp_path / "ran", tmp_path / "config.yaml"
    text = value.format(marker=marker)
    file.write_text(f"SEED: {text}\n" if place != "key" else f"? {text}\n: 1\n")
    if place == "base":
        (tmp_path / "other.yaml").write_text("_BASE_: config.yaml\nSEED: 1\n")
    with pytest.raises(InputError) as error:
        if place == "override":
            merge_overrides(cfg, ["SEED", text])
        else:
            merge_file(cfg, str(tmp_path / ("other.yaml" if place == "base" else "config.yaml")))
    assert not marker.exists()
    assert "\n" not in str(error.value)
    if place in ("file", "base"):
        assert f"{file}" in str(error.value) and "A config holds values, and runs nothing." in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "SEED: !!python/object/apply:os.mkdir [{marker}]",
            "line 1: '!!python/object/apply:os.mkdir' is no kind of value",
        ),
        ("INPUT: {{MIN_SIZE_TEST: null}}", "INPUT.MIN_SIZE_TEST is None: expected an integer from 0 to"),
    ],
)
def test_the_config_of_a_run_is_read_so_too(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(content.format(marker=tmp_path / "ran"))
    with pytest.raises(InputError) as error:
        load_trained(tmp_path)
    assert message in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text", ["__import__('os').mkdir('{marker}')", "open('{marker}', 'w')", "[x for x in (1,)]", "(lambda: 1)()"]
)
def test_overrides_are_literals(cfg: CfgNode, tmp_path: Path, text: str) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(InputError, match="^SEED is "):
        merge_overrides(cfg, ["SEED", text.format(marker=marker)])
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no keys: expected lines such as 'MODEL:'"),
        (b"# nothing\n", "it has no keys"),
        (b"[1, 2]", "it has no keys"),
        (b"some words", "it has no keys"),
        (b"\x80\x81", "it is not YAML: unacceptable character #x0080"),
        (b"SEED: \0", "it is not YAML: unacceptable character"),
        (b"SEED: [1", "it is not YAML: while parsing a flow sequence"),
        (b"SEED: 1\nSEED: 2\n", "line 2: SEED stands twice in the same place: leave one."),
        (b"MODEL:\n  WEIGHTS: a\n  WEIGHTS: b\n", "line 3: WEIGHTS stands twice"),
        (b"null: 1", "line 1: 'null' before a colon is no name"),
        (b"1: 1", "line 1: '1' before a colon is no name"),
        (b"? [a]\n: 1", "line 1: what stands before a colon is no name"),
        (b"SEED: &a [*a]", "line 1: what is here holds itself"),
        (b"SEED: " + b"[" * 5000, "it has too many levels."),
        (b"MODEL:", "MODEL is None: expected keys below it, such as MODEL.LOAD_PROPOSALS."),
        (b"MODEL: [1]", "MODEL is [1]: expected keys below it"),
        (b"SEED: {A: 1}", "SEED is {'A': 1}: expected an integer"),
        (b"SEED: 1.5", "SEED is 1.5: expected an integer"),
        (b"SEED: 2020-01-01", "SEED is datetime.date(2020, 1, 1): expected an integer"),
        (b"SEED: 2020-13-45", "it is not YAML: month must be in 1..12"),
        (b"SEED: !!int ''", "it is not YAML:"),
        (b"SEED: '((((((((((((((((" + b"(" * 3000 + b"'", "SEED is '(((("),
        (b"SEED: '{[]: 1}'", "SEED is '{[]: 1}', which cannot be read as a value"),
        (b"SOLVER: {BASE_LR: 1}", "SOLVER.BASE_LR is 1: expected a number with a decimal point, such as 1.0."),
        (b"SOLVER: {MAX_ITR: 1}", "SOLVER.MAX_ITR is not a key of the config. Did you mean SOLVER.MAX_ITER?"),
        (b"SOLVERS: {}", "SOLVERS is not a key of the config. Did you mean SOLVER?"),
        (b"MODEL: {RPN: {NMS_THRESH: a}}", "MODEL.RPN.NMS_THRESH"),
        (b"VERSION: 1", "VERSION is 1: expected one of 2"),
        (b"_BASE_: gone.yaml", "gone.yaml, a base of"),
        (b"_BASE_: [gone.yaml]", "there is no such file"),
        (b"_BASE_: 3", "_BASE_ is 3: expected a file, or a list of files"),
        (b"_BASE_: [[config.yaml]]", "_BASE_ is [['config.yaml']]: expected a file"),
        (b"_BASE_: ''", "_BASE_ is ['']: expected a file"),
        (b"_BASE_: {a: b}", "_BASE_ is {'a': 'b'}: expected a file"),
        (b"_BASE_: config.yaml", "_BASE_ goes round:"),
        (b"_BASE_: 'a\\0b'", "there is no such file"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_config(argparse.Namespace(config_file=str(file), opts=[]))
    assert message in str(error.value) and str(error.value).startswith(f"Config {tmp_path}")
    assert "\n" not in str(error.value)


def test_aliases_that_would_fill_the_memory(cfg: CfgNode, tmp_path: Path) -> None:
    lines = ["A0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"A{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="it has more than 1000000 values"):
        merge_file(cfg, str(tmp_path / "config.yaml"))


def test_a_file_too_large_for_a_config_is_not_read(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOST_BYTES", 1000)
    (tmp_path / "model.pth").write_bytes(b"a" * 1001)
    with pytest.raises(InputError, match=r"model\.pth: it is larger than \d+ MB, and so no config"):
        merge_file(cfg, str(tmp_path / "model.pth"))


def test_a_folder_is_no_file(cfg: CfgNode, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^Config {tmp_path}: there is no such file"):
        merge_file(cfg, str(tmp_path))


def test_later_bases_win_and_the_file_over_all(cfg: CfgNode, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.yaml").write_text("SEED: 1\nSOLVER: {MAX_ITER: 1, GAMMA: 0.5, STEPS: [1]}\n")
    (tmp_path / "below" / "b.yaml").write_text("_BASE_: c.yaml\nSOLVER: {MAX_ITER: 2}\n")
    (tmp_path / "below" / "c.yaml").write_text("SOLVER: {MAX_ITER: 3, GAMMA: 0.25}\n")
    (tmp_path / "config.yaml").write_text("_BASE_: [below/a.yaml, below/b.yaml]\nSOLVER: {STEPS: [5, 6]}\n")
    merge_file(cfg, str(tmp_path / "config.yaml"))
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.SOLVER.GAMMA, cfg.SOLVER.STEPS) == (1, 2, 0.25, (5, 6))


def test_a_loop_over_folders_is_one_too(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file comes again by another path."""
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"_BASE_: ../{other}/config.yaml")
    (tmp_path / "link").symlink_to("a")
    monkeypatch.chdir(tmp_path)
    for file in ("a/config.yaml", "./link/../a/config.yaml", "link/config.yaml"):
        with pytest.raises(InputError, match=rf"^Config {file}: _BASE_ goes round: ") as error:
            merge_file(cfg, file)
        assert str(error.value).count(" -> ") == 2


def test_two_ways_to_one_base_are_no_loop(cfg: CfgNode, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("SEED: 1")
    for name in "bc":
        (tmp_path / f"{name}.yaml").write_text("_BASE_: a.yaml")
    (tmp_path / "d.yaml").write_text("_BASE_: [b.yaml, ./c.yaml]")
    merge_file(cfg, str(tmp_path / "d.yaml"))
    assert cfg.SEED == 1


@pytest.mark.parametrize("again", ["{}.yaml", "./{}.yaml", "../run/{}.yaml", "..//run/.././link/{}.yaml"])
def test_many_ways_to_one_base_are_read_once(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    """Each of these files is named twice, and would be read as often as 2 to the power of its level."""
    folder, levels, reads = tmp_path / "run", 8, []
    content = files._content
    monkeypatch.setattr(files, "_content", lambda file: reads.append(file) or content(file))
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    for level in range(1, levels):
        (folder / f"{level}.yaml").write_text(f"_BASE_: [{level - 1}.yaml, {again.format(level - 1)}]\nSEED: {level}")
    (folder / "0.yaml").write_text("SOLVER: {MAX_ITER: 7}")
    (folder / "top.yaml").write_text("_BASE_: [3.yaml, 7.yaml, 4.yaml]\nSOLVER: {GAMMA: 0.5}")
    merge_file(cfg, str(folder / "top.yaml"))
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.SOLVER.GAMMA) == (4, 7, 0.5)
    assert len(reads) == levels + 1


def test_bases_of_a_link_are_beside_the_link(cfg: CfgNode, tmp_path: Path) -> None:
    """A file and a link to it are two: what they name is not the same."""
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "base.yaml").write_text(f"SEED: {seed}")
    (tmp_path / "a" / "config.yaml").write_text("_BASE_: base.yaml")
    (tmp_path / "b" / "config.yaml").symlink_to(tmp_path / "a" / "config.yaml")
    (tmp_path / "top.yaml").write_text("_BASE_: [a/config.yaml, b/config.yaml]")
    merge_file(cfg, str(tmp_path / "top.yaml"))
    assert cfg.SEED == 2


def test_a_loop_of_bases_is_named(cfg: CfgNode, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml")
    (tmp_path / "b.yaml").write_text(f"_BASE_: {tmp_path}/a.yaml")
    with pytest.raises(InputError, match=r"_BASE_ goes round: \S+a\.yaml -> \S+b\.yaml -> \S+a\.yaml"):
        merge_file(cfg, str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SEED"], "'SEED' is the last of the KEY VALUE pairs, and has no value"),
        (["SEED=5"], "SEED=5: set a blank between KEY and VALUE, SEED 5."),
        (["num_queries=100"], "num_queries=100: set a blank between KEY and VALUE, num_queries 100."),
        (["SEED=5", "OUTPUT_DIR", "out"], "SEED=5: set a blank between KEY and VALUE"),
        (["OUTPUT_DIR", "out", "SOLVER.MAX_ITER="], "SOLVER.MAX_ITER=: set a blank between KEY and VALUE"),
        (["SOLVER.MAX_ITR", "5"], "SOLVER.MAX_ITR is not a key of the config. Did you mean SOLVER.MAX_ITER?"),
        (["SOLVER", "5"], "SOLVER is not a key"),
        (["SOLVER.MAX_ITER.X", "5"], "SOLVER.MAX_ITER.X is not a key"),
        (["_BASE_", "a.yaml"], "_BASE_ is not a key"),
        (["", "1"], " is not a key"),
        ([3, "1"], "3 is not a key"),
        (["SEED", "many"], "SEED is 'many': expected an integer"),
        (["SEED", "(" * 5000], "SEED is '("),
        (["SEED", "None"], "SEED is None: expected an integer"),
        (["DATASETS.TRAIN", "coco"], "DATASETS.TRAIN is 'coco': expected a list"),
        (["DATASETS.TRAIN", "coco"], "in quotes. Write ['coco']."),
        (["INPUT.MIN_SIZE_TRAIN", "160"], " Write [160]."),
        (["SOLVER.BASE_LR", "1"], "expected a number with a decimal point, such as 1.0"),
        (["MODEL.WEIGHTS", "123"], "MODEL.WEIGHTS is 123: expected a text, in quotes"),
        (["MODEL.RPN.NMS_THRESH", "x"], "MODEL.RPN.NMS_THRESH"),
    ],
)
def test_wrong_overrides(cfg: CfgNode, overrides: list[object], message: str) -> None:
    with pytest.raises(InputError) as error:
        merge_overrides(cfg, overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_value_may_read_like_a_key_and_its_value(cfg: CfgNode) -> None:
    merge_overrides(cfg, ["OUTPUT_DIR", "SOLVER.BASE_LR=0.01"])
    assert cfg.OUTPUT_DIR == "SOLVER.BASE_LR=0.01"


def test_infinity_is_written_as_the_message_says(cfg: CfgNode, tmp_path: Path) -> None:
    key = "SOLVER.CLIP_GRADIENTS.NORM_TYPE"
    with pytest.raises(InputError, match=r"expected a number above 0, or \.inf \(1e999 on the command line\)"):
        merge_overrides(cfg, [key, ".inf"])
    merge_overrides(cfg, [key, "1e999"])
    assert math.isinf(cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE)
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = 2.0
    (tmp_path / "config.yaml").write_text("SOLVER: {CLIP_GRADIENTS: {NORM_TYPE: .inf}}")
    merge_file(cfg, str(tmp_path / "config.yaml"))
    assert math.isinf(cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE)


def test_overrides_are_read_as_detectron2_reads_them(cfg: CfgNode) -> None:
    overrides = ["SEED", "3", "DATASETS.TRAIN", "('a', 'b')", "SOLVER.STEPS", [5], "OUTPUT_DIR", "somewhere/else"]
    theirs = cfg.clone()
    theirs.merge_from_list(overrides)
    merge_overrides(cfg, overrides)
    assert cfg == theirs and cfg.DATASETS.TRAIN == ("a", "b")
