"""Processes that measure, each with one choice of what it imports or builds, so that a round can ask them in turn."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Worker:
    """A process of one of the benchmarks' worker scripts, which answers lines of JSON with lines of JSON."""

    def __init__(self, name: str, script: str, setup: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """Start one; ``name`` is what an error calls it, ``setup`` the script's argument."""
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), json.dumps(setup)],
            env=os.environ | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, task: Any) -> dict[str, Any]:
        """The answer to a task.

        Raises:
            RuntimeError: if the process has ended; its own error is on stderr.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"the process that measures {self.name} has failed")
        return json.loads(answer)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.process.communicate()
