"""Predict on inputs one after the other: pictures and videos with the detections drawn, and JSON with all of them."""

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from detectron2.structures import Instances
from PIL import Image
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..data.images import ImageError, read_image
from ..errors import InputError
from ..files import write_atomically
from ..signals import noted_signals
from ..visualization import draw_detections
from ..wording import shown
from .media import Media, make_folder, place_of
from .predictor import Predictor
from .results import names_of, own_names, results_file
from .video import VideoReader, VideoWriter, open_cv

logger = logging.getLogger("lite_detr_d2")

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_QUALITY = 95  # of formats that lose something
# So many batches of images are read at a time, if they are of several: only those of one size share a batch.
_BATCHES_READ = 4


@dataclass
class Outcome:
    """What came of a prediction.

    Attributes:
        done: how many inputs were predicted on, to their end; where that is none, something is of one that broke off.
        failed: how many were passed over, or broke off.
        found: how many detections there are from the threshold on.
        detections: how many records the JSON has.
        stopped: whether a signal ended it before the last input; of a camera, a signal is the end.
    """

    done: int = 0
    failed: int = 0
    found: int = 0
    detections: int = 0
    stopped: bool = False


def annotate(
    predictor: Predictor,
    outputs: Mapping[Media, Path | None],
    *,
    threshold: float = 0.5,
    batch: int = 1,
    json_file: Path | None = None,
    annotations: Path | None = None,
) -> Outcome:
    """Predict on all inputs; the log says which cannot be read, and why.

    SIGINT and SIGTERM end it after the batch that it is at: pictures and videos are whole up to there, and there is no
    JSON, but of a camera.

    Args:
        predictor: detects.
        outputs: by input, where its picture or video goes; None for none.
        threshold: of the scores that are drawn and written, the lowest.
        batch: how many images or frames of one size are detected in at a time, if the model takes as many.
        json_file: gets the records of all detections.
        annotations: a file in COCO's format, whose ids the records get.

    Raises:
        InputError: an output cannot be written or is a file of the model, the annotations are not those of the inputs,
            a camera cannot be opened, there is a video and no OpenCV, or nothing can be read of any input: then there
            is no JSON, and what was there before stays.
    """
    if any(item.is_video for item in outputs):
        open_cv()
    media = list(outputs)
    written = [*([json_file] if json_file else []), *filter(None, outputs.values())]
    _check_not_among(written, predictor.files, "a file of the model", "another")
    if json_file is not None:
        inputs = [*(item.path for item in media), *([annotations] if annotations else [])]
        _check_not_among([json_file], inputs, "the input", "another file for the JSON")
    names = (
        names_of(annotations, media, predictor.class_names) if annotations else own_names(media, predictor.class_names)
    )
    with results_file(json_file) if json_file else nullcontext() as results, noted_signals(_SIGNALS) as stopped:

        def keep(item: Media, found: Instances, frame: int | None = None) -> None:
            if results is not None:
                results.add(names.records(item, found, frame))

        run = _Run(predictor, outputs, keep, lambda: bool(stopped()), threshold, predictor.batch_taken(batch))
        outcome = run()
        if results is not None:
            results.complete = not outcome.stopped
            outcome.detections = results.count
    return outcome


