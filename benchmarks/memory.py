"""The extra peak memory of one forward + backward call, measured in a process of its own.

``ops.py --memory`` starts it once per op and implementation; its one argument is a JSON object.
"""

import ctypes
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault("LITE_DETR_OPS_ONLY", "1")

import torch
from cases import CASES, TINY_LEVELS, Call, Case, Setting, make_arguments, pass_of


def measure_extra_peak(case: Case, implementation: str, setting: Setting, threads: int) -> int:
    """Run this file in a fresh process.

    Returns:
        Bytes, over what was in use before the call, when its arguments and grad_output were there already.

    Raises:
        RuntimeError: with the last line of what the process says, if it fails.
    """
    task = {"case": case.name, "implementation": implementation, "setting": asdict(setting), "threads": threads}
    done = subprocess.run([sys.executable, __file__, json.dumps(task)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
        raise RuntimeError(f"{implementation}, {case.title}: memory cannot be measured: {said[-1]}")
    return int(done.stdout)


def main() -> None:
    from rivals import IMPLEMENTATIONS  # noqa: PLC0415  (it loads the ops)

    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    setting = Setting(**task["setting"])
    case = CASES[task["case"]]
    implementation = IMPLEMENTATIONS[task["implementation"]]

    def make_call(setting: Setting) -> Call:
        arguments = make_arguments(case, setting)
        return pass_of(implementation.bind(case, arguments), arguments, setting, backward=True)

    make_call(replace(setting, queries=16, images=1, levels=TINY_LEVELS))()  # loads code, starts threads
    call = make_call(setting)
    extra_peak = _extra_peak_cuda if torch.device(setting.device).type == "cuda" else _extra_peak_cpu
    sys.stdout.write(str(extra_peak(call, setting.device)))


def _extra_peak_cuda(call: Call, device: str) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before


def _extra_peak_cpu(call: Call, _: str) -> int:
    """By the resident set's high-water mark, which Linux resets on request."""
    # What making the arguments left free in the heap would serve the call, and not be counted.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = call()
    peak = _status("VmHWM")
    del result
    return peak - before


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    main()
