"""Train low-rank matrices beside frozen ones (LoRA: Hu et al., ICLR 2022, arXiv 2106.09685), by Hugging Face's peft."""

from __future__ import annotations

from importlib.util import find_spec

from torch import nn

from flsplit.split.tuning.interface import Tuning, head_of


class Lora(Tuning):
    """W x becomes W x + (alpha / rank) B A x, with A (rank, in) random, B (out, rank) zero: the two are trained.

    The head of a server side, which is new, is trained whole, unless it is among the targets.

    Args:
        rank: of the change, 1 at least and less than the layers' width.
        alpha: its scale; null for the rank.
        targets: names of the linear layers, or the ends of their names; null for `qkv`.

    Raises:
        ValueError: without peft, or for a value that cannot be.
    """

    def __init__(self, *, rank: int = 8, alpha: float | None = None, targets: list[str] | str | None = None) -> None:
        if find_spec("peft") is None:
            raise ValueError('model.tune=lora needs Hugging Face\'s peft: pip install "flsplit[lora]"')
        if rank < 1:
            raise ValueError(f"model.tune_args.rank must be at least 1, got {rank}")
        if alpha is not None and not 0 < alpha < float("inf"):
            raise ValueError(f"model.tune_args.alpha must be a number above 0, got {alpha:g}")
        if targets is not None and not targets:
            raise ValueError("model.tune_args.targets must name linear layers, such as [qkv], got none")
        self._rank, self._alpha = rank, rank if alpha is None else alpha
        self._targets = ["qkv"] if targets is None else [targets] if isinstance(targets, str) else targets

    def apply(self, model: nn.Module) -> None:
        """See `Tuning`."""
        from peft import LoraConfig, inject_adapter_in_model

        found = {name: module for name, module in model.named_modules() if self._is_target(name)}
        linear = {name: module for name, module in found.items() if isinstance(module, nn.Linear)}
        if not linear:
            known = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
            raise ValueError(
                f"model.tune_args.targets must name linear layers of the model ({', '.join(known) or 'it has none'}), "
                f"got {', '.join(self._targets)}"
            )
        for name, module in linear.items():
            if self._rank >= min(module.in_features, module.out_features):
                raise ValueError(
                    f"model.tune_args.rank must be less than {min(module.in_features, module.out_features)}, the width "
                    f"of {name}, got {self._rank}"
                )
        head = head_of(model)
        options = LoraConfig(r=self._rank, lora_alpha=self._alpha, target_modules=list(linear), lora_dropout=0.0)
        inject_adapter_in_model(options, model)
        if head is not None and not any(name.rpartition(".")[2] == "head" for name in linear):
            head.requires_grad_(True)

    def _is_target(self, name: str) -> bool:
        return any(name == target or name.endswith(f".{target}") for target in self._targets)
