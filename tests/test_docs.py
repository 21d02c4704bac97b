"""The documentation: what the pages name is there, and the worked example of docs/adding_parts.md runs as it says."""

import importlib.util
import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import nn

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.data.inspection import CHECKS
from lite_detr_d2.errors import InputError
from lite_detr_d2.modeling.encoder import ENCODER_REGISTRY

from .data.folders import write_coco_folder
from .helpers import batched_input, random_features

ROOT = Path(__file__).parent.parent
EXAMPLE_PAGE = ROOT / "docs" / "adding_parts.md"
FILES = dict(re.findall(r"^`([\w/.]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", EXAMPLE_PAGE.read_text(), flags=re.M | re.S))
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "projects/LiteDETR")),
    *sorted(path for path in (ROOT / "docs").iterdir() if path.suffix in {".md", ".svg"}),
]
SOURCES = [
    path
    for folder in ("lite_detr_d2", "projects", "tests", "configs", "benchmarks", "tools", "docs")
    for path in (ROOT / folder).rglob("*.*")
    if path.suffix in {".py", ".md", ".yaml", ".svg", ".cpp", ".h", ".cu", ".cuh", ".sh"}
]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    return re.sub(r"https?://\S+", "", page.read_text())


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    """With their folder from the root, the page or the package; or by their bare name."""
    names = re.findall(r"(?<![\w{}./*-])[\w./*-]+\.(?:py|md|yaml|svg|cpp|h|cu|cuh|sh)\b", text_of(page))
    bare = {path.name for path in [*SOURCES, *PAGES, *ROOT.glob("*.*"), *map(Path, FILES)]}
    folders = (ROOT, page.parent, ROOT / "lite_detr_d2", ROOT / "lite_detr_d2" / "csrc")
    for name in names:
        if "/" in name and name not in FILES:
            assert any(list(folder.glob(name)) for folder in folders), name
        else:
            assert Path(name).name in bare, name


@every_page
def test_python_names_and_config_keys_exist(page: Path) -> None:
    text = text_of(page)
    for name in re.findall(r"\blite_detr_d2(?:\.\w+)+", text):
        assert pkgutil.resolve_name(name) is not None
    for key in re.findall(r"\b(?:MODEL|SOLVER|INPUT|TEST|DATASETS|DATALOADER)(?:\.[A-Z][A-Z0-9_]*)+", text):
        node = default_config()
        for part in key.split("."):
            assert part in node, key
            node = node[part]


@pytest.mark.parametrize("name", ["architecture.md", "adding_parts.md"])
def test_code_that_is_quoted_is_in_the_code(name: str) -> None:
    """So that a renamed class, field or key is renamed on the page."""
    prose = re.sub(r"^```.*?^```$", "", (ROOT / "docs" / name).read_text(), flags=re.M | re.S)
    quoted = set(re.findall(r"\b[A-Za-z_]\w{2,}", " ".join(re.findall(r"`([^`]+)`", prose))))
    code = " ".join(path.read_text() for path in SOURCES if path.suffix != ".md" and path != Path(__file__))
    known = set(re.findall(r"\w+", code + " ".join(FILES.values()) + " ".join(map(str, [*SOURCES, *FILES]))))
    assert len(quoted) > 40
    assert sorted(quoted - known) == []


def default_config() -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    return cfg


# --- The worked example.


@dataclass(frozen=True)
class Example:
    """A checkout in which the example's files are where the page puts them."""

    root: Path
    encoder: type[nn.Module]

    def config(self) -> CfgNode:
        cfg = default_config()
        (name,) = (name for name in FILES if name.endswith(".yaml"))
        cfg.merge_from_file(str(self.root / name))
        cfg.MODEL.DEVICE = "cpu"
        return cfg


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """The example; its encoder is registered as long as this module's tests run."""
    root = tmp_path_factory.mktemp("checkout")
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / "configs").symlink_to(ROOT / "configs")
    (root / "projects" / "LiteDETR").symlink_to(ROOT / "projects" / "LiteDETR")
    spec = importlib.util.spec_from_file_location("coarse_to_fine", root / "projects/CoarseToFine/coarse_to_fine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ENCODER_REGISTRY, "_obj_map", dict(ENCODER_REGISTRY._obj_map))
        spec.loader.exec_module(module)
        yield Example(root, module.CoarseToFineEncoder)


def test_the_config_builds_a_model_that_learns_and_detects(example: Example) -> None:
    model = build_model(example.config())
    assert type(model.encoder) is example.encoder
    losses = model.train()([batched_input(96, 64, num_boxes=2), batched_input(64, 80, num_boxes=0)])
    sum(losses.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.encoder.named_parameters()}
    assert len(gradients) > 0
    assert not [name for name, gradient in gradients.items() if gradient is None or not bool(gradient.any())]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())
    with torch.no_grad():
        (result,) = model.eval()([batched_input(96, 64, num_boxes=0)])
    assert len(result["instances"]) > 0


