"""A hook of MkDocs: links between files of the repository lead somewhere in the site, too.

In the repository, pages link to files as they lie there. Those that are pages of the site become links to these; others
become links to where the repository can be seen, ``extra.source_url`` of mkdocs.yml, or, where that is not known, the
name of the file. llms.txt is copied to the site so.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from places import COPIES, MADE, source_of

_FENCED = re.compile(r"(^```.*?^```$)", flags=re.M | re.S)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_COPIED = {source: page for page, source in COPIES.items()}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    pages = {"README.md": "index.md"} | _COPIED
    return with_links(markdown, page.file.src_uri, source_of(page.file.src_uri), pages, config)


def on_post_build(config: MkDocsConfig) -> None:
    name = "llms.txt"
    text = (_root(config) / name).read_text(encoding="utf-8")
    pages = _COPIED | {source: page for page, source in MADE.items()}
    linked = with_links(text, name, name, pages, config)
    Path(config.site_dir, name).write_text(re.sub(r"\.md(#[^)\s]*)?\)", r".html\1)", linked), encoding="utf-8")


def with_links(markdown: str, page: str, source: str, pages: dict[str, str], config: MkDocsConfig) -> str:
    """Return the text of a page with the links that it has in the site.

    Args:
        markdown: its text, with links as they are in the repository.
        page: its name in the site, from its root.
        source: where it stands in the repository.
        pages: files of the repository, and the pages of the site that they are; docs/NAME is NAME without that.
        config: of the site.
    """
    source_url: str = config.extra["source_url"]

    def mended(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if ":" in target or not (_root(config) / path).exists():
            return match[0]  # elsewhere; or MkDocs says that it leads nowhere
        name = pages.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if name is not None:
            return f"{image}[{text}]({posixpath.relpath(name, posixpath.dirname(page) or '.')}{anchor})"
        if source_url:
            return f"{image}[{text}]({source_url.rstrip('/')}/{path}{anchor})"
        return f"`{path}`" if path.endswith(text.strip("`")) else f"{text} (`{path}`)"

    parts = _FENCED.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(mended, part) for part in parts)


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent
