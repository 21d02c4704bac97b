"""What the death of another process, or a full shared memory, does to this one: PyTorch's words for it, and ours."""

import signal
import threading
import traceback
from collections.abc import Iterator

_GO_ON = "--resume goes on from the last checkpoint."
_LOADER_DIED = (
    "A data-loading process was killed{signal}. If nobody did that, memory ran out, or the shared memory in /dev/shm: "
    "set DATALOADER.NUM_WORKERS lower (0 loads in the main process), or close other programs. " + _GO_ON
)
_SHARED_MEMORY_FULL = (
    "The shared memory through which data-loading processes hand over images (/dev/shm) is full: give it more, as in "
    "docker run --shm-size=8g, or set DATALOADER.NUM_WORKERS lower (0 needs none). " + _GO_ON
)
_TOO_MANY_FILES = (
    "Data-loading processes hand over images by more open files than this process may have: raise the limit (ulimit "
    "-n), or set DATALOADER.NUM_WORKERS lower (0 needs none). " + _GO_ON
)
_CONNECTION_LOST = (
    "The connection to the other processes of this training was lost: one of them has ended, or did not answer in "
    "time. What it said, if it could, stands above; if it was killed, memory may have run out. " + _GO_ON
)
# gloo's and nccl's errors are RuntimeErrors like any other, known by their words alone.
_LOADER = ("DataLoader worker (pid",)
_FILES = ("Too many open files", "received 0 items of ancdata")
_CONNECTION = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "gloo/transport/",
    "NCCL communicator was aborted",
    "ncclRemoteError",
    "ncclSystemError",
    "Watchdog caught collective operation timeout",
)


def what_was_lost(error: BaseException | None) -> str:
    """Return what to say of an error that another process's death or a full shared memory is behind; "" of others."""
    causes = [cause for cause in _chain(error) if isinstance(cause, RuntimeError | OSError | EOFError)]
    # PyTorch's last word of a data-loading process does not have the signal, and one before it does.
    text = "\n".join(map(str, causes))
    if _any(_FILES, text):
        return _TOO_MANY_FILES
    if "</torch_" in text or ("Bus error" in text and _any(_LOADER, text)):
        return _SHARED_MEMORY_FULL
    if _any(_LOADER, text) or any(map(_is_broken_off, causes)):
        name = text.partition("killed by signal: ")[2].partition(". ")[0]
        return _LOADER_DIED.format(signal=f" ({name})" if name else "")
    return _CONNECTION_LOST if _any(_CONNECTION, text) else ""


def ignore_lost_processes() -> None:
    """From now on, the death of a data-loading process is no error of this one, which has said so and ends.

    PyTorch raises one wherever the main thread is when the signal of it comes, and that may be after the connection to
    the process has broken: the error of the one would take the place of what is said of the other.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def is_connection_lost(error: BaseException | None) -> bool:
    """Whether an error is only what the end of another process of the training looks like from here."""
    return what_was_lost(error) == _CONNECTION_LOST


def _is_broken_off(cause: BaseException) -> bool:
    """Whether a data-loading process ended while it handed over a batch."""
    frames = traceback.walk_tb(cause.__traceback__)
    return isinstance(cause, ConnectionError | EOFError) and any(
        frame.f_code.co_name == "_try_get_data" for frame, _ in frames
    )


def _any(words: tuple[str, ...], text: str) -> bool:
    return any(word in text for word in words)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from or while."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
