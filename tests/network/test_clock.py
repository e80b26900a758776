"""Simulated time by hand: what a step takes, how steps of several clients follow, and what that uses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressors import BatchShape, Floats, Integers, Layout, Payload, Stage, build, labels_of
from compressors.adc import ADC
from compressors.base import Base
from flsplit.network import Clock, Device, NetworkConfig, Spent, Work
from flsplit.network.clock import Round, in_turns, jointly, one_after_another, side_by_side
from flsplit.network.flops import count
from flsplit.split.model import build as build_model
from flsplit.split.model import cut
from flsplit.split.stages import Stages

NETWORK = {"name": "custom", "uplink_mbps": 1.0, "downlink_mbps": 2.0, "latency_ms": 10.0, "flops": 1e9}
WORK = Work(forward=int(2e8), backward=int(4e8), server=int(3e8), up=1e6, down=4e5)
# A step: 0.2 s forward, 1 s up and 0.01 late, 0.3 s at the server, 0.2 s down and 0.01 late, 0.4 s backward.
BEFORE, SERVER, AFTER = 1.21, 0.3, 0.61


def clock(speeds: tuple[float, ...] = (1.0, 0.5), **more: object) -> Clock:
    network = NetworkConfig(**{**NETWORK, "server_flops": 1e9, **more})  # type: ignore[arg-type]
    devices = [
        Device(
            uplink=1e6 * s, downlink=2e6 * s, latency=0.01, jitter=0.0, flops=1e9 * s, compute_power_w=4.0,
            send_power_w=2.0, receive_power_w=1.0,
        )
        for s in speeds
    ]  # fmt: skip
    return Clock(network, lambda client: devices[client], 0)


def part(client: int, steps: int, *, down: int = 200_000, up: int = 100_000) -> Round:
    return Round(client=client, steps=[WORK] * steps, down=down, up=up)


def test_one_step_by_hand() -> None:
    timed = clock().timed(part(0, 2), 1)
    assert (timed.down, timed.up) == (pytest.approx(0.11, abs=1e-12), pytest.approx(0.11, abs=1e-12))
    for found, expected in ((timed.before, BEFORE), (timed.server, SERVER), (timed.after, AFTER)):
        np.testing.assert_allclose(found, [expected] * 2, rtol=0, atol=1e-12)
    assert timed.alone == pytest.approx(0.11 + 2 * (BEFORE + SERVER + AFTER) + 0.11, abs=1e-12)
    assert timed.spent.compute == pytest.approx(2 * 0.6, abs=1e-12)
    assert timed.spent.transfer == pytest.approx(2 * (1.01 + 0.21) + 0.22, abs=1e-12)
    assert timed.spent.joules == pytest.approx(4 * 1.2 + 2 * (2 + 0.1) + 1 * (0.4 + 0.1), abs=1e-12)


def test_pieces_overlap_where_the_longer_counts() -> None:
    timed = clock(pipeline=True).timed(part(0, 1), 1)
    assert (timed.before[0], timed.after[0]) == (pytest.approx(1.01, abs=1e-12), pytest.approx(0.41, abs=1e-12))
    assert timed.spent == clock().timed(part(0, 1), 1).spent


def test_a_server_without_a_speed_takes_no_time() -> None:
    assert clock(server_flops=None).timed(part(0, 1), 1).server.tolist() == [0.0]


def test_side_by_side_is_the_slowest() -> None:
    parts = [clock().timed(part(0, 2), 1), clock().timed(part(1, 1), 1)]
    # The second is half as fast: 0.4 forward, 2.01 up, 0.3, 0.41 down, 0.8 backward; models 0.21 each way.
    fast, slow = 0.22 + 2 * 2.12, 0.42 + (2.41 + 0.3 + 1.21)
    whole, ends = side_by_side(parts)
    assert whole == pytest.approx(max(fast, slow), abs=1e-12)
    assert ends == [pytest.approx(fast, abs=1e-12), pytest.approx(slow, abs=1e-12)]


def test_one_after_another_is_the_sum() -> None:
    parts = [clock().timed(part(0, 2), 1), clock().timed(part(1, 1), 1)]
    whole, ends = one_after_another(parts)
    assert whole == pytest.approx(0.22 + 2 * 2.12 + 0.42 + 3.92, abs=1e-12)
    assert ends[0] == pytest.approx(0.22 + 2 * 2.12, abs=1e-12)


def test_in_turns_the_server_takes_batches_in_their_order() -> None:
    whole, ends = in_turns([clock().timed(part(0, 2), 1), clock().timed(part(1, 2), 1)])
    # Client 0's first batch is there at 0.11 + 1.21 = 1.32, served until 1.62; client 1's at 0.21 + 2.41 = 2.62 until
    # 2.92. Client 0 is back at 1.62 + 0.61 = 2.23 and ready at 3.44, served until 3.74; client 1 is back at
    # 2.92 + 1.21 = 4.13 and ready at 6.54, served until 6.84.
    assert ends[0] == pytest.approx(3.74 + 0.61 + 0.11, abs=1e-12)
    assert whole == ends[1] == pytest.approx(6.84 + 1.21 + 0.21, abs=1e-12)


def test_in_turns_a_fast_client_waits_for_the_one_before_it() -> None:
    slow_first = [clock().timed(part(1, 1), 1), clock().timed(part(0, 1), 1)]
    whole, _ = in_turns(slow_first)
    # Client 1 is served until 2.92, though client 0 has been ready since 1.32: it is served from 2.92 to 3.22.
    assert whole == pytest.approx(max(2.92 + 1.21 + 0.21, 3.22 + 0.61 + 0.11), abs=1e-12)


def test_in_lockstep_all_wait_for_the_slowest() -> None:
    whole, ends = jointly([clock().timed(part(0, 2), 1), clock().timed(part(1, 1), 1)])
    # Both are there at 0.21 + 2.41, the server takes both: 0.6; both are back after 1.21. Then client 0 alone.
    together = 0.21 + 2.41 + 0.6 + 1.21
    assert ends[1] == pytest.approx(together + 2.12 + 0.21, abs=1e-12)
    assert whole == pytest.approx(together + 2.12 + 0.21, abs=1e-12)


def test_what_is_agreed_upon_before_a_step_takes_its_time() -> None:
    step = replace(WORK, proposal=5e5, grouping=2e5)
    parts = [clock().timed(Round(client=client, steps=[step], down=0, up=0), 1) for client in (0, 1)]
    # 0.2 forward, 0.5 up and 0.01 late; then 0.1 down and 0.01 late, 1 up and 0.01 late. The second is half as fast.
    assert [part.ask[0] for part in parts] == [pytest.approx(0.71, abs=1e-12), pytest.approx(1.41, abs=1e-12)]
    assert [part.before[0] for part in parts] == [pytest.approx(1.12, abs=1e-12), pytest.approx(2.22, abs=1e-12)]
    assert parts[0].spent.transfer == pytest.approx(0.51 + 0.11 + 1.01 + 0.21, abs=1e-12)
    assert parts[0].spent.joules == pytest.approx(4 * 0.6 + 2 * 1.5 + 1 * 0.3, abs=1e-12)
    assert parts[0].alone == pytest.approx(0.6 + 0.3 + parts[0].spent.transfer, abs=1e-12)
    assert jointly(parts)[0] == pytest.approx(1.41 + 2.22 + 0.6 + 1.21, abs=1e-12)
    pipelined = clock(pipeline=True).timed(Round(client=0, steps=[step], down=0, up=0), 1)
    assert (pipelined.ask[0], pipelined.before[0]) == (parts[0].ask[0], parts[0].before[0])


def test_gradients_of_a_model_in_every_step_take_their_time() -> None:
    step = Work(forward=0, backward=0, server=0, up=1e6, down=4e5, up_model=5e5, down_model=5e5)
    timed = clock().timed(Round(client=0, steps=[step], down=0, up=0), 1)
    assert timed.alone == pytest.approx(1.01 + 0.21 + 0.5 + 0.25 + 0.02, abs=1e-12)
    assert timed.spent.transfer == pytest.approx(timed.alone, abs=1e-12)


def test_where_nothing_is_sent_nothing_is_late() -> None:
    step = Work(forward=int(1e9), backward=0, server=0, up=1e6, down=0)
    assert clock().timed(Round(client=0, steps=[step], down=0, up=0), 1).alone == pytest.approx(2.01, abs=1e-12)


def test_jitter_is_drawn_for_each_message_and_the_same_again() -> None:
    device = Device(
        uplink=1e6, downlink=1e6, latency=0, jitter=0.5, flops=1e9, compute_power_w=0, send_power_w=0, receive_power_w=0
    )
    late = Clock(NetworkConfig(**NETWORK), lambda _: device, 7)
    work = Work(forward=0, backward=0, server=0, up=1e-9, down=1e-9)
    first = late.timed(Round(client=0, steps=[work] * 500, down=1, up=1), 3)
    again = late.timed(Round(client=0, steps=[work] * 500, down=1, up=1), 3)
    assert np.array_equal(first.before, again.before) and first.down == again.down
    assert 0.2 < first.before.mean() < 0.3 and first.before.min() >= 0 and first.before.max() <= 0.5
    assert len(set(first.before) | set(first.after)) == 1000
    assert late.timed(Round(client=0, steps=[work], down=1, up=1), 4).down != first.down


def test_fewer_steps_change_nothing_about_the_others() -> None:
    device = Device(
        uplink=1e6, downlink=1e6, latency=0, jitter=0.5, flops=1e9, compute_power_w=0, send_power_w=0, receive_power_w=0
    )
    late = Clock(NetworkConfig(**NETWORK, round_deadline_s=20.0), lambda _: device, 7)
    for client in range(20):
        many, count = late.timed(part(client, 50), 1), late.affordable(part(client, 50), 1)
        few = late.timed(part(client, count), 1)
        assert (few.down, few.up) == (many.down, many.up)
        assert np.array_equal(few.before, many.before[:count]) and np.array_equal(few.after, many.after[:count])
        assert few.alone <= 20.0 < late.timed(part(client, count + 1), 1).alone


def test_how_many_steps_fit() -> None:
    fits = clock(round_deadline_s=0.22 + 2 * 2.12 + 1e-9)
    assert fits.affordable(part(0, 5), 1) == 2 and fits.affordable(part(0, 1), 1) == 1
    assert clock(round_deadline_s=0.1).affordable(part(0, 5), 1) == 0


def test_times_add_up() -> None:
    one, two = Spent(compute=1, transfer=2, waiting=3, joules=4), Spent(compute=10, transfer=20, waiting=30, joules=40)
    assert one + two == Spent(compute=11, transfer=22, waiting=33, joules=44)


@pytest.mark.some
@pytest.mark.parametrize("compressor", ["base", "adc", "topk", "bottlenet"])
def test_operations_are_those_of_the_matrix_products(compressor: str) -> None:
    torch.manual_seed(0)
    model = build_model("deit_tiny", classes=100, image_size=96, pretrained=False, seed=0)
    client, server = cut(model, 3)
    client.with_scores = False
    made = build(compressor).bind(tokens=37, width=192, generator=torch.Generator().manual_seed(0))
    shape = BatchShape(batch=16, tokens=37, width=192, classes=100)
    found = count(client, server, Stages(made), shape, image_size=96)

    def blocks(n: int, tokens: int) -> int:  # qkv, attention, projection, two of the MLP
        return n * (2 * tokens * 192 * 3 * 192 + 4 * tokens**2 * 192 + 2 * tokens * 192**2 + 16 * tokens * 192**2)

    embed, head = 2 * 36 * 768 * 192, 2 * 192 * 100
    widths = {"bottlenet": 2 * 37 * (192 * 105 + 105 * 19)}.get(compressor, 0)
    assert found.forward == 16 * (embed + blocks(3, 37) + widths)
    # Backward: with respect to inputs and weights, but for the images.
    assert found.backward == 16 * (embed + 2 * blocks(3, 37) + 2 * widths)
    rows, tokens = (made.clusters(16), made.kept_tokens(37)) if isinstance(made, ADC) else (16, 37)
    assert found.server == 3 * (rows * (blocks(9, tokens) + head) + 16 * widths)


def test_a_client_that_trains_nothing_goes_forward_only() -> None:
    client, server = cut(build_model("vit_micro", classes=10, image_size=8, pretrained=False, seed=0), 1)
    shape = BatchShape(batch=4, tokens=17, width=64, classes=10)
    all_stages = (Stages(build("base"), answers=answers) for answers in (True, False))
    both, one = (count(client, server, stages, shape, image_size=8) for stages in all_stages)
    assert both.backward > 0 == one.backward and one.forward == both.forward and one.server <= both.server


class Wide(Stage):
    """Trained: two layers at the client, one at the server."""

    trained, ways = True, ("up",)

    def __init__(self) -> None:
        self.client_half, self.server_half = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 64)), nn.Linear(64, 64)

    def send(self, payload: Payload, layout: Layout, **_: object) -> Payload:
        return replace(payload, floats=tuple(self.client_half(t) for t in payload.floats))

    def receive(self, payload: Payload, layout: Layout, **_: object) -> Payload:
        return replace(payload, floats=tuple(self.server_half(t) for t in payload.floats))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("compressor", ["base", "adc", "c3sl"])
def test_operations_of_trained_stages_count(compressor: str, frozen: bool) -> None:
    client, server = cut(build_model("vit_micro", classes=10, image_size=8, pretrained=False, seed=0), 1)
    client.with_scores = False
    client.requires_grad_(not frozen)
    made = build(compressor).bind(tokens=17, width=64, generator=torch.Generator().manual_seed(0))
    shape = BatchShape(batch=16, tokens=17, width=64, classes=10)
    plain, more = Stages(made, answers=not frozen), Stages(made, [Wide()], draw=lambda *_: torch.Generator())
    without, found = (count(client, server, stages, shape, image_size=8) for stages in (plain, more))
    product = 2 * made.layout(shape).floats[0].size // 32 * 64  # of all numbers that are sent, with 64 columns
    assert found.forward - without.forward == 4 * product
    # Backward, of a frozen client's all but what would go on to the client-side model.
    assert found.backward - without.backward == (6 if frozen else 8) * product
    assert found.server - without.server == 3 * product


class Decoded(Base):
    """Sends each sample's largest values, where they are, and a mean without a graph, with noise; the server learns."""

    def __init__(self) -> None:
        super().__init__()
        self.server_half = nn.Linear(64, 64)

    def compress(self, z: Tensor, y: Tensor, s: Tensor | None, *, generator: torch.Generator | None = None) -> Payload:
        assert generator is not None
        at = z.detach().topk(8, dim=2).indices
        return Payload((z.gather(2, at), z.detach().mean(0) + torch.randn(17, 64, generator=generator)), (at,), y)

    def decompress(self, payload: Payload, shape: BatchShape) -> tuple[Tensor, Tensor]:
        values, mean = payload.floats
        at = payload.integers[0].view(values.shape)
        assert payload.labels is not None
        return self.server_half(mean.expand(shape.batch, 17, 64).scatter(2, at, values)), payload.labels

    def layout(self, shape: BatchShape) -> Layout:
        kept = (shape.batch, 17, 8)
        return Layout((Floats(kept), Floats((17, 64), back=0)), (Integers.one_of(64, kept),), labels_of(shape))


