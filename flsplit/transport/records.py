"""The content of Flower messages: named texts, as JSON. They carry control, never a batch."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

from flwr.app import DEFAULT_TTL, ConfigRecord, Message, Metadata, RecordDict

from flsplit.ledger.prices import Tally
from flsplit.transport.task import Report, Sent

RUN = 1  # Flower's number of the run; there is one


def to_record(**values: str | list[str]) -> RecordDict:
    """A message's content out of named texts, or lists of them."""
    return RecordDict({"flsplit": ConfigRecord(dict(values))})


def addressed(
    content: RecordDict, kind: str, source: int, target: int, *, group_id: str = "", ttl: float | None = None
) -> Message:
    """A message from a node to another. `Message(content, node, ...)` is for processes that are a task of Flower's."""
    metadata = Metadata(
        run_id=RUN, message_id=uuid4().hex, src_node_id=source, dst_node_id=target, reply_to_message_id="",
        group_id=group_id, created_at=time.time(), ttl=ttl or DEFAULT_TTL, message_type=kind,
    )  # fmt: skip
    return Message(content, metadata=metadata)


def from_record(message: Message) -> dict[str, Any]:
    """The named texts of a message."""
    return dict(message.content["flsplit"])


def reports_to_json(reports: list[Report]) -> str:
    """Text from which `reports_from_json` makes the same reports."""
    return json.dumps([{**vars(report), "tally": vars(report.tally)} for report in reports])


def reports_from_json(text: str) -> list[Report]:
    """The inverse of `reports_to_json`."""
    return [
        Report(**{**values, "tally": Tally(**values["tally"]), "sent": tuple(Sent(*bits) for bits in values["sent"])})
        for values in json.loads(text)
    ]
