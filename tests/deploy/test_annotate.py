"""Pictures, videos and JSON of what a detector finds; the detector is a stand-in that frames what is bright."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils.visualizer import VisImage
from matplotlib.axes import Axes
from PIL import Image

from lite_detr_d2.data.images import read_image
from lite_detr_d2.deploy.annotate import Outcome, annotate
from lite_detr_d2.deploy.bounds import fixed
from lite_detr_d2.deploy.media import find_media, plan_outputs
from lite_detr_d2.deploy.predictor import Predictor
from lite_detr_d2.errors import InputError
from lite_detr_d2.visualization import draw_detections
from lite_detr_d2.visualization.boxes import LabelledBox, draw_boxes

from .videos import SIZE, cut, frames_of, write_video

CLASSES = ["dark", "bright"]


class Bright:
    """Finds the right half of each image, the brighter the surer; takes no image that is higher than 100 pixels."""

    def __init__(self, max_value: float = 0.0, after: Callable[[], None] = lambda: None) -> None:
        self.class_names, self.files = CLASSES, []
        self.cfg = SimpleNamespace(INPUT=SimpleNamespace(MAX_VALUE=max_value))
        self.batches: list[list[Any]] = []
        self.after = after

    def __call__(self, images: list[Any], *, threshold: float, batch: int) -> list[dict[str, Instances]]:
        self.batches.append(images)
        assert batch <= len(images) or len(images) > 0
        if any(image.shape[0] > 100 for image in images):
            raise InputError("the model takes images of at most 100 pixels")
        found = [{"instances": self._found(image, threshold)} for image in images]
        self.after()
        return found

    def batch_taken(self, asked: int) -> int:
        return asked

    def _found(self, image: Any, threshold: float) -> Instances:
        height, width = image.shape[:2]
        score = torch.tensor([image[:, width // 2 :].mean() / 255])
        found = Instances((height, width), pred_boxes=Boxes(torch.tensor([[width / 2, 2, width - 2, height - 2.0]])))
        found.scores, found.pred_classes = score, (score > 0.5).long()
        return found[found.scores >= threshold]


def run(inputs: list[Any], output: Path, detector: Any = None, **options: Any) -> Outcome:
    return annotate(
        detector or Bright(), plan_outputs(find_media([str(each) for each in inputs], output), output), **options
    )


def picture(path: Path, value: int, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of brightness 0, 50, 100, 150 and 200, the last two in a folder below."""
    for number in range(5):
        picture(tmp_path / "photos" / ("" if number < 3 else "more") / f"{number}.png", 50 * number)
    return tmp_path / "photos"


