"""The actor behind `flsplit.transport.named_hub.NamedHub`. It imports nothing heavy, so that it starts at once."""

from __future__ import annotations

from typing import Any


class Directory:
    """Keys to references of Ray objects (each wrapped in a list, so that Ray does not fetch it), and progress."""

    def __init__(self) -> None:
        self._references: dict[str, list[Any]] = {}
        self._reports: dict[int, tuple[dict[str, Any], float]] = {}

    def put(self, wrapped: dict[str, list[Any]]) -> None:
        """Keep references."""
        self._references |= wrapped

    def get(self, key: str) -> list[Any]:
        """The reference kept under `key`."""
        return self._references[key]

    def take(self, keys: list[str]) -> list[list[Any]]:
        """The references kept under `keys`, which are forgotten; with its last reference an object goes."""
        return [self._references.pop(key) for key in keys]

    def report(self, client: int, tally: dict[str, Any], loss: float) -> None:
        """Note how far a client has come."""
        self._reports[client] = (tally, loss)

    def progress(self) -> dict[int, tuple[dict[str, Any], float]]:
        """The latest notes."""
        return self._reports

    def new_round(self) -> None:
        """Forget everything; objects go with their last reference."""
        self._references, self._reports = {}, {}
