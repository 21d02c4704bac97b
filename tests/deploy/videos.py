"""Small videos, written for tests."""

from pathlib import Path

import cv2
import numpy as np

SIZE = (64, 48)  # width, height


def write_video(path: Path, frames: int = 20, rate: float = 8.0, size: tuple[int, int] = SIZE) -> Path:
    """Write gray frames, each 10 brighter than the one before, up to white.

    They are Motion JPEG if the name ends with .avi, else MPEG-4.
    """
    code = cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    file = cv2.VideoWriter(str(path), code, rate, size)
    assert file.isOpened()
    for number in range(frames):
        file.write(np.full((size[1], size[0], 3), min(10 * number, 255), dtype=np.uint8))
    file.release()
    return path


def cut(path: Path, share: float) -> Path:
    """Leave a share of a file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def frames_of(path: Path) -> tuple[list[np.ndarray], float]:
    """All frames, BGR, and how many are shown per second."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)
