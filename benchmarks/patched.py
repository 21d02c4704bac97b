"""Time whole models of Hugging Face transformers as they are, and patched with our attention.

Models are of their configs' own sizes, with random weights and offsets that scatter by some pixels, in evaluation mode.
A round times one image with and one without the patch, in turns, in the same process; a ratio is the median of the
rounds' ratios. The largest difference is that of the outputs, over their largest element. It needs transformers.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from common import (
    CpuClock,
    Parser,
    add_common_options,
    add_processor_time,
    check_common_options,
    check_processor_time,
    describe_machine,
    interleave,
    machine_lines,
    positive,
    progress,
    ratio,
    say,
    summary,
    table,
    time_source,
    write_json,
)
from torch import Tensor, nn

from lite_detr_d2.integrations import patch, unpatch

try:
    import transformers as hf
except ImportError:
    hf = None

OFFSETS_STD = 0.1  # of the weights, for offsets of about 2 pixels from normalised tokens of 256 channels
OUTPUTS = ("logits", "pred_boxes", "masks_queries_logits", "class_queries_logits")
LEVELS = ("stage2", "stage3", "stage4")


@dataclass(frozen=True)
class Subject:
    """How to make a model, and the size of its image, height and width."""

    make: Callable[[], nn.Module]
    size: tuple[int, int]
    more_inputs: Callable[[], dict[str, Tensor]] = dict

    def build(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """The model and what it is given."""
        torch.manual_seed(0)
        model = self.make().eval()
        for name, module in model.named_modules():
            if name.endswith("sampling_offsets"):
                nn.init.normal_(module.weight, std=OFFSETS_STD)
        return model, {"pixel_values": torch.randn(1, 3, *self.size), **self.more_inputs()}


def _deformable_detr() -> nn.Module:
    config = hf.DeformableDetrConfig(backbone_config=hf.ResNetConfig(out_features=list(LEVELS)))
    return hf.DeformableDetrForObjectDetection(config)


def _swin(*levels: str) -> Any:
    return hf.SwinConfig(out_features=list(levels))


def _grounding_dino() -> nn.Module:
    config = hf.GroundingDinoConfig(backbone_config=_swin(*LEVELS), text_config=hf.BertConfig())
    return hf.GroundingDinoForObjectDetection(config)


def _words() -> dict[str, Tensor]:
    words = torch.tensor([[101, 1037, 4937, 1012, 1037, 6556, 2491, 1012, 102]])  # "a cat. a remote control."
    return {"input_ids": words, "attention_mask": torch.ones_like(words)}


def _mask2former() -> nn.Module:
    config = hf.Mask2FormerConfig(backbone_config=_swin("stage1", *LEVELS))
    return hf.Mask2FormerForUniversalSegmentation(config)


def _oneformer() -> nn.Module:
    config = hf.OneFormerConfig(backbone_config=_swin("stage1", *LEVELS))
    return hf.OneFormerForUniversalSegmentation(config)


SUBJECTS = {
    "Deformable DETR": Subject(_deformable_detr, (800, 1066)),
    "RT-DETR": Subject(lambda: hf.RTDetrForObjectDetection(hf.RTDetrConfig()), (640, 640)),
    "RT-DETRv2": Subject(lambda: hf.RTDetrV2ForObjectDetection(hf.RTDetrV2Config()), (640, 640)),
    "D-FINE": Subject(lambda: hf.DFineForObjectDetection(hf.DFineConfig()), (640, 640)),
    "Grounding DINO": Subject(_grounding_dino, (800, 1066), _words),
    "Mask2Former": Subject(_mask2former, (800, 1066)),
    "OneFormer": Subject(_oneformer, (800, 1066), lambda: {"task_inputs": torch.arange(77)[None]}),
}


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_common_options(parser)
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="of the CPU (default: 1)")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="(default: 3)")
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="(default: all)")
    add_processor_time(parser)
    options = parser.parse_args(arguments)
    check_common_options(parser, options, [options.threads])
    check_processor_time(parser, options)
    if torch.device(options.device).type != "cpu":
        parser.error("--device: expected cpu; what packages have on CUDA is timed by ops.py")
    if hf is None:
        parser.error("transformers is not installed")
    return options


def measure(subject: Subject, clock: CpuClock, rounds: int) -> dict[str, Any]:
    """Seconds of each round, as it is and patched, the replaced modules, and how far the outputs are apart."""
    model, inputs = subject.build()

    @torch.no_grad()
    def run() -> dict[str, Tensor]:
        found = model(**inputs)
        return {name: found[name] for name in OUTPUTS if name in found}

    before = run()
    modules = patch(model)
    difference = max(float((before[name] - after).abs().max() / after.abs().max()) for name, after in run().items())
    unpatch(model)
    state = {"patched": False}

    def prepare(patched: str) -> None:
        if state["patched"] != (patched == "patched"):
            (patch if patched == "patched" else unpatch)(model)
            state["patched"] = patched == "patched"

    times = interleave({"own": run, "patched": run}, clock, rounds=rounds, at_least=0, prepare=prepare)
    return {"modules": modules, "difference": difference, "size": subject.size, "seconds": times}


def row(name: str, result: dict[str, Any]) -> list[str]:
    own, patched = result["seconds"]["own"], result["seconds"]["patched"]
    height, width = result["size"]
    return [
        name,
        f"{height} x {width}",
        str(len(result["modules"])),
        f"{result['difference']:.0e}",
        summary(own).text(),
        summary(patched).text(),
        ratio(own, patched).text(),
    ]


def main(arguments: Sequence[str]) -> None:
    options = parse_options(arguments)
    torch.set_num_threads(options.threads)
    description = describe_machine(options.device)
    say(machine_lines(description) + f"\n- transformers: {hf.__version__}\n")
    clock = CpuClock(time_source(options.processor_time))
    step = progress(len(options.models))
    results = {}
    for name in options.models:
        step(name)
        results[name] = measure(SUBJECTS[name], clock, options.rounds)
        write_json(options.json, {"machine": description, "models": results})
    head = ["model", "image", "replaced", "largest difference", "s as it is", "s patched", "as it is / patched"]
    say(table(head, [row(name, result) for name, result in results.items()]))


if __name__ == "__main__":
    main(sys.argv[1:])
