"""The split: models cut in two, the messages between them, and the two halves of a training step."""

from __future__ import annotations

import sys

# timm imports W&B wherever that is installed, for summaries that nobody here asks it for: half a second and 14 MB of
# every process. None in its place makes that an ImportError, which timm expects; W&B itself may be imported later.
if "wandb" not in sys.modules:
    sys.modules["wandb"] = None  # type: ignore[assignment]
    import timm  # noqa: F401

    del sys.modules["wandb"]
