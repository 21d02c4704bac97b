"""A hook of MkDocs: links between files of the repository lead somewhere in the site, too.

In the repository, pages link to files as they lie there. Those that are pages of the site become links to these; others
become links to where the repository can be seen, ``extra.source_url`` of mkdocs.yml, or, where that is not known, the
name of the file. llms.txt is copied to the site so.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from places import COPIES, MADE, source_of

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_FENCED = re.compile(r"(^```.*?^```$)", flags=re.M | re.S)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_COPIED = {source: page for page, source in COPIES.items()}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    name = page.file.src_uri
    return with_links(markdown, name, source_of(name), {"README.md": "index.md"} | _COPIED, *_where(config))


def on_post_build(config: MkDocsConfig) -> None:
    name, (root, source_url) = "llms.txt", _where(config)
    pages = _COPIED | {source: page for page, source in MADE.items()}
    linked = with_links((root / name).read_text(encoding="utf-8"), name, name, pages, root, source_url)
    Path(config.site_dir, name).write_text(re.sub(r"\.md(#[^)\s]*)?\)", r".html\1)", linked), encoding="utf-8")


def _where(config: MkDocsConfig) -> tuple[Path, str]:
    return Path(config.config_file_path).parent, config.extra["source_url"]


def with_links(markdown: str, page: str, source: str, pages: dict[str, str], root: Path, source_url: str) -> str:
    """Return the text of a page with the links that it has in the site.

    Args:
        markdown: its text, with links as they are in the repository.
        page: its name in the site, from its root.
        source: where it stands in the repository.
        pages: files of the repository, and the pages of the site that they are; docs/NAME is NAME without that.
        root: of the repository.
        source_url: what the names of its files are appended to; "" where there is no such place.
    """

    def mended(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if ":" in target or not (root / path).exists():
            return match[0]  # elsewhere; or MkDocs says that it leads nowhere
        is_in_docs = path.startswith("docs/") and not path.endswith((".py", ".sh"))
        name = pages.get(path) or (path.removeprefix("docs/") if is_in_docs else None)
        if name is not None:
            return f"{image}[{text}]({posixpath.relpath(name, posixpath.dirname(page) or '.')}{anchor})"
        if source_url:
            return f"{image}[{text}]({source_url.rstrip('/')}/{path}{anchor})"
        return f"`{path}`" if path.endswith(text.strip("`")) else f"{text} (`{path}`)"

    parts = _FENCED.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(mended, part) for part in parts)
