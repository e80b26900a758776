"""The numbers that the paper reports."""

from pathlib import Path

import pandas as pd

HOME = Path(__file__).parent


def reported() -> pd.DataFrame:
    """A row for each point of Figure 4 and each cell of Table 2, with its source."""
    return pd.read_csv(HOME / "reported.csv")
