"""Bad arguments: each error names the argument, from Python and from C++."""

import pytest
import torch

from lite_detr_d2.ops import key_aware_deform_attn, ms_deform_attn
from lite_detr_d2.ops.deform_attn import compiled_ops_status

COMPILED, _ = compiled_ops_status()
needs_compiled_ops = pytest.mark.skipif(not COMPILED, reason="LITE_DETR_PURE_TORCH=1")
# PyTorch passes on the type of a kernel's error up to 2.14, and makes it a RuntimeError from 2.15 on.
REFUSED = ValueError if torch.__version__ < (2, 15) else RuntimeError
Arguments = dict[str, object]


def arguments() -> Arguments:
    """N 2, S 6, M 2, D 4, Q 3, L 1, P 2."""
    return {
        "query": torch.rand(2, 3, 2, 4),
        "value": torch.rand(2, 6, 2, 4),
        "spatial_shapes": ((2, 3),),
        "reference_points": torch.rand(2, 3, 1, 2),
        "sampling_offsets": torch.rand(2, 3, 2, 1, 2, 2),
        "attention_logits": torch.rand(2, 3, 2, 2),
        "key": torch.rand(2, 6, 2, 4),
    }


def pick(values: Arguments, *names: str) -> Arguments:
    return {name: values[name] for name in names}


def call_ms_deform_attn(values: Arguments) -> object:
    names = ("value", "spatial_shapes", "reference_points", "sampling_offsets", "attention_logits")
    return ms_deform_attn(**pick(values, *names))  # type: ignore[arg-type]


def call_key_aware(values: Arguments) -> object:
    names = ("query", "value", "spatial_shapes", "reference_points", "sampling_offsets", "key")
    return key_aware_deform_attn(**pick(values, *names))  # type: ignore[arg-type]


def flat(values: Arguments) -> list[int]:
    return [side for shape in values["spatial_shapes"] for side in shape]  # type: ignore[attr-defined]


def dispatch_ms_deform_attn(values: Arguments) -> object:
    rest = pick(values, "reference_points", "sampling_offsets", "attention_logits").values()
    return torch.ops.lite_detr.ms_deform_attn(values["value"], flat(values), *rest)


def dispatch_key_aware(values: Arguments) -> object:
    rest = pick(values, "reference_points", "sampling_offsets", "key").values()
    return torch.ops.lite_detr.key_aware_deform_attn(values["query"], values["value"], flat(values), *rest)


SAMPLING: list[tuple[str, object]] = [
    ("value", torch.rand(2, 6, 8)),
    ("value", torch.rand(2, 6, 2, 0)),
    ("value", torch.zeros(2, 6, 2, 4, dtype=torch.int64)),
    ("value", torch.rand(2, 6, 2, 4).to(torch.complex64)),
    ("spatial_shapes", ()),
    ("spatial_shapes", ((2, 4),)),
    ("spatial_shapes", ((2, 2),)),
    ("spatial_shapes", ((-2, -3),)),
    ("spatial_shapes", ((0, 3), (2, 3))),
    ("spatial_shapes", ((2**40, 2**40),)),
    ("spatial_shapes", ((2, 3, 1),)),
    ("reference_points", torch.rand(2, 3, 1, 3)),
    ("reference_points", torch.rand(2, 3, 2)),
    ("reference_points", torch.rand(2, 4, 1, 2)),
    ("reference_points", torch.rand(2, 3, 2, 2)),
    ("reference_points", torch.zeros(2, 3, 1, 2, dtype=torch.int64)),
    ("reference_points", torch.rand(2, 3, 1, 2, device="meta")),
    ("sampling_offsets", torch.rand(2, 3, 2, 1, 4)),
    ("sampling_offsets", torch.rand(2, 3, 2, 1, 0, 2)),
    ("sampling_offsets", torch.rand(2, 3, 1, 1, 2, 2)),
    ("sampling_offsets", torch.rand(1, 3, 2, 1, 2, 2)),
    ("sampling_offsets", torch.rand(2, 3, 2, 2, 2, 2)),
    ("sampling_offsets", torch.zeros(2, 3, 2, 1, 2, 2, dtype=torch.int64)),
    ("sampling_offsets", torch.rand(2, 3, 2, 1, 2, 2, device="meta")),
]
# The dispatcher's schema refuses these by itself.
NOT_SIZES: list[tuple[str, object]] = [
    ("spatial_shapes", (2, 3)),
    ("spatial_shapes", ((2.5, 2.4),)),
    ("spatial_shapes", ((None, 3),)),
]
LOGITS: list[tuple[str, object]] = [
    ("attention_logits", torch.rand(2, 3, 2, 1, 2)),
    ("attention_logits", torch.rand(2, 3, 2, 3)),
    ("attention_logits", torch.zeros(2, 3, 2, 2, dtype=torch.int64)),
    ("attention_logits", torch.rand(2, 3, 2, 2, device="meta")),
]
KEYS: list[tuple[str, object]] = [
    ("query", torch.rand(2, 4, 2, 4)),
    ("query", torch.rand(2, 3, 8)),
    ("query", torch.rand(2, 3, 2, 4, dtype=torch.float64)),
    ("query", torch.rand(2, 3, 2, 4, dtype=torch.bfloat16)),
    ("query", torch.rand(2, 3, 2, 4, device="meta")),
    ("key", torch.rand(2, 5, 2, 4)),
    ("key", torch.rand(2, 6, 2, 4, dtype=torch.float64)),
    ("key", torch.rand(2, 6, 2, 4, dtype=torch.float16)),
    ("key", torch.rand(2, 6, 2, 4, device="meta")),
]