def test_operations_of_a_trained_compressor_count_whatever_it_sends() -> None:
    client, server = cut(build_model("vit_micro", classes=10, image_size=8, pretrained=False, seed=0), 1)
    client.with_scores = False
    shape = BatchShape(batch=16, tokens=17, width=64, classes=10)
    without, found = (count(client, server, Stages(made), shape, image_size=8) for made in (build("base"), Decoded()))
    assert (found.forward, found.backward) == (without.forward, without.backward)
    assert found.server - without.server == 3 * 2 * 16 * 17 * 64 * 64


@pytest.mark.parametrize("bounds", [[1.0, 100.0], [0.0, 10.0]])
def test_devices_are_drawn_between_their_bounds(bounds: list[float]) -> None:
    key = "uplink_mbps" if bounds[0] else "jitter_ms"
    network = NetworkConfig(**{**NETWORK, key: bounds})  # type: ignore[arg-type]
    network.check()
    unit, name = (1e6, "uplink") if bounds[0] else (1e-3, "jitter")
    found = np.array([getattr(network.device(client, 5, {}), name) for client in range(2000)]) / unit
    assert bounds[0] <= found.min() and found.max() <= bounds[1]
    assert np.median(found) == pytest.approx(10.0 if bounds[0] else 5.0, rel=0.1)
    assert network.device(3, 5, {}) == network.device(3, 5, {}) != network.device(3, 6, {})
    own = network.device(3, 5, {"flops": 5.0, "uplink_mbps": None})
    assert own.flops == 5.0 and own.uplink == network.device(3, 5, {}).uplink


def test_gradients_of_a_model_are_messages_too() -> None:
    """In each step one goes up and one comes down, each with its latency and its jitter."""
    device = Device(
        uplink=1e6,
        downlink=1e6,
        latency=0.1,
        jitter=0.5,
        flops=1e9,
        compute_power_w=0,
        send_power_w=0,
        receive_power_w=0,
    )
    late = Clock(NetworkConfig(**NETWORK), lambda _: device, 7)
    work = Work(forward=0, backward=0, server=0, up=0, down=0, up_model=1e-9, down_model=1e-9)
    timed = late.timed(Round(client=0, steps=[work] * 500, down=0, up=0), 3)
    after = timed.gradient_up + timed.gradient_down
    assert 0.65 < after.mean() < 0.75 and after.min() >= 0.2 and after.max() <= 1.2 and len(set(after)) == 500


def test_the_sum_of_gradients_comes_down_when_all_have_sent_theirs() -> None:
    """Two clients whose links are each other's reverse: 1 s up and 4 s down for one, 4 and 1 for the other."""
    links = ((1e6, 2.5e5), (2.5e5, 1e6))
    devices = [
        Device(
            uplink=up, downlink=down, latency=0.01, jitter=0, flops=1e9, compute_power_w=0, send_power_w=0,
            receive_power_w=0,
        )
        for up, down in links
    ]  # fmt: skip
    unlike = Clock(NetworkConfig(**NETWORK), lambda client: devices[client], 0)
    work = Work(forward=0, backward=0, server=0, up=0, down=0, up_model=1e6, down_model=1e6)
    parts = [unlike.timed(Round(client=client, steps=[work] * 3, down=0, up=0), 1) for client in (0, 1)]
    assert [part.alone for part in parts] == pytest.approx([3 * 5.02] * 2, abs=1e-12)
    assert jointly(parts)[0] == pytest.approx(3 * (4.01 + 4.01), abs=1e-12)


def test_what_is_told_beforehand_has_jitter_of_its_own() -> None:
    device = Device(
        uplink=1e6, downlink=1e6, latency=0, jitter=0.5, flops=1e9, compute_power_w=0, send_power_w=0, receive_power_w=0
    )
    late = Clock(NetworkConfig(**NETWORK), lambda _: device, 7)
    plain = Work(forward=0, backward=0, server=0, up=1e-9, down=1e-9)
    without, asked = (
        late.timed(Round(client=0, steps=[work] * 200, down=1, up=1), 3)
        for work in (plain, replace(plain, proposal=1e-9, grouping=1e-9))
    )
    told = asked.before - without.before
    assert np.array_equal(without.after, asked.after) and told.min() >= 0 and told.max() <= 0.5
    drawn = [asked.ask, told, without.before, without.after]
    assert all(np.abs(np.corrcoef(a, b)[0, 1]) < 0.3 for at, a in enumerate(drawn) for b in drawn[:at])
