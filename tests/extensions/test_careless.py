"""Plug-ins that do what no page asks of them change no number in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pandas as pd
import pytest
import torch
from extensions.conftest import SMALL, Started
from test_repeatability import same_numbers

from flsplit import cli
from flsplit.split.stages import Stages

Plugin = Callable[..., list[str]]
_WORD = {ord(mark): "_" for mark in "[]-"}
POOLED = """
    import torch
    from torch import nn
    from compressors import Compressor, Floats, Layout, Payload, labels_of

    class Mine(Compressor):
        needs_scores = False
        calls = 0

        def compress(self, z, y, s, *, generator=None):
            return Payload((z,), labels=y)

        def decompress(self, payload, shape):
            return payload.floats[0], payload.labels

        def layout(self, shape):
            return Layout((Floats((shape.batch, shape.tokens, shape.width)),), labels=labels_of(shape))

        def nominal_ratios(self, shape):
            return 1.0, 1.0
    """
STAGE = """
    import torch
    from torch import nn
    from compressors import Floats, Integers, Layout, Payload, Stage

    class Mine(Stage):
        ways = ("up",)
        again = 10.5

        def nominal(self, way):
            return 1.0

        def fields(self, layout, way):
            return layout

        def send(self, payload, layout, *, way, generator):
            return payload

        def receive(self, payload, layout, *, way, generator):
            return payload
    """
COUNTING = """
        def compress(self, z, y, s, *, generator=None):
            self.calls += 1
            return Payload((z / self.calls,), labels=y)
    """
AT_LARGE = """
        def receive(self, payload, layout, *, way, generator):
            return Payload(tuple(t + torch.randn(t.shape) for t in payload.floats), payload.integers, payload.labels)
    """
SHUFFLED = """
        def compress(self, z, y, s, *, generator=None):
            return Payload((z.flip(0),), labels=y.flip(0))
    """
HALVED = """
        def bind(self, *, tokens, width, prefix_tokens=1, generator=None):
            self.client_half = nn.Linear(width, width)
            return self

        def options_for(self, ratio):
            return {}

        def compress(self, z, y, s, *, generator=None):
            return Payload((self.client_half(z),), labels=y)
    """
FITTED = """
        def bind(self, layout, shape, *, generator):
            self.bits = 8000 // sum(torch.Size(field.shape).numel() for field in layout.floats)

        def fields(self, layout, way):
            codes = tuple(Integers(field.shape, self.bits, protected=False) for field in layout.floats)
            scales = tuple(Floats((field.shape[0], 1), back=0) for field in layout.floats)
            return Layout(scales, (*layout.integers, *codes), layout.labels)

        def send(self, payload, layout, *, way, generator):
            most = 2**self.bits - 1
            scales = tuple(t.flatten(1).abs().amax(1, keepdim=True) for t in payload.floats)
            codes = [((t.flatten(1) / s + 1) / 2 * most).round().long().view(t.shape)
                     for t, s in zip(payload.floats, scales)]
            return Payload(scales, (*payload.integers, *codes), payload.labels)

        def receive(self, payload, layout, *, way, generator):
            most, before = 2**self.bits - 1, len(layout.integers)
            floats = tuple((s * (2 * c.view(field.shape[0], -1) / most - 1)).view(field.shape)
                           for field, s, c in zip(layout.floats, payload.floats, payload.integers[before:]))
            return Payload(floats, payload.integers[:before], payload.labels)
    """
REMEMBERING = """
        def bind(self, layout, shape, *, generator):
            self.client_half = nn.Module()
            self.client_half.register_buffer("before", torch.zeros(SHAPE))

        def send(self, payload, layout, *, way, generator):
            self.client_half.before += 1
            return Payload(tuple(t + self.client_half.before.mean() for t in payload.floats), payload.integers,
                           payload.labels)
    """
AGAIN = """
        resends = True

        def resent(self, layout, *, way, generator):
            return self.again
    """
NOMINAL = """
        def nominal(self, way):
            return -1.0
    """


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Plugin:
    """Writes a module and its YAML; what to type for it."""

    def write(group: str, source: str) -> list[str]:
        package = tmp_path / f"of_{request.node.name.translate(_WORD)}"  # imported once, so of this test alone
        package.mkdir(exist_ok=True)
        name = f"{group}{len(list(package.glob('*.py')))}"
        (package / f"{name}.py").write_text(dedent(source))
        folder = tmp_path / "conf" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine.yaml").write_text(
            f"name: {package.name}.{name}\n" + ("at_eval: false\n" if group == "compressor" else "")
        )
        return ["--config-dir", str(tmp_path / "conf"), f"{group}=mine"]

    monkeypatch.syspath_prepend(tmp_path)
    return write


@pytest.mark.parametrize(
    ("group", "source", "line"),
    [
        ("compressor", POOLED + COUNTING, "the same batch gives other values when it is repeated"),
        ("channel", STAGE + AT_LARGE, "the same batch gives other values when it is repeated"),
        ("compressor", POOLED + SHUFFLED, "compressor.at_eval must be false"),
    ],
    ids=["counting", "at-large", "shuffled"],
)
def test_what_could_not_be_repeated_is_refused(
    group: str, source: str, line: str, plugin: Plugin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = plugin(group, source) + (["compressor.at_eval=true"] if source.endswith(SHUFFLED) else [])
    assert cli.main([*SMALL, f"out={tmp_path / 'run'}", *own]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1 and not (tmp_path / "run").exists()


def test_what_is_repeatable_runs(plugin: Plugin, started: Started) -> None:
    """What a stage keeps in its half is put back after the step that was tried."""
    plain = started(*plugin("channel", STAGE), out="plain")
    kept = started(*plugin("channel", STAGE + REMEMBERING.replace("SHAPE", "1")), out="kept")
    more = kept.rounds.sync_bits - plain.rounds.sync_bits
    assert more.tolist() == [96, 96]  # it comes once, and stays with its client
    assert kept.rounds.train_loss.tolist() != plain.rounds.train_loss.tolist()
    started(*plugin("compressor", POOLED + SHUFFLED), out="shuffled")


@pytest.mark.parametrize(
    ("own", "line"),
    [
        (
            ("compressor", POOLED + HALVED),
            "compressor=compressor0 has parameters",
        ),
        (("quantizer", STAGE + REMEMBERING.replace("SHAPE", "layout.floats[0].shape")), "buffers of other shapes"),
    ],
    ids=["compressor", "stage"],
)
def test_parameters_are_not_of_one_ratio(
    own: tuple[str, str], line: str, plugin: Plugin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "profile.csv").write_text("client,ratio\n2,0.25\n")
    typed = [*plugin(*own), f"client_profile={tmp_path / 'profile.csv'}", f"out={tmp_path / 'run'}"]
    assert cli.main([*SMALL, *(["compressor=topk"] if own[0] == "quantizer" else []), *typed]) == 2
    said = capsys.readouterr().err
    assert line in said and "must not have ratios of their own" in said and not (tmp_path / "run").exists()


def test_a_stage_is_bound_to_what_reaches_it_at_a_clients_own_ratio(
    plugin: Plugin, tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what it is charged for is what it sends: as many bits a value as its message leaves room for."""
    most: dict[int, int] = {}
    real = Stages.uplink

    def uplink(self: Stages, payload: object, shape: object, *, key: tuple[int, int, int]) -> object:
        found = real(self, payload, shape, key=key)  # type: ignore[arg-type]
        most[key[0]] = max(most.get(key[0], 0), int(found.payload.integers[-1].max()))
        return found

    monkeypatch.setattr(Stages, "uplink", uplink)
    (tmp_path / "profile.csv").write_text("client,ratio\n2,0.25\n")
    keys = [*plugin("quantizer", STAGE + FITTED), "compressor=topk", "compressor.rate=0.1", "rounds=1"]
    found = started(*keys, "local_steps=1", f"client_profile={tmp_path / 'profile.csv'}").clients
    values = {client: 10 * round(17 * 64 * ratio) for client, ratio in ((0, 0.1), (2, 0.25))}
    for client, sent in values.items():
        bits = 8000 // sent
        assert 2 ** (bits - 1) <= most[client] < 2**bits  # its codes
        by_hand = sent * (bits + 11) + 10 * 32 + 10 * 4  # with the index of each, scales and labels
        assert found.uplink_bits[found.client == client].item() == by_hand