class _Run:
    """Reads, detects, draws and writes, with a few batches in memory at most."""

    def __init__(
        self,
        predictor: Predictor,
        outputs: Mapping[Media, Path | None],
        keep: Callable[..., None],
        stopped: Callable[[], bool],
        threshold: float,
        batch: int,
    ) -> None:
        self._predictor, self._outputs, self._keep, self._stopped = predictor, outputs, keep, stopped
        self._threshold, self._batch = threshold, batch
        self._outcome = Outcome()
        self._is_empty = True  # until there is something that was predicted on
        self._failures: list[str] = []

    def __call__(self) -> Outcome:
        videos = [item for item in self._outputs if item.is_video]
        with logging_redirect_tqdm([logger]):
            self._images([item for item in self._outputs if not item.is_video])
            for video in videos:
                if not self._stopped():
                    self._video(video)
        outcome = self._outcome
        outcome.failed = len(self._failures)
        outcome.stopped = self._stopped() and outcome.done + outcome.failed < len(self._outputs)
        if self._is_empty and outcome.failed == len(self._outputs) > 0:
            alone = outcome.failed == 1
            raise InputError(
                self._failures[0] if alone else f"None of the {outcome.failed} inputs can be read: each is named above."
            )
        return outcome

    def _images(self, images: Sequence[Media]) -> None:
        with tqdm(total=len(images), unit="image", disable=None if images else True) as progress:
            size = 1 if self._batch == 1 else self._batch * _BATCHES_READ
            for group in _groups(self._readable(images, progress), size):
                if self._stopped():
                    return
                found = self._detect([pixels for _, pixels in group])
                for (item, pixels), detections in zip(group, found, strict=True):
                    try:
                        picture = self._drawn(item, pixels, detections)
                    except InputError as error:
                        self._fail(item, error)
                    else:
                        _write_picture(self._outputs[item], picture)
                        self._outcome.done += 1
                    progress.update()

    def _readable(self, images: Iterable[Media], progress: Any) -> Iterator[tuple[Media, Pixels]]:
        for item in images:
            try:
                pixels = read_image(item.path, max_value=self._predictor.cfg.INPUT.MAX_VALUE)
            except ImageError as error:
                self._fail(item, error)
                progress.update()
            else:
                yield item, pixels

    def _video(self, item: Media) -> None:
        try:
            reader = VideoReader(item.path, item.camera)
        except InputError as error:
            if item.camera is not None:
                raise
            self._fail(item, error)
            return
        with (
            reader,
            self._writer(item, reader) as writer,
            tqdm(total=reader.count or None, desc=shown(item.name), unit="frame", disable=None) as progress,
        ):
            for picture in self._drawn_frames(item, reader):
                if writer is not None:
                    writer.write(picture)
                progress.update()

    def _writer(self, item: Media, reader: VideoReader) -> AbstractContextManager[VideoWriter | None]:
        path = self._outputs[item]
        if path is None:
            return nullcontext()
        make_folder(path.parent)
        return VideoWriter(path, reader.rate, live=item.camera is not None)

    def _drawn_frames(self, item: Media, reader: VideoReader) -> Iterator[Pixels]:
        """The frames of a video, up to the one that cannot be read or detected in."""
        number = 0
        try:
            for frames in _groups(reader, self._batch):
                for frame, detections in zip(frames, self._detect(frames), strict=True):
                    yield self._drawn(item, frame, detections, number)
                    number += 1
                if self._stopped() and item.camera is None:
                    return
                if self._stopped():
                    break
        except InputError as error:
            self._fail(item, error)
        else:
            self._outcome.done += 1

    def _detect(self, images: list[Pixels]) -> list[Instances | InputError]:
        """The detections of each image, or why there are none: a model may not take its size."""
        try:
            found = self._predictor(images, threshold=self._threshold, batch=self._batch)
            return [each["instances"].to("cpu") for each in found]
        except InputError as error:
            return [error] if len(images) == 1 else [self._detect([image])[0] for image in images]

    def _drawn(self, item: Media, pixels: Pixels, found: Instances | InputError, frame: int | None = None) -> Pixels:
        if isinstance(found, InputError):
            raise found
        self._keep(item, found, frame)
        self._outcome.found += len(found)
        self._is_empty = False
        return pixels if self._outputs[item] is None else draw_detections(pixels, found, self._predictor.class_names)

    def _fail(self, item: Media, error: InputError) -> None:
        name = shown(item.path)
        self._failures.append(str(error) if name in str(error) else f"{name}: {error}")
        if not self._is_empty or len(self._outputs) > 1:  # else it is the error of the whole
            logger.warning("%s", self._failures[-1])


def _check_not_among(written: Iterable[Path], kept: Iterable[Path], what: str, cure: str) -> None:
    places = {place: path for path in kept if (place := place_of(path))}
    for file in written:
        source = places.get(place_of(file) or (-1, -1))
        if source is not None:
            raise InputError(f"{shown(file)} is {what} {shown(source)}: name {cure}.")


def _write_picture(path: Path | None, pixels: Pixels) -> None:
    if path is None:
        return
    picture, kind = Image.fromarray(pixels), Image.registered_extensions()[path.suffix.lower()]
    make_folder(path.parent)
    write_atomically(os.fspath(path), lambda file: picture.save(file, kind, quality=_QUALITY))


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Groups of ``size``; the last may be smaller, and so may be the one before an error."""
    iterator = iter(items)
    while True:
        group: list[T] = []
        try:
            group.extend(islice(iterator, size))  # keeps what comes before an error
        except InputError:
            if group:
                yield group
            raise
        if not group:
            return
        yield group
