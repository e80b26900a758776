"""The Flower ClientApp. It lives in an importable module, so that a client process keeps what it has built."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from flsplit.client.turns import run_task
from flsplit.client.worker import worker_for
from flsplit.transport.hub import connect
from flsplit.transport.records import from_record, reports_to_json, to_record
from flsplit.transport.task import Task

app = ClientApp()


@app.query()
def warm_up(message: Message, context: Context) -> Message:
    """Build the worker of this process."""
    worker_for(from_record(message)["plan"]).warm_up()
    return Message(to_record(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Run the clients that the message names."""
    values = from_record(message)
    reports = run_task(Task.from_json(values["task"]), worker_for(values["plan"]), connect(values["hub"]))
    return Message(to_record(reports=reports_to_json(reports)), reply_to=message)
