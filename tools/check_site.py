"""Check that pages of the built site ask no host for anything, and that links lead somewhere.

python tools/check_site.py docs/_build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("link", "href"),
    ("object", "data"),
}
FOLLOWED = {("a", "href")}
NO_REQUEST = {"canonical", "search", "index", "next", "prev"}  # links of a page that load nothing


class Links(HTMLParser):
    """What a page loads, and where its links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.followed: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's address."""
        found = dict(attrs)
        for name, value in found.items():
            if (tag, name) in LOADED and found.get("rel") not in NO_REQUEST:
                self.loaded.append(value or "")
            elif (tag, name) in FOLLOWED:
                self.followed.append(value or "")


def complaints(site: Path) -> list[str]:
    """Say what is asked of hosts, and which files are not there."""
    found = []
    for page in site.rglob("*.html"):
        links = Links(page.read_text())
        away = [link for link in links.loaded if urlsplit(link).netloc]
        found += [f"{page.relative_to(site)} loads {link}" for link in away]
        for link in links.loaded + links.followed:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            if not (page.parent / unquote(parts.path)).exists():
                found.append(f"{page.relative_to(site)} leads to {link}, which is not there")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(complaints(Path(sys.argv[1]))) or None)
