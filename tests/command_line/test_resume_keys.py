"""What is typed beside `resume`, and folders that cannot be resumed: one line, code 2, nothing written."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.command_line import Accepted, Refused
from hydra import compose
from omegaconf import OmegaConf

from flsplit.config.overrides import hydra, keys
from flsplit.server.resume import resumed

GONE = object()


@pytest.mark.some
@pytest.mark.parametrize(
    ("typed", "key", "right"),
    [
        ("clients=3", "clients=3", "has 2; leave it out"),
        ("compressor=topk", "compressor=topk", "has adc; leave it out"),
        ("compressor.ratio=0.3", "compressor.ratio=0.3", "has 0.25; leave it out"),
        ("out=elsewhere", "out=elsewhere", "leave it out"),
        ("rounds=1", "rounds=1", "has finished 2 already"),
        ("rounds=0", "rounds", "at least 1"),
        ("engine.stack=2", "engine.stack=2", "has 1; leave"),
        ("engine.cpus_per_client=2", "engine.cpus_per_client=2", "has 1.0; leave"),
        ("engine=inline engine.stack=2", "engine.stack=2", "has 1; leave"),
        ("engine=ray engine.cpus_per_client=0.5", "engine.cpus_per_client=0.5", "has 1.0; leave"),
        ("nothing_like_it=1", "unknown key nothing_like_it", "--help"),
        ("-m clients=2,3", "clients=3", "has 2; leave it out"),
    ],
)
def test_what_is_typed_beside_resume(refused: Refused, a_run: Path, typed: str, key: str, right: str) -> None:
    line = refused(f"resume={a_run}", *shlex.split(typed))
    assert key in line
    assert right in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed", ["", "clients=2 lr=2e-3 compressor=adc compressor.ratio=0.25", "engine=inline", "rounds=3"]
)
def test_what_agrees_with_the_run_to_resume(a_run: Path, accepted: Accepted, typed: str) -> None:
    [config] = accepted(f"resume={a_run}", *typed.split())
    assert (config.clients, config.rounds) == (2, 3 if "rounds" in typed else 2)
    assert config.out == str(a_run)


@pytest.mark.parametrize(
    ("typed", "changed"),
    [
        ("", {}),
        ("engine.stack=4", {}),
        ("engine.cpus_per_client=2", {}),
        ("engine.gpus_per_client=0", {"gpus_per_client": 0}),
        ("engine.name=ray", {"name": "ray"}),
        ("engine=ray", {"name": "ray", "gpus_per_client": "auto", "address": None, "graphs": True}),
        (
            "engine=ray engine.gpus_per_client=0 engine.stack=4",
            {"name": "ray", "gpus_per_client": 0, "address": None, "graphs": True},
        ),
        ("engine=inline", {"gpus_per_client": "auto", "address": GONE, "graphs": True}),
    ],
)
def test_the_engine_is_the_saved_one_but_for_what_is_typed(a_run: Path, typed: str, changed: dict[str, object]) -> None:
    """What its numbers depend on, the threads and the clients stacked, stays whatever engine is chosen."""
    saved = {
        "name": "inline", "cpus_per_client": 2, "gpus_per_client": 0.25, "stack": 4, "address": "somewhere:6379",
    }  # fmt: skip
    path = a_run / "config.yaml"
    values = yaml.safe_load(path.read_text()) | {"engine": saved}
    path.write_text(yaml.safe_dump(values))
    overrides = [f"resume={a_run}", *typed.split()]
    with hydra():
        composed = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
        assert isinstance(composed, dict)
        found = resumed(composed, keys(overrides))
    engine = {key: value for key, value in {**saved, **changed}.items() if value is not GONE}
    assert found == {**values, "engine": engine, "out": str(a_run), "resume": str(a_run)}


@pytest.mark.slow
def test_several_runs_are_resumed_where_they_are(a_run: Path, tmp_path: Path, accepted: Accepted) -> None:
    other = shutil.copytree(a_run, tmp_path / "other")
    assert [config.out for config in accepted("-m", f"resume={a_run},{other}", "rounds=3")] == [str(a_run), str(other)]


@pytest.mark.parametrize(
    ("old", "new", "right"),
    [
        ("clients: 2\n", "", "clients is missing"),
        ("clients: 2\n", "clients: two\n", "clients must be a whole number"),
        ("clients: 2\n", "clients: 2\nmore: 1\n", "unknown key more"),
        ("clients: 2\n", "clients: [\n", "not YAML"),
        ("split_point: 3", "split_point: 2", "model.split_point=2 in its config.yaml, which was 3 when it ran"),
        ("ratio: 0.25", "ratio: 25", "compressor.ratio"),
        ("stack: 1", "stack: 2", "engine.stack=2 in its config.yaml, which was 1 when it ran"),
        ("cpus_per_client: 1", "cpus_per_client: 2", "engine.cpus_per_client=2.0 in its config.yaml, which was 1.0"),
    ],
)
def test_a_damaged_configuration(refused: Refused, a_run: Path, old: str, new: str, right: str) -> None:
    path = a_run / "config.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert right in refused(f"resume={a_run}")


@pytest.mark.some
@pytest.mark.parametrize("content", [b"", b"- 1\n- 2\n", b"\xff\xfe\x00"])
def test_a_configuration_that_is_none(refused: Refused, a_run: Path, content: bytes) -> None:
    (a_run / "config.yaml").write_bytes(content)
    assert f"resume={a_run}: its config.yaml is damaged" in refused(f"resume={a_run}")


@pytest.mark.some
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", None),
        ("checkpoint", None),
    ],
)
def test_a_damaged_run(refused: Refused, a_run: Path, name: str, content: bytes | None) -> None:
    path = a_run / name
    assert path.exists()
    if content is not None:
        path.write_bytes(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    line = refused(f"resume={a_run}")
    assert "resume" in line
    assert name.partition("/")[0] in line


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_over(a_run: Path, accepted: Accepted) -> None:
    for name in ("state.json", "before.json"):
        (a_run / "checkpoint" / name).unlink()
    (a_run / "rounds.parquet").unlink()
    assert len(accepted(f"resume={a_run}")) == 1
