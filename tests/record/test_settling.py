"""Files on their way to the disk beside a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flsplit.record import atomic


def test_each_file_is_brought_to_the_disk_once_and_again_under_a_name_that_was_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[str] = []
    monkeypatch.setattr(atomic, "settle", lambda path: settled.append(path.name))
    files = [str(tmp_path / name) for name in "abc"]
    settling = atomic.Settling()
    settling.begin(files[:2])
    settling.finish(files)
    assert sorted(settled) == ["a", "b", "c"]
    settling.forget({files[0]})
    settling.finish(files[:2])
    assert sorted(settled) == ["a", "b", "b", "c"]


def test_a_file_that_cannot_be_settled_is_told_when_it_is_needed_and_only_then(tmp_path: Path) -> None:
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.touch()
    settling = atomic.Settling()
    settling.begin([str(there), str(gone)])
    settling.finish([str(there)])
    with pytest.raises(FileNotFoundError, match="gone"):
        settling.finish([str(gone)])
    settling.forget({str(there)})
    gone.touch()
    settling.finish([str(there), str(gone)])
