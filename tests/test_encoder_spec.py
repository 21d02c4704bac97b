import pytest

from lite_detr_d2.encoder_spec import EncoderSpec


@pytest.mark.parametrize("text", ["H3L1-(2+1)x3", "H2L2-(6+1)x1", "H1L3-(1+1)x6", "H12L3-(10+1)x11"])
def test_parsing_and_printing_are_inverse(text: str) -> None:
    assert str(EncoderSpec.parse(text)) == text


def test_parts() -> None:
    assert EncoderSpec.parse("H3L1-(6+1)x2") == EncoderSpec(high_levels=3, low_levels=1, refinements=6, blocks=2)
    assert EncoderSpec.parse("H3L2-(6+1)x2").num_levels == 5


@pytest.mark.parametrize(
    "text", ["", "H3L1", "h3l1-(2+1)x3", "H3L1-(2+2)x3", "H3L1-(2+1)x", "H0L4-(2+1)x3", "H4L0-(2+1)x3", "H3L1-(0+1)x3"]
)
def test_bad_specs_are_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not an encoder spec") as error:
        EncoderSpec.parse(text)
    assert repr(text) in str(error.value)


def test_schedules() -> None:
    spec = EncoderSpec.parse("H3L1-(3+1)x2")
    assert spec.block_schedule("joint") == ("high", "high", "all")
    assert spec.block_schedule("sequential") == ("high", "high", "high", "low")
    assert EncoderSpec.parse("H3L1-(1+1)x2").block_schedule("joint") == ("all",)
    with pytest.raises(ValueError, match="'parallel'"):
        spec.block_schedule("parallel")
