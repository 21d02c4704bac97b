"""Which checkpoint of a folder a training goes on from: the last, or where that is damaged the newest intact one."""

import logging
import os
import re
from collections.abc import Collection

from ..checkpoint import is_intact, iteration_of, skimmed
from ..errors import InputError
from ..wording import in_short, shown

logger = logging.getLogger(__name__)

# The file that names the last one.
TAG = "last_checkpoint"
# Of periodic checkpoints, by the iteration; and of the others that a training writes.
PERIODIC = re.compile(r"model_(\d{7,})\.pth")
FINAL, BEST = "model_final", "model_best"


def is_checkpoint_name(name: str) -> bool:
    """Whether a training writes checkpoints of this name."""
    return bool(PERIODIC.fullmatch(name)) or name in (f"{FINAL}.pth", f"{BEST}.pth")


def tagged_checkpoint(folder: str) -> tuple[str, str]:
    """The file that ``last_checkpoint`` names, or else "", and what is wrong with that; "" if nothing is."""
    tag = os.path.join(folder, TAG)
    try:
        with open(tag, encoding="utf-8") as file:
            name = file.read().strip()
    except FileNotFoundError:
        return "", f"{shown(tag)} is missing"
    except (OSError, UnicodeDecodeError):
        return "", f"{shown(tag)} cannot be read"
    if not name.isprintable() or not name:
        return "", f"{shown(tag)} names no file"
    path = os.path.join(folder, name)
    return (path, "") if os.path.isfile(path) else ("", f"{shown(tag)} names {name}, which is not there")


def find_last_checkpoint(folder: str, needed: Collection[str] = ()) -> str:
    """The checkpoint to go on from; "" if there is none.

    It is the one that ``last_checkpoint`` names, or where that is lost or damaged the intact one of the highest
    iteration, and the log names both.

    Args:
        folder: ``OUTPUT_DIR``.
        needed: what a checkpoint has to hold, of which the one that is named may lack a part.

    Raises:
        InputError: there are checkpoints, and none is intact; or they hold weights alone, and would be written over.
    """
    tagged, flaw = tagged_checkpoint(folder)
    if tagged and is_intact(tagged):
        content = skimmed(tagged)  # nothing where it is foreign, which loading it says
        if content and needed and not content.keys() & set(needed):
            raise _no_training(tagged)
        return tagged
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    files = [path for name in names if name.endswith(".pth") and os.path.isfile(path := os.path.join(folder, name))]
    intact = [path for path in files if path != tagged and is_intact(path)]
    contents = {path: skimmed(path) for path in intact}
    usable = {
        path: _age(path, content.get("iteration"))
        for path, content in contents.items()
        if content.keys() >= set(needed)
    }
    damaged = [
        path for path in files if path not in intact and (path == tagged or is_checkpoint_name(os.path.basename(path)))
    ]
    if not usable:
        if not damaged:
            # Another training would write them over.
            in_the_way = [path for path in intact if is_checkpoint_name(os.path.basename(path))]
            if in_the_way:
                raise _no_training(in_the_way[-1])
            return ""
        raise InputError(
            f"{_as_damaged(damaged, tagged)}, and {shown(folder)} has no intact one: restore one, or train anew there "
            "with --overwrite."
        )
    newest = max(usable, key=lambda path: usable[path])
    wrong = [flaw] * bool(flaw) + [_as_damaged(damaged, tagged)] * bool(damaged)
    iteration = contents[newest].get("iteration")
    logger.warning("%s: taking %s, of iteration %s, instead.", "; ".join(wrong), shown(newest), iteration)
    return newest


def is_newer(path: str, other: str) -> bool:
    """Whether a checkpoint is of a later iteration than another, or where one does not say was written later."""
    iterations = iteration_of(path), iteration_of(other)
    if iterations[0] is None or iterations[1] is None:
        return os.path.getmtime(path) > os.path.getmtime(other)
    return iterations[0] > iterations[1]


def _no_training(path: str) -> InputError:
    return InputError(
        f"{shown(path)} holds no state of a training, and none can go on from it. Start one from its weights, as "
        "MODEL.WEIGHTS, without --resume in another OUTPUT_DIR."
    )


def _age(path: str, iteration: object) -> tuple[int, float]:
    """What is higher of a newer checkpoint."""
    return iteration if isinstance(iteration, int) else -1, os.path.getmtime(path)


def _as_damaged(files: list[str], tagged: str) -> str:
    others = [shown(path) for path in files if path != tagged]
    text = f"The last checkpoint, {shown(tagged)}, is damaged" if tagged else ""
    if others:
        listed = f"{in_short(others)} {'are' if len(others) > 1 else 'is'} damaged"
        text = f"{text}, and {listed}" if text else listed
    return text
