"""What all tests share: a cache of their own, the data at hand, and small configurations."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two tests at a time would wait for each other's threads
os.environ.setdefault("RAY_worker_niceness", "0")  # before Ray: its processes would wait for the test beside them
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 8 << 30:  # runs wait for the disk after every round
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background: what tests start ignored it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is marked `some`, all cases but the first are `slow`; those with `one_ray` come last, together."""
    items.sort(key=lambda item: "one_ray" in getattr(item, "fixturenames", ()))
    seen = set()
    for item in items:
        if item.get_closest_marker("some") is not None:
            name = item.nodeid.partition("[")[0]
            if name in seen:
                item.add_marker(pytest.mark.slow)
            seen.add(name)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tables that tests build do not end up in the user's cache."""
    before = os.environ.get("FLSPLIT_CACHE")
    os.environ["FLSPLIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["FLSPLIT_CACHE"]
    else:
        os.environ["FLSPLIT_CACHE"] = before


@pytest.fixture(scope="module")
def kept() -> Iterator[None]:
    """Runs of a module on Ray have it, and client processes, in common; what these import takes longest."""
    from flsplit import engine

    with engine.kept():
        yield


@pytest.fixture(scope="session")
def one_ray() -> Iterator[None]:
    """Runs of several modules on Ray have it in common. No test comes after these that starts a Ray of its own."""
    from flsplit import engine

    with engine.kept():
        yield


def find_data(name: str) -> Path:
    """A folder or file of the real data, or a skip with the reason."""
    base = os.environ.get("FLSPLIT_TEST_DATA")
    root = Path(base) if base else Path(__file__).parents[2] / "shared" / "data"
    if not (root / name).exists():
        pytest.skip(f"{name} is not at hand; FLSPLIT_TEST_DATA can name the folder that holds it")
    return root / name


@pytest.fixture(scope="session")
def cifar100() -> Path:
    """The complete CIFAR-100 in the Hub's columns."""
    return find_data("cifar100")


@pytest.fixture(scope="session")
def deit_tiny_weights() -> Path:
    """Pretrained DeiT-Tiny."""
    return find_data("deit_tiny/model.safetensors")
