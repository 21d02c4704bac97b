"""Find images that look alike, whatever became of their size, compression and brightness.

An image is known by its luminance at 32 x 32 pixels, less its mean, over its deviation: so brightness and contrast do
not count. Two images look alike if the correlation of these is high, and nowhere is there a detail that only one has.
The second rule is what tells apart pictures of the same print or the same background, with other objects on it.
Candidates are found by the correlation at 8 x 8 pixels, of all pairs, in blocks.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

Thumbnails = npt.NDArray[np.uint8]  # (N, 32, 32); all 0 of images that cannot be read

SIZE = 32
_SMALL = 8
# Chosen on photographs of cards, blood smears and printed circuits: copies that are resized, recompressed or of another
# brightness, and shots a second apart, are above and below; other pictures of the same print differ by 99 and more.
_CORRELATION = 0.97
_DIFFERENCE = 60  # of 255 levels, once brightness and contrast are made equal
_CORRELATION_WHEN_SMALL = 0.95
_CONTRAST = 2.0  # levels of deviation; below it, an image is blank
_BLOCK = 256
_CANDIDATES = 32  # for an image, in a half
_PAIRS_AT_ONCE = 4096


def thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Make the thumbnail of an image (H, W, 3), RGB: (32, 32) luminance."""
    return np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BOX).convert("L"))


def similar_pairs(thumbnails: Thumbnails, counts: Sequence[int]) -> list[tuple[int, int]]:
    """Find the images that look alike.

    Args:
        thumbnails: (N, 32, 32) uint8, of the images of all halves, one half after the other.
        counts: how many images each half has.

    Returns:
        For each image, and each half that has an earlier one like it: both indices, of the one most like it.
    """
    if len(thumbnails) == 0:
        return []
    small = thumbnails.reshape(-1, _SMALL, SIZE // _SMALL, _SMALL, SIZE // _SMALL).mean(axis=(2, 4), dtype=np.float32)
    features, _ = _standardised(small)
    features[thumbnails.std(axis=(1, 2), dtype=np.float32) < _CONTRAST] = 0
    bounds = np.cumsum([0, *counts])
    pairs = []
    for half in range(len(counts)):
        for other in range(half + 1):
            candidates = _candidates(features, range(*bounds[half : half + 2]), range(*bounds[other : other + 2]))
            pairs += list(_most_alike(thumbnails, candidates))
    return sorted(pairs)


def _standardised(images: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Images as unit vectors (N, pixels) without their mean, and the deviation of each, in levels."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    deviations = np.sqrt((flat**2).mean(axis=1))
    flat /= np.maximum(deviations, 1e-6)[:, None] * np.float32(flat.shape[1]) ** 0.5
    return flat, deviations


def _candidates(features: npt.NDArray[np.float32], images: range, others: range) -> npt.NDArray[np.int64]:
    """Indices (M, 2) of images and earlier others that are alike when small."""
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(images.start, images.stop, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, images.stop))
        columns = np.arange(others.start, min(others.stop, rows[-1]))
        likeness = features[rows] @ features[columns].T
        later = max(start - others.start, 0)
        likeness[:, later:][columns[later:] >= rows[:, None]] = -1
        alike = likeness > _CORRELATION_WHEN_SMALL
        for row in np.flatnonzero(alike.sum(axis=1) > _CANDIDATES):
            alike[row] = False
            alike[row, np.argpartition(-likeness[row], _CANDIDATES)[:_CANDIDATES]] = True
        row_of, column_of = np.nonzero(alike)
        found.append(np.stack((rows[row_of], columns[column_of]), axis=1))
    return np.concatenate(found)


def _most_alike(thumbnails: Thumbnails, candidates: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Of each image's candidates that do look alike, the one that does most."""
    best: dict[int, tuple[float, int]] = {}
    for start in range(0, len(candidates), _PAIRS_AT_ONCE):
        images, others = candidates[start : start + _PAIRS_AT_ONCE].T
        (first, contrast), (second, other_contrast) = (_standardised(thumbnails[side]) for side in (images, others))
        correlations = (first * second).sum(axis=1)
        differences = np.abs(first - second).max(axis=1) * np.minimum(contrast, other_contrast) * SIZE
        for index in np.flatnonzero((correlations > _CORRELATION) & (differences < _DIFFERENCE)):
            likeness = (float(correlations[index]), -int(others[index]))
            best[int(images[index])] = max(best.get(int(images[index]), likeness), likeness)
    for image, (_, other) in best.items():
        yield image, -other
