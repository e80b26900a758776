"""The clients of the case `latency`, in a module of their own that Ray's processes import."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from flsplit.ledger.prices import Tally
from flsplit.transport.hub import connect
from flsplit.transport.records import from_record, reports_to_json, to_record
from flsplit.transport.task import Report, Task

app = ClientApp()


@app.query()
def warm_up(message: Message, context: Context) -> Message:
    """There is nothing to build."""
    return Message(to_record(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Take both models, and hand them in as they are."""
    values = from_record(message)
    task, hub = Task.from_json(values["task"]), connect(values["hub"])
    [client] = task.clients
    assert task.server_model is not None
    keys = f"{task.client_model}/{client}", f"{task.client_model}/{client}/server"
    hub.put({key: hub.get(model) for key, model in zip(keys, (task.client_model, task.server_model))})
    report = Report(client=client, tally=Tally(), client_model=keys[0], server_model=keys[1])
    return Message(to_record(reports=reports_to_json([report])), reply_to=message)
