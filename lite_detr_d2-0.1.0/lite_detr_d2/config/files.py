"""Config files and overrides: read as data, never as code, and checked key by key where they stand.

detectron2's own reader runs what a file asks for (``yaml.unsafe_load``), as soon as it has a tag that plain YAML does
not know.
"""

import os
from ast import literal_eval
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from ..errors import InputError
from ..wording import one_line, quoted, shortened, shown
from .kinds import nearest
from .schema import check_value, leaves

BASE_KEY = "_BASE_"
_MOST_BYTES = 4_000_000
# Aliases count each time: a few lines of them would fill the memory.
_MOST_VALUES = 1_000_000
_CORE = "tag:yaml.org,2002:"
_TAGS = {f"{_CORE}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map", "merge", "timestamp")}
_BEING_COUNTED = -1


def merge_file(cfg: CfgNode, file: str) -> None:
    """Set the keys of a YAML file, and before them those of the files that its ``_BASE_`` names, in ``cfg``.

    Args:
        cfg: a config, changed in place.
        file: its name, or an address that detectron2 knows. ``_BASE_`` is relative to it, and may be a list, of which
            later ones win.

    Raises:
        InputError: a file cannot be read, is no YAML or asks for more than values, or has a key that is not known or
            whose value is not what the schema allows. It names the file, and the key.
    """
    _merge(cfg, _read(cfg, os.fspath(file), (), {}), f"Config {shown(file)}")


def merge_text(cfg: CfgNode, text: str, source: str) -> None:
    """As :func:`merge_file`, of YAML that is in no file of its own: ``source`` is its name, and it has no bases.

    Raises:
        InputError: as :func:`merge_file`.
    """
    try:
        tree = _parse(text)
        _check_tree(cfg, tree, "")
    except InputError as error:
        raise InputError(f"{source}: {error}") from error.__cause__
    _merge(cfg, tree, source)


def merge_overrides(cfg: CfgNode, overrides: Sequence[object]) -> None:
    """Set keys in ``cfg``, given as KEY VALUE KEY VALUE ...; what looks like a Python literal is read as one.

    Raises:
        InputError: a key is not known, has no value, or its value is not what the schema allows.
    """
    keys, values = overrides[::2], overrides[1::2]
    known = dict(leaves(cfg))
    for place, word in enumerate(map(str, overrides)):
        name, sign, text = word.partition("=")
        # A value that reads like a key and its value is one, where it follows a key: such as the name of a folder.
        is_value = place % 2 == 1 and str(overrides[place - 1]) in known
        if sign and not is_value and (name in known or place % 2 == 0):
            pair = f"{shortened(name)} {shortened(text or 'VALUE')}"
            raise InputError(f"{shortened(word)}: set a blank between KEY and VALUE, {pair}.")
    if len(keys) > len(values):
        raise InputError(f"{quoted(keys[-1])} is the last of the KEY VALUE pairs, and has no value: give it one.")
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, str) or key not in known:
            raise InputError(_unknown(str(key), list(known)))
        _check(key, value, known[key])
    try:
        cfg.merge_from_list(list(overrides))
    except (KeyError, ValueError, AssertionError) as error:
        raise InputError(one_line(error)) from error


def _merge(cfg: CfgNode, tree: dict[str, Any], source: str) -> None:
    try:
        cfg.merge_from_other_cfg(CfgNode(tree))
    except (KeyError, ValueError, AssertionError) as error:  # of keys that only detectron2's other models read
        raise InputError(f"{source}: {one_line(error)}") from error


