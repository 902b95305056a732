"""The smallest things that the training loop can train: a line through numbers, judged by a script."""

import itertools
from dataclasses import dataclass

import torch
from torch import nn

from otus.config import OptimisationSettings, TrainingSettings
from otus.training.loop import train_model
from otus.training.objectives import Examples

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pairs(Examples):
    """Numbers x (batch, 3) and y (batch, 1)."""

    x: torch.Tensor
    y: torch.Tensor


class Script:
    """Learn y = x @ (1, 2, 3); validations find what `found` says, the last of these for ever.

    Whatever the network was when it was trained on a batch or judged is noted.
    """

    def __init__(self, found=(0.5,), *, batches=3, size=8, draw=0.0):
        self.draw, self.n, self.size = draw, batches, size
        self.found = itertools.chain(found, itertools.repeat(found[-1]))
        self.before_steps, self.judged = [], []

    def n_batches(self):
        return self.n

    def batches(self, seed, skip):
        generator = torch.Generator().manual_seed(seed)
        for number in range(self.n):
            x = torch.randn(self.size, 3, generator=generator)
            if number >= skip:
                y = x @ torch.tensor([[1.0], [2.0], [3.0]])
                yield Pairs(tuple(f"r{i % 7}" for i in range(self.size)), x, y)

    def vary(self, batch, generator):
        return batch.having({"x": batch.x + 0.1 * torch.randn(batch.x.shape, generator=generator)})

    def weight(self, batch):
        return float(len(batch))

    def loss(self, network, batch):
        self.before_steps.append(copied(network))
        return (network(batch.x) - batch.y).square().sum()

    def judge(self, network):
        self.judged.append(copied(network))
        detection = next(self.found)
        return {"detection": detection, "f1": detection / 2}

    def kept(self):
        return []

    def keep(self, indices):
        assert indices == []


def copied(network):
    """The weights and buffers of a network as they are now."""
    return {name: value.clone() for name, value in network.state_dict().items()}


def line(**more):
    """A linear network."""
    torch.manual_seed(5)
    return nn.Linear(3, 1, **more)


def settings(epochs=3, *, validate_every=1, patience=50, **optimisation):
    how = OptimisationSettings(**{"learning_rate": 0.05, **optimisation})
    return TrainingSettings(
        epochs=epochs, validate_every=validate_every, patience=patience, optimisation=how, precision="fp32"
    )


def train(folder, objective, network=None, *, how=None, stop=lambda: False, seed=1):
    """Train a line and return what came of it, and the lines of progress."""
    lines = []
    trained = train_model(
        network or line(),
        objective,
        settings=how or settings(),
        seed=seed,
        device=CPU,
        resume_path=folder / "r.pt",
        digest="d",
        stop=stop,
        progress=lines.append,
    )
    return trained, lines
