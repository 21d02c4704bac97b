"""What the benchmarks share: command lines, clocks, interleaved rounds, statistics, tables, and the machine's name."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

Call = Callable[[], Any]
Key = TypeVar("Key", bound=Hashable)

SAMPLE_SECONDS = 0.02  # a sample is the mean of as many calls as take this long
MOST_ROUNDS = 200
ISA_FLAGS = [
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "asimd",
    "asimdhp",
    "bf16",
    "sve",
]


# --- Command lines and output.


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def positive(text: str) -> int:
    """The type of options that count something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """The type of options that last."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return value


def add_common_options(parser: Parser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument("--json", metavar="FILE", help="write every measurement to FILE, too")


def check_common_options(parser: Parser, options: argparse.Namespace, threads: Iterable[int]) -> None:
    """Refuse devices, thread counts and files that are not there, before anything is measured."""
    try:
        device = torch.device(options.device)
    except RuntimeError:
        parser.error(f"--device: no such device: {options.device}")
    if device.type not in ("cpu", "cuda"):
        parser.error(f"--device: expected cpu or cuda, got {options.device}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        parser.error(
            f"--device: torch finds {torch.cuda.device_count()} CUDA devices, {options.device} is not among them"
        )
    cores = os.cpu_count() or 1
    if max(threads) > cores:
        parser.error(f"--threads: expected at most {cores}, the cores of this machine, got {max(threads)}")
    if options.json and (Path(options.json).is_dir() or not Path(options.json).absolute().parent.is_dir()):
        parser.error(f"--json: cannot write {options.json}: expected a file in a folder that exists")


def add_processor_time(parser: Parser) -> None:
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the seconds that one thread has on a processor, not the clock's: where other jobs run beside it",
    )


def check_processor_time(parser: Parser, options: argparse.Namespace) -> None:
    """Refuse it where it would be of something else, after the common options are checked."""
    if options.processor_time and options.threads != 1:
        parser.error("--processor-time is for one thread: of several it is the sum")
    if options.processor_time and torch.device(options.device).type != "cpu":
        parser.error("--processor-time is of the CPU: it does not count a GPU's seconds")


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_json(path: str | None, results: dict[str, Any]) -> None:
    if path:
        Path(path).write_text(json.dumps(results, indent=1) + "\n")


def progress(total: int) -> Callable[[str], None]:
    """A function that counts one step of ``total`` and shows its name: on a terminal with tqdm, else nowhere."""
    if not sys.stderr.isatty() or find_spec("tqdm") is None:
        return lambda _: None
    from tqdm import tqdm  # noqa: PLC0415  (optional)

    bar = tqdm(total=total, leave=False)

    def step(name: str) -> None:
        bar.set_postfix_str(name)
        bar.update()

    return step


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# --- Statistics.


@dataclass(frozen=True)
class Summary:
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    def text(self, unit: float = 1.0) -> str:
        if self.low == self.high:
            return _digits(self.median / unit)
        return f"{_digits(self.median / unit)} ({_digits(self.low / unit)} to {_digits(self.high / unit)})"


def summary(values: Sequence[float]) -> Summary:
    if len(values) == 1:
        return Summary(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(median, low, high)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Summary:
    """The quotients of two series that were measured in the same rounds."""
    return summary([above / below for above, below in zip(numerators, denominators, strict=True)])


def _digits(value: float) -> str:
    """Three digits, or all of those before the point."""
    if value == 0:
        return "0"
    decimals = next((digits for digits, limit in ((3, 0.1), (2, 10), (1, 100)) if abs(value) < limit), 0)
    return f"{value:,.{decimals}f}"


# --- Clocks and rounds.


def time_source(processor_time: bool) -> Callable[[], float]:
    """What tells the time in seconds: the clock, or how long the process has had a processor."""
    return time.process_time if processor_time else time.perf_counter


class CpuClock:
    """Seconds per call, of ``number`` calls in a row."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """``now``: of :func:`time_source`."""
        self.now = now

    def __call__(self, call: Call, number: int) -> float:
        start = self.now()
        for _ in range(number):
            call()
        return (self.now() - start) / number


class CudaClock:
    """Seconds per call on the device, by events. Its L2 holds what the call before left there, unless flushed."""

    def __init__(self, device: torch.device, flush: bool) -> None:
        """``flush``: overwrite the L2 before each call, outside of the measured time."""
        self.device = device
        size = 4 * torch.cuda.get_device_properties(device).L2_cache_size if flush else 0
        self.scratch = torch.empty(size, dtype=torch.int8, device=device)

    def __call__(self, call: Call, number: int) -> float:
        with torch.cuda.device(self.device):
            spans = self._flushed(call, number) if len(self.scratch) else [self._span(call, number)]
            torch.cuda.synchronize()
        return float(sum(start.elapsed_time(end) for start, end in spans)) / 1e3 / number

    def _flushed(self, call: Call, number: int) -> list[tuple[torch.cuda.Event, torch.cuda.Event]]:
        spans = []
        for _ in range(number):
            self.scratch.zero_()
            spans.append(self._span(call, 1))
        return spans

    def _span(self, call: Call, number: int) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(number):
            call()
        end.record()
        return start, end


def set_threads(threads: int) -> None:
    """Set torch's threads, and have them started before anything is timed."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
        torch.ones(1 << 20).sum()


