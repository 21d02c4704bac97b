"""Batches to train on, each of which depends on the seed and on how many images were seen before, and on nothing else.

detectron2's loader deals out images to the data-loading processes, each of which makes batches of its share, and draws
augmentations from generators of its own: another number of processes, or a training that goes on, sees other batches.
Here the main process says which images make a batch, and an image's augmentation is drawn by its place in the training.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data import DatasetFromList
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError
from ..randomness import SAMPLE, own_randomness
from .images import read_header

Record = dict[str, Any]
Mapper = Callable[[Record], Record | None]
Sample = tuple[int, int]
"""Which image, and which place in the training it takes, from 0."""


class TrainingLoader:
    """An endless iterable of the batches of one process, lists of what the mapper makes of images.

    Attributes:
        batch_size: images in a batch of all processes together.
    """

    def __init__(
        self,
        records: Sequence[Record],
        mapper: Mapper,
        make_sampler: Callable[[int], Iterable[int]],
        *,
        batch_size: int,
        group_by_shape: bool = True,
        num_workers: int = 0,
        worker_init_fn: Callable[[int], None] | None = None,
    ) -> None:
        """Make a loader, that begins at the beginning, with seed 0.

        Args:
            records: images in detectron2's dataset format.
            mapper: makes an input of the model of a record; another image is taken where it returns None. What it
                draws from the global generators of Python, numpy and torch is repeatable.
            make_sampler: makes of a seed an endless iterable of this process's share of the indices of ``records``, as
                detectron2's samplers do: every so manieth of what all processes see.
            batch_size: in all processes together.
            group_by_shape: whether a batch has either wide images alone, or none that is wider than high.
            num_workers: data-loading processes; 0 for none.
            worker_init_fn: what each of them does first.

        Raises:
            InputError: the batch cannot be shared out evenly, or an image whose shape is not stated cannot be read.
        """
        self.batch_size = batch_size
        self._num_processes = comm.get_world_size()
        if batch_size % self._num_processes:
            raise InputError(
                f"SOLVER.IMS_PER_BATCH is {batch_size}: expected a multiple of the number of processes "
                f"({self._num_processes})."
            )
        self._records, self._mapper, self._make_sampler = DatasetFromList(records, copy=False), mapper, make_sampler
        self._groups = _groups(records) if group_by_shape else np.zeros(len(records), np.uint8)
        self._num_workers, self._worker_init_fn = num_workers, worker_init_fn
        self._seed = self._images_seen = 0

    def start(self, seed: int, images_seen: int) -> None:
        """Let iterators that are made from now on begin where so many images were seen in all processes together."""
        self._seed, self._images_seen = seed, images_seen

    def __iter__(self) -> Iterator[list[Record]]:
        loader = DataLoader(
            _Samples(self._records, self._mapper, self._seed),
            batch_sampler=self._batches(),
            num_workers=self._num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=self._worker_init_fn,
            # Else it would draw from the global one.
            generator=torch.Generator(),
        )
        return iter(loader)

    def _batches(self) -> Iterator[list[Sample]]:
        """The batches of this process, less those of the images that were seen."""
        seen, size = 0, self.batch_size // self._num_processes
        waiting: dict[int, list[Sample]] = {}
        for number, index in enumerate(self._make_sampler(self._seed)):
            batch = waiting.setdefault(int(self._groups[index]), [])
            batch.append((index, number * self._num_processes + comm.get_rank()))
            if len(batch) == size:
                if seen >= self._images_seen:
                    yield list(batch)
                seen += self.batch_size
                batch.clear()


class _Samples(Dataset[Record]):
    """What the mapper makes of a sample, wherever and whenever it does."""

    def __init__(self, records: DatasetFromList, mapper: Mapper, seed: int) -> None:
        self.records, self.mapper, self.seed = records, mapper, seed

    def __getitem__(self, sample: Sample) -> Record:
        index, place = sample
        with own_randomness(SAMPLE, self.seed, place):
            mapped = self.mapper(self.records[index])
            if mapped is not None:
                return mapped
            for other in random.sample(range(len(self.records)), len(self.records)):
                mapped = self.mapper(self.records[other])
                if mapped is not None:
                    return mapped
        raise InputError(f"The mapper returns None for each of the {len(self.records)} images: nothing to train on.")


def _groups(records: Sequence[Record]) -> npt.NDArray[np.uint8]:
    """(N,) 1 for an image that is wider than high."""

    def is_wide(record: Record) -> bool:
        shape = record if {"width", "height"} <= record.keys() else vars(read_header(record["file_name"]))
        return bool(shape["width"] > shape["height"])

    return np.fromiter(map(is_wide, records), np.uint8, len(records))
