"""A small package index in a folder, with small packages, and locks of them."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

BROKEN = "raise RuntimeError('this release is broken')\n"


def make_wheel(
    folder: Path, name: str, version: str, *, requires: str = "", source: str = "", tag: str = "py3-none-any"
) -> Path:
    """A package of one module, with the content ``source``."""
    information = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: more\n"
    files = {
        f"{name}.py": source,
        f"{information}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{information}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    files[f"{information}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{information}/RECORD"))
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def make_sdist(folder: Path, name: str, version: str, build_system: str | None) -> Path:
    """A package whose module says which setuptools has built it.

    Args:
        build_system: the content of pyproject.toml; None leaves it out, as old packages do.
    """
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "setup.py": (
            "import pathlib, setuptools\n"
            f"pathlib.Path('{name}.py').write_text(f'BUILT_BY = \"{{setuptools.__version__}}\"')\n"
            f"setuptools.setup(name='{name}', version='{version}', py_modules=['{name}'])\n"
        ),
    }
    if build_system is not None:
        files["pyproject.toml"] = build_system
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def write_index(folder: Path, files: list[Path]) -> str:
    """Pages that list ``files`` by package; returns the index's URL."""
    pages: dict[str, list[Path]] = {}
    for file in files:
        pages.setdefault(file.name.split("-")[0].replace("_", "-"), []).append(file)
    for name, listed in pages.items():
        (folder / name).mkdir(parents=True)
        links = "".join(f'<a href="{file.as_uri()}">{file.name}</a>\n' for file in listed)
        (folder / name / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n")
    return folder.as_uri()


def lock_line(file: Path) -> str:
    name, version = file.name.removesuffix(".tar.gz").split("-")[:2]
    return f"{name.replace('_', '-')}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"
