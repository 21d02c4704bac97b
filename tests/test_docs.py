"""The documentation: what the pages name is there, and the worked example of docs/adding_parts.md runs as it says.

The commands that they name are tests/projects/test_documented_commands.py's.
"""

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
import tomllib
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import nn

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.data.inspection import CHECKS
from lite_detr_d2.errors import InputError
from lite_detr_d2.modeling.encoder import ENCODER_REGISTRY

from . import documented
from .data.folders import write_coco_folder
from .documented import ROOT
from .helpers import batched_input, random_features
from .projects.scripts import TOOLS, load_script
from .shipped_configs import LEAVES

EXAMPLE_PAGE = ROOT / "docs" / "adding_parts.md"
FILES = dict(re.findall(r"^`([\w/.]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", EXAMPLE_PAGE.read_text(), flags=re.M | re.S))
PAGES = [*documented.PAGES, *sorted((ROOT / "docs").glob("*.svg"))]
SOURCES = [
    path
    for folder in ("lite_detr_d2", "projects", "tests", "configs", "benchmarks", "tools", "docs")
    for path in (ROOT / folder).rglob("*.*")
    if path.suffix in {".py", ".md", ".yaml", ".svg", ".cpp", ".h", ".cu", ".cuh", ".sh"}
]

FENCED = re.compile(r"^```.*?^```$", flags=re.M | re.S)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    return re.sub(r"https?://\S+", "", page.read_text())


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCED.sub("", text_of(page))
    links = re.findall(r"\]\(([^)\s]+)\)|<(?:img|a)\b[^>]*? (?:src|href)=\"([^\"]+)\"", text)
    for target in map("".join, links):
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


def pictures_without_a_command(text: str) -> list[str]:
    """Those, but for drawings, in whose section neither a command nor a link to a script stands that may make them."""
    return [
        "".join(picture)
        for section in re.split(r"^(?=#+ )", text, flags=re.M)
        if not any(command.is_whole for command in documented.commands_of(section, "page"))
        and not re.search(r"\]\([^)]+\.sh\)", section)
        for picture in re.findall(
            r"!\[[^\]]*\]\(([^)\s]+\.(?:png|jpg|gif))\)|src=\"([^\"]+\.(?:png|jpg|gif))\"", section
        )
    ]


@every_page
def test_pictures_have_the_command_that_makes_them_beside_them(page: Path) -> None:
    assert pictures_without_a_command(page.read_text()) == []


def test_a_picture_without_a_command_is_found() -> None:
    made = "## One\n\n```sh\npython projects/LiteDETR/evaluate.py output/mine\n```\n\n![one](one.png)\n"
    other = '## Two\n\nSee `evaluate.py`.\n\n![two](images/two.png) <img width="9" src="three.jpg">\n'
    assert pictures_without_a_command(made) == []
    assert pictures_without_a_command(made + other) == ["images/two.png", "three.jpg"]


def test_pictures_are_of_different_things() -> None:
    """None is a copy, which stands where another one should."""
    pictures = sorted((ROOT / "docs").rglob("*.png"))
    assert len({path.read_bytes() for path in pictures}) == len(pictures) > 5


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "migrating.md"], ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    """With their folder from the root, the page or the package; or by their bare name.

    The page on migrating names files of other repositories, too.
    """
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
    prose = FENCED.sub("", (ROOT / "docs" / name).read_text())
    quoted = set(re.findall(r"\b[A-Za-z_]\w{2,}", " ".join(re.findall(r"`([^`]+)`", prose))))
    code = " ".join(path.read_text() for path in SOURCES if path.suffix != ".md" and path != Path(__file__))
    known = set(re.findall(r"\w+", code + " ".join(FILES.values()) + " ".join(map(str, [*SOURCES, *FILES]))))
    assert len(quoted) > 40
    assert sorted(quoted - known) == []


