"""Bad arguments: each error names the argument, from Python and from C++."""

from collections.abc import Callable

import pytest
import torch

from lite_detr_d2.ops import key_aware_deform_attn, ms_deform_attn
from lite_detr_d2.ops.deform_attn import compiled_ops_status

COMPILED, _ = compiled_ops_status()
needs_compiled_ops = pytest.mark.skipif(not COMPILED, reason="LITE_DETR_PURE_TORCH=1")
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


SAMPLING = [
    ("value", torch.rand(2, 6, 8)),
    ("value", torch.zeros(2, 6, 2, 4, dtype=torch.int64)),
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
    ("reference_points", torch.rand(2, 3, 1, 2, device="meta")),
    ("sampling_offsets", torch.rand(2, 3, 2, 1, 4)),
    ("sampling_offsets", torch.rand(2, 3, 2, 1, 0, 2)),
    ("sampling_offsets", torch.rand(2, 3, 1, 1, 2, 2)),
    ("sampling_offsets", torch.rand(1, 3, 2, 1, 2, 2)),
    ("sampling_offsets", torch.rand(2, 3, 2, 2, 2, 2)),
]
LOGITS = [("attention_logits", torch.rand(2, 3, 2, 1, 2)), ("attention_logits", torch.rand(2, 3, 2, 3))]
KEYS = [
    ("query", torch.rand(2, 4, 2, 4)),
    ("query", torch.rand(2, 3, 8)),
    ("query", torch.rand(2, 3, 2, 4, dtype=torch.float64)),
    ("key", torch.rand(2, 5, 2, 4)),
    ("key", torch.rand(2, 6, 2, 4, dtype=torch.float64)),
]


def ids(cases: list[tuple[str, object]]) -> list[str]:
    return [f"{name}-{tuple(v.shape) if isinstance(v, torch.Tensor) else v}" for name, v in cases]


@pytest.mark.parametrize(("name", "bad"), SAMPLING + LOGITS, ids=ids(SAMPLING + LOGITS))
def test_ms_deform_attn_names_the_argument(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        call_ms_deform_attn({**arguments(), name: bad})


@pytest.mark.parametrize(("name", "bad"), SAMPLING + KEYS, ids=ids(SAMPLING + KEYS))
def test_key_aware_deform_attn_names_the_argument(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        call_key_aware({**arguments(), name: bad})


# torch itself refuses tensors on two devices, before the kernel sees them.
IN_CPP = [(name, bad) for name, bad in SAMPLING if not (isinstance(bad, torch.Tensor) and bad.is_meta)]
IN_CPP += [("reference_points", torch.rand(2, 3, 1, 2).double()), ("value", torch.rand(2, 6, 2, 4).bfloat16())]


def check_kernel(call: Callable[[Arguments], object], name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        call({**arguments(), name: bad})


@needs_compiled_ops
@pytest.mark.parametrize(("name", "bad"), IN_CPP + LOGITS, ids=ids(IN_CPP + LOGITS))
def test_ms_deform_attn_kernel_names_the_argument(name: str, bad: object) -> None:
    check_kernel(dispatch_ms_deform_attn, name, bad)


@needs_compiled_ops
@pytest.mark.parametrize(("name", "bad"), IN_CPP + KEYS, ids=ids(IN_CPP + KEYS))
def test_key_aware_kernel_names_the_argument(name: str, bad: object) -> None:
    check_kernel(dispatch_key_aware, name, bad)


@needs_compiled_ops
def test_backward_kernels_name_the_gradient() -> None:
    values, bad = arguments(), torch.rand(2, 3, 9)
    where = (flat(values), *pick(values, "reference_points", "sampling_offsets").values())
    with pytest.raises(ValueError, match="^grad_output: expected shape"):
        torch.ops.lite_detr.ms_deform_attn_backward(bad, values["value"], *where, values["attention_logits"], False)
    with pytest.raises(ValueError, match="^grad_output: expected shape"):
        torch.ops.lite_detr.key_aware_deform_attn_backward(bad, values["query"], values["value"], *where, None, False)
