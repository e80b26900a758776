"""The Hugging Face Hub: whether it can be reached, asked once and briefly, and the bars that its clients show."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from urllib.parse import urlsplit
from urllib.request import getproxies

_SECONDS = 3.0  # in which it must answer


def reachable() -> bool:
    """Whether the Hub, or the proxy on the way to it, accepts a connection in time."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    address = urlsplit(getproxies().get(endpoint.scheme, "")) if getproxies() else endpoint
    if not address.hostname:
        address = endpoint
    default = 443 if address.scheme == "https" else 80
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((address.hostname, address.port or default), _SECONDS).close()
        except OSError:
            return
        answered.set()

    # A thread, because looking up a name has no timeout of its own.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(_SECONDS)
    return answered.is_set()


DATASETS, HUB = "datasets", "huggingface_hub.utils"


@contextmanager
def bars(*libraries: str) -> Iterator[None]:
    """Around what downloads: the bars of these libraries are for a terminal, and for who wants progress."""
    if not sys.stderr.isatty() or os.environ.get("FLSPLIT_PROGRESS") == "0":
        with no_bars(*libraries):
            yield
    else:
        yield


@contextmanager
def no_bars(*libraries: str) -> Iterator[None]:
    """These libraries, `DATASETS` or `HUB`, show none."""
    found = [import_module(library) for library in libraries]
    shown = [library for library in found if not library.are_progress_bars_disabled()]
    for library in shown:
        library.disable_progress_bars()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bars()
