"""Say whether what README and docs link to outside of the project is there: `make links`. It needs the network.

usage: check_links.py [--timeout SECONDS] [--retries N] [PAGE ...]

Each address is asked for once, however many pages have it. The exit code is 1 if one is gone, or if no server answers.
A server that is busy, or that refuses programs, says nothing about the page: its addresses are listed.
"""

import argparse
import re
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = ("*.md", "llms.txt", "docs/**/*.md", "benchmarks/*.md", "projects/**/*.md", "tools/site/config_pages.py")
AT_ONCE = 8
GONE = (404, 410)
# Servers that are busy: they are asked again.
BUSY = (408, 425, 429, 500, 502, 503, 504)
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; check_links.py)", "Accept": "*/*"}
_LINK = re.compile(r"\]\((https?://[^)\s]+)\)|<(https?://[^>\s]+)>|\b(?:href|src)=\"(https?://[^\"]+)\"")
_FENCED = re.compile(r"^```.*?^```$", flags=re.M | re.S)


@dataclass(frozen=True)
class Answer:
    """What came of an address: the status, or why there is none; and where it has moved to, if it has."""

    status: int | None
    reason: str = ""
    moved: str = ""

    @property
    def is_gone(self) -> bool:
        return self.status in GONE

    @property
    def is_there(self) -> bool:
        return self.status is not None and self.status < 400

    def __str__(self) -> str:
        status = "no answer" if self.status is None else str(self.status)
        return " ".join(filter(None, (status, self.reason, self.moved and f"-> {self.moved}")))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", metavar="PAGE", nargs="*", type=Path, help="default: README, docs and the like")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=20, help="of an answer (default: 20)")
    parser.add_argument("--retries", metavar="N", type=int, default=2, help="of busy servers (default: 2)")
    args = parser.parse_args(arguments)
    links = links_of(args.pages or sorted({page for pattern in PATTERNS for page in ROOT.glob(pattern)}))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip(links, pool.map(lambda url: ask(url, args.timeout, args.retries), links), strict=True))
    for url, answer in sorted(answers.items(), key=lambda item: (item[1].is_there, item[0])):
        word = "there" if answer.is_there else "GONE" if answer.is_gone else "unknown"
        print(f"{word:<8} {url} ({answer})", "" if answer.is_there else f"in {', '.join(links[url])}")
    gone, there = (sum(getattr(answer, name) for answer in answers.values()) for name in ("is_gone", "is_there"))
    print(f"{len(answers)} addresses: {there} there, {gone} gone, {len(answers) - there - gone} unknown")
    if none_answers := answers and all(answer.status is None for answer in answers.values()):
        print("No server answers: is there a network, and does it need a proxy (HTTPS_PROXY)?")
    return int(gone > 0 or bool(none_answers))


def links_of(pages: Iterable[Path]) -> dict[str, list[str]]:
    """The addresses that pages link to, without their anchors, and the pages that have each."""
    links = defaultdict(list)
    for page in pages:
        name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else str(page)
        for found in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
            url = "".join(found).partition("#")[0]
            if name not in links[url]:
                links[url].append(name)
    return dict(links)


def ask(url: str, timeout: float, retries: int, pause: float = 2) -> Answer:
    """Ask for an address; again, after longer and longer pauses in seconds, while its server is busy or silent."""
    answer = _ask(url, timeout)
    for attempt in range(retries):
        if answer.status is not None and answer.status not in BUSY:
            break
        time.sleep(pause * 2**attempt)
        answer = _ask(url, timeout)
    return answer


def _ask(url: str, timeout: float) -> Answer:
    answer = Answer(None)
    for method in ("HEAD", "GET"):  # not all servers know the former
        request = urllib.request.Request(url, headers=HEADERS, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return Answer(response.status, moved="" if response.url == url else response.url)
        except urllib.error.HTTPError as error:
            answer = Answer(error.code, error.reason)
            if error.code in BUSY:
                break
        except (OSError, ValueError) as error:  # no such host, no network, no answer in time; no address
            return Answer(None, str(getattr(error, "reason", error)))
    return answer


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
