"""What the pages say to type is taken by the programs, and does what it should.

Every command is parsed by the program's own parser, its config is built, and its files are looked for. Those for which
``NOT_RUN_HERE`` gives no reason are run, on small data, as they stand.
"""

import argparse
import functools
import importlib
import json
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomllib
from PIL import Image

from lite_detr_d2.config import validate_config
from lite_detr_d2.engine import read_config
from lite_detr_d2.errors import InputError
from tests.data.folders import coco_content, half_of, write_coco_folder
from tests.documented import ROOT, Command, all_commands, commands_of

from .scripts import TINY, load_script

# By what is in a command: why it is parsed here, and not run.
NOT_RUN_HERE = {
    r"^make ": "CI, and whoever works on the project",
    r"^(pip|git|\.venv/bin/python|pytest) ": "it sets up, or runs the tests",
    r"^python setup\.py ": "it compiles",
    r"--num-gpus|^torchrun|^sbatch|--submit": "several GPUs, or a cluster",
    r"--config-file \S*(_r50_|_r18_|_swint_|CONFIG|FILE)": "COCO, weights from the network, or a model of that size",
    r"--config-file \S*_efflite0_": "timm, which tests/interop has",
    r"convert_checkpoint\.py": "a published checkpoint, which tests/checkpoint makes",
    r"export\.py|deploy_examples|\.onnx": "tests/deploy and tests/export run each format",
    r"visualize_(attention|data)\.py": "tests beside this one run them",
    r"^python (benchmarks|tools)/|paper_tables\.py": "they take minutes",
    r"CoarseToFine": "test_docs.py runs it",
    r"--compile": "it compiles for minutes: tests/deploy has it at small sizes",
    r"MODEL\.WEIGHTS output/whole": "it goes on from a training of the demo",
    r"^python -m ": "they are Python's and PyTorch's, or have tests of their own",
}
# What makes any training short.
SMALL = "MODEL.DEVICE cpu SOLVER.MAX_ITER 1 SOLVER.STEPS () SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0 "
SMALL += "INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64"
# Words that stand for what the reader has.
PLACEHOLDER = re.compile(r"[A-Z_]+")
# Programs of other repositories, on the page that sets them beside ours.
OTHERS = {("docs/migrating.md", name) for name in ("main.py", "tools/train_net.py")}

COMMANDS = all_commands()
SCRIPTS = [
    command for command in COMMANDS if command.script is not None and (command.page, command.words[0]) not in OTHERS
]
RUN_HERE = {
    command.words: command
    for command in COMMANDS
    if command.is_whole and not any(re.search(pattern, " ".join(command.words)) for pattern in NOT_RUN_HERE)
}.values()


class ParserFound(BaseException):
    """Ends a program where it would parse its arguments."""


@dataclass(frozen=True)
class Parser:
    """What a program parses its arguments with: a parser, and its method."""

    parser: argparse.ArgumentParser
    method: str

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        args: argparse.Namespace = getattr(self.parser, self.method)(arguments)
        return args

    def filled_in(self, arguments: list[str]) -> list[str]:
        """The arguments with a number where a word like N stands for one, and without modules, which are a reader's."""
        actions, result = self.parser._option_string_actions, list[str]()
        for before, word in zip(["", *arguments], arguments, strict=False):
            if before == "--import" or word == "--import":
                continue
            is_number = before in actions and actions[before].type in (int, float)
            result.append("1" if is_number and PLACEHOLDER.fullmatch(word) else word)
        return result


@functools.cache
def parser_of(script: Path) -> Parser | None:
    """The parser that a program makes; None if it has none."""

    def catch(parser: argparse.ArgumentParser, *_: object, method: str) -> None:
        raise ParserFound(Parser(parser, method))

    with pytest.MonkeyPatch.context() as patch:
        for method in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, method, functools.partialmethod(catch, method=method))
        patch.setattr(sys, "argv", [str(script)])
        patch.syspath_prepend(script.parent)
        try:
            runpy.run_path(str(script), run_name="__main__")
        except ParserFound as found:
            parser: Parser = found.args[0]
            return parser
        except (SystemExit, ImportError):  # it asks for arguments by itself, or for what only exported files need
            return None
    raise AssertionError(f"{script} parses no arguments")


def check_arguments(command: Command) -> None:
    """Parse a command's arguments, build its config, and look for its files."""
    script = command.script
    assert script is not None
    assert script.is_file(), command
    parser = parser_of(script)
    if parser is None:
        assert command.is_whole
        assert len(command.arguments) > 0
        return
    # Of a beginning of an option's name, argparse makes that option: pages have the whole name.
    options = {word.partition("=")[0] for word in command.arguments if word.startswith("--")}
    assert options <= parser.parser._option_string_actions.keys(), command
    if not command.is_whole:
        return
    arguments = parser.filled_in(command.arguments)
    try:
        args = parser.parse(arguments)
        if "parse" in (names := vars(load_script(script.stem, script.parent))):
            names["parse"](arguments)
    except SystemExit as stop:
        raise AssertionError(f"{command} is not taken") from stop
    check_config(command, args)
    for word in command.words:
        assert not re.match(r"(configs|projects|benchmarks|tools)/", word) or is_there(word, command), command


def check_config(command: Command, args: argparse.Namespace) -> None:
    """Build the config of a command that has one; where the reader is to fill in which, of one of COCO's."""
    name = getattr(args, "config_file", None)
    if not name:
        return
    name = "configs/dino/lite_dino_h3l1_a2b3_r50_36ep.yaml" if PLACEHOLDER.fullmatch(name) else name
    if not (ROOT / name).exists():
        assert is_there(name, command), command
        return
    args.config_file, args.opts = str(ROOT / name), getattr(args, "opts", None) or []
    validate_config(read_config(args))


