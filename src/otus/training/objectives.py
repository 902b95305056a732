"""What a network learns from and is judged by: the interface of the training loop."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import nn

#: What a validation found. `detection` is the number that early stopping watches; more is better.
Judgement = dict[str, float]


@dataclass(frozen=True)
class Examples:
    """Training examples: tensors whose first dimension are the examples, and the recordings that these come from."""

    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sources)

    def to(self, device: torch.device) -> Self:
        """Return the examples on a device."""
        return self.having({name: value.to(device, non_blocking=True) for name, value in self.tensors().items()})

    def part(self, start: int, end: int) -> Self:
        """Return the examples [start, end)."""
        chosen = {name: value[start:end] for name, value in self.tensors().items()}
        return replace(self, **chosen, sources=self.sources[start:end])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors by name."""
        return {name: value for name, value in vars(self).items() if name != "sources"}

    def having(self, tensors: dict[str, Any]) -> Self:
        """Return the examples with some of their tensors replaced."""
        return replace(self, **tensors)


E = TypeVar("E", bound=Examples)


class Objective(Protocol[E]):
    """What a network learns from and is judged by.

    `draw`: validations that differ by no more than this are equally good.
    """

    draw: float

    def n_batches(self) -> int:
        """Return the number of batches in an epoch."""

    def batches(self, seed: int, skip: int) -> Iterator[E]:
        """Yield the batches of the epoch with that seed; the first `skip` are drawn, not read."""

    def vary(self, batch: E, generator: torch.Generator) -> E:
        """Return the batch, on its device, with augmentation drawn from `generator` (on the CPU)."""

    def weight(self, batch: E) -> float:
        """Return how much truth the batch holds: the losses of its parts are added up and divided by this."""

    def loss(self, network: nn.Module, batch: E) -> torch.Tensor:
        """Return the summed loss."""

    def judge(self, network: nn.Module) -> Judgement:
        """Return how good the network is on the validation recordings."""

    def kept(self) -> list[int]:
        """Return what is kept in memory; a resumed training has to keep the same, or its last bits would differ."""

    def keep(self, indices: list[int]) -> None:
        """Keep the same in memory as an earlier process did."""
