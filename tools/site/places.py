"""Where pages of the site stand in the repository, if not in docs/ by the same name."""

COPIES = {
    "zoo.md": "projects/LiteDETR/README.md",
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
# Pages that are made of what the code says there.
MADE = {"config_keys.md": "lite_detr_d2/config/defaults.py", "configs.md": "configs"}


def source_of(page: str) -> str:
    """Return where a page of the site stands, from the root of the repository."""
    return (COPIES | MADE).get(page, f"docs/{page}")