def test_a_stage_that_keeps_something_serves_clients_of_any_ratio(
    plugin: Plugin, tmp_path: Path, started: Started
) -> None:
    """With the state of that client, and not of those who happen to have the same ratio."""
    own = plugin("quantizer", STAGE + REMEMBERING.replace("SHAPE", "1"))
    (tmp_path / "profile.csv").write_text("client,ratio\n0,0.25\n1,0.25\n2,0.25\n")
    keys = [*own, "compressor=topk", "rounds=2"]
    profiled = started(*keys, "compressor.rate=0.1", f"client_profile={tmp_path / 'profile.csv'}", out="profiled")
    same_numbers(profiled, started(*keys, "compressor.rate=0.25", out="same"))


@pytest.mark.parametrize("more", [AGAIN, NOMINAL], ids=["resent", "nominal"])
def test_numbers_that_are_none_end_a_run(
    more: str, plugin: Plugin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*SMALL, *plugin("channel", STAGE + more), f"out={tmp_path / 'run'}"]) == 1
    said = capsys.readouterr().err
    assert ("whole number of bits" if more == AGAIN else "nominal must give a number of at least 0") in said


def test_a_metric_that_writes_into_what_it_sees_changes_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    (tmp_path / "scribbles").mkdir()
    (tmp_path / "scribbles" / "writing.py").write_text(
        dedent(
            """
            from flsplit.metrics.interface import Metric

            class Writing(Metric):
                def reset(self):
                    pass

                def update(self, logits, labels):
                    logits.zero_(), labels.zero_()

                def compute(self):
                    return (0.5,)
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    plain = started("metrics=[accuracy,macro_f1]", out="plain").rounds
    for order in ("scribbles.writing,accuracy,macro_f1", "accuracy,macro_f1,scribbles.writing"):
        found = started(f"metrics=[{order}]", out=order.partition(",")[0]).rounds
        columns = ["test_accuracy", "test_macro_f1", "test_loss"]
        pd.testing.assert_frame_equal(found[columns], plain[columns])
    assert torch.tensor(plain.test_accuracy).gt(0).any()
