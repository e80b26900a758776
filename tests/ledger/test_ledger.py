"""Prices, worked out by hand from Sections 2, 3.1 and Table 1 of the paper."""

from __future__ import annotations

import pytest

from compressors import BatchShape, Floats, Layout, build, labels_of
from flsplit.ledger.prices import PriceList, Tally
from flsplit.split.codec import wire_bytes
from flsplit.split.stages import Stages

DEIT_T = BatchShape(batch=128, tokens=197, width=192, classes=100)
BASE_UP, BASE_DOWN = 128 * (197 * 192 * 32 + 7), 128 * 197 * 192 * 32


def price(name: str, shape: BatchShape = DEIT_T, **options: object) -> dict[str, int]:
    return PriceList(Stages(build(name, **options))).step(shape).as_dict()


def test_base() -> None:
    found = price("base")
    assert (found["uplink_bits"], found["downlink_bits"]) == (BASE_UP, BASE_DOWN)
    assert found["nominal_bits"] == BASE_UP + BASE_DOWN
    assert (found["base_uplink_bits"], found["base_downlink_bits"]) == (BASE_UP, BASE_DOWN)


def test_adc() -> None:
    found = price("adc", ratio=0.1)
    floats = 40 * 62 * 192 * 32
    assert (found["uplink_bits"], found["downlink_bits"]) == (floats + 128 * (7 + 6), floats)
    assert found["nominal_bits"] == round(0.1 * BASE_UP) + round(0.1 * BASE_DOWN)


def test_the_latest_rule_costs_more_than_it_says() -> None:
    found = price("adc", ratio=0.1, rule="release2026")
    assert found["downlink_bits"] / BASE_DOWN == pytest.approx(0.1745, abs=1e-4)
    assert found["nominal_bits"] / (BASE_UP + BASE_DOWN) == pytest.approx(0.1)


def test_topk_pays_for_positions() -> None:
    kept = round(0.1 * 197 * 192)
    found = price("topk", rate=0.1)
    assert found["uplink_bits"] == 128 * (kept * (32 + 16) + 7)
    assert found["downlink_bits"] == 128 * kept * 32
    assert found["nominal_bits"] == round(0.1 * 1.5 * BASE_UP) + round(0.1 * BASE_DOWN)
    assert price("topk", rate=0.1, index_bits="per_batch")["uplink_bits"] == 128 * (kept * (32 + 23) + 7)


def test_c3sl_and_bottlenet() -> None:
    found = price("c3sl", group=4)
    assert (found["uplink_bits"], found["downlink_bits"]) == (BASE_DOWN // 4 + 128 * 7, BASE_DOWN // 4)
    found = price("bottlenet", ratio=0.1)
    assert (found["uplink_bits"], found["downlink_bits"]) == (128 * (197 * 19 * 32 + 7), 128 * 197 * 19 * 32)


def test_where_no_gradient_comes_back_there_is_no_downlink(monkeypatch: pytest.MonkeyPatch) -> None:
    made = build("base")
    layout = Layout((Floats((128, 197, 192), back=0),), labels=labels_of(DEIT_T))
    monkeypatch.setattr(made, "layout", lambda shape: layout)
    found = PriceList(Stages(made)).step(DEIT_T)
    assert (found.uplink_bits, found.downlink_bits, found.wire_bytes) == (BASE_UP, 0, wire_bytes(layout))


def test_a_tally_adds_up() -> None:
    prices, tally, total = PriceList(Stages(build("adc", ratio=0.1))), Tally(), Tally()
    assert tally.xi is None
    for batch in (128, 128, 5):
        tally += prices.step(BatchShape(batch=batch, tokens=197, width=192, classes=100))
    assert (tally.samples, tally.steps) == (261, 3)
    step = price("adc", ratio=0.1)
    short = price("adc", BatchShape(batch=5, tokens=197, width=192, classes=100), ratio=0.1)
    for key in ("uplink_bits", "downlink_bits", "nominal_bits", "wire_bytes", "base_uplink_bits", "base_downlink_bits"):
        assert getattr(tally, key) == 2 * step[key] + short[key]
    up, down = tally.uplink_bits / tally.base_uplink_bits, tally.downlink_bits / tally.base_downlink_bits
    assert tally.xi == (up + down) / 2
    total += tally
    total += tally
    assert total.uplink_bits == 2 * tally.uplink_bits and Tally(**total.as_dict()) == total
