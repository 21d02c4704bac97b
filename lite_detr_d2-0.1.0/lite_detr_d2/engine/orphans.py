"""A process ends with the one that has started it, also if that is killed and can tell nobody."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import wait

# Seconds to save in.
GRACE = 120.0


def end_with_parent() -> None:
    """Let this process, that ``torch.multiprocessing`` has started, end when its parent does.

    torch has it sent SIGINT then. Where that is ignored, as in a shell's background, it is SIGTERM. A training saves at
    either, if it can without its parent; what takes longer than ``GRACE`` is ended.
    """
    parent, ignores = multiprocessing.parent_process(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert parent is not None
    threading.Thread(target=_watch, args=(parent.sentinel, ignores), daemon=True).start()


def _watch(sentinel: int, ignores_sigint: bool) -> None:
    wait([sentinel])
    if ignores_sigint:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)
