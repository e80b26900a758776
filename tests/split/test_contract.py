"""What is priced is what is sent: payloads, stages and compressors are held to what they say of themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_repeatability import same_numbers
from torch import Tensor, nn

import flsplit
from compressors import BatchShape, Floats, Integers, Layout, Lost, Payload, build, build_stage
from compressors.base import Base
from compressors.bottlenet import BottleNet
from compressors.quantizers.uniform import Uniform
from flsplit.assembly import Assembly, assembly_for
from flsplit.compose import compose
from flsplit.errors import RunFailed, UserError
from flsplit.experiment import prepare
from flsplit.split.families.vit import ViTClient, ViTs, ViTServer
from flsplit.split.side import unkept
from flsplit.split.stages import Stages

SHAPE = BatchShape(batch=4, tokens=5, width=6, classes=10)
KEY = (0, 1, 0)
KEYS = ["engine=inline", "clients=3", "batch_size=8", "dataset.train_limit=60", "dataset.test_limit=20"]


@pytest.mark.parametrize(
    ("layout", "payload", "message"),
    [
        (Layout((), (Integers((3,), 2),)), Payload((), (torch.tensor([0, 3, 4]),)), r"from 0 to 4, .* says 0 to 3"),
        (
            Layout((), (Integers((2,), 8),)),
            Payload((), (torch.tensor([-1, 3]),)),
            r"from -1 to 3, .* says 0 to 255 ",
        ),
        (Layout((), (Integers((2,), 0),)), Payload((), (torch.tensor([0, 1]),)), r"from 0 to 1, .* 0 to 0 \(0 bits"),
        (Layout((), (Integers.one_of(5, (1,)),)), Payload((), (torch.tensor([6]),)), r"from 6 to 6, .* says 0 to 4"),
        (Layout((), (), Integers((2,), 1)), Payload((), (), torch.tensor([0, 9])), r"from 0 to 9, .* says 0 to 1"),
        (Layout((), (Integers((2,), 4),)), Payload((), (torch.tensor([0.5, 1.0]),)), r"integers of torch.float32"),
        (Layout((Floats((1,)),)), Payload((torch.zeros(1, dtype=torch.float64),)), r"floats of torch.float64"),
        (Layout((Floats((1,)),)), Payload((torch.zeros(1, dtype=torch.bfloat16),)), r"floats of torch.bfloat16"),
    ],
)
def test_values_are_held_to_what_they_are_priced_at(layout: Layout, payload: Payload, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout.check(payload)


def test_what_fits_is_let_through() -> None:
    fields = (Integers((2,), 63), Integers((2,), 3, 6), Integers((0,), 1), Integers((1,), 0))
    codes = (torch.tensor([0, 2**62]), torch.tensor([0, 5]), torch.zeros(0, dtype=torch.int64), torch.tensor([0]))
    Layout((Floats((2,)),), fields).check(Payload((torch.zeros(2),), codes))


@pytest.mark.parametrize("bits", [2.0, 3.3, True, "8"])
def test_bits_are_whole_numbers(bits: Any) -> None:
    for field in (lambda: Integers((2,), bits), lambda: Floats((2,), bits)):
        with pytest.raises((ValueError, TypeError)):
            field()


def test_codes_above_their_bits_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = Uniform.fields
    halved = lambda self, layout, way: _cheaper(fields(self, layout, way))  # noqa: E731
    monkeypatch.setattr(Uniform, "fields", halved)
    with pytest.raises(RunFailed, match=r"from 0 to 255, but its layout says 0 to 15 \(4 bits\)"):
        flsplit.run([*KEYS, "rounds=1", "compressor=topk", "quantizer=uniform", f"out={tmp_path / 'run'}"])


def _cheaper(layout: Layout) -> Layout:
    codes = (replace(field, bits=4, below=None) if field.bits == 8 else field for field in layout.integers)
    return replace(layout, integers=tuple(codes))


class Cut(Base):
    """Forgets where its activations come from."""

    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        z, y = super().decompress(payload, shape)
        return z.detach(), y


def crossed(stages: Stages) -> tuple[Any, Payload]:
    z = torch.randn(4, 5, 6, requires_grad=True)
    kept = stages.compress(z, torch.arange(4), torch.rand(4, 5), SHAPE, generator=torch.Generator(), key=KEY)
    uplink = stages.uplink(kept, SHAPE, key=KEY)
    return uplink, stages.received(uplink, torch.device("cpu"))


def test_a_gradient_that_cannot_be_is_not_sent() -> None:
    stages = Stages(Cut())
    uplink, payload = crossed(stages)
    stages.decompress(payload, uplink)
    with pytest.raises(ValueError, match="the loss depends on nothing that has been sent: test_contract's decompress"):
        stages.hold_to_graph(payload)


@pytest.mark.slow
def test_a_run_without_gradients_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Base, "decompress", lambda self, payload, shape: (payload.floats[0].detach(), payload.labels))
    with pytest.raises(RunFailed, match="the loss depends on nothing that has been sent: base's decompress"):
        flsplit.run([*KEYS, "rounds=1", "compressor=base", f"out={tmp_path / 'run'}"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layout", None, r"base.layout must give a Layout, got None"),
        ("nominal_ratios", 0.5, r"base.nominal_ratios must give two numbers of at least 0, got 0.5"),
        ("nominal_ratios", (-1.0, 1.0), r"base.nominal_ratios must give two numbers of at least 0"),
        ("nominal_ratios", (float("nan"), 1.0), r"base.nominal_ratios must give two numbers of at least 0"),
    ],
)
def test_what_a_compressor_says_of_itself(name: str, value: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compressor = build("base")
    monkeypatch.setattr(compressor, name, lambda shape: value)
    stages = Stages(compressor)
    with pytest.raises(ValueError, match=message):
        stages.nominal(SHAPE) if name == "nominal_ratios" else stages.route(SHAPE)


def test_what_a_stage_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = build_stage("quantizer", "fp16")
    monkeypatch.setattr(stage, "receive", lambda payload, layout, **_: Payload((torch.zeros(1, 5, 6),)))
    stages = Stages(build("base"), [stage], draw=lambda *key: torch.Generator())
    with pytest.raises(ValueError, match=r"fp16's receive gives floats of shapes \[\(1, 5, 6\)\], but \[\(4, 5, 6\)\]"):
        crossed(stages)
    lost = Lost((torch.zeros(4, 5, dtype=torch.bool),))
    monkeypatch.setattr(stage, "receive", lambda payload, layout, **_: Payload((torch.zeros(4, 5, 6),), lost=lost))
    with pytest.raises(
        ValueError, match=r"fp16's receive gives a payload whose `lost` is of other fields than its floats"
    ):
        crossed(stages)
    monkeypatch.setattr(stage, "ways", ("upp",))
    with pytest.raises(ValueError, match="fp16: ways are up and down"):
        Stages(build("base"), [stage])


def let_draw(monkeypatch: pytest.MonkeyPatch, side: type[Any]) -> None:
    """Let the models of a side drop some of what reaches them."""
    forward = side.forward
    monkeypatch.setattr(side, "forward", lambda self, x: forward(self, F.dropout(x, 0.3, self.training)))


@pytest.mark.parametrize(("side", "name"), [(ViTClient, "client"), (ViTServer, "server")])
def test_a_model_that_draws_is_not_stacked(
    side: type[Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_draw(monkeypatch, side)
    with pytest.raises(UserError, match=f"engine.stack must be 1: the {name}-side model draws random numbers"):
        prepare(compose([*KEYS, "engine.stack=3", f"out={tmp_path / 'run'}"]))


@pytest.mark.slow
@pytest.mark.parametrize("keys", [["strategy=splitfed_v2", "strategy.turn=step"], ["strategy=splitfed_v1"]], ids=str)
def test_a_model_that_draws_is_repeatable_too(keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (ViTClient, ViTServer):
        let_draw(monkeypatch, side)
    typed = [*KEYS, *keys, "compressor=topk", "rounds=3"]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = flsplit.run([*typed, f"out={tmp_path / 'whole'}"])
    torch.manual_seed(2)
    other = ["strategy.placement=central"] if "strategy=splitfed_v1" in keys else []
    same_numbers(whole, flsplit.run([*typed, *other, f"out={tmp_path / 'again'}"]))
    flsplit.run([*typed[:-1], "rounds=1", f"out={tmp_path / 'part'}"])
    same_numbers(whole, flsplit.run([f"resume={tmp_path / 'part'}", "rounds=3"]))
    assert not torch.equal(before, torch.get_rng_state())  # what the caller has seeded since is left alone


@pytest.mark.slow
def test_a_compressor_whose_modules_draw_is_repeatable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bind = BottleNet.bind

    def with_dropout(self: BottleNet, **options: Any) -> BottleNet:
        bind(self, **options)
        assert self.client_half is not None and self.server_half is not None
        first = nn.Linear(options["width"], options["width"])  # whose weights are drawn, too
        self.client_half = nn.Sequential(nn.Dropout(0.3), first, self.client_half)
        self.server_half = nn.Sequential(nn.Dropout(0.3), self.server_half)
        return self

    monkeypatch.setattr(BottleNet, "bind", with_dropout)
    keys = [*KEYS, "compressor=bottlenet"]
    torch.manual_seed(1)
    whole = flsplit.run([*keys, "rounds=2", f"out={tmp_path / 'whole'}"])
    torch.manual_seed(2)
    same_numbers(whole, flsplit.run([*keys, "rounds=2", "strategy.placement=central", f"out={tmp_path / 'again'}"]))
    flsplit.run([*keys, "rounds=1", f"out={tmp_path / 'part'}"])
    same_numbers(whole, flsplit.run([f"resume={tmp_path / 'part'}", "rounds=2"]))


@pytest.mark.parametrize(
    ("trained", "ways", "factors"),
    [(False, ("up",), (0.25, 1.0)), (False, ("down",), (1.0, 0.5)), (True, ("up",), (0.25, 0.5))],
)
def test_the_factor_of_a_stage_counts_where_it_acts(
    trained: bool, ways: tuple[Any, ...], factors: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = build_stage("quantizer", "uniform")
    monkeypatch.setattr(type(stage), "trained", trained)
    monkeypatch.setattr(stage, "ways", ways)
    monkeypatch.setattr(stage, "nominal", {"up": 0.25, "down": 0.5}.get)
    assert Stages(build("base"), [stage]).nominal(SHAPE) == factors


class Memory(nn.Module):
    """Keeps one buffer."""

    def __init__(self, buffer: Tensor, *, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("seen", buffer, persistent=persistent)


@pytest.mark.parametrize("half", ["client_half", "server_half"])
def test_parameters_that_would_not_be_trained_are_refused(
    half: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Uniform, half, nn.Linear(2, 2))
    with pytest.raises(UserError, match="uniform has parameters that gradients pass by: it must say trained = True"):
        assembled("quantizer=uniform", out=tmp_path / "run")
    monkeypatch.setattr(Uniform, half, nn.Linear(2, 2).requires_grad_(False))
    assembled("quantizer=uniform", out=tmp_path / "run")


@pytest.mark.parametrize("half", ["client_half", "server_half"])
@pytest.mark.parametrize(("part", "name"), [(Base, "base"), (Uniform, "uniform")])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_state_that_is_not_kept_is_refused(
    part: type[Any], name: str, half: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, half, Memory(torch.zeros(1, dtype=dtype)))
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(UserError, match=f"{name}'s {half}: buffer seen is of {kind}, but state must be of float32"):
        prepare(compose([*KEYS, "compressor=base", "quantizer=uniform", f"out={tmp_path / 'run'}"]))


def test_a_model_with_state_that_is_not_kept_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ViTServer.__init__

    def counting(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.norm = nn.BatchNorm1d(10, momentum=None)

    monkeypatch.setattr(ViTServer, "__init__", counting)
    with pytest.raises(
        UserError, match=r"server-side model of vit_micro: buffer norm\.num_batches_tracked is of int64"
    ):
        prepare(compose([*KEYS, f"out={tmp_path / 'run'}"]))


def test_activations_of_another_shape_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ViTClient, "forward", lambda self, images: (images.flatten(1), None))
    with pytest.raises(UserError, match=r"^model.family=vit: the client-side model gives .* shape \(1, 192\) for one"):
        prepare(compose([*KEYS, "model.family=vit", f"out={tmp_path / 'run'}"]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["weight", "buffer"])
def test_state_of_another_precision_is_refused(
    kind: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ViTServer.__init__

    def precise(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.scale = nn.Parameter(torch.ones(1, dtype=dtype)) if kind == "weight" else None
        self.register_buffer("seen", torch.ones(1, dtype=dtype) if kind == "buffer" else None)

    monkeypatch.setattr(ViTServer, "__init__", precise)
    said = f"server-side model of vit_micro: {kind} .* is of {str(dtype).removeprefix('torch.')}, but state must be of "
    with pytest.raises(UserError, match=f"{said}float32"):
        prepare(compose([*KEYS, f"out={tmp_path / 'run'}"]))


def test_halves_that_share_weights_with_the_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = ViTs.cut

    def sharing(self: Any, model: Any, split_point: int) -> Any:
        client, server = cut(self, model, split_point)
        server.vit.head = model.head
        return client, server

    monkeypatch.setattr(ViTs, "cut", sharing)
    with pytest.raises(UserError, match=r"^model\.family=vit: the halves share weights with the model that was cut$"):
        prepare(compose([*KEYS, "model.family=vit", f"out={tmp_path / 'run'}"]))


@pytest.mark.parametrize("model", [["model=vit_micro"], ["model.family=resnet", "model.name=resnet10t"]], ids=str)
@pytest.mark.parametrize(("size", "computed"), [(256, True), (288, False)])
def test_large_images_are_not_computed_to_know_shapes(
    model: list[str], size: int, computed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    called = nn.Module.__call__

    def noted(self: nn.Module, x: Tensor, **more: Any) -> Any:
        seen.append(x.device.type)
        return called(self, x, **more)

    def asked(assembly: Assembly) -> tuple[tuple[int, int], torch.Size]:
        with monkeypatch.context() as patch:
            patch.setattr(nn.Module, "__call__", noted)
            return assembly.activations, assembly.logits.shape

    keys = [*KEYS, *model, f"model.image_size={size}", "compressor=topk", f"out={tmp_path / 'run'}"]
    assembly = assembly_for(prepare(compose(keys)).plan.to_json())
    found = asked(fresh := Assembly(assembly.plan))
    assert set(seen) == {"cpu" if computed else "meta"}
    z, _ = fresh.parts[0].eval()(torch.zeros(1, 3, size, size))
    assert found == (z.shape[1:], fresh.parts[1].eval()(z).shape) and found[1] == (1, 10)


def test_what_state_is_not_kept() -> None:
    kept = [Memory(torch.zeros(1)), Memory(torch.zeros(1, dtype=torch.int64), persistent=False), nn.BatchNorm1d(3)]
    lost = [Memory(torch.zeros(1, dtype=torch.bool)), nn.BatchNorm1d(3, momentum=None)]
    assert list(unkept(nn.Sequential(*kept, *lost))) == ["3.seen", "4.num_batches_tracked"]
    assert list(unkept(lost[1])) == ["num_batches_tracked"] and not unkept(kept[2])


def assembled(*keys: str, out: Path) -> Assembly:
    return assembly_for(prepare(compose([*KEYS, *keys, f"out={out}"])).plan.to_json())


def test_state_of_a_trained_stage_stays_with_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: Any, *args: Any, **options: Any) -> Any:
        self.client_half, self.server_half = (nn.Sequential(nn.Linear(2, 2), Memory(torch.ones(5))) for _ in "cs")
        return self

    plain = assembled("compressor=base", out=tmp_path / "plain")
    sizes = plain.client_side().size, plain.server_side().size
    monkeypatch.setattr(Uniform, "trained", True)
    monkeypatch.setattr(Uniform, "bind", bind)
    keys = ["compressor=base", "quantizer=uniform", "quantizer.down=false"]
    made = assembled(*keys, out=tmp_path / "run")
    client, server = made.client_side().state(), made.server_side().state()
    assert client.own is not None and client.own.tolist() == [1.0] * 5 and server.own is None
    assert (len(client.weights), len(server.weights)) == (sizes[0] + 6, sizes[1] + 6 + 5)
    with pytest.raises(UserError, match=r"strategy=parallel trains one client-side model .* no stage can keep state"):
        assembled(*keys, "strategy=parallel", out=tmp_path / "run")