def _read(cfg: CfgNode, file: str, below: tuple[str, ...], known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a file says, over what its bases say; ``below`` are the files that it is a base of.

    Files of which several name several are as many ways to one of them as 2 to the power of the levels: each is read
    once, and kept in ``known``.
    """
    name = _name(file)
    if name in known:
        return deepcopy(known[name])
    # By another path, too, as ../a/config.yaml is.
    if os.path.realpath(file) in map(os.path.realpath, below):
        raise InputError(f"Config {shown(below[0])}: {BASE_KEY} goes round: {' -> '.join(map(shown, (*below, file)))}.")
    try:
        tree = _parse(_content(file))
        bases = tree.pop(BASE_KEY, [])
        _check_tree(cfg, tree, "")
    except InputError as error:
        named = f", a base of {shown(below[-1])}" if below else ""
        raise InputError(f"Config {shown(file)}{named}: {error}") from error.__cause__
    if isinstance(bases, str):
        bases = [bases]
    if not (isinstance(bases, list) and all(isinstance(base, str) and base for base in bases)):
        raise InputError(f"Config {shown(file)}: {BASE_KEY} is {quoted(bases)}: expected a file, or a list of files.")
    merged: dict[str, Any] = {}
    for base in bases:
        path = os.path.expanduser(base)
        if not path.startswith(("/", "https://", "http://")):
            path = os.path.join(os.path.dirname(file), path)
        _overlay(merged, _read(cfg, path, (*below, file), known))
    _overlay(merged, tree)
    known[name] = deepcopy(merged)
    return merged


def _name(file: str) -> str:
    """One for all spellings of a file's path. A link is a file of its own: its bases are beside the link."""
    folder, base = os.path.split(file)
    return file if "://" in file else os.path.join(os.path.realpath(folder), base)


def _overlay(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    """Put what ``upper`` says over ``lower``, in place."""
    for name, value in upper.items():
        if isinstance(value, dict) and isinstance(lower.get(name), dict):
            _overlay(lower[name], value)
        else:
            lower[name] = value


def _content(file: str) -> bytes:
    try:
        if not PathManager.isfile(file):
            raise InputError("there is no such file.")
        with PathManager.open(file, "rb") as opened:
            content: bytes = opened.read(_MOST_BYTES + 1)
    except InputError:
        raise
    except Exception as error:  # of the system, or of whatever fetches an address
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"it cannot be read: {reason}.") from error
    if len(content) > _MOST_BYTES:
        raise InputError(f"it is larger than {_MOST_BYTES // 10**6} MB, and so no config.")
    return content


def _parse(content: bytes | str) -> dict[str, Any]:
    """Read YAML of maps with names, lists and plain values."""
    try:
        loader = yaml.SafeLoader(content)
        try:
            root = loader.get_single_node()
            if not isinstance(root, yaml.MappingNode):
                raise InputError("it has no keys: expected lines such as 'MODEL:'.")
            if _count(root, {}) > _MOST_VALUES:
                raise InputError(f"it has more than {_MOST_VALUES} values, and so is no config.")
            tree: dict[str, Any] = loader.construct_document(root)
        finally:
            loader.dispose()
    except InputError:
        raise
    except RecursionError as error:
        raise InputError("it has too many levels.") from error
    except Exception as error:  # PyYAML raises whatever a broken file makes it stumble over
        raise InputError(f"it is not YAML: {one_line(error)}") from error
    return tree


def _count(node: yaml.Node, counted: dict[int, int]) -> int:
    """The number of values in ``node``, once it is known that all of them are values, below names that occur once."""
    if id(node) in counted:
        if counted[id(node)] == _BEING_COUNTED:
            raise InputError(f"{_line(node)}: what is here holds itself.")
        return counted[id(node)]
    counted[id(node)] = _BEING_COUNTED
    if node.tag not in _TAGS:
        tag = node.tag.replace(_CORE, "!!")
        raise InputError(f"{_line(node)}: {quoted(tag)} is no kind of value. A config holds values, and runs nothing.")
    items: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        items = node.value
    elif isinstance(node, yaml.MappingNode):
        _check_names([name for name, _ in node.value])
        items = [value for _, value in node.value]
    counted[id(node)] = 1 + sum(_count(item, counted) for item in items)
    return counted[id(node)]


def _check_names(names: Sequence[yaml.Node]) -> None:
    seen = set()
    for name in names:
        if name.tag not in (f"{_CORE}str", f"{_CORE}merge"):
            what = quoted(name.value) if isinstance(name, yaml.ScalarNode) else "what stands"
            raise InputError(f"{_line(name)}: {what} before a colon is no name: expected a key, such as MODEL.")
        if name.value in seen:
            raise InputError(f"{_line(name)}: {name.value} stands twice in the same place: leave one.")
        seen.add(name.value)


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _check_tree(node: CfgNode, tree: dict[str, Any], prefix: str) -> None:
    """Check the names and values of a file against a config, whose ``node`` is at ``prefix``."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in node:
            raise InputError(_unknown(key, [f"{prefix}{other}" for other in node]))
        known = node[name]
        if not isinstance(known, CfgNode):
            _check(key, value, known)
        elif isinstance(value, dict):
            _check_tree(known, value, f"{key}.")
        else:
            raise InputError(f"{key} is {quoted(value)}: expected keys below it, such as {key}.{next(iter(known))}.")


def _check(key: str, value: object, default: object) -> None:
    """Check a value as it is written; texts that look like Python literals become what they look like."""
    if isinstance(value, str):
        try:
            value = literal_eval(value)
        except (ValueError, SyntaxError):
            pass  # a text
        except (TypeError, MemoryError, RecursionError) as error:
            raise InputError(f"{key} is {quoted(value)}, which cannot be read as a value.") from error
    check_value(key, value)
    if type(default) is float and type(value) is int:  # detectron2 takes none for the other
        raise InputError(f"{key} is {value}: expected a number with a decimal point, such as {value}.0.")


def _unknown(key: str, known: Sequence[str]) -> str:
    near = nearest(key, known)
    return f"{quoted(key)[1:-1]} is not a key of the config.{f' Did you mean {near}?' if near else ''}"
