"""Detect with an exported torch, aoti or torchscript file: pytorch.py MODEL IMAGE [THRESHOLD].

Needs torch, numpy and Pillow.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

if not 3 <= len(sys.argv) <= 4:
    sys.exit(__doc__)
model, picture, threshold = (*sys.argv[1:], "0.5")[:3]
about = json.loads(Path(f"{model}.json").read_text(encoding="utf-8"))

# The image upright; its shorter side as long as the model was trained for (0: as it is), unless that is too large.
image = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
resize, (batch, _, *sides) = about["resize"], about["inputs"][0]["shape"]
lowest, highest = ([side[end] if isinstance(side, dict) else side for side in sides] for end in ("min", "max"))
limits = (resize["min_size"] / min(image.size), resize["max_size"] / max(image.size)) if resize["min_size"] else (1,)
scale = min(*limits, highest[0] / image.height, highest[1] / image.width)
height, width = max(int(image.height * scale + 0.5), 1), max(int(image.width * scale + 0.5), 1)
pixels = np.array(image.resize((width, height), Image.Resampling[resize["interpolation"].upper()]))

# One image of a batch, zero-padded right and bottom to what the model takes; sizes are those without the padding.
number = batch["min"] if isinstance(batch, dict) else batch
images = torch.zeros(number, 3, max(height, lowest[0]), max(width, lowest[1]), dtype=torch.uint8)
images[0, :, :height, :width] = torch.from_numpy(pixels).permute(2, 0, 1)
sizes = torch.tensor([[height, width]] * number)

torch.ops.load_library(Path(model).with_name(about["requires"]["library"]))  # lies beside the file
if about["format"] == "torch":
    detect = torch.export.load(model).module()
else:
    detect = torch.jit.load(model) if about["format"] == "torchscript" else torch._inductor.aoti_load_package(model)
with torch.no_grad():
    boxes, scores, labels = (output[0] for output in detect(images, sizes))

boxes *= torch.tensor([image.width / width, image.height / height] * 2)  # in pixels of the picture
for box, score, label in zip(boxes, scores, labels, strict=True):
    if score >= float(threshold):
        print(about["class_names"][label], f"{score:.3f}", *(f"{side:.1f}" for side in box))
if scores[0] < float(threshold):
    print(f"Nothing scores {threshold} or more; the highest score is {scores[0]:.3f}.", file=sys.stderr)
