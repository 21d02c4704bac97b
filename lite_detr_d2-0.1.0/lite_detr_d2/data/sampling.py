"""Which images a training sees, and in which order: detectron2's samplers, each by a seed that is given."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.data.samplers import RandomSubsetTrainingSampler, RepeatFactorTrainingSampler, TrainingSampler
from torch import Tensor

from ..config.schema import SAMPLERS
from ..errors import InputError

Record = dict[str, Any]


def sampler_factory(cfg: CfgNode, records: Sequence[Record]) -> Callable[[int], Iterable[int]]:
    """Choose the sampler of ``DATALOADER.SAMPLER_TRAIN``.

    Args:
        cfg: the config.
        records: the images of all ``DATASETS.TRAIN``, in detectron2's dataset format.

    Returns:
        What makes of a seed the endless indices of this process's share of the images. The seed decides their order,
        and which images a random subset has.

    Raises:
        InputError: there is no such sampler, or a key that it goes by cannot be used.
    """
    name, loader = cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER
    if name == "TrainingSampler":
        return lambda seed: TrainingSampler(len(records), seed=seed)
    if name == "RandomSubsetTrainingSampler":
        ratio = loader.RANDOM_SUBSET_RATIO
        if not 1 <= ratio * len(records) <= len(records):
            raise InputError(
                f"DATALOADER.RANDOM_SUBSET_RATIO is {ratio}, of {len(records)} images: expected a part of them, at "
                "least one image and at most 1.0."
            )
        return lambda seed: RandomSubsetTrainingSampler(len(records), ratio, seed_shuffle=seed, seed_subset=seed)
    if name not in SAMPLERS:
        raise InputError(f"DATALOADER.SAMPLER_TRAIN is {name!r}: expected one of {', '.join(SAMPLERS)}.")
    factors = _repeat_factors(cfg, records)
    return lambda seed: RepeatFactorTrainingSampler(factors, seed=seed)


def _repeat_factors(cfg: CfgNode, records: Sequence[Record]) -> Tensor:
    """How often an epoch has each image: as rare as its rarest class is, or as its dataset weighs, or both."""
    name, loader = cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER

    def by_category(records: Sequence[Record]) -> Tensor:
        factors: Tensor = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, loader.REPEAT_THRESHOLD, sqrt=loader.REPEAT_SQRT
        )
        return factors

    if name == "RepeatFactorTrainingSampler":
        return by_category(records)
    weights = _weights(cfg)
    parts = _by_dataset(cfg, records)
    factors = torch.cat([torch.full((len(part),), weights[name]) for name, part in parts.items()])
    if name == "WeightedTrainingSampler":
        return factors
    factors = factors * torch.cat(list(map(by_category, parts.values())))
    return factors / factors.min()


def _by_dataset(cfg: CfgNode, records: Sequence[Record]) -> dict[str, Sequence[Record]]:
    """The images of each dataset, which lie one after the other."""
    parts, start = {}, 0
    for name in cfg.DATASETS.TRAIN:
        images = DatasetCatalog.get(name)
        if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
            images = filter_images_with_only_crowd_annotations(images)
        parts[name] = records[start : start + len(images)]
        start += len(images)
    return parts


def _weights(cfg: CfgNode) -> dict[str, float]:
    weights = dict.fromkeys(cfg.DATASETS.TRAIN, 1.0)
    for pair in cfg.DATASETS.TRAIN_REPEAT_FACTOR:
        try:
            name, weight = pair
            known = name in weights and 0.0 < float(weight) < math.inf
        except (TypeError, ValueError):
            known = False
        if not known:
            raise InputError(
                f"DATASETS.TRAIN_REPEAT_FACTOR has {pair!r}: expected pairs of a dataset of DATASETS.TRAIN "
                f"({', '.join(weights)}) and a number above 0."
            )
        weights[name] = float(weight)
    return weights
