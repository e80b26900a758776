"""How clients differ from each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from flsplit.config.profile import Profile, read_profiles
from flsplit.config.schema import Config
from flsplit.data.skew import effective_classes
from flsplit.errors import UserError
from flsplit.ledger.allocation import by_diversity
from flsplit.record import atomic

_FILE = "client_profile.csv"  # a run's own copy


def profiles_of(config: Config, out: Path, counts: np.ndarray) -> dict[int, Profile]:
    """Clients that differ from what the configuration says of all.

    Args:
        config: of the run.
        out: its folder; a run that is resumed has its own copy of the file.
        counts: training samples of each label, (clients, labels).

    Raises:
        UserError: if the file of profiles is not as it must be.
    """
    found: dict[int, Profile] = {}
    if config.client_profile is not None:
        kept = out / "checkpoint" / _FILE
        file = kept if config.resume is not None and kept.exists() else Path(config.client_profile)
        found = read_profiles(file, config.clients)
    return _by_diversity(config, found, counts) if config.budget.allocation == "diversity" else found


def keep(config: Config, out: Path) -> None:
    """Give a run its own copy of the file."""
    kept = out / "checkpoint" / _FILE
    if config.client_profile is not None and not kept.exists():
        atomic.write(kept, Path(config.client_profile).read_bytes())


def _by_diversity(config: Config, profiles: Mapping[int, Profile], counts: np.ndarray) -> dict[int, Profile]:
    """Give every client the ratio that its samples bring it."""
    if any(profile.ratio is not None for profile in profiles.values()):
        raise UserError(
            "client_profile: ratio must be empty with budget.allocation=diversity, which says every client's"
        )
    there, diversity, group = counts.sum(axis=1), np.ones(len(counts)), config.compressor_instance().group_size
    diversity[there > 0] = effective_classes(counts[there > 0])
    steps = [profiles.get(at, Profile()).step_sizes(config, int(count), group) for at, count in enumerate(there)]
    ratios = by_diversity(config.ratio, diversity, np.array([sum(sizes) for sizes in steps]))
    return {client: replace(profiles.get(client, Profile()), ratio=float(own)) for client, own in enumerate(ratios)}
