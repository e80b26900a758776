"""A chart in the page: drawn for wide and for narrow places, and to be taken along as SVG and as CSV."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from html import escape

import pandas as pd

from flsplit.report.style import as_file

Draw = Callable[[bool], str]  # whether the place is narrow -> the SVG


def chart(draw: Draw, caption: str, kind: str, *, file: str, data: pd.DataFrame) -> str:
    """A figure with its caption, as HTML.

    Args:
        draw: makes it; in a narrow place as wide as a telephone, so that its letters are as large as the page's.
        caption: HTML.
        kind: `half` or `whole`, how much of the page it takes; `natural`, as much as it needs; and `heat` for one whose
            colours a dark page turns round.
        file: what its files are called, without a suffix.
        data: what is drawn.
    """
    wide, name = draw(False), escape(re.sub(r"[^a-z0-9]+", "-", file.lower()).strip("-"))
    links = (
        link("SVG", f"{name}.svg", "image/svg+xml", as_file(wide)),
        link("CSV", f"{name}.csv", "text/csv", data.to_csv(index=False)),
    )
    return (
        f'<figure class="{kind}"><figcaption>{caption}</figcaption><div class="wide">{wide}</div>'
        f'<div class="narrow">{draw(True)}</div><p class="take">{" ".join(links)}</p></figure>'
    )


def link(text: str, name: str, kind: str, content: str) -> str:
    """A link that saves `content` as a file: it is in the page itself."""
    data = b64encode(content.encode()).decode()
    return f'<a download="{name}" href="data:{kind};base64,{data}" title="{name}">{text}</a>'
