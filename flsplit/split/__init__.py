"""The split: models cut in two, the messages between them, and the two halves of a training step."""

from flsplit.split.model import ClientModel, ServerModel, build, check_cuttable, cut

__all__ = ["ClientModel", "ServerModel", "build", "check_cuttable", "cut"]
