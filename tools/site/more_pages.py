"""A hook of MkDocs: pages of the site that are not in docs/, because what they say stands elsewhere.

Some are files of the repository as they are; others are made of the code.
"""

from pathlib import Path

from config_pages import keys_page, shipped_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# Pages that are files of the repository.
COPIES = {
    "zoo.md": "projects/LiteDETR/README.md",
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
MADE = {"config_keys.md": keys_page, "configs.md": shipped_page}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.config_file_path).parent
    for page, source in COPIES.items():
        files.append(File.generated(config, page, content=(root / source).read_text(encoding="utf-8")))
    for page, make in MADE.items():
        files.append(File.generated(config, page, content=make()))
    return files
