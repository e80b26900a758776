"""The split: models cut in two, the messages between them, and the two halves of a training step."""

from flsplit.split.families import ClientModel, Family, ServerModel
from flsplit.split.model import build, cut

__all__ = ["ClientModel", "Family", "ServerModel", "build", "cut"]
