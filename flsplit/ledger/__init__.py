"""What a run sends: prices of steps, moves of models, and the budget that limits both."""

from flsplit.ledger.moves import ModelSize, Moves
from flsplit.ledger.prices import PriceList, Tally, base_layout

__all__ = ["ModelSize", "Moves", "PriceList", "Tally", "base_layout"]
