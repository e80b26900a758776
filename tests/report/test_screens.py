"""The page in a browser: nothing is wider than a telephone, a tablet or a desk, and dark pages are dark."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Tab, program, tab
from make_runs import clients_table, config, make_run, rounds_table
from PIL import Image

from flsplit.report.cli import write_report

pytest.importorskip("websockets", reason="the browser is spoken to through the package websockets")
CHROMIUM = program()
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"),
    pytest.mark.xdist_group("chromium"),
]
CUT_OFF = """
[...document.querySelectorAll("figure svg text")].filter(text => {
  const at = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
  return at.width && (at.left < all.left - 1 || at.right > all.right + 1);
}).map(text => text.textContent)
"""
TOO_WIDE = """
[...document.querySelectorAll("body *")].filter(element => {
  const box = element.getBoundingClientRect();
  return box.width && box.right > innerWidth + 1 && !element.closest(".scroll");
}).map(element => `${element.tagName}.${element.className} ${element.textContent.slice(0, 40)}`).slice(0, 5)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over seeds with everything that a page can have."""
    folder = tmp_path_factory.mktemp("screens")
    long = {"name": "adc", "ratio": 0.1, "rule": "a_rule_with_a_name_that_is_longer_than_any_telephone_is_wide" * 2}
    for seed in (0, 1):
        clients = clients_table(4, 10, held_out=True, failed=((2, 3), (3, 3)))
        make_run(folder / f"adc{seed}", config(seed=seed, compressor=long), clients=clients)
        base = config(seed=seed, compressor={"name": "base"})
        rounds = rounds_table(12, ratio=1.0, seed=seed)
        make_run(folder / f"base{seed}", base, rounds=rounds.assign(sync_bits=50 * rounds.sync_bits))  # axes in logs
    write_report([folder], folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    assert CHROMIUM is not None
    with tab(CHROMIUM, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("width,scheme", [(390, "light"), (820, "dark"), (1440, "light")])
def test_nothing_is_wider_than_the_page(page: Path, browser: Tab, tmp_path: Path, width: int, scheme: str) -> None:
    browser.show(page, width, scheme)
    assert browser.ask("[innerWidth, document.documentElement.scrollWidth <= innerWidth]") == [width, True]
    assert browser.ask(TOO_WIDE) == [] and browser.ask(CUT_OFF) == []
    (tmp_path / f"{width}.png").write_bytes(picture := browser.screenshot(900))
    shown = Image.open(io.BytesIO(picture)).convert("L")
    assert shown.size == (width, 900)
    commonest = max(shown.getcolors() or [], key=lambda counted: counted[0])[1]
    assert (commonest < 60) == (scheme == "dark")


@pytest.mark.parametrize("width,media", [(390, "screen"), (688, "print")])  # a telephone; A4 less its margins
def test_charts_have_letters_that_can_be_read(page: Path, browser: Tab, width: int, media: str) -> None:
    """Charts are drawn anew for narrow places, not made small."""
    browser.show(page, width, "light", media)
    assert browser.ask("document.documentElement.scrollWidth <= innerWidth") and browser.ask(TOO_WIDE) == []
    if media == "print":  # or Chromium parts captions from their charts at the end of a page
        kinds = "[...document.querySelectorAll('figure')].map(figure => getComputedStyle(figure).containerType)"
        assert set(browser.ask(kinds)) == {"normal"}
    sizes = browser.ask(
        "[...document.querySelectorAll('figure svg text')].filter(text => text.getBoundingClientRect().width)"
        ".map(text => { const at = text.getScreenCTM(); "
        "return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(at.a, at.b) })"
    )
    assert len(sizes) > 50
    assert min(sizes) > 7  # the counts in the cells of a partition
    assert max(sizes) < 1.5 * min(sizes)  # alike in all charts
    assert sorted(sizes)[len(sizes) // 2] > 7.5
