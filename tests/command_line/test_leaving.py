"""A plug-in that raises `SystemExit` has stumbled as with any other error; who is told to leave by a signal leaves."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from helpers.command_line import SMALL, contents, one_line
from helpers.program import Program
from test_sweeps import needs

import flsplit
from flsplit import cli

LEAVES = "SystemExit(0); the traceback is in "
STRATEGY = "import os, signal, sys\nfrom strategies.splitfed_v1 import SplitFedV1\n\n\nclass Mine(SplitFedV1):\n    "
METRIC = "import sys\nfrom flsplit.metrics import Collected\n\n\nclass Mine(Collected):\n    "
PARTITION = "import sys\nfrom flsplit.data.partitions.iid import Iid\n\n\nclass Mine(Iid):\n    "
COMPRESSOR = "import sys, torch\nfrom compressors.base import Base\n\n\nclass Mine(Base):\n    "
IN_A_RUN = {
    "round": ("strategy.name", STRATEGY + "def round(self, fed, clients): raise SystemExit(0)"),
    "aggregator": (
        "strategy.name", STRATEGY + "def round(self, fed, clients):\n"
        "        self.aggregator.aggregate = lambda *_, **__: sys.exit(0)\n        super().round(fed, clients)",
    ),
    "state_dict": ("strategy.name", STRATEGY + "def state_dict(self): sys.exit(0)\n    load_state_dict = state_dict"),
    "metric": ("metrics", METRIC + "def of(self, logits, labels): sys.exit(0)"),
    "compressor": (
        "compressor.name", COMPRESSOR + "def __init__(self, **_): super().__init__(at_eval=True)\n"
        "    def compress(self, *rest, **more):\n"
        "        return super().compress(*rest, **more) if torch.is_grad_enabled() else sys.exit(0)",
    ),
}  # fmt: skip
BEFORE_IT = {
    "import": ("strategy.name", "raise SystemExit(0)\n"),
    "strategy": ("strategy.name", STRATEGY + "def __init__(self, **options): sys.exit(0)"),
    "compressor": ("compressor.name", COMPRESSOR + "def __init__(self, **options): sys.exit(0)"),
    "check": ("compressor.name", COMPRESSOR + "def check(self, **sizes): sys.exit(0)"),
    "metric": ("metrics", METRIC + "def __init__(self, **options): sys.exit(0)\n    of = __init__"),
    "partition": ("partition.name", PARTITION + "def deal(self, samples, clients, rng): sys.exit(0)"),
}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def typed(here: Path, key: str, code: str, name: str) -> list[str]:
    """What is typed for a plug-in that is written here."""
    (here / f"own_{name}").mkdir(exist_ok=True)
    (here / f"own_{name}" / "plugin.py").write_text(code + "\n")
    group, path = key.partition(".")[0], f"own_{name}.plugin"
    usual = {"strategy": "splitfed_v1", "compressor": "base", "partition": "iid"}
    return [f"metrics=[accuracy,{path}]"] if key == "metrics" else [f"{group}={usual[group]}", f"{key}={path}"]


def of_flsplit(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("flsplit: ")]


@pytest.mark.some
@pytest.mark.parametrize("place", IN_A_RUN)
def test_a_run_has_failed_and_can_go_on(place: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = typed(here, *IN_A_RUN[place], f"run_{place}")
    assert cli.main([*SMALL, *keys, "out=cut"]) == 1
    [line] = of_flsplit(capsys.readouterr().err)
    assert line.endswith(f"{LEAVES}cut/error.log; resume=cut goes on from here")
    assert f'own_run_{place}/plugin.py", line' in (here / "cut" / "error.log").read_text()
    assert json.loads((here / "cut" / "summary.json").read_text())["status"] == "failed"


@pytest.mark.some
@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
@pytest.mark.parametrize("place", BEFORE_IT)
def test_nothing_is_written_where_there_is_no_run_yet(
    place: str, sweep: bool, here: Path, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"before_{place}_{sweep}"
    keys = typed(here, *BEFORE_IT[place], name)
    before = contents(here).keys()
    assert cli.main([*SMALL, *keys, *(["-m", "seed=1,2"] if sweep else [])]) == 1
    [file] = temporary.iterdir()
    assert one_line(capsys.readouterr().err).endswith(f"{LEAVES}{file}")
    assert f'own_{name}/plugin.py", line' in file.read_text()
    assert {path for path in contents(here) if "__pycache__" not in path} == before


def test_the_other_jobs_of_a_sweep_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = typed(here, *IN_A_RUN["round"], "job")
    assert cli.main(["-m", *SMALL, keys[0], f"{keys[1]},splitfed_v1", "out=all"]) == 1
    output = capsys.readouterr()
    assert of_flsplit(output.err)[0].endswith(f"{LEAVES}all/0/error.log; resume=all/0 goes on from here")
    assert "failed: all/0; the same command again" in output.out
    status = [json.loads((here / "all" / job / "summary.json").read_text())["status"] for job in "01"]
    assert status == ["failed", "completed"]


@pytest.mark.slow
@needs("hydra_joblib_launcher")
def test_the_other_jobs_of_a_launcher_run(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = typed(here, *IN_A_RUN["round"], "apart")
    launcher = ["experiment=joblib", "hydra.launcher.n_jobs=1"]
    assert cli.main(["-m", *launcher, *SMALL, keys[0], f"{keys[1]},splitfed_v1", "out=all"]) == 1
    output = capfd.readouterr()
    assert f"{LEAVES}all/0/error.log" in of_flsplit(output.err)[0]
    assert "failed: all/0; the same command again" in output.out
    assert json.loads((here / "all" / "1" / "summary.json").read_text())["status"] == "completed"


def test_a_launcher_that_leaves_is_told_of(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_launch", lambda *_: sys.exit(0))
    assert cli.main([*SMALL, "-m", "seed=1,2", "out=all"]) == 1
    [file] = temporary.iterdir()
    assert f"{LEAVES}{file}" in of_flsplit(capsys.readouterr().err)[0]


@pytest.mark.parametrize(("place", "table"), [("round", IN_A_RUN), ("strategy", BEFORE_IT)])
def test_python_gets_an_error(
    place: str, table: dict[str, tuple[str, str]], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(here)
    with pytest.raises(RuntimeError, match=r"SystemExit\(0\)") as caught:
        flsplit.run([*SMALL, *typed(here, *table[place], f"python_{place}"), "out=run"])
    assert isinstance(caught.value.__cause__, SystemExit)


TOLD = "os.kill(os.getpid(), signal.SIGTERM)"
BY_A_SIGNAL = {
    "round": ("strategy.name", STRATEGY + f"def round(self, fed, clients): {TOLD}"),
    "client": ("compressor.name", f"import os, signal\n{COMPRESSOR}def compress(self, *_, **__): {TOLD}"),
}


@pytest.mark.parametrize("method", [False, True])
@pytest.mark.parametrize("place", BY_A_SIGNAL)
def test_a_handler_of_the_users_may_end_a_script(
    place: str, method: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Script:
        def leave(self, *_: object) -> None:
            raise SystemExit(143)

    monkeypatch.syspath_prepend(here)
    leave = Script().leave
    keys = typed(here, *BY_A_SIGNAL[place], f"signal_{place}_{method}")
    before = signal.signal(signal.SIGTERM, leave if method else lambda *_: leave())
    try:
        with pytest.raises(SystemExit) as left:
            flsplit.run([*SMALL, *keys, "out=run"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left.value.code == 143 and not (here / "run" / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_within_a_plugin_is_no_fault_of_its(
    sent: signal.Signals, code: int, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(here))
    kill = STRATEGY + f"def round(self, fed, clients): os.kill(os.getpid(), {int(sent)})"
    keys = typed(here, "strategy.name", kill, f"within_{code}")
    program = Program([*SMALL, *keys, f"out={here / 'run'}"], tmp_path / "said")
    assert program.wait(120) == code
    [line] = of_flsplit(program.said)
    assert line.endswith(f"resume={here / 'run'} goes on from here") and "SystemExit" not in line
