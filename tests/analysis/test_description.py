"""Two models' costs side by side."""

from lite_detr_d2.analysis import Cost, compare

PARTS = {"backbone": 70e9, "neck": 4e9, "encoder": 138e9, "query_selection": 2e9, "decoder": 19e9}


def test_each_part_and_its_ratio() -> None:
    plain = Cost(parameters=40_000_000, multiply_adds=234e9, parts=PARTS)
    lite = Cost(parameters=42_000_000, multiply_adds=151e9, parts={**PARTS, "encoder": 55.2e9, "neck": 3.8e9})
    _, _, *lines = compare(plain, lite, ("plain", "lite")).splitlines()
    assert [line.split() for line in lines] == [
        ["backbone", "(GFLOPs)", "70.000", "70.000", "100.0%"],
        ["encoder", "(GFLOPs)", "138.000", "55.200", "40.0%"],
        ["decoder", "(GFLOPs)", "19.000", "19.000", "100.0%"],
        ["rest", "(GFLOPs)", "7.000", "6.800", "97.1%"],  # neck, query selection, and 1.0 outside of all parts
        ["total", "(GFLOPs)", "234.000", "151.000", "64.5%"],
        ["parameters", "(M)", "40.000", "42.000", "105.0%"],
    ]


def test_names_are_the_header_and_a_part_of_nothing_has_no_ratio() -> None:
    none = Cost(parameters=1, multiply_adds=0, parts=dict.fromkeys(PARTS, 0.0))
    header, _, backbone, *_ = compare(none, none, ("3", "4")).splitlines()
    assert header.split() == ["3", "4", "ratio"]
    assert backbone.split()[-1] == "-"
