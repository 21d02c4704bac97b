"""How many boxes each class has."""

from lite_detr_d2.data.inspection.classes import class_findings

from .datasets import places, table


def boxes(*counts: int) -> list[tuple[int, ...]]:
    return [(0, kind, 1, 1, 8, 8) for kind, count in enumerate(counts) for _ in range(count)]


def test_the_balance_of_classes() -> None:
    findings = list(class_findings(table("train", boxes=boxes(12, 36, 12))))
    assert places(findings) == {("train", "class-balance"): ("cat 36 (60.0 %)", "ant 12 (20.0 %)", "dog 12 (20.0 %)")}


def test_classes_that_are_too_rare_to_learn() -> None:
    """Few boxes, or few beside those of another class; but none at all is said elsewhere."""
    few = places(list(class_findings(table("train", boxes=boxes(9, 10, 0)))))
    assert few["train", "class-rare"] == ("ant (9)",)
    assert few["train", "class-balance"] == ("cat 10 (52.6 %)", "ant 9 (47.4 %)", "dog 0 (0.0 %)")
    beside = places(list(class_findings(table("train", boxes=boxes(11, 10_999, 10)))))
    assert beside["train", "class-rare"] == ("dog (10)",)


def test_what_is_evaluated_on_may_be_rare() -> None:
    assert ("val", "class-rare") not in places(list(class_findings(table("val", boxes=boxes(1, 10_000)))))


def test_no_boxes_have_no_balance() -> None:
    assert list(class_findings(table("val"))) == []
