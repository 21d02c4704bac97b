"""A hook of MkDocs: no page of the site may load anything from elsewhere."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

# Elements that load what they name, unlike links; and what style sheets load.
_LOADED = (
    re.compile(r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|data|srcset)=[\"']?((?:https?:)?//[^\s\"'>]+)"),
    re.compile(r"<link\b[^>]*?\bhref=[\"']?((?:https?:)?//[^\s\"'>]+)"),
    re.compile(r"url\([\"']?((?:https?:)?//[^\s\"')]+)"),
)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    if found := foreign(output):
        raise PluginError(f"{page.file.src_uri} would load {', '.join(found)}: put a copy into docs/.")


def foreign(html: str) -> list[str]:
    """Return the addresses that a page loads something from."""
    return [address for pattern in _LOADED for address in pattern.findall(html)]
