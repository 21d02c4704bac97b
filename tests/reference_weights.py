"""Deterministic weights for the parity fixtures, as a function of a tensor's name and shape.

The fixtures in this folder were made by giving the published reference implementations exactly
these weights. A test builds the same state dict (reference tensor names), converts it with the
project's checkpoint converter, loads it, and compares outputs, losses and gradient norms.
Nothing is random: every tensor is drawn from a PCG64 stream seeded with the CRC-32 of its name.
"""

from __future__ import annotations

import re
import zlib

import numpy as np

# (substring of the name, standard deviation, mean): the first match wins; see `scale_of`.
_RULES = (
    ("running_var", 0.05, 1.0),
    ("running_mean", 0.05, 0.0),
    ("sampling_offsets.weight", 0.02, 0.0),
    ("sampling_offsets.bias", 1.5, 0.0),
    ("attention_weights.weight", 0.03, 0.0),
    ("attention_weights.bias", 0.3, 0.0),
    ("bn3.weight", 0.02, 0.2),
    ("bbox_embed.layers.2.weight", 0.004, 0.0),
    ("bbox_embed.layers.2.bias", 0.05, 0.0),
    ("class_embed.bias", 0.1, -2.0),
    ("enc_output.bias", 0.0, 0.0),  # padded tokens then rank last, so that no tie is selected
    ("level_embed", 0.5, 0.0),
    ("label_enc", 0.5, 0.0),
    ("tgt_embed", 0.5, 0.0),
    ("query_embed", 0.5, 0.0),
    ("query_pos", 0.5, 0.0),
    ("relative_position_bias_table", 0.1, 0.0),
)


def scale_of(name: str, shape: tuple[int, ...], rules=()) -> tuple[float, float]:
    """Return (standard deviation, mean) of the tensor called ``name`` of ``shape``; ``rules`` come before ours."""
    plain = re.sub(r"(bbox|class)_embed\.\d+\.", r"\1_embed.", name)  # one rule for every decoder layer
    for part, std, mean in (*rules, *_RULES):
        if part in plain:
            return std, mean
    if len(shape) >= 2:  # matrices and convolutions keep the variance of what flows through
        return float(np.prod(shape[1:])) ** -0.5, 0.0
    if name.endswith("weight"):  # normalisation layers
        return 0.05, 1.0
    return 0.02, 0.0  # biases


def tensor(name: str, shape: tuple[int, ...], rules=()) -> np.ndarray:
    """Return the float32 array of ``shape`` that the fixtures used for ``name``."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    std, mean = scale_of(name, tuple(shape), rules)
    values = generator.standard_normal(tuple(shape), dtype=np.float32)
    if "running_var" in name:
        values = np.abs(values)
    return (values * np.float32(std) + np.float32(mean)).astype(np.float32)


def state_dict(shapes: dict[str, list[int]], aliases: list[list[str]], rules=()) -> dict[str, np.ndarray]:
    """Return every tensor of a reference state dict.

    Args:
        shapes: a fixture's ``shapes``, {name: shape}. Integer buffers (``num_batches_tracked``,
            ``relative_position_index``) are not among them: they carry no learned value.
        aliases: a fixture's ``aliases``: groups of names that share one tensor in the reference (DINO's
            class and box heads, for example). A group's tensor is generated under its first name.
        rules: a fixture's ``weight_rules`` where it has them: [[part of the name, standard deviation, mean], ...].
    """
    source = {name: group[0] for group in aliases for name in group}
    return {name: tensor(source.get(name, name), tuple(shape), rules) for name, shape in shapes.items()}


def image(seed: int, height: int, width: int) -> np.ndarray:
    """Return a smooth deterministic RGB image, uint8, (height, width, 3)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    y = np.linspace(0.0, 1.0, height, dtype=np.float64)[:, None, None]
    x = np.linspace(0.0, 1.0, width, dtype=np.float64)[None, :, None]
    total = np.zeros((height, width, 3))
    for _ in range(12):
        fy, fx = generator.uniform(0.5, 14.0, size=(2, 3))
        phase, amplitude = generator.uniform(0, 2 * np.pi, 3), generator.uniform(0.2, 1.0, 3)
        total += amplitude * np.sin(2 * np.pi * (fy * y + fx * x) + phase)
    total = (total - total.min()) / (total.max() - total.min())
    return np.round(total * 255).astype(np.uint8)