def interleave(
    calls: Mapping[Key, Call],
    clock: CpuClock | CudaClock,
    *,
    rounds: int,
    at_least: float,
    prepare: Callable[[Key], None],
) -> dict[Key, list[float]]:
    """Time every call once per round, in an order that rotates from round to round.

    Args:
        calls: what to time.
        clock: how.
        rounds: the least number of rounds.
        at_least: seconds for which there are further rounds, up to ``MOST_ROUNDS``.
        prepare: called with a call's key before the call is timed.

    Returns:
        Seconds per call, one for each round. A call that runs out of the device's memory is left out.
    """
    numbers = {}
    for key, call in calls.items():
        prepare(key)
        try:
            estimate = clock(call, 1)
            if estimate < 1:  # the first call pays for more than itself
                estimate = clock(call, 1)
        except torch.OutOfMemoryError:
            continue
        numbers[key] = max(1, round(SAMPLE_SECONDS / estimate))
    times: dict[Key, list[float]] = {key: [] for key in numbers}
    keys, start, done = list(numbers), time.perf_counter(), 0
    while done < rounds or (done < MOST_ROUNDS and time.perf_counter() - start < at_least):
        first = done % len(keys) if keys else 0
        for key in keys[first:] + keys[:first]:
            prepare(key)
            times[key].append(clock(calls[key], numbers[key]))
        done += 1
    return times


# --- The machine.


def describe_machine(device: str) -> dict[str, Any]:
    """What a timing depends on; all values are JSON types."""
    flags = _cpu_field("flags", "Features").split()
    description: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "isa": " ".join(flag for flag in ISA_FLAGS if flag in flags),
        "load at start": round(os.getloadavg()[0], 2),
        "torch's cpu capability": torch.backends.cpu.get_cpu_capability(),
        "ops' cpu capability": _ops_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "revision": _revision(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        description["gpu"] = f"{properties.name}, sm_{properties.major}{properties.minor}"
        description["gpu's L2"] = f"{properties.L2_cache_size >> 20} MiB"
        description["cuda"] = torch.version.cuda
    return description


def machine_lines(description: dict[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in description.items() if value not in ("", None))


def _ops_capability() -> str:
    """What the compiled ops chose to run on, where they say so."""
    try:
        return str(torch.ops.lite_detr.cpu_capability())
    except (AttributeError, RuntimeError):
        return ""


def _cpu_field(*names: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    fields = (line.split(":", 1) for line in lines if ":" in line)
    return next((value.strip() for name, value in fields if name.strip() in names), "")


def _cpu_model() -> str:
    name = _cpu_field("model name") or platform.processor() or platform.machine()
    family, model = _cpu_field("cpu family"), _cpu_field("model")
    return f"{name} (family {family}, model {model})" if family else name


def _revision() -> str:
    """The commit of this file's repository, with a mark if files differ from it; empty outside of a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
