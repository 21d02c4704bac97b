"""A manifest that tests write, and change."""

from pathlib import Path

from lite_detr_d2.deploy.bounds import Range
from lite_detr_d2.deploy.manifest import Manifest, Resize, SelfCheck, TensorSpec, digest_of_file


def manifest_of(*files: Path) -> Manifest:
    """Of a model of these files, the first of which is the one to load."""
    batch = Range(1, 4)
    return Manifest(
        format="onnx",
        dtype="float32",
        opset=18,
        inputs=(
            TensorSpec("images", "uint8", (batch, 3, Range(192, 800), 640)),
            TensorSpec("sizes", "int64", (batch, 2)),
        ),
        outputs=(
            TensorSpec("boxes", "float32", (batch, 100, 4)),
            TensorSpec("scores", "float32", (batch, 100)),
            TensorSpec("labels", "int64", (batch, 100)),
        ),
        resize=Resize(min_size=480, max_size=640),
        class_names=("cat", "Hündchen"),
        requires={"onnxruntime": "1.32.0", "isa": ["avx2"]},
        versions={"torch": "2.14.1"},
        weights_sha256="0" * 64,
        check=SelfCheck(8, ((1, 480, 640), (2, 480, 640)), 1e-4, 1e-6, 2e-6, 1.0, 40, 1.0, 1e-7, True),
        files={file.name: digest_of_file(file) for file in files},
        config="MODEL: {}\n",
    )
