"""An extension of Griffe: Sphinx's roles in docstrings become links to what they name, where the site has it."""

import re
from typing import Any

from griffe import Extension, Module, NameResolutionError, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`(~?)([^`]+)`")


class Roles(Extension):
    """Replaces them in every docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_links(obj.docstring.value, obj)


def with_links(text: str, where: Object) -> str:
    def link(match: re.Match[str]) -> str:
        short, name = match.groups()
        shown = name.rpartition(".")[2] if short or name.startswith(".") else name
        target = _resolved(name, where)
        return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>' if target else f"`{shown}`"

    return _ROLE.sub(link, text)


def _resolved(name: str, where: Object) -> str | None:
    """The full name of what ``name`` means in the docstring of ``where``."""
    module: Module = where.module
    if name.startswith("."):
        return f"{module.parent.path if module.parent else module.path}{name}"
    if name.startswith(f"{module.package.path}."):
        return name
    head, _, rest = name.partition(".")
    try:
        found = where.resolve(head)
    except NameResolutionError:
        return None
    return f"{found}.{rest}" if rest else found
