"""The tables that ops.py prints."""

from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import product

from cases import CASES, PASSES
from common import Summary, table
from goals import MB
from results import Results, Variant, cells_of
from rivals import IMPLEMENTATIONS

MS = 1e-3
Row = tuple[Sequence[str], Sequence[Summary | None]]
"""Labels, and a measurement for each size."""


class Report:
    """Markdown sections, a heading and a table each. Rows and sections without measurements are left out."""

    def __init__(self, options: Namespace, results: Results) -> None:
        self.options, self.results = options, results

    def sections(self) -> Iterator[str]:
        options = self.options
        for dtype, threads, images in product(options.dtype, options.threads, options.images):
            where = f"{_setting(dtype, threads)}, {_count(images, 'image')}"
            ours, *others = (Variant(name, dtype, threads) for name in IMPLEMENTATIONS)
            for which in options.passes:
                title = f"{PASSES[which].capitalize()}, ms: {where}"
                rows = self._times(which, images, [ours, *others])
                yield from self._section(title, ("op", "implementation"), rows, MS)
            pairs = [(other.implementation, other, ours) for other in others]
            title = f"Time of the others over ours: {where}"
            yield from self._section(title, ("op", "pass", "who"), self._ratios(images, pairs))
        for images in options.images:
            where = _count(images, "image")
            rows = self._ratios(images, self._pairs_of_settings())
            yield from self._section(f"Ours, setting over setting: {where}", ("op", "pass", "settings"), rows)
            title = f"Our KDA over our MSDA, ratio of medians: {where}"
            yield from self._section(title, ("op", "pass", "setting"), self._over_msda(images))
        yield from self._memory()

    def _section(self, title: str, head: Sequence[str], rows: Iterable[Row], unit: float = 1.0) -> Iterator[str]:
        measured = [(labels, by_size) for labels, by_size in rows if any(by_size)]
        if measured:
            columns = [f"Q = {size:,}" for size in self.options.sizes]
            lines = [[*labels, *(one.text(unit) if one else "" for one in by_size)] for labels, by_size in measured]
            yield f"### {title}\n\n{table([*head, *columns], lines)}"

    def _times(self, which: str, images: int, variants: Sequence[Variant]) -> Iterator[Row]:
        for case, variant in product(self.options.cases, variants):
            measured = partial(self.results.summary, variant=variant)
            yield (CASES[case].title, variant.implementation), self._by_size(case, which, images, measured)

    def _ratios(self, images: int, pairs: Sequence[tuple[str, Variant, Variant]]) -> Iterator[Row]:
        for case, which, (label, above, below) in product(self.options.cases, self.options.passes, pairs):
            measured = partial(self.results.ratio, above=above, below=below)
            yield (CASES[case].title, PASSES[which], label), self._by_size(case, which, images, measured)

    def _over_msda(self, images: int) -> Iterator[Row]:
        key_aware = [case for case in self.options.cases if case != "msda"]
        settings = product(self.options.dtype, self.options.threads)
        for case, which, (dtype, threads) in product(key_aware, self.options.passes, settings):
            measured = partial(self.results.over_msda, variant=Variant("ours", dtype, threads))
            labels = CASES[case].title, PASSES[which], _setting(dtype, threads)
            yield labels, self._by_size(case, which, images, measured)

    def _pairs_of_settings(self) -> list[tuple[str, Variant, Variant]]:
        """The first thread count with each other one, and the first data type likewise."""
        (dtype, *dtypes), (threads, *more_threads) = self.options.dtype, self.options.threads
        others = [Variant("ours", dtype, other) for other in more_threads]
        others += [Variant("ours", other, threads) for other in dtypes]
        first = _setting(dtype, threads)
        return [
            (f"{first} / {_setting(other.dtype, other.threads)}", Variant("ours", dtype, threads), other)
            for other in others
        ]

    def _memory(self) -> Iterator[str]:
        rows = [
            [cell.title(), variant.implementation, variant.dtype, f"{peak / MB:,.0f}"]
            for cell, peaks in self.results.peaks.items()
            for variant, peak in peaks.items()
        ]
        if rows:
            yield f"### Extra peak memory, MB\n\n{table(['call', 'implementation', 'dtype', 'MB'], rows)}"

    def _by_size(
        self, case: str, which: str, images: int, measured: Callable[..., Summary | None]
    ) -> list[Summary | None]:
        return [measured(cell) for cell in cells_of([case], [which], self.options.sizes, [images])]


def _setting(dtype: str, threads: int) -> str:
    return f"{dtype}, {_count(threads, 'thread')}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
