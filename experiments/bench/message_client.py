"""The clients of `message_splitfed`; in a module of its own, so that a Ray process keeps what it has built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from compressors import BatchShape, Payload
from flsplit.assembly import Costs, assembly_for, use_threads
from flsplit.split.messages import Downlink, Proposal, Uplink
from flsplit.split.side import Side, SideState
from flsplit.split.trainer import LocalPass, local_pass

app = ClientApp()


class Client:
    """One client as it lives in its process.

    Args:
        plan: of the experiment, as JSON.
        number: of the client, from 0.
    """

    def __init__(self, plan: str, number: int) -> None:
        self.assembly, self.number = assembly_for(plan), number
        self._costs = Costs(self.assembly)
        self.side: Side = self.assembly.client_side()
        self._loop: LocalPass | None = None
        self._shape: BatchShape | None = None

    def begin(self, round: int, weights: Tensor) -> Uplink | None:
        """Take the round's model; returns what the first batch sends."""
        assembly, number = self.assembly, self.number
        self.side.load(SideState(weights, self.side.state().moments))
        self._loop = local_pass(
            self.side, assembly.batches(number, round, len(self._costs.steps(number))), client=number, round=round,
            classes=assembly.classes, stages=self.side.stages, stream=assembly.stream(number, round),
            autocast=assembly.autocast,
        )  # fmt: skip
        return self._note(next(self._loop, None))

    def go_on(self, gradients: Sequence[Tensor]) -> Uplink | None:
        """Go backward; returns what the next batch sends, None after the last."""
        assert self._loop is not None and self._shape is not None
        try:
            downlink = Downlink(client=self.number, shape=self._shape, payload=Payload((*gradients,)))
            return self._note(self._loop.send(downlink))
        except StopIteration:
            return None

    def _note(self, uplink: Proposal | Uplink | None) -> Uplink | None:
        assert not isinstance(uplink, Proposal), "each client compresses by itself"
        self._shape = None if uplink is None else uplink.shape
        return uplink


_clients: dict[tuple[str, int], Client] = {}  # of this process


@app.query()
def warm_up(message: Message, context: Context) -> Message:
    """Make a client."""
    control = message.content["control"]
    plan, number = str(control["plan"]), int(control["client"])
    use_threads(assembly_for(plan).config)
    _clients[plan, number] = Client(plan, number)
    return Message(RecordDict(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One step: gradients (or the round's model) in, activations (or, after the last step, the model) out."""
    content, control = message.content, message.content["control"]
    client = _clients[str(control["plan"]), int(control["client"])]
    if "model" in content:
        uplink = client.begin(int(control["round"]), tensors(content["model"])[0])
    else:
        uplink = client.go_on(tensors(content["gradients"]))
    if uplink is None:
        return Message(RecordDict({"model": arrays([client.side.state(moments=False).weights])}), reply_to=message)
    sent = uplink.payload
    assert sent.labels is not None
    fields = {"floats": sent.floats, "integers": sent.integers, "labels": [sent.labels]}
    reply = {name: arrays(tensors) for name, tensors in fields.items()}
    shape = {name: size for name, size in asdict(uplink.shape).items() if size is not None}
    return Message(RecordDict({"shape": ConfigRecord(shape), **reply}), reply_to=message)


def arrays(tensors: Sequence[Tensor]) -> ArrayRecord:
    """Tensors as a part of a message."""
    return ArrayRecord([t.cpu().numpy() for t in tensors])


def tensors(record: ArrayRecord) -> list[Tensor]:
    """The inverse of `arrays`."""
    return [torch.from_numpy(np.array(array)) for array in record.to_numpy_ndarrays()]