class Site(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python functions, without them."""


Site.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def pages_of_the_site() -> list[str]:
    """Those of the navigation, in its order."""

    def names(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for below in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
            yield from names(below)

    return list(names(yaml.load((ROOT / "mkdocs.yml").read_text(), Site)["nav"]))


def test_the_site_and_llms_txt_have_every_page_once() -> None:
    sources = list(map(load_script("places", TOOLS / "site").source_of, pages_of_the_site()))
    assert len(sources) > 25
    assert len(set(sources)) == len(sources)
    lines = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", (ROOT / "llms.txt").read_text(), flags=re.M)
    assert lines == sources
    assert set(map(str, sorted((ROOT / "docs").rglob("*.md")))) <= {str(ROOT / source) for source in sources}


@pytest.mark.parametrize(
    ("page", "source", "link", "in_the_site", "with_a_repository"),
    [
        ("deploy.md", "docs/deploy.md", "[data](datasets.md#layouts)", "[data](datasets.md#layouts)", None),
        ("deploy.md", "docs/deploy.md", "[zoo](../projects/LiteDETR/README.md)", "[zoo](zoo.md)", None),
        ("deploy.md", "docs/deploy.md", "![flow](architecture.svg)", "![flow](architecture.svg)", None),
        ("reference/ops.md", "docs/reference/ops.md", "[a](../../CHANGELOG.md)", "[a](../changelog.md)", None),
        ("zoo.md", "projects/LiteDETR/README.md", "[how](../../docs/deploy.md#x)", "[how](deploy.md#x)", None),
        ("zoo.md", "projects/LiteDETR/README.md", "[it](../../README.md)", "[it](index.md)", None),
        ("a.md", "docs/a.md", "[doctor.py](../lite_detr_d2/doctor.py)", "`lite_detr_d2/doctor.py`", "[doctor.py](*)"),
        ("a.md", "docs/a.md", "[it](../lite_detr_d2/doctor.py)", "it (`lite_detr_d2/doctor.py`)", "[it](*)"),
        ("a.md", "docs/a.md", "[d2](https://a.b/c.md)", "[d2](https://a.b/c.md)", None),
        ("a.md", "docs/a.md", "[no](../not_there.py)", "[no](../not_there.py)", None),
        ("a.md", "docs/a.md", "\n```\n[x](../setup.py)\n```", "\n```\n[x](../setup.py)\n```", None),
    ],
)
def test_links_in_the_site(
    page: str, source: str, link: str, in_the_site: str, with_a_repository: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(TOOLS / "site")
    links = load_script("source_links", TOOLS / "site")
    pages = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "projects/LiteDETR/README.md": "zoo.md"}
    arguments = (f"see {link}\n", page, source, pages, ROOT)
    assert links.with_links(*arguments, "") == f"see {in_the_site}\n"
    there = "https://host/main/lite_detr_d2/doctor.py"
    wanted = (with_a_repository or in_the_site).replace("*", there)
    assert links.with_links(*arguments, "https://host/main/") == f"see {wanted}\n"


def test_llms_txt_has_its_format() -> None:
    """That of llmstxt.org: a title, a quotation that sums up, prose, and sections of lists of links."""
    title, summary, *others = (ROOT / "llms.txt").read_text().split("\n\n")
    assert re.fullmatch(r"# \S+", title)
    assert all(line.startswith("> ") for line in summary.splitlines())
    sections = "\n\n".join(others).split("## ")[1:]
    for section in sections:
        assert re.fullmatch(r"[^\n]+\n\n(- \[[^\]]+\]\([^)]+\): [^\n]+\n)+\n?", section)


def test_the_extra_is_what_the_lock_is_made_of() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = re.findall(r"^[a-z][^#\s]*", (ROOT / "requirements" / "docs.in").read_text(), flags=re.M)
    assert [re.sub(r">=.*", "", requirement) for requirement in extras["docs"]] == wanted
    locked = (ROOT / "requirements" / "docs.txt").read_text()
    assert all(re.search(rf"^{name.partition('[')[0]}==", locked, flags=re.M) for name in wanted)


def test_the_list_of_config_keys_is_whole() -> None:
    pages = load_script("config_pages", TOOLS / "site")
    rows = re.findall(r"^\| `(\w+)` \| `(.*)` \| (\S.*) \| (\S.*) \|$", pages.keys_page(), flags=re.M)
    own = pages.own_keys()
    assert len(rows) == len(own) > 50
    assert {name for name, *_ in rows} == {key.rpartition(".")[2] for key in own}
    assert any(row[:2] == ("SPEC", "'H3L1-(2+1)x3'") and "HxLy-(A+1)xB" in row[3] for row in rows)


def test_a_key_without_words_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = load_script("config_pages", TOOLS / "site")
    described = pages.described_keys()
    del described["SOLVER.ACCUMULATE"]
    monkeypatch.setattr(pages, "described_keys", lambda: described)
    with pytest.raises(ValueError, match=r"no comment above SOLVER\.ACCUMULATE"):
        pages.keys_page()


def test_the_list_of_configs_is_whole() -> None:
    names = re.findall(r"^\| `(\w+)` \|", load_script("config_pages", TOOLS / "site").shipped_page(), flags=re.M)
    assert sorted(names) == sorted(path.stem for path in LEAVES)


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
    clean = encoder(features).tokens
    assert refined == [4, 12, 48, 4, 12, 48]
    keep = ~features.padding
    poisoned = encoder(features.with_tokens(torch.where(keep[..., None], features.tokens, 1e3))).tokens
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


def test_the_choice_of_detectors_is_the_zoos() -> None:
    """Each AP / GFLOPs of the table in docs/choosing.md is in the zoo's row of that config."""
    zoo = (ROOT / "projects" / "LiteDETR" / "README.md").read_text()
    stated_there = re.findall(r"^\| `(\w+)`[^|]*\| ?([\d.]*) \| [\d.]+ \| ([\d.]+) \|", zoo, flags=re.M)
    rows = {name: (ap, gflops) for name, ap, gflops in stated_there}
    columns = ("deformable_detr", "r50_50ep"), ("h_detr", "r50_36ep"), ("dino", "r50_36ep")
    page = (ROOT / "docs" / "choosing.md").read_text()
    table = re.findall(r"^\| (?:`(h\dl\d_a\db\d)`|none named) \|[^|]*\|(.*)\|$", page, flags=re.M)
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
