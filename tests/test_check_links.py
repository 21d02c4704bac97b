"""tools/check_links.py, against a server of our own."""

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.projects.scripts import TOOLS, load_script

check_links = load_script("check_links", TOOLS)
# What each path answers to HEAD and to GET; of several, one after the other.
ANSWERS: dict[str, dict[str, list[int]]] = {
    "/there": {"HEAD": [200], "GET": [200]},  # urllib follows a HEAD with a GET
    "/no-head": {"HEAD": [405], "GET": [200]},
    "/moved": {"HEAD": [301]},
    "/busy": {"HEAD": [503, 503, 200]},
    "/always-busy": {"HEAD": [429] * 9},
    "/refused": {"HEAD": [403], "GET": [403]},
    "/gone": {"HEAD": [404], "GET": [404]},
}


class Handler(BaseHTTPRequestHandler):
    asked: Counter[tuple[str, str]]

    def _answer(self) -> None:
        codes = ANSWERS[self.path][self.command]
        code = codes[min(self.asked[self.path, self.command], len(codes) - 1)]
        self.asked[self.path, self.command] += 1
        self.send_response(code)
        if code == 301:
            self.send_header("Location", "/there")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "asked", Counter(), raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(check_links.time, "sleep", lambda seconds: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_answers(server: str) -> None:
    answers = {path: check_links.ask(server + path, timeout=5, retries=2) for path in ANSWERS}
    assert {path for path, answer in answers.items() if answer.is_there} == {"/there", "/no-head", "/moved", "/busy"}
    assert {path for path, answer in answers.items() if answer.is_gone} == {"/gone"}
    assert answers["/moved"].moved == f"{server}/there"
    assert answers["/there"].moved == ""
    assert str(answers["/always-busy"]).startswith("429")
    assert Handler.asked["/always-busy", "HEAD"] == 3
    assert Handler.asked["/gone", "HEAD"] == 1


def test_no_host_answers() -> None:
    answer = check_links.ask("http://127.0.0.1:9/x", timeout=1, retries=1, pause=0)
    assert answer.status is None
    assert "refused" in str(answer)


@pytest.mark.parametrize(("paths", "code"), [(("/there", "/refused"), 0), (("/there", "/gone"), 1), (("/refused",), 0)])
def test_the_report(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], paths: tuple[str, ...], code: int
) -> None:
    page = tmp_path / "page.md"
    links = "".join(f"[a]({server}{path}#part) and [b]({server}{path})\n" for path in paths)
    page.write_text(f"{links}```\n[c]({server}/not-a-link)\n```\n")
    assert check_links.main([str(page), "--retries", "0"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(paths) + 1
    assert lines[-1].startswith(f"{len(paths)} addresses: ")
    assert all(str(page) in line for line in lines[:-1] if not line.startswith("there"))


def test_without_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("<http://127.0.0.1:9/x>")
    assert check_links.main([str(page), "--retries", "0", "--timeout", "1"]) == 1
    assert "No server answers" in capsys.readouterr().out


def test_pages_of_the_project_have_links() -> None:
    pages = [page for pattern in check_links.PATTERNS for page in check_links.ROOT.glob(pattern)]
    assert len(pages) > 15
    links = check_links.links_of(pages)
    assert "README.md" in links["https://arxiv.org/abs/2303.07335"]
