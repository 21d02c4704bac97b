"""A hook of MkDocs: pages of the site that are not in docs/, because what they say stands elsewhere."""

from pathlib import Path

from config_pages import keys_page, shipped_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from places import COPIES


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.config_file_path).parent
    contents = {page: (root / source).read_text(encoding="utf-8") for page, source in COPIES.items()}
    for page, content in (contents | {"config_keys.md": keys_page(), "configs.md": shipped_page()}).items():
        files.append(File.generated(config, page, content=content))
    return files
