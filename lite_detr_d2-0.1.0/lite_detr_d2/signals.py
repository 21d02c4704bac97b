"""Signals that are noted, for work that is to end in order."""

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_signals(
    numbers: Collection[signal.Signals], *, again: signal.Handlers | None = None
) -> Iterator[Callable[[], int]]:
    """Note the first signal that comes, for as long as the context lasts.

    Those that are ignored, as by nohup, remain so. Python lets only the main thread do this: in another one nothing
    is noted.

    Args:
        numbers: the signals.
        again: what a second one does, such as ``signal.SIG_DFL`` to end the process at once; None for what it did
            before, which of SIGINT is a KeyboardInterrupt.

    Returns:
        What returns the number of the signal, or 0 if none has come.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received: list[int] = []
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler if again is None else again)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: received[0] if received else 0
    finally:
        restore()
