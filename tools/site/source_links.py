"""A hook of MkDocs: links of the pages that lead out of docs/ lead somewhere in the site, too.

In the repository, pages link to files as they lie there. Those that are pages of the site become links to these; others
become links to where the repository can be seen, ``extra.source_url`` of mkdocs.yml, or, where that is not known, the
name of the file.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from more_pages import COPIES

# Files of the repository that are pages of the site, but for docs/NAME, which are NAME.
PAGES = {"README.md": "index.md"} | {source: page for page, source in COPIES.items()}
_FENCED = re.compile(r"(^```.*?^```$)", flags=re.M | re.S)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    root = Path(config.config_file_path).parent
    return with_links(markdown, page.file.src_uri, root, config.extra["source_url"])


def with_links(markdown: str, page: str, root: Path, source_url: str) -> str:
    """Return the text of ``page``, of the site, with the links that it has there.

    Args:
        markdown: its text, with links as they are in the repository.
        page: its name below docs/, or one of ``COPIES``.
        root: of the repository.
        source_url: what the names of files are appended to; "" where there is no such place.
    """
    source = COPIES.get(page, f"docs/{page}")

    def mended(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if ":" in target or not (root / path).exists():
            return match[0]  # elsewhere; or MkDocs says that it leads nowhere
        name = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if name is not None:
            return f"{image}[{text}]({posixpath.relpath(name, posixpath.dirname(page) or '.')}{anchor})"
        if source_url:
            return f"{image}[{text}]({source_url.rstrip('/')}/{path}{anchor})"
        return f"`{path}`" if path.endswith(text.strip("`")) else f"{text} (`{path}`)"

    parts = _FENCED.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(mended, part) for part in parts)