class TestImages:
    @pytest.mark.parametrize("batch", [1, 2, 100])
    def test_pictures_and_json(self, tmp_path: Path, photos: Path, batch: int, said: list[str]) -> None:
        detector = Bright()
        results = tmp_path / "results.json"
        outcome = run([photos], tmp_path / "out", detector, threshold=0.3, batch=batch, json_file=results)
        assert outcome == Outcome(done=5, found=3, detections=3)
        records = json.loads(results.read_text())
        assert [(record["image_id"], record["file_name"]) for record in records] == [
            (3, "2.png"),
            (4, "more/3.png"),
            (5, "more/4.png"),
        ]
        assert [record["category_name"] for record in records] == ["dark", "bright", "bright"]
        assert [record["category_id"] for record in records] == [1, 2, 2]
        assert [record["score"] for record in records] == pytest.approx([100 / 255, 150 / 255, 200 / 255])
        assert records[0]["bbox"] == [32, 2, 30, 44]
        for name, changed in (("0.png", False), ("1.png", False), ("2.png", True), ("more/4.png", True)):
            drawn, original = (np.asarray(Image.open(root / name)) for root in (tmp_path / "out", photos))
            assert drawn.shape == original.shape
            assert (drawn != original).any() == changed
            assert (drawn[24:, :16] == original[24:, :16]).all()  # below the label, left of the box
        assert sum(map(len, detector.batches)) == 5
        assert max(map(len, detector.batches)) <= max(1, 4 * batch)
        assert said == []

    @pytest.mark.parametrize(("batch", "of_images", "of_video"), [(1, 2, 5), (4, 2, 5), (6, 2, 5)])
    def test_a_fixed_batch_is_full(
        self, tmp_path: Path, small_cfg: CfgNode, batch: int, of_images: int, of_video: int
    ) -> None:
        """Of 8 pictures, and of 20 frames, without padding by copies."""
        small_cfg.INPUT.MIN_SIZE_TEST = 0
        calls = []

        def runtime(images: Any, sizes: Any) -> Any:
            calls.append(images[:, 0, 0, 0].tolist())
            return np.zeros((4, 1, 4), np.float32), np.zeros((4, 1), np.float32), np.zeros((4, 1), np.int64)

        detector = Predictor(small_cfg, CLASSES, runtime, bounds=fixed(4, SIZE[1], SIZE[0]))
        pictures = [picture(tmp_path / f"{number}.png", number) for number in range(8)]
        run(pictures, tmp_path / "out", detector, batch=batch)
        assert sum(calls, []) == list(range(8))
        assert len(calls) == of_images
        calls.clear()
        run([write_video(tmp_path / "clip.mp4")], tmp_path / "out", detector, batch=batch)
        assert len(calls) == of_video

    def test_there_is_no_json_if_none_is_asked_for(self, tmp_path: Path, photos: Path) -> None:
        run([photos], tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]

    def test_images_are_read_as_they_are_needed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many there are, a few batches are in memory."""
        for number in range(20):
            picture(tmp_path / "photos" / f"{number:02}.png", number)
        most, held = 0, 0
        detector = Bright()

        def reading(*arguments: Any, **options: Any) -> Any:
            nonlocal most, held
            held = sum(map(len, detector.batches))
            read.append(arguments)
            most = max(most, len(read) - held)
            return read_image(*arguments, **options)

        read: list[Any] = []
        monkeypatch.setattr("lite_detr_d2.deploy.annotate.read_image", reading)
        run([tmp_path / "photos"], tmp_path / "out", detector, batch=2)
        assert len(read) == 20
        assert most <= 8

    def test_pictures_are_drawn_on_what_the_detector_sees(self, tmp_path: Path) -> None:
        deep = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64)
        Image.fromarray(deep).save(tmp_path / "deep.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray((deep // 13).astype(np.uint8)).save(tmp_path / "turned.png", exif=exif)
        detector = Bright(max_value=3071)
        run([tmp_path / "deep.png", tmp_path / "turned.png"], tmp_path / "out", detector, threshold=1)
        for seen, name in zip((images[0] for images in detector.batches), ("deep.png", "turned.png"), strict=True):
            assert (np.asarray(Image.open(tmp_path / "out" / name)) == seen).all()
            assert (seen == read_image(tmp_path / name, max_value=3071)).all()
        assert detector.batches[0][0].max() == 255
        assert detector.batches[1][0].shape == (64, 48, 3)

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".ppm", ".GIF"])
    def test_formats(self, tmp_path: Path, suffix: str) -> None:
        path = picture(tmp_path / f"a{suffix}", 200)
        run([path], tmp_path / "out")
        (drawn,) = (tmp_path / "out").iterdir()
        with Image.open(drawn) as image:
            assert image.format == ("PNG" if suffix == ".GIF" else Image.registered_extensions()[suffix])
            assert abs(int(np.asarray(image)[24:, :16].mean()) - 200) < 5

    def test_those_that_cannot_be_read_are_named_and_keep_their_number(
        self, tmp_path: Path, photos: Path, said: list[str]
    ) -> None:
        (photos / "1.png").write_bytes(b"no image")
        cut(photos / "2.png", 0.7)
        picture(photos / "more" / "3.png", 250, size=(64, 120))
        outcome = run([photos], tmp_path / "out", threshold=0.0, batch=3, json_file=tmp_path / "results.json")
        assert (outcome.done, outcome.failed) == (2, 3)
        records = json.loads((tmp_path / "results.json").read_text())
        assert [record["image_id"] for record in records] == [1, 5]
        assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["0.png", "4.png"]
        assert len(said) == 3
        assert f"{photos / '1.png'} cannot be read: it is not an image" in said[0]
        assert f"{photos / '2.png'} cannot be read" in said[1]
        assert f"{photos / 'more' / '3.png'}: the model takes images of at most 100 pixels" in said[2]

    def test_one_that_is_too_long_to_be_drawn(self, tmp_path: Path, said: list[str]) -> None:
        outcome = run([picture(tmp_path / "a.png", 250, size=(2**16, 2))], tmp_path / "out")
        assert (outcome.done, outcome.failed) == (0, 1)
        assert said == [f"{tmp_path / 'a.png'}: pictures have sides of 65535 pixels at most: cut the image into tiles."]

    def test_the_smallest_one(self, tmp_path: Path) -> None:
        assert run([picture(tmp_path / "a.png", 250, size=(1, 1))], tmp_path / "out").done == 1
        with Image.open(tmp_path / "out" / "a.png") as image:
            assert image.size == (1, 1)

    def test_annotations(self, tmp_path: Path, photos: Path) -> None:
        content = {
            "images": [{"id": 31, "file_name": "more/4.png"}, {"id": 30, "file_name": "1.png"}],
            "categories": [{"id": 8, "name": "bright"}, {"id": 9, "name": "dark"}],
        }
        (tmp_path / "val.json").write_text(json.dumps(content))
        files = {"json_file": tmp_path / "results.json", "annotations": tmp_path / "val.json"}
        outcome = run([photos], tmp_path / "out", threshold=0.0, **files)
        records = json.loads((tmp_path / "results.json").read_text())
        assert [(record["image_id"], record["category_id"]) for record in records] == [(30, 9), (31, 8)]
        assert (outcome.done, outcome.detections) == (5, 2)

    def test_json_is_not_written_over_an_input(self, tmp_path: Path, photos: Path) -> None:
        (tmp_path / "link.json").symlink_to("val.json")
        (tmp_path / "val.json").write_text("{}")
        for file in ("link.json", "val.json", "photos/0.png"):
            with pytest.raises(InputError, match=f"{file} is the input .*: name another file for the JSON"):
                run([photos], tmp_path / "out", json_file=tmp_path / file, annotations=tmp_path / "val.json")

    @pytest.mark.parametrize("written", ["run/config.yaml", "link.json", "out/0.png"])
    def test_nothing_is_written_over_the_model(self, tmp_path: Path, photos: Path, written: str) -> None:
        """The third is a picture."""
        detector = Bright()
        detector.files = [tmp_path / "run" / "config.yaml", tmp_path / "model.onnx.json", tmp_path / "run" / "0.png"]
        (tmp_path / "run").mkdir()
        for file in detector.files:
            file.write_text("kept")
        (tmp_path / "link.json").symlink_to("model.onnx.json")
        (tmp_path / "out").symlink_to("run")
        json_file = tmp_path / "results.json" if written.endswith("png") else tmp_path / written
        with pytest.raises(InputError, match=f"{written} is a file of the model .*: name another"):
            run([photos], tmp_path / "out", detector, json_file=json_file)
        assert [file.read_text() for file in detector.files] == ["kept"] * 3
        assert not (tmp_path / "results.json").exists()

    def test_a_file_in_the_way_of_a_folder(self, tmp_path: Path, photos: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "more").touch()
        with pytest.raises(InputError, match=r"out/more is a file, and is to be the folder .* name another"):
            run([photos], tmp_path / "out")


class TestVideos:
    @pytest.mark.parametrize("batch", [1, 3])
    def test_frames_are_drawn_and_numbered(self, tmp_path: Path, batch: int) -> None:
        path = write_video(tmp_path / "clip.mp4", rate=7.5)
        detector = Bright()
        results = tmp_path / "results.json"
        outcome = run([path], tmp_path / "out", detector, threshold=100 / 255, batch=batch, json_file=results)
        assert (outcome.done, outcome.failed) == (1, 0)
        assert max(map(len, detector.batches)) == batch
        records = json.loads(results.read_text())
        numbers = [record["frame"] for record in records]
        assert numbers == list(range(numbers[0], 20))
        assert numbers[0] in (10, 11)
        assert {(record["image_id"], record["file_name"]) for record in records} == {(1, "clip.mp4")}
        drawn, rate = frames_of(tmp_path / "out" / "clip.mp4")
        before, _ = frames_of(path)
        assert rate == 7.5
        assert {frame.shape for frame in drawn} == {(48, 64, 3)}
        changes = [np.abs(one.astype(int) - other)[:, 32:].max() for one, other in zip(before, drawn, strict=True)]
        assert max(changes[:10]) < 20 < min(changes[12:])

    @pytest.mark.parametrize("batch", [1, 5, 7, 100])
    def test_one_that_breaks_off_is_named_and_kept_up_to_there(
        self, tmp_path: Path, said: list[str], batch: int
    ) -> None:
        videos = tmp_path / "videos"
        videos.mkdir()
        cut(write_video(videos / "a.mkv"), 0.6)
        cut(write_video(videos / "b.mp4"), 0.6)
        write_video(videos / "c.mp4")
        outcome = run([videos], tmp_path / "out", batch=batch)
        assert (outcome.done, outcome.failed) == (1, 2)
        assert len(said) == 2
        assert f"{videos / 'a.mkv'} is damaged or cut short" in said[0]
        assert f"{videos / 'b.mp4'} cannot be opened" in said[1]
        lengths = {path.name: len(frames_of(path)[0]) for path in (tmp_path / "out").iterdir()}
        assert lengths.keys() == {"a.mkv.mp4", "c.mp4"}
        assert lengths["c.mp4"] == 20
        assert f"{lengths['a.mkv.mp4']} of the 20 frames" in said[0]

    def test_a_model_that_does_not_take_its_size(self, tmp_path: Path, said: list[str]) -> None:
        tall, usual = write_video(tmp_path / "clip.mp4", size=(64, 120)), write_video(tmp_path / "usual.mp4")
        outcome = run([tall, usual], tmp_path / "out", batch=4)
        assert (outcome.done, outcome.failed) == (1, 1)
        assert said == [f"{tall}: the model takes images of at most 100 pixels"]
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["usual.mp4"]


class TestNothingToPredictOn:
    """Then nothing is written, and what an earlier prediction wrote stays."""

    @pytest.fixture
    def earlier(self, tmp_path: Path) -> Path:
        results = tmp_path / "results.json"
        results.write_text("earlier")
        return results

    def test_one_input_is_the_error(self, tmp_path: Path, earlier: Path, said: list[str]) -> None:
        (tmp_path / "a.jpg").write_bytes(b"no image")
        (tmp_path / "a.mp4").write_bytes(b"no video")
        tall = picture(tmp_path / "tall.png", 9, size=(64, 120))
        for name, reason in (("a.jpg", "it is not an image"), ("a.mp4", "cannot be opened"), (tall.name, "at most")):
            with pytest.raises(InputError, match=rf"{tmp_path / name}.*{reason}"):
                run([tmp_path / name], tmp_path / "out", json_file=earlier)
        assert said == []
        assert earlier.read_text() == "earlier"
        assert list((tmp_path / "out").iterdir()) == []

    def test_of_several_each_is_named(self, tmp_path: Path, earlier: Path, said: list[str]) -> None:
        for name in ("a.jpg", "b.png", "c.mp4"):
            (tmp_path / "in").mkdir(exist_ok=True)
            (tmp_path / "in" / name).write_bytes(b"nothing")
        with pytest.raises(InputError, match="None of the 3 inputs can be read: each is named above"):
            run([tmp_path / "in"], tmp_path / "out", json_file=earlier, batch=2)
        assert len(said) == 3
        assert earlier.read_text() == "earlier"

    def test_an_image_without_detections_is_something(self, tmp_path: Path, earlier: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"no image")
        inputs = [picture(tmp_path / "b.png", 9), tmp_path / "a.jpg"]
        outcome = run(inputs, tmp_path / "out", threshold=1.0, json_file=earlier)
        assert (outcome.done, outcome.failed) == (1, 1)
        assert json.loads(earlier.read_text()) == []

    def test_a_video_that_breaks_off_is_something(self, tmp_path: Path, earlier: Path) -> None:
        path = cut(write_video(tmp_path / "a.mkv"), 0.6)
        outcome = run([path], tmp_path / "out", threshold=0.0, json_file=earlier)
        assert (outcome.done, outcome.failed) == (0, 1)
        assert len(json.loads(earlier.read_text())) == len(frames_of(tmp_path / "out" / "a.mkv.mp4")[0]) > 0


class TestWithoutPictures:
    def test_the_detections_are_the_same(
        self, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
    ) -> None:
        write_video(photos / "clip.mp4")
        picture(photos / "long.png", 200, size=(2**16, 2))  # which cannot be drawn
        files = [tmp_path / f"{name}.json" for name in ("drawn", "plain")]
        run([photos], tmp_path / "out", threshold=0.3, json_file=files[0])
        assert len(said) == 1
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setattr("lite_detr_d2.deploy.annotate.draw_detections", None)
        outputs = plan_outputs(find_media([str(photos)], None), None)
        outcome = annotate(Bright(), outputs, threshold=0.3, json_file=files[1])  # type: ignore[arg-type]
        assert (outcome.done, outcome.failed) == (7, 0)
        assert sorted(tmp_path.rglob("*")) == sorted([*before, files[1]])
        assert json.loads(files[0].read_text()) == json.loads(files[1].read_text())


class Camera:
    """A capture that gives frames for ever."""

    opened: list[Any] = []  # noqa: RUF012

    def __init__(self, source: Any) -> None:
        self.opened.append(source)

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, key: int) -> float:
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}.get(key, 0.0)

    def read(self) -> tuple[bool, Any]:
        return True, np.full((48, 64, 3), 200, dtype=np.uint8)

    def release(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now


class TestStopping:
    @pytest.fixture(autouse=True)
    def _interruptible(self) -> Iterator[None]:
        """As in a terminal: what runs in the background is started with this signal ignored."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @staticmethod
    def signals(number: int, after: int, clock: list[float] | None = None) -> Callable[[], None]:
        """Send a signal after so many calls; each call takes a tenth of a second."""
        calls = [0]

        def called() -> None:
            calls[0] += 1
            if clock is not None:
                clock[0] += 0.1
            if calls[0] == after:
                os.kill(os.getpid(), number)

        return called

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_camera_goes_on_until_a_signal(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float], number: int
    ) -> None:
        before = signal.getsignal(number)
        monkeypatch.chdir(tmp_path)
        capture, real = Camera, cv2.VideoCapture
        monkeypatch.setattr(cv2, "VideoCapture", lambda source: (capture if isinstance(source, int) else real)(source))
        detector = Bright(after=self.signals(number, 6, clock))
        outcome = run(["webcam:3"], Path("out"), detector, json_file=Path("results.json"))
        assert Camera.opened.pop() == 3
        assert outcome == Outcome(done=1, found=6, detections=6)
        assert [record["frame"] for record in json.loads(Path("results.json").read_text())] == list(range(6))
        frames, rate = frames_of(Path("out/webcam_3.mp4"))
        assert (len(frames), rate) == (16, 30.0)  # half a second, in which frame after frame took a tenth
        assert signal.getsignal(number) == before

    def test_a_video_ends_where_it_is(self, tmp_path: Path) -> None:
        write_video(tmp_path / "videos.mp4")
        write_video(tmp_path / "videos2.mp4")
        detector = Bright(after=self.signals(signal.SIGTERM, 6))
        outcome = run([f"{tmp_path}/*.mp4"], tmp_path / "out", detector, json_file=tmp_path / "results.json")
        assert outcome.stopped
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["videos.mp4"]
        assert len(frames_of(tmp_path / "out" / "videos.mp4")[0]) == 6
        assert not (tmp_path / "results.json").exists()

    def test_images_end_where_they_are(self, tmp_path: Path, photos: Path) -> None:
        outcome = run([photos], tmp_path / "out", Bright(after=self.signals(signal.SIGINT, 2)))
        assert outcome == Outcome(done=2, stopped=True)
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png"]

    def test_after_the_last_one_there_is_nothing_to_end(self, tmp_path: Path, photos: Path) -> None:
        results = tmp_path / "results.json"
        outcome = run([photos], tmp_path / "out", Bright(after=self.signals(signal.SIGINT, 5)), json_file=results)
        assert (outcome.done, outcome.stopped, results.exists()) == (5, False, True)

    def test_a_signal_that_is_ignored_stays_so(self, tmp_path: Path, photos: Path) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        outcome = run([photos], tmp_path / "out", Bright(after=self.signals(signal.SIGINT, 1)))
        assert not outcome.stopped
        assert outcome.done == 5

    def test_a_second_signal_does_not_wait(self, tmp_path: Path, photos: Path) -> None:
        def twice() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            run([photos], tmp_path / "out", Bright(after=twice))


