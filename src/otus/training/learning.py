"""What an architecture brings to the train stage: how it hears, what it learns from, what its networks are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from otus.config import Resnet18Settings, TrainingSettings
from otus.frontend import Frontend
from otus.models import FrameNetworkSettings
from otus.training.objectives import Objective
from otus.windows import WindowFrontend


@dataclass(frozen=True)
class SecondStage:
    """How a trained network goes on learning: from what, with which settings, what of it at which rate.

    `begin` makes the network that goes on, and leaves the one that it is given as it is; `groups` are the optimiser's
    groups of the former. The result takes the place of the latter only if its validation is better by more than
    `min_gain`.
    """

    objective: Objective[Any]
    settings: TrainingSettings
    begin: Callable[[Any], nn.Module]
    groups: Callable[[Any], list[dict[str, Any]]]
    min_gain: float


@dataclass(frozen=True)
class Learning:
    """How the networks of a fold are made, what they learn from, and what their card has to say of that.

    `new_network` makes an untrained network, `together` several trained ones into the network that predicts;
    `inference` and `window_frames` are those of the model card; `hears` describes the front end to a person.
    `network` are the settings for the card, with which the network is made again before its weights are loaded;
    `imported` is what is known of a checkpoint that was converted to such a network. `second`: what follows once a
    network is trained.
    """

    objective: Objective[Any]
    new_network: Callable[[], nn.Module]
    together: Callable[[Sequence[Any]], nn.Module]
    frontend: Frontend | WindowFrontend
    inference: str
    window_frames: int
    hears: str
    network: Resnet18Settings | FrameNetworkSettings
    imported: dict[str, Any] | None = None
    second: SecondStage | None = None
