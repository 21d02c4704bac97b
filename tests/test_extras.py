"""Packages that need not be there."""

import sys
from pathlib import Path

import pytest

from lite_detr_d2.errors import InputError
from lite_detr_d2.extras import check_extra, import_extra


def test_what_is_installed_is_imported() -> None:
    assert import_extra("json.decoder", extra="export") is sys.modules["json.decoder"]


@pytest.mark.parametrize("name", ["not_there_at_all", "not_there_at_all.either"])
def test_what_is_missing_names_its_extra(name: str) -> None:
    message = r"^not_there_at_all is needed, but is not installed\. pip install 'lite_detr_d2\[export\]'"
    with pytest.raises(InputError, match=message):
        import_extra(name, extra="export")


def test_what_is_installed_is_known_without_importing_it() -> None:
    check_extra("this", extra="export")
    assert "this" not in sys.modules
    with pytest.raises(InputError, match=r"^not_there is needed, but is not installed\. pip install .*\[int8\]"):
        check_extra("not_there", extra="int8")


@pytest.mark.parametrize("line", ["import lacking_too", "raise ImportError('libfoo.so.1: no such file')"])
def test_what_cannot_be_imported_says_why(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_extra.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"broken_extra is needed, but cannot be imported: .*(lacking_too|libfoo)"):
        import_extra("broken_extra", extra="export")
