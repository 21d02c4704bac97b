"""The categories of all halves become one list; what is no class is none."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from lite_detr_d2.data.normalise import Normalised

from ..folders import coco_content, write_images
from ..halves import Content, found, normalised, places

Categories = list[dict[str, Any]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", coco_content())
    return tmp_path


def content(categories: Categories | None = None, used: tuple[Any, ...] = (1, 3, 7)) -> Content:
    """A half with these categories, whose boxes take turns in those that are used."""
    half = coco_content()
    if categories is not None:
        half["categories"] = categories
    for number, box in enumerate(half["annotations"]):
        box["category_id"] = used[number % len(used)]
    return half


def listed(outcome: Normalised) -> list[tuple[int, str]]:
    halves = [[(c["id"], c["name"]) for c in half.content["categories"]] for half in outcome.halves.values()]
    assert all(half == halves[0] for half in halves)
    return halves[0]


def categories(*named: tuple[Any, Any, Any]) -> Categories:
    return [
        {"id": identifier, "name": name, **({} if above is ... else {"supercategory": above})}
        for identifier, name, above in named
    ]


ROOTS: dict[str, tuple[Categories, tuple[int, ...], list[str]]] = {
    "Roboflow's": (
        categories((0, "things", "none"), (1, "ant", "things"), (2, "cat", "things")),
        (1, 2),
        ["ant", "cat"],
    ),
    "called as a class": (
        categories((0, "ant", "none"), (1, "ant", "ant"), (2, "cat", "ant")),
        (1, 2),
        ["ant", "cat"],
    ),
    "called as the only class": (categories((0, "ant", "none"), (1, "ant", "ant")), (1,), ["ant"]),
    "of some only": (categories((0, "things", ""), (1, "ant", "things"), (2, "cat", "none")), (1, 2), ["ant", "cat"]),
    "two": (
        categories((0, "things", None), (1, "ant", "things"), (2, "more", None), (3, "cat", "more")),
        (1, 3),
        ["ant", "cat"],
    ),
    "without the key": (
        categories((9, "things", ...), (1, "ant", "things"), (2, "cat", "things")),
        (1, 2),
        ["ant", "cat"],
    ),
    "in blanks": (categories((0, "things ", "none"), (1, "ant", "things")), (1,), ["ant"]),
}
CLASSES: dict[str, tuple[Categories, tuple[int, ...], list[str]]] = {
    "a root that is used": (
        categories((0, "things", "none"), (1, "ant", "things")),
        (0, 1),
        ["things", "ant"],
    ),
    "without children": (categories((0, "things", "none"), (1, "ant", "none")), (1,), ["things", "ant"]),
    "that name themselves": (categories((1, "ant", "ant"), (2, "cat", "cat")), (1,), ["ant", "cat"]),
    "unused ones of COCO": (categories((1, "car", "vehicle"), (2, "bus", "vehicle")), (1,), ["car", "bus"]),
    "called none": (categories((1, "none", "none"), (2, "ant", "none")), (2,), ["none", "ant"]),
    "between others": (
        categories((1, "animal", "things"), (2, "ant", "animal"), (3, "cat", "things")),
        (2, 3),
        ["animal", "ant", "cat"],
    ),
    "with supercategories of other types": (
        categories((1, "ant", ["none"]), (2, "cat", {"a": 1}), (3, "dog", 5)),
        (1, 2, 3),
        ["ant", "cat", "dog"],
    ),
}


@pytest.mark.parametrize(("given", "used", "classes"), ROOTS.values(), ids=ROOTS)
def test_a_root_is_no_class(root: Path, given: Categories, used: tuple[int, ...], classes: list[str]) -> None:
    outcome = normalised(root, train=content(given, used), val=content(given, used))
    assert [name for _, name in listed(outcome)] == classes
    (root_finding,) = (finding for finding in outcome.report.findings if finding.id == "category-root")
    assert root_finding.severity == "INFO"
    assert "category-root" not in found(outcome)
    assert not outcome.report.errors
    assert {box["category_id"] for box in outcome.halves["train"].content["annotations"]} == set(used)


@pytest.mark.parametrize(("given", "used", "classes"), CLASSES.values(), ids=CLASSES)
def test_a_class_is_one(root: Path, given: Categories, used: tuple[int, ...], classes: list[str]) -> None:
    outcome = normalised(root, train=content(given, used), val=content(given, used))
    assert [name for _, name in listed(outcome)] == classes
    assert found(outcome) <= {"class-untrained"}


def test_a_root_that_one_half_uses_is_a_class(root: Path) -> None:
    given = categories((0, "things", "none"), (1, "ant", "things"))
    outcome = normalised(root, train=content(given, (1,)), val=content(given, (0, 1)))
    assert listed(outcome) == [(0, "things"), (1, "ant")]
    assert places(outcome, "class-untrained") == ("things",)


@pytest.mark.parametrize("lacking", ["train", "val"])
def test_a_half_may_list_some_only(root: Path, lacking: str) -> None:
    halves = {"train": content(), "val": content()}
    halves[lacking] = content([c for c in halves[lacking]["categories"] if c["name"] != "dog"], (1, 3))
    outcome = normalised(root, **halves)
    assert listed(outcome) == [(1, "ant"), (3, "cat"), (7, "dog")]
    assert places(outcome, "category-unlisted", lacking) == ("7: dog",)
    assert found(outcome) == ({"class-untrained"} if lacking == "train" else set())


def test_classes_without_a_box_to_train_on_are_said(root: Path) -> None:
    outcome = normalised(root, train=content(used=(1, 3)), val=content(used=(1, 3)))
    (warning,) = outcome.report.lines(outcome.report.findings[0].severity)
    assert warning == "train: classes without an annotation to train on: dog"
    assert places(outcome, "class-unscored") == ("dog",)


def test_a_class_of_crowds_only_is_not_trained(root: Path) -> None:
    half = content()
    for box in half["annotations"]:
        box["iscrowd"] = int(box["category_id"] == 7)
    outcome = normalised(root, train=half, val=content())
    assert places(outcome, "class-untrained") == ("dog",)


@pytest.mark.parametrize(
    ("val", "used", "said"),
    [
        (categories((1, "ant", ...), (3, "lion", ...), (7, "dog", ...)), (1,), "id 3 has the names 'cat', 'lion'"),
        (categories((1, "ant", ...), (4, "cat", ...), (7, "dog", ...)), (4,), "name 'cat' has the ids 3, 4"),
        (categories((1, "ant", ...), (1, "bee", ...), (3, "cat", ...), (7, "dog", ...)), (1,), "id 1 has the names"),
        (
            categories((1, "ant", ...), (2, "ant", ...), (3, "cat", ...), (7, "dog", ...)),
            (1, 2),
            "name 'ant' has the ids",
        ),
        (categories((1, "ant", ...), (2, "ant ", ...), (3, "cat", ...)), (1, 2), "name 'ant' has the ids"),
    ],
)
def test_contradictions_are_errors(root: Path, val: Categories, used: tuple[int, ...], said: str) -> None:
    outcome = normalised(root, train=content(), val=content(val, used))
    (error,) = outcome.report.errors
    assert said in error.text()
    assert not error.droppable


def test_of_two_of_one_name_the_one_that_is_used_stays(root: Path) -> None:
    given = categories((1, "ant", ...), (3, "cat", ...), (4, "cat", ...), (7, "dog", ...))
    outcome = normalised(root, train=content(given, (1, 4, 7)), val=content(given, (1, 4, 7)))
    assert listed(outcome) == [(1, "ant"), (4, "cat"), (7, "dog")]
    assert places(outcome, "category-twice") == ("3: cat",)


def test_of_two_of_one_name_that_are_not_used_one_stays(root: Path) -> None:
    given = categories((1, "ant", ...), (3, "cat", ...), (4, "cat", ...))
    outcome = normalised(root, train=content(given, (1,)), val=content(given, (1,)))
    assert listed(outcome) == [(1, "ant"), (3, "cat")]


def test_one_that_is_listed_twice_is_listed_once(root: Path) -> None:
    given = content()["categories"]
    outcome = normalised(root, train=content([*given, given[0]]), val=content())
    assert len(listed(outcome)) == 3
    assert places(outcome, "category-twice", "train") == ("3: cat",)


@pytest.mark.parametrize("identifier", ["3", 3.0, "03", " 3"])
@pytest.mark.parametrize("reference", [3, 3.0, "3"])
def test_ids_of_other_types_are_converted(root: Path, identifier: Any, reference: Any) -> None:
    half = content(categories((1, "ant", ...), (identifier, "cat", ...), (7, "dog", ...)), (1, reference, 7))
    outcome = normalised(root, train=half, val=content())
    assert listed(outcome) == [(1, "ant"), (3, "cat"), (7, "dog")]
    assert not outcome.report.errors
    assert len(outcome.halves["train"].content["annotations"]) == 8


def test_ids_that_are_words_or_huge_get_numbers(root: Path) -> None:
    half = content(categories(("a", "ant", ...), (2**60, "cat", ...), (7, "dog", ...)), ("a", 2**60, 7))
    outcome = normalised(root, train=half, val=half)
    assert listed(outcome) == [(7, "dog"), (8, "ant"), (9, "cat")]
    names = [dict(listed(outcome))[box["category_id"]] for box in outcome.halves["val"].content["annotations"]]
    assert names == ["ant", "cat", "dog", "ant", "cat", "dog", "ant", "cat"]


@pytest.mark.parametrize("value", [None, "", "  ", [], {}, ["ant"]])
def test_one_without_a_name_is_an_error(root: Path, value: Any) -> None:
    outcome = normalised(
        root, train=content(categories((1, value, ...), (3, "cat", ...), (7, "dog", ...))), val=content()
    )
    assert places(outcome, "category-unusable") == ("categories[0]",)


@pytest.mark.parametrize("value", [None, True, float("nan"), float("inf"), 1.5, [1], {}])
def test_one_without_an_id_is_an_error(root: Path, value: Any) -> None:
    outcome = normalised(
        root, train=content(categories((value, "ant", ...), (3, "cat", ...), (7, "dog", ...))), val=content()
    )
    assert places(outcome, "category-unusable") == ("categories[0]",)


def test_true_hides_no_class(root: Path) -> None:
    given = categories((1, "things", "none"), (3, "cat", "things"), (7, "dog", "things"))
    half = content(given, (True, 1, 3, 7))
    outcome = normalised(root, train=half, val=content(given, (3, 7)))
    assert (1, "things") in listed(outcome)


def test_names_are_put_in_order(root: Path) -> None:
    train, val = (
        content(categories((1, name, ...), (3, "cat\n", ...), (7, 5, ...)))
        for name in (unicodedata.normalize("NFD", "Käfer"), "Käfer")
    )
    outcome = normalised(root, train=train, val=val)
    assert listed(outcome) == [(1, "Käfer"), (3, "cat"), (7, "5")]
    assert places(outcome, "category-name", "train") == ("1: Käfer", "3: cat")
    assert places(outcome, "category-type", "train") == ("7: 5",)


def test_half_a_character_keeps_no_one_from_writing(root: Path) -> None:
    half = content(categories((1, "a\ud800", ...), (3, "cat", ...), (7, "dog", ...)))
    assert listed(normalised(root, train=half, val=half))[0] == (1, "a?")


def test_there_must_be_some(root: Path) -> None:
    outcome = normalised(root, train=content([]), val=content([]))
    assert {error.id for error in outcome.report.errors} >= {"no-categories", "annotation-without-category"}