def test_layers_refine_their_level_and_padded_tokens_change_no_valid_one(example: Example) -> None:
    cfg = example.config()
    encoder = example.encoder(cfg).double()
    channels = cfg.MODEL.LITE_DETR.HIDDEN_DIM
    features = random_features(((8, 6), (4, 3), (2, 2)), channels=channels, dtype=torch.float64)
    refined: list[int] = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda module, args, output: refined.append(output.shape[1]))
    clean = encoder(features)
    assert refined == [4, 12, 48, 4, 12, 48]
    keep = ~features.padding
    poisoned = encoder(features.with_tokens(torch.where(keep[..., None], features.tokens, 1e3)))
    torch.testing.assert_close(clean[keep], poisoned[keep], rtol=0, atol=0)
    assert bool((clean[~keep] != poisoned[~keep]).any())


def test_the_encoder_refuses_a_layer_too_many(example: Example) -> None:
    cfg = example.config()
    cfg.MODEL.LITE_DETR.ENCODER.NUM_LAYERS = 7
    with pytest.raises(InputError, match=r"ENCODER\.NUM_LAYERS is 7: .* MODEL\.LITE_DETR\.NUM_LEVELS \(3\)"):
        build_model(cfg)


def test_the_command_trains_and_evaluates(example: Example) -> None:
    """As it stands on the page, on a smaller dataset and for one iteration."""
    write_coco_folder(example.root / "output" / "demo" / "digits")
    (command,) = re.findall(r"^```sh\n(.*?)^```$", EXAMPLE_PAGE.read_text(), flags=re.M | re.S)
    path, python, *arguments = shlex.split(command.replace("\\\n", ""))
    assert python == "python"
    overrides = "MODEL.DEVICE cpu SOLVER.MAX_ITER 1 SOLVER.STEPS () SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0"
    result = subprocess.run(
        [sys.executable, *arguments, *overrides.split()],
        cwd=example.root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((path.removeprefix("PYTHONPATH="), str(ROOT)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    output = example.root / "output" / "coarse_to_fine"
    assert "AP" in json.loads((output / "eval_metrics.json").read_text())["bbox"]
    state = torch.load(output / "model_final.pth")["model"]
    layers = {name.split(".")[2] for name in state if name.startswith("encoder.layers.")}
    assert layers == set("012345")


def test_all_checks_of_datasets_are_explained() -> None:
    page = (ROOT / "docs" / "checking_datasets.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| ([^|]+) \| ([^|]*) \|$", page, flags=re.M)
    assert len(rows) == len(CHECKS)
    for identifier, severity, meaning, measure in rows:
        check = CHECKS[identifier]
        assert severity == check.severity.value, identifier
        assert meaning == check.message, identifier
        assert measure.strip() == "; ".join(filter(None, (check.repair, check.cure))), identifier


def test_the_readmes_choice_of_detectors_is_the_zoos() -> None:
    """Each AP / GFLOPs of README's table is in the zoo's row of that config."""
    zoo = (ROOT / "projects" / "LiteDETR" / "README.md").read_text()
    stated_there = re.findall(r"^\| `(\w+)`[^|]*\| ?([\d.]*) \| [\d.]+ \| ([\d.]+) \|", zoo, flags=re.M)
    rows = {name: (ap, gflops) for name, ap, gflops in stated_there}
    columns = ("deformable_detr", "r50_50ep"), ("h_detr", "r50_36ep"), ("dino", "r50_36ep")
    table = re.findall(r"^\| (?:`(\w+)`|none named) \|[^|]*\|(.*)\|$", (ROOT / "README.md").read_text(), flags=re.M)
    found = 0
    for encoder, cells in table:
        for (detector, rest), cell in zip(columns, cells.split("|"), strict=True):
            stated = re.fullmatch(r"([\d.]+|not stated|doubtful[^/]*) / ([\d.]+)", cell.strip())
            if stated is None:
                assert not cell.strip()
                continue
            name = f"lite_{detector}_{encoder}_{rest}" if encoder else f"{detector}_{rest}"
            ap, gflops = rows[name]
            assert gflops == stated[2]
            assert ap == stated[1] or not stated[1][0].isdigit()
            found += 1
    assert found >= 13
