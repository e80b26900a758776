"""What lay behind the settings of runs: data and weights that have changed under the same path."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from flsplit.report.runs import Run


def unlike(runs: Sequence[Run], names: Sequence[str]) -> str:
    """A paragraph for each of `dataset` and `model.pretrained` that is the same in runs, but not what it stands for.

    Args:
        runs: on the page; of those that have not ended nothing is known.
        names: of theirs.

    Returns:
        HTML; empty where all is as it seems.
    """
    found = {
        "dataset": ("other data", "data", [_dataset(run) for run in runs]),
        "model.pretrained": ("other weights", "weights", [str(_of(run, "model").get("pretrained")) for run in runs]),
    }
    parts = []
    for key, (what, column, settings) in found.items():
        behind: dict[str, dict[str, list[str]]] = {}
        for run, name, setting in zip(runs, names, settings, strict=True):
            if digest := (run.summary or {}).get(column):
                behind.setdefault(setting, {}).setdefault(str(digest), []).append(name)
        for digests in behind.values():
            if len(digests) > 1:
                told = " against ".join(", ".join(members) for members in digests.values())
                parts.append(
                    f'<p class="note"><strong>The same <code>{key}</code>, but {what}:</strong> {escape(told)}. What '
                    "they come to is not to be compared, and no mean is to be taken of it.</p>"
                )
    return "".join(parts)


def _of(run: Run, group: str) -> dict[str, object]:
    found = run.config.get(group)
    return found if isinstance(found, dict) else {}


def _dataset(run: Run) -> str:
    """Settings that say which samples there are, and with which columns of their table.

    Which of them a limit leaves is drawn by the seed; what a partition deals by is kept with them.
    """
    settings = _of(run, "dataset")
    limited = any(settings.get(key) is not None for key in ("train_limit", "test_limit"))
    seed = run.config.get("seed") if limited else None
    return json.dumps([settings, _of(run, "partition"), seed], sort_keys=True, default=str)
