"""Chromium without a window, driven through a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds for one answer
START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
FLAGS = (
    "--headless", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--remote-debugging-pipe", "about:blank",
)  # fmt: skip
LOOK = """
(() => {
  const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), texts = [];
  while (nodes.nextNode()) {
    const text = nodes.currentNode.data.trim(), of = nodes.currentNode.parentElement;
    if (!text || !of.getClientRects().length || of.matches("style, tspan")) continue;
    const scale = of.getScreenCTM ? Math.hypot(of.getScreenCTM().a, of.getScreenCTM().b) : 1;
    texts.push([parseFloat(getComputedStyle(of).fontSize) * scale, text]);
  }
  const inside = [...document.querySelectorAll(".scroll, pre, td, dd")];
  return {
    width: document.scrollingElement.scrollWidth,
    smallest: texts.reduce((a, b) => b[0] < a[0] ? b : a),
    cut: inside.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText.slice(0, 60)),
    headings: [...document.querySelectorAll("h1, h2")].map(e => e.innerText),
  };
})()
"""


@dataclass
class Page:
    """A page that is open, and what it has said and asked for since."""

    browser: Browser
    session: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the page for something."""
        return self.browser.call(method, session=self.session, **parameters)

    def look(self, width: int, medium: str = "screen") -> dict[str, Any]:
        """What is seen at a width, on a screen or in print."""
        self.call("Emulation.setEmulatedMedia", media=medium)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=844,
                  deviceScaleFactor=1, mobile=width < 700)  # fmt: skip
        found = self.call("Runtime.evaluate", expression=LOOK, returnByValue=True)
        return dict(found["result"]["value"])

    def pdf(self) -> bytes:
        """The printed page, with its headings as an outline."""
        self.call("Emulation.setEmulatedMedia", media="print")
        printed = self.call("Page.printToPDF", generateDocumentOutline=True, preferCSSPageSize=True)
        return base64.b64decode(printed["data"])

    def hear(self, event: dict[str, Any]) -> None:
        """Keep what an event says of errors and requests."""
        said, method = event["params"], event["method"]
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(said["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and said["type"] == "error":
            self.errors.append(str([each.get("value") for each in said["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.errors.append(said["exceptionDetails"]["text"])


class Browser:
    """A browser with pages."""

    def __init__(self, program: str, profile: Path) -> None:
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (theirs_in, theirs_out)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, theirs), program, f"--user-data-dir={profile}",
             *FLAGS],
            pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for each in (theirs_in, theirs_out, *theirs):
            os.close(each)
        self.ours_in, self.ours_out, self.buffer = ours_in, ours_out, b""
        self.calls, self.pages = 0, dict[str, Page]()

    def open(self, path: Path) -> Page:
        """Open a file, and wait until it and all that it asks for are there."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for room in ("Page", "Network", "Runtime", "Log"):
            page.call(f"{room}.enable")
        page.call("Page.navigate", url=path.resolve().as_uri())
        while self._message().get("method") != "Page.loadEventFired":
            pass
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Ask for something, and wait for the answer."""
        self.calls += 1
        asked = {"id": self.calls, "method": method, "params": parameters}
        asked |= {"sessionId": session} if session else {}
        os.write(self.ours_out, json.dumps(asked).encode() + b"\0")
        while (answer := self._message()).get("id") != self.calls:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.ours_in], [], [], PATIENCE)
            more = os.read(self.ours_in, 1 << 16) if ready else b""
            if not more:
                raise RuntimeError("expected an answer of the browser, which is gone or too slow")
            self.buffer += more
        first, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(first)
        if message.get("sessionId") in self.pages and "method" in message:
            self.pages[message["sessionId"]].hear(message)
        return dict(message)

    def close(self) -> None:
        """End the browser."""
        self.process.kill()
        self.process.wait()
        os.close(self.ours_in)
        os.close(self.ours_out)
