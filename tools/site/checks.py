"""A hook of MkDocs: what a warning of MkDocs does not say. It ends the build with what is wrong, and the cure.

- No page may load anything from elsewhere.
- The reference has whatever the packages of the code export.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

# Elements that load what they name, unlike links; and what style sheets load.
_LOADED = (
    re.compile(
        r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?"
        r"\b(?:src|data|srcset)=[\"']?((?:https?:)?//[^\s\"'>]+)"
    ),
    re.compile(r"<link\b[^>]*?\bhref=[\"']?((?:https?:)?//[^\s\"'>]+)"),
    re.compile(r"url\([\"']?((?:https?:)?//[^\s\"')]+)"),
)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    if found := foreign(output):
        raise PluginError(f"{page.file.src_uri} would load {', '.join(found)}: put a copy into docs/.")


def foreign(html: str) -> list[str]:
    """Return the addresses that a page loads something from."""
    return [address for pattern in _LOADED for address in pattern.findall(html)]


def on_post_build(config: MkDocsConfig) -> None:
    package = Path(config.config_file_path).parent / "lite_detr_d2"
    pages = "".join(path.read_text(encoding="utf-8") for path in Path(config.site_dir, "reference").glob("*.html"))
    shown = re.findall(r"\bid=\"(lite_detr_d2\.[\w.]+)\"", pages)
    # Where a module has the name of a function in it, that one is shown by its full name.
    known = {(name.split(".")[1], name.rpartition(".")[2]) for name in shown}
    if missing := [f"lite_detr_d2.{'.'.join(names)}" for names in exported(package) if names not in known]:
        raise PluginError(
            f"No page of docs/reference shows {', '.join(missing)}: give it a docstring, or name its module there."
        )


def exported(package: Path) -> Iterator[tuple[str, str]]:
    """Yield what packages below ``package`` export, but for constants: the package's name, and that of a thing."""
    for file in sorted(package.glob("*/__init__.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                yield from ((file.parent.name, name) for name in ast.literal_eval(node.value) if not name.isupper())
