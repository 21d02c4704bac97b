"""Videos and cameras, by OpenCV, which is imported where one is opened."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..extras import import_extra
from ..wording import shown

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

_FFMPEG_QUIET = "-8"  # its AV_LOG_QUIET
_USUAL_RATE = 25.0
_HIGHEST_RATE = 1000.0
# By how much a video may end before what its header says, which need not be exact: in frames, or a share of them.
_FRAMES_SHORT, _SHARE_SHORT = 1, 0.01


def open_cv() -> ModuleType:
    """Import OpenCV, and keep it and its FFmpeg from writing lines of their own, unless they were told to.

    What is wrong is an error of :class:`VideoReader` or :class:`VideoWriter`.

    Raises:
        InputError: it is not installed.
    """
    cv2 = import_extra("cv2", extra="video")
    # Read when the first video is opened; that sets it for all that this process has of OpenCV's FFmpeg.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _FFMPEG_QUIET)
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


class VideoReader:
    """The frames of a video or camera, one after the other; a context manager, which closes it.

    Attributes:
        rate: frames per second; 25 where that is not known.
        count: of the frames, as the header has it; 0 where it is not known.
        read: how many frames were read.
    """

    def __init__(self, path: Path, camera: int | None = None) -> None:
        """Open a file, or the camera of a number.

        Raises:
            InputError: it cannot be opened, or OpenCV is not installed.
        """
        cv2 = open_cv()
        self._name, self._live = shown(path), camera is not None
        self._capture = cv2.VideoCapture(os.fspath(path) if camera is None else camera)
        if not self._capture.isOpened():
            if camera is not None:
                raise InputError(
                    f"{self._name} cannot be opened: connect camera {camera}, or give the permission to use it."
                )
            why = f"the file is cut short or damaged, or this OpenCV ({cv2.__version__}) cannot decode it"
            raise InputError(f"Video {self._name} cannot be opened: {why}. Restore it, or save it as H.264 in .mp4.")
        rate, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.rate = float(rate) if 0 < rate <= _HIGHEST_RATE else _USUAL_RATE
        if rate != self.rate and not self._live:
            logger.warning("%s does not say its frames per second: taken for %g.", self._name, self.rate)
        self.count = int(count) if not self._live and math.isfinite(count) and count > 0 else 0
        self.read = 0
        self._position: Callable[[], float] = lambda: float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Pixels]:
        """Read on.

        Yields:
            (H, W, 3) uint8, RGB, upright.

        Raises:
            InputError: it ends before its end: what follows cannot be decoded, is missing, or is of another size.
        """
        shape, ends = None, 0.0
        while True:
            there, frame = self._capture.read()
            if not there:
                break
            if shape not in (None, frame.shape):
                raise InputError(
                    f"Video {self._name} changes its size after {self.read} frames, which ends the prediction: cut it "
                    "there, or save it anew in one size."
                )
            shape = frame.shape
            self.read += 1
            ends = max(ends, self._position() * self.rate + 1)
            yield np.ascontiguousarray(frame[..., ::-1])
        if self._live:
            raise InputError(f"{self._name} gives no more frames: connect the camera again.")
        # Where the header's count is that of a steady rate, frames that were never recorded are not missing.
        missing = self.count - max(self.read, ends)
        if self.read == 0 or missing > max(_FRAMES_SHORT, _SHARE_SHORT * self.count):
            raise InputError(
                f"Video {self._name} is damaged or cut short: {self.read} of the {self.count} frames that its header "
                "states could be read. Restore it, or save it anew."
            )


class VideoWriter:
    """An .mp4 file of frames of one size and rate; a context manager. The file is there when it is closed.

    OpenCV writes sides of an even number of pixels: of odd ones the last row or column is lost, which is said.
    """

    def __init__(self, path: Path, rate: float, live: bool = False) -> None:
        """Begin a file.

        Args:
            path: of the file, which may be there.
            rate: frames per second.
            live: whether frames come when they come: each is then repeated for as long as it took.
        """
        # MPEG-4 does not know rates as fractions whose numbers are above 65535.
        self._rate = round(rate, 3 if rate < 65 else 1)
        self._path, self._live = path, live
        self._unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
        self._file: Any = None
        self._begun = 0.0
        self.written = 0

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: Pixels) -> None:
        """Add a frame, (H, W, 3) uint8, RGB.

        Raises:
            InputError: the file cannot be written.
        """
        if self._file is None:
            self._open(*frame.shape[:2])
        flipped = np.ascontiguousarray(frame[..., ::-1])
        due = round((time.monotonic() - self._begun) * self._rate) if self._live else 0
        for _ in range(max(1, due + 1 - self.written)):
            self._file.write(flipped)
            self.written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        self._file.release()
        try:
            # OpenCV does not say when the disk is full.
            with VideoReader(self._unfinished) as written:
                complete = written.count == self.written
            if not complete:
                raise InputError("")
            os.replace(self._unfinished, self._path)
        except (InputError, OSError) as failure:
            with suppress(OSError):
                os.unlink(self._unfinished)
            why = "see whether there is space left, and permission to write there."
            raise InputError(f"{shown(self._path)} cannot be written: {why}") from failure

    def _open(self, height: int, width: int) -> None:
        cv2 = open_cv()
        if height % 2 or width % 2:
            size = f"{width} x {height}"
            logger.warning("%s: %s becomes %d x %d.", shown(self._path), size, width // 2 * 2, height // 2 * 2)
        code = cv2.VideoWriter_fourcc(*"mp4v")
        self._file = cv2.VideoWriter(os.fspath(self._unfinished), code, self._rate, (width, height))
        if not self._file.isOpened():
            self._file = None
            raise InputError(
                f"{shown(self._path)} cannot be written: see whether its folder can be written to, and whether this "
                f"OpenCV ({cv2.__version__}) writes MPEG-4, as that of opencv-python-headless does."
            )
        self._begun = time.monotonic()
