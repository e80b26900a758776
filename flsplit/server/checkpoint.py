"""Enough to continue a run after a kill at any moment: what the next round starts from.

`checkpoint/state.json` names all other files it needs, with their digests. So does `before.json`, the state that was
saved before it: where anything of the last one is damaged, a run goes on from there. Everything is on the disk before
`state.json` is replaced, in one move. Models go into three files in turn, and clients' files that neither state needs
get a new name and are written over, which is faster than making files.
"""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from flsplit.errors import RunFailed
from flsplit.record import atomic
from flsplit.record.tables import Recorder
from flsplit.split.side import SideState
from flsplit.transport import vectors
from flsplit.transport.task import Kept

_MODELS = ("models-0.safetensors", "models-1.safetensors", "models-2.safetensors")
_STATES = ("state.json", "before.json")  # the last one, and the one before it


class Damaged(RuntimeError):
    """No checkpoint is whole; why the last one is not."""


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
        tables: digests of what the tables hold up to this round, see `Recorder.contents`.
        origin: what the numbers depend on, see `flsplit.server.origin`.
        notes: what is to be known about how the run came here, such as that it was resumed in spite of a difference.
    """

    round: int
    client_model: SideState
    server_model: SideState
    kept: dict[int, Kept] = field(default_factory=dict)
    now: float | None = None
    aggregator: dict[str, torch.Tensor] = field(default_factory=dict)
    strategy: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, str] | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def of_their_own(self) -> bool:
        """Whether clients go on with client-side models of their own."""
        return any("weights" in files for files in self.kept.values())


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
    """The checkpoint folder of a run.

    Attributes:
        passed_over: why `load` had to pass over the last checkpoint; None if it had not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clients = ClientFiles(folder / "clients")
        self.passed_over: str | None = None
        self._models: list[str] = []  # files of models that the saved states name, the last one's first
        self._needed: list[set[str]] = []  # and their files of clients
        self._settling = atomic.Settling()
        self._held: set[str] = set()  # files of clients that the last state which was held or saved needs

    def create(self) -> None:
        """Make the folders, without what a killed process was about to make (see `flsplit.transport.vectors`)."""
        self.clients.folder.mkdir(parents=True, exist_ok=True)
        for room in self.clients.folder.glob("*.room"):
            room.unlink()

    def save(self, state: State) -> None:
        """Make `state` the last checkpoint, and what was the last the one before it."""
        needed = self._hold(state)
        self._settling.finish(needed)
        atomic.settle(self.clients.folder)
        models = next(name for name in _MODELS if name not in self._models)
        data = _models(state)
        atomic.write(self.folder / models, data)
        kept = {
            str(client): {field: Path(path).name for field, path in files.items()}
            for client, files in state.kept.items()
        }
        values = {
            "round": state.round, "file": models, "models": atomic.digest(data), "kept": kept, "now": state.now,
            "totals": state.totals, "tables": state.tables, "origin": state.origin, "notes": state.notes,
        }  # fmt: skip
        part = self.folder / "state.part"
        atomic.write(part, json.dumps({**values, "digest": _seal(values)}).encode())
        last, before = (self.folder / name for name in _STATES)
        if last.exists() and self._models:
            last.replace(before)
        part.replace(last)
        atomic.settle(self.folder)
        self._models, self._needed = [models, *self._models[:1]], [needed, *self._needed[:1]]
        self.clients.keep(set().union(*self._needed))

    def hold(self, state: State) -> None:
        """Keep clients' files as `state`, which may be saved later, and the saved states need them."""
        needed = self._hold(state)
        self.clients.keep(needed.union(*self._needed))

    def _hold(self, state: State) -> set[str]:
        """The files of clients that `state` needs; those that outlived a round are brought to the disk beside it."""
        needed = _client_files(state)
        self._settling.forget(needed)
        self._settling.begin(needed & self._held)
        self._held = needed
        return needed

    def load(self) -> State | None:
        """The last checkpoint that is whole, or None if there has been none.

        Raises:
            Damaged: if there was one and none is whole.
        """
        self._models, self._needed, self.passed_over = [], [], None
        found: State | None = None
        for name in _STATES:
            path = self.folder / name
            if not path.exists():
                continue
            try:
                state = self._read(path)
            except Exception as error:  # a damaged file can fail in any way
                self.passed_over = self.passed_over or f"{_said(error, path)}"
                continue
            self._needed.append(_client_files(state))
            found = found or state
        if found is None and self.passed_over is not None:
            raise Damaged(self.passed_over)
        if found is not None and self.passed_over is None and not (self.folder / _STATES[0]).exists():
            self.passed_over = f"{self.folder / _STATES[0]} is missing"
        return found

    def _read(self, path: Path) -> State:
        """A state, with all that it names.

        Raises:
            ValueError: if a digest is not right; or whatever a damaged file leads to.
        """
        values = json.loads(path.read_text())
        if values.pop("digest") != _seal(values):
            raise ValueError(f"{path} is damaged")
        data = (self.folder / values["file"]).read_bytes()
        if atomic.digest(data) != values["models"]:
            raise ValueError(f"{self.folder / values['file']} is damaged")
        tensors: dict[str, torch.Tensor] = load(data)
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
            tables=values["tables"],
            origin=values["origin"],
            notes=values["notes"],
        )
        for file in _client_files(state):
            vectors.check(file)
        recorder = Recorder(self.folder.parent)
        recorder.restore(state.round, state.tables)
        if state.round and len(recorder.rounds) != state.round:
            raise ValueError(f"{path} and rounds.parquet do not go together")
        self._models.append(values["file"])
        return state


