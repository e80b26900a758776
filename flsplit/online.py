"""Whether the Hugging Face Hub can be reached, which is asked once and briefly: its own clients try for minutes."""

from __future__ import annotations

import os
import socket
import threading
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
