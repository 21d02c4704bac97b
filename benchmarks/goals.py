"""The project's goals for the ops, and whether they are met."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common import Summary, summary, table
from results import Cell, Results, Variant

MB = 1e6
ALL_TOKENS = 17821
# Times of the baseline over ours: the goal, and where there is one the stretch goal. One thread, float32, one image.
CPU_GOALS: dict[tuple[str, str], dict[int, tuple[float, float | None]]] = {
    ("msda", "forward"): {ALL_TOKENS: (25, 45), 4421: (14, None), 900: (6, None), 300: (6, None)},
    ("msda", "backward"): {ALL_TOKENS: (15, 25), 4421: (10, None), 900: (6, None), 300: (6, None)},
    ("kda-shared", "forward"): {ALL_TOKENS: (40, 60), 4421: (28, None), 900: (14, None), 300: (14, None)},
    ("kda-shared", "backward"): {ALL_TOKENS: (20, 32), 4421: (14, None), 900: (8, None), 300: (8, None)},
    ("kda-two", "forward"): {ALL_TOKENS: (20, 40), 4421: (12, None), 900: (8, None), 300: (6, None)},
    ("kda-two", "backward"): {ALL_TOKENS: (13, 22), 4421: (9, None), 900: (6, None), 300: (6, None)},
}
CPU_OVER_TORCH_MS_DEFORM_ATTN = 4
CPU_TWO_THREADS = 1.7
CPU_MEGABYTES_OF_KDA = 120
# All tokens as queries, 2 and 16 images.
CUDA_OVER_CLASSIC = {"forward": 1.4, "backward": 1.3}
CUDA_KDA_OVER_MSDA = 1.3
CUDA_KDA_OVER_BASELINE = 10
CUDA_BFLOAT16 = 1.5


@dataclass(frozen=True)
class Check:
    """A goal and what was measured."""

    title: str
    measured: Summary
    goal: float
    stretch: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self._reaches(self.goal)

    def verdict(self) -> str:
        if not self.met:
            return "**missed**"
        return "met, and the stretch goal" if self.stretch and self._reaches(self.stretch) else "met"

    def row(self) -> list[str]:
        goal = f"{'<=' if self.at_most else '>='} {self.goal:g}"
        stretch = f" (stretch {self.stretch:g})" if self.stretch else ""
        return [self.title, goal + stretch, self.measured.text(), self.verdict()]

    def as_json(self) -> dict[str, Any]:
        return {"title": self.title, "measured": self.measured.median, "goal": self.goal, "met": self.met}

    def _reaches(self, limit: float) -> bool:
        return self.measured.median <= limit if self.at_most else self.measured.median >= limit


def goals_table(checks: list[Check]) -> str:
    return table(["", "goal", "measured", ""], [check.row() for check in checks])


def cpu_checks(results: Results) -> Iterator[Check]:
    """Every goal for the CPU whose measurements are there."""
    ours = Variant("ours")
    for (case, which), by_size in CPU_GOALS.items():
        for queries, (goal, stretch) in by_size.items():
            cell = Cell(case, which, queries, 1)
            over_baseline = results.ratio(cell, Variant("baseline"), ours)
            over_rival = results.ratio(cell, Variant("torch-ms-deform-attn"), ours)
            two_threads = results.ratio(cell, ours, Variant("ours", threads=2))
            yield from _check(f"{cell.title()}: baseline / ours", over_baseline, goal, stretch)
            yield from _check(f"{cell.title()}: torch-ms-deform-attn / ours", over_rival, CPU_OVER_TORCH_MS_DEFORM_ATTN)
            yield from _check(f"{cell.title()}: 1 thread / 2 threads", two_threads, CPU_TWO_THREADS)
    for cell, peaks in results.peaks.items():
        if cell.case != "msda" and (cell.queries, cell.images) == (ALL_TOKENS, 1) and ours in peaks:
            megabytes = summary([peaks[ours] / MB])
            yield Check(f"{cell.title()}: MB of extra memory", megabytes, CPU_MEGABYTES_OF_KDA, at_most=True)


def cuda_checks(results: Results) -> Iterator[Check]:
    """Every goal for CUDA whose measurements are there."""
    ours = Variant("ours")
    for cell in results.times:
        if cell.queries != ALL_TOKENS or cell.images not in (2, 16):
            continue
        if cell.case == "msda":
            over_classic = results.ratio(cell, Variant("classic"), ours)
            yield from _check(f"{cell.title()}: classic / ours", over_classic, CUDA_OVER_CLASSIC[cell.which])
        else:
            over_baseline = results.ratio(cell, Variant("baseline"), ours)
            yield from _check(f"{cell.title()}: baseline / ours", over_baseline, CUDA_KDA_OVER_BASELINE)
        if cell.case == "kda-shared":
            over_msda = results.over_msda(cell, ours)
            yield from _check(f"{cell.title()}: KDA / MSDA", over_msda, CUDA_KDA_OVER_MSDA, at_most=True)
        gain = results.ratio(cell, ours, Variant("ours", dtype="bfloat16"))
        yield from _check(f"{cell.title()}: float32 / bfloat16", gain, CUDA_BFLOAT16)


def _check(
    title: str, measured: Summary | None, goal: float, stretch: float | None = None, at_most: bool = False
) -> Iterator[Check]:
    if measured is not None:
        yield Check(title, measured, goal, stretch, at_most)