def labels(boxes: Sequence[LabelledBox]) -> list[str]:
    return [box.label for box in boxes]


def colours(boxes: Sequence[LabelledBox]) -> list[tuple[float, float, float]]:
    return [box.colour for box in boxes]


class TestDrawing:
    @staticmethod
    def found(labels: list[int]) -> Instances:
        boxes = torch.tensor([[40.0 * number + 4, 30, 40 * number + 36, 60] for number in range(len(labels))])
        return Instances(
            (80, 120),
            pred_boxes=Boxes(boxes.reshape(-1, 4)),
            scores=torch.full((len(labels),), 0.5),
            pred_classes=torch.tensor(labels, dtype=torch.long),
        )

    def test_a_class_has_one_colour(self) -> None:
        pixels = np.zeros((80, 120, 3), dtype=np.uint8)
        drawn = draw_detections(pixels, self.found([0, 1, 0]), CLASSES)
        assert (drawn == draw_detections(pixels, self.found([0, 1, 0]), CLASSES)).all()
        first, second, third = (drawn[45:59, 40 * number : 40 * number + 40] for number in range(3))
        assert (first == third).all()
        assert (first != second).any()
        assert not pixels.any()

    @pytest.fixture
    def drawn(self, monkeypatch: pytest.MonkeyPatch) -> list[list[LabelledBox]]:
        """The boxes of each picture, with labels and colours."""
        given: list[list[LabelledBox]] = []

        def noted(axes: Axes, boxes: Sequence[LabelledBox], *arguments: Any) -> None:
            given.append(list(boxes))
            draw_boxes(axes, boxes, *arguments)

        monkeypatch.setattr("lite_detr_d2.visualization.detections.draw_boxes", noted)
        return given

    @pytest.fixture
    def texts(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float]]:
        """Each label on the picture, and the pixels from where to where it reaches."""
        seen: list[tuple[str, float, float]] = []
        finished = VisImage.get_image

        def noted(picture: VisImage) -> Any:
            for text in picture.ax.texts:
                extent = text.get_window_extent(picture.canvas.get_renderer())
                seen.append((text.get_text(), extent.x0, extent.x1))
            return finished(picture)

        monkeypatch.setattr(VisImage, "get_image", noted)
        return seen

    def test_labels_of_one_box_stand_beside_each_other(self, drawn: list[list[LabelledBox]]) -> None:
        """Of a query that two classes fit, or of two queries; not one over the other, of which one would be seen."""
        found = self.found([0, 1, 0])
        found.pred_boxes.tensor[2] = found.pred_boxes.tensor[1]
        found.scores = torch.tensor([0.3, 0.45, 0.54])
        alone = draw_detections(np.zeros((80, 120, 3), dtype=np.uint8), found[[0, 2]], CLASSES)
        both = draw_detections(np.zeros((80, 120, 3), dtype=np.uint8), found, CLASSES)
        assert labels(drawn[1]) == [f"{CLASSES[0]} 54%, {CLASSES[1]} 45%", f"{CLASSES[0]} 30%"]
        assert [list(box.corners) for box in drawn[1]] == found.pred_boxes.tensor[[2, 0]].tolist()
        assert drawn[0][0].colour == drawn[1][0].colour  # of the higher score
        assert (alone[35:60] == both[35:60]).all()  # the box itself

    def test_corners_that_differ_are_another_box(self, drawn: list[list[LabelledBox]]) -> None:
        found = self.found([0, 1])
        found.pred_boxes.tensor[1] = found.pred_boxes.tensor[0] + 0.25
        draw_detections(np.zeros((80, 120, 3), dtype=np.uint8), found, CLASSES)
        assert labels(drawn[0]) == ["dark 50%", "bright 50%"]

    @pytest.mark.parametrize("width", [1, 60, 120, 400])
    def test_no_label_is_wider_than_the_picture(
        self, drawn: list[list[LabelledBox]], texts: list[tuple[str, float, float]], width: int
    ) -> None:
        """Of a box that all classes fit, as at a threshold of 0, and of one at the right edge with a long name."""
        names = [f"a cla$s of {number}" for number in range(40)] + ["of a very long name" * 20]
        found = self.found([*range(40), 40])
        found.pred_boxes.tensor[:40] = torch.tensor([0.0, 0.0, width, 80.0])
        found.pred_boxes.tensor[40] = torch.tensor([width - 1.0, 45, width, 48])
        draw_detections(np.zeros((80, width, 3), dtype=np.uint8), found, names)
        first, second = labels(drawn[0])
        assert first == ", ".join(f"a cla$s of {number} 50%" for number in range(5)) + ", ..."
        assert second.startswith("of a very long name")
        assert len(texts) == (0 if width == 1 else 2)
        for text, left, right in texts:
            assert text.endswith("...")
            assert -0.5 <= left < right <= width + 0.5
            assert right - left > 0.7 * width  # no more is cut than has to be

    def test_a_label_at_the_right_edge_stays_in_the_picture(self, texts: list[tuple[str, float, float]]) -> None:
        found = self.found([0, 1])
        found.pred_boxes.tensor[1] = torch.tensor([110.0, 5, 119, 12])
        draw_detections(np.zeros((80, 120, 3), dtype=np.uint8), found, CLASSES)
        (_, left, _), (text, _, right) = sorted(texts, key=lambda each: each[1])
        assert text == "bright 50%"
        assert right <= 120
        assert left == pytest.approx(4, abs=2)  # where its box is

    def test_nothing_found_draws_nothing(self) -> None:
        pixels = np.full((80, 120, 3), 90, dtype=np.uint8)
        assert (draw_detections(pixels, self.found([]), CLASSES) == pixels).all()

    def test_without_names_classes_are_numbers(self, drawn: list[list[LabelledBox]]) -> None:
        """Each in the colour that it would have with a name."""
        draw_detections(np.zeros((80, 120, 3), dtype=np.uint8), self.found([0, 7]), [])
        draw_detections(np.zeros((80, 120, 3), dtype=np.uint8), self.found([0, 7]), [f"c{n}" for n in range(8)])
        assert labels(drawn[0]) == ["0 50%", "7 50%"]
        assert labels(drawn[1]) == ["c0 50%", "c7 50%"]
        assert colours(drawn[0]) == colours(drawn[1])
        assert drawn[0][0].colour != drawn[0][1].colour

    def test_more_classes_than_colours(self, drawn: list[list[LabelledBox]]) -> None:
        names = [str(number) for number in range(400)]
        draw_detections(np.zeros((80, 120, 3), dtype=np.uint8), self.found([0, 1, 399]), names)
        assert labels(drawn[0]) == ["0 50%", "1 50%", "399 50%"]
        assert all(0 <= min(colour) <= max(colour) <= 1 for colour in colours(drawn[0]))
        assert drawn[0][0].colour != drawn[0][1].colour

    @pytest.mark.parametrize("name", ["$5 $", "$\\frac{$", "a_b^c", "%d", "\\alpha", "line\nbreak", "\u72d7", ""])
    @pytest.mark.filterwarnings("ignore:Glyph")
    def test_names_are_text_whatever_is_in_them(self, name: str, texts: list[tuple[str, float, float]]) -> None:
        picture = draw_detections(np.zeros((80, 400, 3), dtype=np.uint8), self.found([0]), [name])
        assert picture.any()
        ((text, _, _),) = texts
        assert text == f"{name} 50%"