def ids(cases: list[tuple[str, object]]) -> list[str]:
    described = [f"{tuple(v.shape)}, {v.dtype}, {v.device}" if isinstance(v, torch.Tensor) else v for _, v in cases]
    return [f"{name}-{value}" for (name, _), value in zip(cases, described, strict=True)]


@pytest.mark.parametrize(("name", "bad"), SAMPLING + NOT_SIZES + LOGITS, ids=ids(SAMPLING + NOT_SIZES + LOGITS))
def test_ms_deform_attn_names_the_argument(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        call_ms_deform_attn({**arguments(), name: bad})


@pytest.mark.parametrize(("name", "bad"), SAMPLING + NOT_SIZES + KEYS, ids=ids(SAMPLING + NOT_SIZES + KEYS))
def test_key_aware_deform_attn_names_the_argument(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        call_key_aware({**arguments(), name: bad})


# --- The dispatcher ops, which others may call: they trust nothing.


def without_meta(cases: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """Torch itself refuses tensors on two devices, before the kernel sees them."""
    return [(name, bad) for name, bad in cases if not (isinstance(bad, torch.Tensor) and bad.is_meta)]


# The public functions convert these.
OTHER_TYPES = [
    (name, tensor.to(dtype))
    for name, tensor in arguments().items()
    if name in ("reference_points", "sampling_offsets") and isinstance(tensor, torch.Tensor)
    for dtype in (torch.float64, torch.bfloat16, torch.float16)
]
WITHOUT_KEYS = without_meta([*SAMPLING, *OTHER_TYPES, *LOGITS, ("attention_logits", torch.rand(2, 3, 2, 2).half())])
WITH_KEYS = without_meta([*SAMPLING, *OTHER_TYPES, *KEYS])


@needs_compiled_ops
@pytest.mark.parametrize(("name", "bad"), WITHOUT_KEYS, ids=ids(WITHOUT_KEYS))
def test_ms_deform_attn_kernel_names_the_argument(name: str, bad: object) -> None:
    with pytest.raises(REFUSED, match=f"^{name}: "):
        dispatch_ms_deform_attn({**arguments(), name: bad})


@needs_compiled_ops
@pytest.mark.parametrize(("name", "bad"), WITH_KEYS, ids=ids(WITH_KEYS))
def test_key_aware_kernel_names_the_argument(name: str, bad: object) -> None:
    with pytest.raises(REFUSED, match=f"^{name}: "):
        dispatch_key_aware({**arguments(), name: bad})


# What is right for one type of value is wrong for another: locations are float32, or float64 for a float64 value.
@needs_compiled_ops
@pytest.mark.parametrize(
    ("values", "locations"),
    [
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.float64),
        (torch.float64, torch.float32),
    ],
)
@pytest.mark.parametrize("name", ["reference_points", "sampling_offsets", "attention_logits"])
def test_kernel_names_the_type_that_does_not_fit_the_value(
    name: str, values: torch.dtype, locations: torch.dtype
) -> None:
    computed_in = torch.float64 if values == torch.float64 else torch.float32
    cast = {n: t.to(computed_in) for n, t in arguments().items() if isinstance(t, torch.Tensor)}
    cast.update({n: cast[n].to(values) for n in ("query", "value", "key")})
    given = {**arguments(), **cast, name: cast[name].to(locations)}
    with pytest.raises(REFUSED, match=f"^{name}: expected dtype .* for a value of "):
        dispatch_ms_deform_attn(given)
    if name != "attention_logits":
        with pytest.raises(REFUSED, match=f"^{name}: expected dtype .* for a value of "):
            dispatch_key_aware(given)


BACKWARD: list[tuple[str, object]] = [
    ("grad_output", torch.rand(2, 3, 9)),
    ("grad_output", torch.rand(2, 3, 2, 4)),
    ("grad_output", torch.rand(2, 3, 8).double()),
    ("grad_output", torch.rand(2, 3, 8).bfloat16()),
    ("output_mask", []),
    ("output_mask", [True] * 3),
    ("output_mask", [True] * 6),
]


def backward_arguments(name: str, bad: object, outputs: int) -> Arguments:
    return {**arguments(), "grad_output": torch.rand(2, 3, 8), "output_mask": [True] * outputs, name: bad}


def dispatch_ms_deform_attn_backward(values: Arguments) -> object:
    rest = pick(values, "reference_points", "sampling_offsets", "attention_logits", "output_mask").values()
    backward = torch.ops.lite_detr.ms_deform_attn_backward
    return backward(values["grad_output"], values["value"], flat(values), *rest)


def dispatch_key_aware_backward(values: Arguments) -> object:
    rest = pick(values, "reference_points", "sampling_offsets", "key", "output_mask").values()
    backward = torch.ops.lite_detr.key_aware_deform_attn_backward
    return backward(values["grad_output"], values["query"], values["value"], flat(values), *rest)


# Backward is an op of its own: it checks all that forward does.
@needs_compiled_ops
@pytest.mark.parametrize(("name", "bad"), BACKWARD + WITHOUT_KEYS, ids=ids(BACKWARD + WITHOUT_KEYS))
def test_ms_deform_attn_backward_kernel_names_the_argument(name: str, bad: object) -> None:
    with pytest.raises(REFUSED, match=f"^{name}: "):
        dispatch_ms_deform_attn_backward(backward_arguments(name, bad, outputs=4))


@needs_compiled_ops
@pytest.mark.parametrize(("name", "bad"), BACKWARD + WITH_KEYS, ids=ids(BACKWARD + WITH_KEYS))
def test_key_aware_backward_kernel_names_the_argument(name: str, bad: object) -> None:
    with pytest.raises(REFUSED, match=f"^{name}: "):
        dispatch_key_aware_backward(backward_arguments(name, bad, outputs=5))


def test_good_arguments_pass_every_check() -> None:
    for call in (call_ms_deform_attn, call_key_aware):
        assert isinstance(output := call(arguments()), torch.Tensor) and output.shape == (2, 3, 8)


@needs_compiled_ops
def test_good_arguments_pass_every_check_of_the_kernels() -> None:
    values = backward_arguments("output_mask", [True] * 4, outputs=4)
    for call in (dispatch_ms_deform_attn, dispatch_key_aware):
        assert isinstance(output := call(values), torch.Tensor) and output.shape == (2, 3, 8)
    assert len(dispatch_ms_deform_attn_backward(values)) == 4  # type: ignore[arg-type]
    assert len(dispatch_key_aware_backward({**values, "output_mask": [True] * 5})) == 5  # type: ignore[arg-type]
