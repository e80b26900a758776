"""The content of Flower messages: named texts, as JSON. They carry control, never a batch."""

from __future__ import annotations

import json
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from flsplit.ledger.prices import Tally
from flsplit.transport.task import Report


def to_record(**values: str | list[str]) -> RecordDict:
    """A message's content out of named texts, or lists of them."""
    return RecordDict({"flsplit": ConfigRecord(dict(values))})


def from_record(message: Message) -> dict[str, Any]:
    """The named texts of a message."""
    return dict(message.content["flsplit"])


def reports_to_json(reports: list[Report]) -> str:
    """Text from which `reports_from_json` makes the same reports."""
    return json.dumps([{**vars(report), "tally": vars(report.tally)} for report in reports])


def reports_from_json(text: str) -> list[Report]:
    """The inverse of `reports_to_json`."""
    return [Report(**{**values, "tally": Tally(**values["tally"])}) for values in json.loads(text)]