def _seal(values: dict[str, Any]) -> str:
    """The digest of a state's values."""
    return atomic.digest(json.dumps(values, sort_keys=True).encode())


def _said(error: Exception, path: Path) -> str:
    """What is wrong with a checkpoint, in a few words."""
    if isinstance(error, ValueError) and "damaged" in str(error):
        return str(error)
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} is missing"
    return f"{path} is damaged ({type(error).__name__})"


def _models(state: State) -> bytes:
    """Models, and what aggregator and strategy carry, as the bytes of a file."""
    tensors = {f"aggregator.{key}": value for key, value in state.aggregator.items()}
    if state.strategy:
        tensors["strategy"] = _packed(state.strategy)
    for name, side in (("client", state.client_model), ("server", state.server_model)):
        tensors[f"{name}.weights"] = side.weights
        if side.moments is not None:
            tensors[f"{name}.moments"] = side.moments
    # Cloned, since safetensors refuses tensors that share memory.
    return save({name: tensor.clone() for name, tensor in tensors.items()})


def _packed(values: dict[str, Any]) -> torch.Tensor:
    """A strategy's state as bytes.

    Raises:
        RunFailed: if they could not be read again.
    """
    buffer = io.BytesIO()
    try:
        torch.save(_own(values), buffer)
        packed = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
        _unpacked(packed)
    except Exception as error:
        reason = re.split(r"[.\x1b]", str(error).strip())[0]  # of PyTorch's advice, what is wrong
        raise RunFailed(
            "the strategy's state_dict must hold Python's numbers and text, tensors, and lists, tuples and dicts of "
            f"these: {_foreign(values)} cannot be kept ({type(error).__name__}: {reason})"
        ) from error
    return packed


def _foreign(value: Any, at: str = "state_dict()") -> str:
    """The first entry that is none of what can be kept; all of it if that is not found."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    if inner:
        found = (_foreign(entry, f"{at}[{key!r}]") for key, entry in inner)
        return next((entry for entry in found if entry != "it"), "it")
    known = value is None or type(value) in (bool, int, float, str, bytes, list, tuple, dict)
    return "it" if known or isinstance(value, torch.Tensor) else f"{at}, a {type(value).__name__},"


def _own(value: Any) -> Any:
    """The same without the rest of a memory of which a tensor is but a part."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _own(inner) for key, inner in value.items()}
    return type(value)(map(_own, value)) if type(value) in (list, tuple) else value


def _unpacked(packed: torch.Tensor) -> dict[str, Any]:
    """The inverse of `_packed`; nothing but plain values and tensors is read, whoever has written the file."""
    found: dict[str, Any] = torch.load(io.BytesIO(packed.numpy().tobytes()), weights_only=True)
    return found


def _client_files(state: State) -> set[str]:
    return {path for files in state.kept.values() for path in files.values()}


def with_own(model: SideState, kept: Kept) -> SideState:
    """A client-side model as a client has it: with the weights and buffers that are its own, in files by field."""
    return replace(model, **{name: vectors.read(kept[name]) for name in ("weights", "own") if name in kept})


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
