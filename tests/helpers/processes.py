"""Which processes of Ray's there are below this one."""

from __future__ import annotations

import os
from pathlib import Path

CLIENTS, HOSTS = b"ray::Process", b"ray::HostActor"


def ours(*kinds: bytes, leader: int | None = None) -> set[int]:
    """Clients' and hosts' processes, or those of some kinds, below a process, this one by default."""
    leader, found = leader or os.getpid(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            if not title.startswith(kinds or (CLIENTS, HOSTS)):
                continue
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            while above > 1 and above != leader:
                above = int((Path("/proc") / str(above) / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if above == leader:
            found.add(int(folder.name))
    return found