def is_there(name: str, command: Command) -> bool:
    """Whether a file of the project is there, or is written on the page itself."""
    return (ROOT / name).exists() or f"`{name}`" in (ROOT / command.page).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", SCRIPTS, ids=str)
def test_a_program_takes_it(command: Command) -> None:
    check_arguments(command)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.script is None], ids=str)
def test_what_is_no_script_is_known(command: Command) -> None:
    program, *arguments = command.words
    if program == "make":
        targets = set(re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.M)[0].split())
        assert {word for word in arguments if "=" not in word} <= targets
    elif arguments[0] == "setup.py":
        assert (ROOT / "setup.py").exists()
    elif program in ("python", ".venv/bin/python"):
        assert arguments[0] == "-m"
        assert importlib.util.find_spec(arguments[1]) is not None
        assert all((ROOT / word).exists() for word in arguments[2:] if re.match(r"(?!output/)\S+/", word))
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = re.findall(r"[\w-]+", ",".join(re.findall(r"\[([\w,-]+)\]", " ".join(arguments))))
        assert set(asked) <= extras.keys()
    else:
        assert program in ("git", "cd", "pytest", "sbatch")


def test_reasons_are_of_commands() -> None:
    assert len(SCRIPTS) > 40
    for pattern in NOT_RUN_HERE:
        assert any(re.search(pattern, " ".join(command.words)) for command in COMMANDS), pattern


# --- What can be run here.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OUTPUT_DIR of a small training, with its dataset."""
    root = tmp_path_factory.mktemp("reader")
    dataset, output = write_halves(root / "digits"), root / "mine"
    arguments = ["--config-file", TINY, "--dataset", dataset, "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()"]
    run_program(ROOT / "projects/LiteDETR/train_net.py", *arguments, "OUTPUT_DIR", output)
    return output


def write_halves(folder: Path) -> Path:
    """Write a dataset in COCO format, of halves that share no image."""
    content = coco_content(images=6)
    write_coco_folder(folder, content, half_of(content, range(4, 6)))
    (folder / "train.json").write_text(json.dumps(half_of(content, range(4))))
    return folder


def run_program(script: Path, *arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as stop:
            assert not stop.code, stop.code


@pytest.fixture
def reader(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with what a reader has in it: data, photographs, and a training."""
    for name in ("configs", "docs", "projects"):
        (tmp_path / name).symlink_to(ROOT / name)
    digits = run.with_name("digits")
    for name in ("more", "path/to/folder", "FOLDER", "output/demo/digits"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(digits)
    (tmp_path / "photos").symlink_to(digits / "images")
    (tmp_path / "val.json").symlink_to(digits / "val.json")
    with Image.open(digits / "images" / "0.png") as image:
        image.convert("RGB").resize((640, 480)).save(tmp_path / "photo.jpg")
    shutil.copytree(digits, tmp_path / "output" / "drawn")  # no link: drawn_digits.py writes there
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.parametrize("command", RUN_HERE, ids=str)
def test_it_runs(command: Command, run: Path, reader: Path) -> None:
    assert command.script is not None
    if command.script.stem == "train_net":
        run_program(command.script, *command.arguments, *SMALL.split())
        output = re.search(r"OUTPUT_DIR (\S+)", str(command))
        assert (reader / (output[1] if output else "output") / "eval_metrics.json").exists()
        return
    for name in ("mine", "demo", "other"):
        for file in run.iterdir():
            target = reader / "output" / name / file.name
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(file)
    run_program(command.script, *command.arguments)
    if match := re.search(r"--(?:output|json) (\S+)", str(command)):
        assert (reader / match[1]).exists()


# --- What a wrong page fails with.


@pytest.mark.parametrize(
    "line",
    [
        "python projects/LiteDETR/train_net.py --config-file configs/dino/lite_dino_tiny.yaml --datset folder",
        "python projects/LiteDETR/train_net.py --config-file configs/dino/lite_dino_tiny.yaml SOLVER.MAX_ITERS 5",
        "python projects/LiteDETR/train_net.py --config-file configs/dino/lite_dino_tiny.yaml SOLVER.MAX_ITER -5",
        "python projects/LiteDETR/train_net.py --config-file configs/dino/lite_dino_tinny.yaml",
        "python projects/LiteDETR/predict.py output/mine --inputs photos --output found",
        "python projects/LiteDETR/predict.py output/mine --config-file FILE --input photos --output found",
        "python projects/LiteDETR/export.py output/mine --format onnx --output mine.onnx --dynamicc",
        "python projects/LiteDETR/analyse_model.py --zoo",
        "torchrun --nproc_per_node 2 projects/LiteDETR/train_net.py --resum",
    ],
)
@pytest.mark.parametrize(
    "form", ["```sh\n{}\n```\n", "text\n\n    {}\n\ntext", "text `{}` text", "```\n# so\n{}\n```\n"]
)
def test_a_wrong_command_is_found(line: str, form: str) -> None:
    (command,) = commands_of(form.format(line.replace(" --", " \\\n    --")), "docs/index.md")
    assert " ".join(command.words) == line
    with pytest.raises((AssertionError, InputError)):
        check_arguments(command)


def test_a_wrong_option_in_prose_is_found() -> None:
    (command,) = commands_of("see `predict.py --treshold`", "docs/index.md")
    assert not command.is_whole
    with pytest.raises(AssertionError):
        check_arguments(command)
