import os
from pathlib import Path

import numpy as np
import pytest
import torch

from flsplit.server.checkpoint import ClientFiles
from flsplit.transport import vectors


def settled() -> None:
    """All room asked for so far has been made."""
    vectors._beside.submit(int).result()


def test_a_vector_comes_back_as_numpy_would_read_it(tmp_path: Path) -> None:
    path, values = str(tmp_path / "a.npy"), torch.randn(1000)
    vectors.write(path, values)
    assert torch.equal(vectors.read(path), values)
    assert np.array_equal(np.load(path), values.numpy())


@pytest.mark.parametrize("floats", [10, 999, 1001])
def test_a_file_is_written_over_and_stays_the_same_file(floats: int, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    vectors.write(str(path), torch.randn(1000))
    number = path.stat().st_ino
    vectors.write(str(path), torch.arange(floats, dtype=torch.float32))
    assert torch.equal(vectors.read(str(path)), torch.arange(floats, dtype=torch.float32))
    np.save(tmp_path / "b.npy", np.arange(floats, dtype=np.float32))
    assert path.read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert path.stat().st_ino == number


def test_room_is_as_large_as_the_file_will_be(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    vectors.make_room(str(path), 300_001)
    settled()
    before = path.stat()
    vectors.write(str(path), torch.ones(300_001))
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    assert [*tmp_path.iterdir()] == [tmp_path / "a.npy"]


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    vectors.write(str(path), torch.ones(5))
    vectors.make_room(str(path), 100)
    settled()
    assert torch.equal(vectors.read(str(path)), torch.ones(5))


@pytest.mark.parametrize("late", ["write", "link"])
def test_room_that_comes_late_changes_nothing(late: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "a.npy", getattr(os, late)

    def after_the_client(*args: object) -> object:
        assert late == "link" or not path.exists()
        vectors.write(str(path), torch.ones(5))
        monkeypatch.setattr(os, late, real)
        return real(*args)

    monkeypatch.setattr(os, late, after_the_client)
    vectors.make_room(str(path), 100)
    settled()
    assert torch.equal(vectors.read(str(path)), torch.ones(5))
    assert [*tmp_path.iterdir()] == [tmp_path / "a.npy"]


def test_half_made_room_is_nobodys_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, real, seen = ClientFiles(tmp_path), os.write, []

    def in_the_middle(*args: object) -> object:
        files.keep(set())
        files.make_room(tmp_path / "another.npy")
        seen.append(1)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "write", in_the_middle)
    vectors.make_room(str(tmp_path / "a.npy"), 100)
    settled()
    assert seen
    assert [*tmp_path.iterdir()] == [tmp_path / "a.npy"]


def test_what_is_wrong_with_the_place_is_said_by_the_write(tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere" / "a.npy")
    vectors.make_room(path, 100)
    settled()
    with pytest.raises(FileNotFoundError):
        vectors.write(path, torch.ones(5))
