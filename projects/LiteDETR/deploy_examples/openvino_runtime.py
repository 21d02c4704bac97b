"""Detect with an exported OpenVINO file: openvino_runtime.py MODEL.xml IMAGE [THRESHOLD].

Needs openvino, numpy and Pillow.
"""

import json
import sys

import numpy as np
import openvino
from PIL import Image, ImageOps

if not 3 <= len(sys.argv) <= 4:
    sys.exit(__doc__)
model, picture, threshold = (*sys.argv[1:], "0.5")[:3]
with open(f"{model}.json", encoding="utf-8") as file:
    about = json.load(file)

# The image upright; its shorter side as long as the model was trained for (0: as it is), unless that is too large.
image = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
resize, (batch, _, *sides) = about["resize"], about["inputs"][0]["shape"]
lowest, highest = ([side[end] if isinstance(side, dict) else side for side in sides] for end in ("min", "max"))
limits = (resize["min_size"] / min(image.size), resize["max_size"] / max(image.size)) if resize["min_size"] else (1,)
scale = min(*limits, highest[0] / image.height, highest[1] / image.width)
height, width = max(int(image.height * scale + 0.5), 1), max(int(image.width * scale + 0.5), 1)
pixels = np.asarray(image.resize((width, height), Image.Resampling[resize["interpolation"].upper()]))

# One image of a batch, zero-padded right and bottom to what the model takes; sizes are those without the padding.
number = batch["min"] if isinstance(batch, dict) else batch
images = np.zeros((number, 3, max(height, lowest[0]), max(width, lowest[1])), np.uint8)
images[0, :, :height, :width] = pixels.transpose(2, 0, 1)
sizes = np.array([[height, width]] * number, np.int64)

# Left alone, OpenVINO computes in bfloat16 on processors that have it: it must be told the type of this file. Of wrong
# inputs, it refuses tensors but casts arrays; and start_async() and wait() report every error, which infer() may not.
hint = {"INFERENCE_PRECISION_HINT": about["requires"]["INFERENCE_PRECISION_HINT"]}
request = openvino.Core().compile_model(model, "CPU", hint).create_infer_request()
request.start_async({"images": openvino.Tensor(images), "sizes": openvino.Tensor(sizes)})
request.wait()
boxes, scores, labels = (request.get_tensor(name).data for name in ("boxes", "scores", "labels"))

boxes = boxes[0] * ([image.width / width, image.height / height] * 2)  # in pixels of the picture
for box, score, label in zip(boxes, scores[0], labels[0], strict=True):
    if score >= float(threshold):
        print(about["class_names"][label], f"{score:.3f}", *(f"{side:.1f}" for side in box))
if scores[0][0] < float(threshold):
    print(f"Nothing scores {threshold} or more; the highest score is {scores[0][0]:.3f}.", file=sys.stderr)
