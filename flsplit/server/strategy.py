"""What a strategy is: one method that runs a round. Strategies themselves live in the package `strategies`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from compressors.plugins import Plugins
from flsplit.config.schema import Config
from flsplit.errors import RunFailed, UserError, options_of_the_user
from flsplit.ledger.moves import Moves
from flsplit.server.aggregation import Aggregator
from flsplit.server.federation import Federation
from flsplit.server.outliers import NormBound

BUFFERS = ("average", "personal")


class Strategy(ABC):
    """Who talks to which server-side model, in which order, and what is averaged.

    Args:
        placement: where server-side models are stepped (`replica`: in the clients' processes; `central`: in one
            host); None is the first of `placements`.
        aggregator: the Flower strategy that averages models.
        aggregator_args: its keyword arguments.
        logit_adjustment: strength of the adjustment of the loss to what labels each client has, see
            `flsplit.split.adjustment`; 0 for none.
        max_update_norm: most that a client may change in a round, see `flsplit.server.outliers`; None for no bound.
        on_outlier: what becomes of a client that changes more: `clip` or `fail`.
        buffers: running statistics of the client-side model, such as batch normalisation's: `average`: they travel and
            are averaged with it; `personal`: each client keeps its own. Those of the server-side model go with it.

    Raises:
        UserError: for an option that does not fit.
    """

    placements: ClassVar[tuple[str, ...]] = ("replica", "central")
    moves: Moves = Moves(down=1, up=1)  # models that the ledger counts
    split: ClassVar[bool] = True  # whether activations cross between clients and the server
    note: ClassVar[str | None] = None  # what users should know when they choose it
    repeatable: bool = True  # whether the same configuration gives the same numbers again
    keeps_time: ClassVar[bool] = False  # whether it sets `fed.now` itself
    needs_network: ClassVar[bool] = False  # whether it asks how long a client's round takes
    side_by_side: ClassVar[bool] = False  # whether clients do not wait for each other, so that a round can have an end
    meets: bool = False  # whether the clients of a step send together, so that they can be compressed as one
    one_client_model: bool = False  # whether clients step one client-side model together, so that none keeps anything

    def __init__(
        self,
        *,
        placement: str | None = None,
        aggregator: str = "fedavg",
        aggregator_args: Mapping[str, Any] | None = None,
        buffers: str = "average",
        logit_adjustment: float = 0.0,
        max_update_norm: float | None = None,
        on_outlier: str = "clip",
    ) -> None:
        self.placement = self.placements[0] if placement is None else placement
        if self.placement not in self.placements:
            raise UserError(
                f"strategy.placement must be {' or '.join(self.placements)} for {self.name}, got {self.placement!r}"
            )
        self.aggregator = Aggregator(aggregator, aggregator_args or {})
        if buffers not in BUFFERS:
            raise UserError(f"strategy.buffers must be {' or '.join(BUFFERS)}, got {buffers!r}")
        if buffers == "personal" and not self.split:
            raise UserError(f"strategy.buffers must be average for {self.name}, whose clients hold the whole model")
        self.personal_buffers = buffers == "personal"
        if not 0 <= logit_adjustment < float("inf"):
            raise UserError(f"strategy.logit_adjustment must be a number of at least 0, got {logit_adjustment:g}")
        self.logit_adjustment = float(logit_adjustment)
        self.bound = NormBound.of(max_update_norm, on_outlier)

    def adapt(self, config: Config) -> Config:
        """The configuration as this strategy has it, where keys play no part in it."""
        return config

    @property
    def name(self) -> str:
        """Last part of the module that defines the class."""
        return type(self).__module__.rpartition(".")[2]

    def state_dict(self) -> dict[str, Any]:
        """What the next round needs of the rounds before, beside the models: it is in every checkpoint.

        Returns:
            numbers, text and tensors, in dicts, lists and tuples as you like.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, in a new object: called once when a run is resumed, or a
        round repeated, and in no other."""
        if state:
            raise RunFailed(f"strategy={self.name} has a state_dict but no load_state_dict to go on from it")

    @abstractmethod
    def round(self, fed: Federation, clients: Sequence[int]) -> None:
        """Train `clients` for one round and leave the new models in `fed.client_model` and `fed.server_model`."""


_STRATEGIES: Plugins[Strategy] = Plugins("strategy", "strategies", Strategy)  # type: ignore[type-abstract]
available = _STRATEGIES.available


def build(name: str, **options: Any) -> Strategy:
    """Create a strategy.

    Args:
        name: one of the package `strategies` ("splitfed_v1"), or the dotted path of any importable module that
            defines one `Strategy`.
        options: the keyword arguments of its class.

    Raises:
        UserError: for an unknown name or option, or a value that cannot be; one line each.
    """
    with options_of_the_user():
        found = _STRATEGIES.build(name, options)
    kind = type(found)
    if not hasattr(found, "aggregator"):
        raise UserError(f"strategy={found.name}: its __init__ must call super().__init__(**options)")
    if kind.state_dict is not Strategy.state_dict and kind.load_state_dict is Strategy.load_state_dict:
        raise UserError(f"strategy={found.name} has a state_dict, so it needs a load_state_dict to go on from it")
    return found
