"""Videos and cameras."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from lite_detr_d2.deploy.video import VideoReader, VideoWriter
from lite_detr_d2.errors import InputError

from .videos import cut, frames_of, write_video


def means(path: Path) -> list[float]:
    with VideoReader(path) as reader:
        return [float(frame.mean()) for frame in reader]


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.mov"])
def test_all_frames_are_read_in_order(tmp_path: Path, name: str, said: list[str]) -> None:
    path = write_video(tmp_path / name)
    with VideoReader(path) as reader:
        assert (reader.rate, reader.count) == (8.0, 20)
        frames = list(reader)
    assert {(frame.shape, frame.dtype) for frame in frames} == {((48, 64, 3), np.dtype("uint8"))}
    assert [frame.mean() for frame in frames] == pytest.approx([10 * number for number in range(20)], abs=5)
    assert said == []


def test_frames_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), dtype=np.uint8)
    red[..., 0] = 250
    with VideoWriter(tmp_path / "a.mp4", 8.0) as writer:
        writer.write(red)
    with VideoReader(tmp_path / "a.mp4") as reader:
        (frame,) = reader
    (reversed_frame,), _ = frames_of(tmp_path / "a.mp4")
    for each in (frame, reversed_frame[..., ::-1]):
        assert each[..., 0].mean() > 200
        assert each[..., 1:].mean() < 50


@pytest.mark.parametrize("name", ["a.avi", "a.mkv"])
def test_one_that_is_cut_short_gives_what_there_is_and_says_so(tmp_path: Path, name: str) -> None:
    path = cut(write_video(tmp_path / name), 0.6)
    frames = []
    with (
        VideoReader(path) as reader,
        pytest.raises(InputError, match=rf"Video .*{name} is damaged or cut short: \d+ of the 20 frames"),
    ):
        for frame in reader:
            frames.append(frame)
    assert 1 <= len(frames) < 20
    assert [frame.mean() for frame in frames[:3]] == pytest.approx([0, 10, 20][: len(frames)], abs=5)


@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_one_that_cannot_be_opened(tmp_path: Path, content: bytes | None) -> None:
    path = write_video(tmp_path / "a.mp4")
    if content is None:
        cut(path, 0.6)  # an .mp4 ends with what it needs to be opened
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"Video .*a\.mp4 cannot be opened: .* Restore it"):
        VideoReader(path)


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(InputError, match="webcam:77 cannot be opened: connect camera 77"):
        VideoReader(Path("webcam:77"), 77)


def test_opencv_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"cv2 is needed.*pip install 'lite_detr_d2\[video\]'"):
        VideoReader(path)


@pytest.mark.parametrize("rate", [8.0, 0.5, 30000 / 1001, 24000 / 1001, 15000 / 1001, 240.123, 1000.0])
def test_rates_are_kept(tmp_path: Path, rate: float) -> None:
    with VideoWriter(tmp_path / "a.mp4", rate) as writer:
        for number in range(3):
            writer.write(np.full((48, 64, 3), 50 * number, dtype=np.uint8))
    frames, found = frames_of(tmp_path / "a.mp4")
    assert len(frames) == 3
    assert found == pytest.approx(rate, rel=1e-3)


def test_a_size_of_odd_sides_is_said(tmp_path: Path, said: list[str]) -> None:
    with VideoWriter(tmp_path / "a.mp4", 8.0) as writer:
        writer.write(np.zeros((49, 65, 3), dtype=np.uint8))
    assert frames_of(tmp_path / "a.mp4")[0][0].shape == (48, 64, 3)
    assert said == [f"{tmp_path / 'a.mp4'}: 65 x 49 becomes 64 x 48."]


def test_the_file_is_there_when_it_is_closed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")
    with VideoWriter(path, 8.0) as writer:
        writer.write(np.zeros((48, 64, 3), dtype=np.uint8))
        assert path.read_bytes() == b"before"
    assert len(frames_of(path)[0]) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_no_frames_make_no_file(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 8.0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_before_an_error_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", 8.0) as writer:
        writer.write(np.zeros((48, 64, 3), dtype=np.uint8))
        raise KeyboardInterrupt
    assert len(frames_of(tmp_path / "a.mp4")[0]) == 1


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"a\.mp4 cannot be written"),
        VideoWriter(tmp_path / "none" / "a.mp4", 8.0) as writer,
    ):
        writer.write(np.zeros((48, 64, 3), dtype=np.uint8))


def test_a_disk_that_becomes_full(tmp_path: Path) -> None:
    """OpenCV writes on without a word; the file has no end then, and cannot be opened."""
    with (
        pytest.raises(InputError, match=r"a\.mp4 cannot be written: see whether there is space left"),
        VideoWriter(tmp_path / "a.mp4", 8.0) as writer,
    ):
        writer.write(np.zeros((48, 64, 3), dtype=np.uint8))
        release = writer._file.release
        writer._file = SimpleNamespace(release=lambda: (release(), cut(writer._unfinished, 0.5)))
    assert list(tmp_path.iterdir()) == []


def test_live_frames_last_as_long_as_they_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with VideoWriter(tmp_path / "a.mp4", 10.0, live=True) as writer:
        for number, seconds in enumerate((0.0, 0.5, 0.01, 0.5)):
            now[0] += seconds
            writer.write(np.full((48, 64, 3), 60 * number, dtype=np.uint8))
    frames, _ = frames_of(tmp_path / "a.mp4")
    shown = [round(float(frame.mean()) / 60) for frame in frames]
    assert shown == [0, *[1] * 5, 2, *[3] * 4]


class Changing:
    """A capture whose second frame is larger."""

    def __init__(self, _: Any) -> None:
        self.sizes = [(48, 64), (96, 64)]

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, key: int) -> float:
        return {cv2.CAP_PROP_FPS: float("nan"), cv2.CAP_PROP_FRAME_COUNT: -1.0}.get(key, 0.0)

    def read(self) -> tuple[bool, Any]:
        return (True, np.zeros((*self.sizes.pop(0), 3), dtype=np.uint8)) if self.sizes else (False, None)

    def release(self) -> None:
        pass


def test_a_size_that_changes_and_a_rate_that_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Changing)
    with VideoReader(tmp_path / "a.ts") as reader:
        assert (reader.rate, reader.count) == (25.0, 0)
        frames = iter(reader)
        assert next(frames).shape == (48, 64, 3)
        with pytest.raises(InputError, match=r"a\.ts changes its size after 1 frames"):
            next(frames)
    assert said == [f"{tmp_path / 'a.ts'} does not say its frames per second: taken for 25."]


def test_opencv_and_ffmpeg_leave_the_word_to_us(tmp_path: Path) -> None:
    """In a process of its own: what FFmpeg writes is decided once, and goes past Python."""
    cut(write_video(tmp_path / "a.mkv"), 0.6)
    (tmp_path / "b.mp4").write_bytes(b"\0" * 4000)
    code = (
        "import sys, pathlib\n"
        "from lite_detr_d2.deploy.video import VideoReader, VideoWriter\n"
        "from lite_detr_d2.errors import InputError\n"
        "import numpy\n"
        "def said(act):\n"
        "    try: act()\n"
        "    except InputError as error: return str(error)\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "for name in ('a.mkv', 'b.mp4'): assert name in said(lambda: list(VideoReader(folder / name)))\n"
        "assert 'webcam' in said(lambda: VideoReader(pathlib.Path('webcam:77'), 77))\n"
        "frame = numpy.zeros((4, 4, 3), numpy.uint8)\n"
        "assert 'c.mp4' in said(lambda: VideoWriter(folder / 'none' / 'c.mp4', 8.0).write(frame))\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
