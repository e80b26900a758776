"""The Flower ClientApp. It lives in an importable module, so that a Ray worker keeps what it has built.

Messages carry control as JSON: the plan of the experiment, the address of its hub, and a task.
"""

from __future__ import annotations

import json
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flsplit.hub import connect
from flsplit.ledger import Tally
from flsplit.task import Report, Task
from flsplit.worker import worker_for

app = ClientApp()


def to_record(**values: str) -> RecordDict:
    """A message's content out of named texts."""
    return RecordDict({"flsplit": ConfigRecord(dict(values))})


def from_record(message: Message) -> dict[str, Any]:
    """The named texts of a message."""
    return dict(message.content["flsplit"])


@app.query()
def warm_up(message: Message, context: Context) -> Message:
    """Build the worker of this process."""
    worker_for(from_record(message)["plan"]).warm_up()
    return Message(to_record(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Run the clients that the message names."""
    values = from_record(message)
    reports = worker_for(values["plan"]).train(Task.from_json(values["task"]), connect(values["hub"]))
    return Message(to_record(reports=reports_to_json(reports)), reply_to=message)


def reports_to_json(reports: list[Report]) -> str:
    """Text from which `reports_from_json` makes the same reports."""
    return json.dumps([{**vars(report), "tally": vars(report.tally)} for report in reports])


def reports_from_json(text: str) -> list[Report]:
    """The inverse of `reports_to_json`."""
    return [Report(**{**values, "tally": Tally(**values["tally"])}) for values in json.loads(text)]
