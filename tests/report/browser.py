"""Chromium without a window, spoken to through its DevTools."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)  # fmt: skip
SECONDS = 60  # for an answer, on a machine that is busy


def program() -> str | None:
    """The browser, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Tab:
    """A page in the browser."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """A command of DevTools and its answer."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": arguments}))
        while (answer := json.loads(self._socket.recv(timeout=SECONDS))).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def show(self, page: Path, width: int, scheme: str, media: str = "screen") -> None:
        """Load a page in a window, or on paper, so wide, and wait until it has been laid out."""
        self.call("Page.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Page.navigate", url=page.as_uri())
        self.ask(
            "new Promise(done => { const look = () => document.readyState == 'complete' && "
            "document.querySelector('main') ? requestAnimationFrame(() => done(1)) : setTimeout(look, 20); "
            "look(); })"
        )

    def ask(self, script: str) -> Any:
        """What a piece of JavaScript comes to."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, height: int) -> bytes:
        """The page from its top, as PNG."""
        width = self.ask("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(found["data"])


@contextmanager
def tab(chromium: str, profile: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, which ends with the block."""
    from websockets.sync.client import connect

    process = subprocess.Popen(
        [chromium, *_FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        address = next(line.split()[-1] for line in process.stderr if "DevTools listening on" in line)
        with urllib.request.urlopen(f"http://{address.split('/')[2]}/json/list", timeout=SECONDS) as answer:
            page = next(each for each in json.load(answer) if each["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None, open_timeout=SECONDS) as socket:
            yield Tab(socket)
    finally:
        process.kill()
        process.wait()
