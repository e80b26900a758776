"""A ClientApp whose nodes do as they are told, for tests of grids."""

from __future__ import annotations

import os
import signal
import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """`die`, `raise`, `leave`, `interrupt`, `sleep SECONDS` or nothing; answers who, and how often it was asked."""
    order = str(message.content["flsplit"]["order"])
    if order == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "raise":
        raise RuntimeError("told to\nin two lines")
    if order == "leave":
        raise SystemExit(3)
    if order == "interrupt":
        raise KeyboardInterrupt
    if order.startswith("sleep"):
        time.sleep(float(order.split()[1]))
    before = context.state["count"]["n"] if "count" in context.state else 0
    context.state["count"] = ConfigRecord({"n": int(str(before)) + 1})
    values = {"pid": os.getpid(), "client": int(context.node_config["partition-id"]), "asked": int(str(before)) + 1}
    return Message(RecordDict({"answer": ConfigRecord(values)}), reply_to=message)
