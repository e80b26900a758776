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
    values = torch.randn(1000)
    path = vectors.write(str(tmp_path / "a.npy"), values)
    assert torch.equal(vectors.read(path), values)
    assert np.array_equal(np.load(path), values.numpy())
    vectors.check(path)


def test_its_name_says_what_is_in_it(tmp_path: Path) -> None:
    names = [vectors.write(str(tmp_path / "a.npy"), torch.full((9,), float(n))) for n in (1, 2, 1)]
    assert names[0] == names[2] != names[1]
    assert sorted(map(str, tmp_path.iterdir())) == sorted(set(names))


@pytest.mark.parametrize("at", [3, 9, *range(10, 128, 13), 127, 128, 150, 163])
def test_a_flipped_bit_is_found(at: int, tmp_path: Path) -> None:
    path = Path(vectors.write(str(tmp_path / "a.npy"), torch.ones(9)))
    data = bytearray(path.read_bytes())
    assert len(data) == 164
    data[at] ^= 4
    path.write_bytes(data)
    try:
        vectors.check(str(path))
    except ValueError:
        return
    assert torch.equal(vectors.read(str(path)), torch.ones(9))  # in the header's padding


@pytest.mark.parametrize("floats", [10, 999, 1001])
def test_a_file_is_written_over_and_stays_the_same_file(floats: int, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    old = Path(vectors.write(str(path), torch.randn(1000)))
    number = old.stat().st_ino
    old.rename(path)
    new = Path(vectors.write(str(path), torch.arange(floats, dtype=torch.float32)))
    assert torch.equal(vectors.read(str(new)), torch.arange(floats, dtype=torch.float32))
    np.save(tmp_path / "b.npy", np.arange(floats, dtype=np.float32))
    assert new.read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert new.stat().st_ino == number and not path.exists()


def test_room_is_as_large_as_the_file_will_be(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    vectors.make_room(str(path), 300_001)
    settled()
    before = path.stat()
    written = Path(vectors.write(str(path), torch.ones(300_001)))
    assert (written.stat().st_ino, written.stat().st_size) == (before.st_ino, before.st_size)
    assert [*tmp_path.iterdir()] == [written]


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_text("here")
    vectors.make_room(str(path), 100)
    settled()
    assert path.read_text() == "here"


@pytest.mark.parametrize("late", ["write", "link"])
def test_room_that_comes_late_changes_nothing(late: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real, written = tmp_path / "a.npy", getattr(os, late), list[str]()

    def after_the_client(*args: object) -> object:
        assert late == "link" or not path.exists()
        written.append(vectors.write(str(path), torch.ones(5)))
        monkeypatch.setattr(os, late, real)
        return real(*args)

    monkeypatch.setattr(os, late, after_the_client)
    vectors.make_room(str(path), 100)
    settled()
    [file] = written
    assert torch.equal(vectors.read(file), torch.ones(5))
    assert not list(tmp_path.glob("*.room"))


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
