"""SplitFed V1 whose batches travel in Flower messages: the other side of the case `messages`.

Models, batches, optimizers, the server's replicas and averages are flsplit's own building blocks, so that both sides
compute the same numbers; only the way of a batch differs. It is written for speed, within what Flower offers:

- A step is one round trip: a message brings the gradients of a client's last batch, the reply the activations of its
  next one. Models travel with the first message of a round and the last reply.
- All clients have a message in flight at any time. Replies are handled as they come, and a client's next message
  leaves at once: V1's replicas need no barrier between clients.
- Clients keep model, moments and autograd graph in their process. Flower pins no client to a process, so there is one
  process, which leaves the other CPU to the server; with several, a client would have to pack its state into its
  `Context` with every message, and repeat the forward pass where its gradients reach another process than its graph.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, MessageType, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from compressors import BatchShape, Payload
from experiments.bench.message_client import arrays, tensors
from flsplit.assembly import assembly_for, use_threads
from flsplit.server.aggregation import RunningMean
from flsplit.split.messages import Uplink
from flsplit.split.side import SideState

POLL = 0.002  # seconds between two looks for replies


@dataclass(frozen=True)
class Outcome:
    """Final weights of both sides, (P,) each; samples trained on, and the seconds of all rounds, start-up apart."""

    client: Tensor
    server: Tensor
    samples: int
    seconds: float


def serve(grid: Grid, plan: str) -> Outcome:
    """The server: all rounds of `plan` over `grid`, one node a client."""
    assembly = assembly_for(plan)
    use_threads(assembly.config)
    clients = range(assembly.config.clients)
    host = assembly.host(sides=len(clients))
    while len(nodes := sorted(grid.get_node_ids())) < len(clients):
        time.sleep(0.05)
    waiting: dict[str, int] = {}

    def send(client: int, kind: str, *, round: int = 0, **records: ArrayRecord) -> None:
        control = ConfigRecord({"plan": plan, "client": client, "round": round})
        content = RecordDict({"control": control, **records})
        [number] = grid.push_messages([grid.create_message(content, kind, nodes[client], "")])
        waiting[number] = client

    def replies() -> list[tuple[int, RecordDict]]:
        while not (found := list(grid.pull_messages(list(waiting)))):
            time.sleep(POLL)
        for reply in found:
            if reply.has_error():
                raise RuntimeError(str(reply.error.reason))
        return [(waiting.pop(reply.metadata.reply_to_message_id), reply.content) for reply in found]

    for client in clients:
        send(client, MessageType.QUERY)
    while waiting:
        replies()
    client_model, server_model = assembly.initial()
    total, began = 0, time.perf_counter()
    for round in range(1, (assembly.config.rounds or 1) + 1):
        host.begin(server_model, shared=False)
        samples, models = dict.fromkeys(clients, 0), dict[int, Tensor]()
        for client in clients:
            host.open(client)
            send(client, MessageType.TRAIN, round=round, model=arrays([client_model.weights]))
        while waiting:
            for client, content in replies():
                if "model" in content:
                    [models[client]] = tensors(content["model"])
                    continue
                shape = BatchShape(**{key: int(value) for key, value in content["shape"].items()})
                floats, integers, [labels] = (tensors(content[name]) for name in ("floats", "integers", "labels"))
                payload = Payload((*floats,), (*integers,), labels)
                downlink = host.step(Uplink(client=client, shape=shape, payload=payload))
                send(client, MessageType.TRAIN, gradients=arrays(downlink.payload.floats))
                samples[client] += shape.batch
        of_clients, of_server, moments = RunningMean(), RunningMean(), RunningMean()
        for client in clients:
            replica = host.close(client, moments=True).replica
            assert replica is not None and replica.moments is not None
            for mean, vector in (
                (of_clients, models[client]),
                (of_server, replica.weights),
                (moments, replica.moments),
            ):
                mean.add([vector], samples[client])
        client_model, server_model = SideState(_value(of_clients)), SideState(_value(of_server), moments.value())
        total += sum(samples.values())
    return Outcome(client_model.weights, server_model.weights, total, time.perf_counter() - began)


def _value(mean: RunningMean) -> Tensor:
    value = mean.value()
    assert value is not None
    return value
