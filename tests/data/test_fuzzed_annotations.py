"""Mutated annotation files are used, repaired and said, or refused; and the fuzzer sees where they are not."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lite_detr_d2.data.normalise import boxes
from lite_detr_d2.data.normalise.annotations import _Cleaner
from tests.projects.scripts import TOOLS

Fit = Callable[..., Any]


@pytest.fixture
def fuzzer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(TOOLS))
    import fuzz_annotations  # noqa: PLC0415

    yield fuzz_annotations
    for name in ("fuzz_annotations", "annotation_mutations", "harmless_mutations"):
        del sys.modules[name]


def test_nothing_is_lost_without_a_word(fuzzer: Any) -> None:
    shares, wrong = fuzzer.fuzz(500, seed=1)
    assert wrong == []
    assert shares.total() == 500
    assert shares["harmless, used"] > 500 / 4
    assert all(shares[outcome] > 5 for outcome in ("used", "repaired and said", "refused")), shares


def lose_box(real: Fit) -> Fit:
    return lambda box, *others: (None, None) if box[0] == 3 else real(box, *others)


def move_box(real: Fit) -> Fit:
    return lambda box, *others: ([box[0], box[1], box[2] - 1, box[3]], None)


def raise_error(real: Fit) -> Fit:
    return lambda box, *others: real(None, *others)


@pytest.mark.parametrize(
    ("fault", "words"), [(lose_box, "lost"), (move_box, "bbox"), (raise_error, "not subscriptable")]
)
def test_the_fuzzer_sees_faults(
    fuzzer: Any, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Fit], Fit], words: str
) -> None:
    monkeypatch.setattr(boxes, "fitted", fault(boxes.fitted))
    shares, wrong = fuzzer.fuzz(40, seed=2)
    assert shares["wrong"] > 10
    assert any(words in line for line in wrong)


def test_the_fuzzer_sees_a_mask_that_is_lost(fuzzer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Cleaner, "_check_fields", lambda self, record, place: record.pop("segmentation", None))
    _, wrong = fuzzer.fuzz(40, seed=2)
    assert any("other ['segmentation']" in line for line in wrong)
