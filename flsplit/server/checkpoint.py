"""Enough to continue a run after a kill at any moment: what the next round starts from.

`checkpoint/state.json` is replaced in one move and names all other files it needs. Models go into two files in turn,
and clients' files of an earlier state get a new name and are written over, which is faster than making files.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from flsplit.errors import RunFailed
from flsplit.split.side import SideState
from flsplit.transport.task import Kept

_MODELS = ("models-0.safetensors", "models-1.safetensors")


@dataclass(frozen=True, kw_only=True)
class State:
    """Between two rounds.

    Attributes:
        round: the last one finished, 0 before the first.
        client_model: client-side model, with optimizer moments where all clients share them.
        server_model: server-side model with its optimizer moments.
        kept: files with what clients keep for themselves, by client and field of its `SideState`.
        now: simulated seconds so far, where the strategy keeps time.
        aggregator: what the aggregator carries from round to round.
        strategy: what the strategy carries from round to round, see `Strategy.state_dict`.
        totals: plain values to go on counting from.
    """

    round: int
    client_model: SideState
    server_model: SideState
    kept: dict[int, Kept] = field(default_factory=dict)
    now: float | None = None
    aggregator: dict[str, torch.Tensor] = field(default_factory=dict)
    strategy: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, Any] = field(default_factory=dict)


class ClientFiles:
    """Files that clients leave from round to round, each written once under its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._spare: list[Path] = []

    def make_room(self, path: Path) -> None:
        """Give `path`, if there is no such file, the memory of one that is not needed any more."""
        if self._spare and not path.exists():
            self._spare.pop().rename(path)

    def keep(self, needed: set[str]) -> None:
        """Keep these files; all others may be written over, so that there are no more than a round needs."""
        with os.scandir(self.folder) as files:
            self._spare = [Path(file) for file in files if file.path not in needed and file.name.endswith(".npy")]


class Checkpoints:
    """The checkpoint folder of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clients = ClientFiles(folder / "clients")
        self._models = ""  # the file of models that the last checkpoint names
        self._needed: set[str] = set()  # and its files of clients

    def create(self) -> None:
        """Make the folders, without what a killed process was about to make (see `flsplit.transport.vectors`)."""
        self.clients.folder.mkdir(parents=True, exist_ok=True)
        for room in self.clients.folder.glob("*.room"):
            room.unlink()

    def save(self, state: State) -> None:
        """Replace the last checkpoint by `state`."""
        tensors = {f"aggregator.{key}": value for key, value in state.aggregator.items()}
        if state.strategy:
            tensors["strategy"] = _packed(state.strategy)
        for name, side in (("client", state.client_model), ("server", state.server_model)):
            tensors[f"{name}.weights"] = side.weights
            if side.moments is not None:
                tensors[f"{name}.moments"] = side.moments
        models = next(name for name in _MODELS if name != self._models)
        # Cloned, since safetensors refuses tensors that share memory.
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, self.folder / models)
        kept = {
            str(client): {field: Path(path).name for field, path in files.items()}
            for client, files in state.kept.items()
        }
        values = {
            "round": state.round, "file": models, "kept": kept, "now": state.now, "totals": state.totals,
        }  # fmt: skip
        part = self.folder / "state.part"
        part.write_text(json.dumps(values))
        part.replace(self.folder / "state.json")
        self._models, self._needed = models, _client_files(state)
        self.clients.keep(self._needed)

    def hold(self, state: State) -> None:
        """Keep clients' files as `state`, which may be saved later, and the last checkpoint need them."""
        self.clients.keep(self._needed | _client_files(state))

    def load(self) -> State | None:
        """The last checkpoint, or None if no round was finished."""
        path = self.folder / "state.json"
        if not path.exists():
            return None
        values = json.loads(path.read_text())
        tensors: dict[str, torch.Tensor] = load_file(self.folder / values["file"])
        state = State(
            round=values["round"],
            client_model=SideState(tensors["client.weights"], tensors.get("client.moments")),
            server_model=SideState(tensors["server.weights"], tensors.get("server.moments")),
            kept={
                int(client): {field: str(self.clients.folder / name) for field, name in files.items()}
                for client, files in values["kept"].items()
            },
            now=values["now"],
            aggregator=_below("aggregator.", tensors),
            strategy=_unpacked(tensors["strategy"]) if "strategy" in tensors else {},
            totals=values["totals"],
        )
        self._models, self._needed = values["file"], _client_files(state)
        return state


def _packed(values: dict[str, Any]) -> torch.Tensor:
    """A strategy's state as bytes.

    Raises:
        RunFailed: if they could not be read again.
    """
    buffer = io.BytesIO()
    try:
        torch.save(values, buffer)
        packed = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
        _unpacked(packed)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise RunFailed(
            "the strategy's state_dict must hold numbers, text, tensors, and lists, tuples and dicts of these: "
            f"it cannot be kept ({type(error).__name__}: {reason})"
        ) from error
    return packed


def _unpacked(packed: torch.Tensor) -> dict[str, Any]:
    """The inverse of `_packed`; nothing but plain values and tensors is read, whoever has written the file."""
    found: dict[str, Any] = torch.load(io.BytesIO(packed.numpy().tobytes()), weights_only=True)
    return found


def _client_files(state: State) -> set[str]:
    return {path for files in state.kept.values() for path in files.values()}


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
