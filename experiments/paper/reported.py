"""The numbers that the paper reports."""

from math import nan
from pathlib import Path

import pandas as pd

HOME = Path(__file__).parent


def reported() -> pd.DataFrame:
    """A row for each point of Figure 4 and each cell of Table 2, with its source."""
    return pd.read_csv(HOME / "reported.csv")


def published(dataset: str, model: str, method: str, parameter: str) -> float:
    """The published accuracy of Figure 4; NaN where there is none, or a row differs from the protocol in more."""
    table = reported().query("figure == 'fig4'")
    table = table[(table.dataset == dataset) & (table.model == model) & (table.method == method)]
    if method == "base":
        table = table[[parameter == ""] * len(table)]
    else:
        try:
            table = table[(table.parameter.astype(float) - float(parameter)).abs() < 1e-9]
        except ValueError:
            return nan
    return nan if table.empty else float(table.test_accuracy.iloc[0])
