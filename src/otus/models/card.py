"""A trained model on disk: weights as safetensors, everything else that prediction needs as a JSON card."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from otus.atomic import read_json, replacing, write_json
from otus.config import NetworkSettings
from otus.errors import DataError
from otus.frontend import Frontend
from otus.models import Ensemble, build_network

CARD_VERSION = 1


@dataclass(frozen=True)
class ModelCard:
    """What a model is and what it was made from. Durations of training calls scale the decoding."""

    model: str
    fold: int
    architecture: str
    members: int
    network: dict[str, Any]
    frontend: Frontend
    classes: list[str]
    context_frames: int
    inference: str
    median_call_s: float
    short_call_s: float
    training_data_sha256: str
    training: dict[str, Any]
    best_epochs: list[int]
    seed: int
    versions: dict[str, str]


def save_model(weights_path: Path, card_path: Path, network: nn.Module, card: ModelCard) -> None:
    """Write the weights, then the card with their SHA-256; both atomically."""
    data = save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()})
    with replacing(weights_path) as temporary:
        temporary.write_bytes(data)
    content = {"card_version": CARD_VERSION, "weights_sha256": hashlib.sha256(data).hexdigest(), **asdict(card)}
    write_json(card_path, content)


def load_card(card_path: Path) -> tuple[ModelCard, str]:
    """Return the card and the SHA-256 that the weights must have. Raises DataError if it is not a model card."""
    try:
        content = dict(read_json(card_path))
        version, digest = content.pop("card_version"), content.pop("weights_sha256")
        card = ModelCard(**{**content, "frontend": Frontend(**content["frontend"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{card_path}: not a model card of Otus ({error}); train the model again.") from error
    if version != CARD_VERSION:
        raise DataError(f"{card_path}: card version {version}, this Otus reads {CARD_VERSION}; train the model again.")
    return card, str(digest)


def load_model(weights_path: Path, card_path: Path, device: torch.device) -> tuple[nn.Module, ModelCard]:
    """Return the network, ready to predict on `device`, and its card.

    Raises DataError if the weights are not those that the card was written for.
    """
    card, digest = load_card(card_path)
    data = weights_path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise DataError(f"{weights_path}: altered since {card_path.name} was written; train the model again.")
    shape = {"bands": card.frontend.bands, "n_classes": len(card.classes)}
    settings = NetworkSettings.model_validate(card.network)
    network = Ensemble([build_network(card.architecture, **shape, settings=settings) for _ in range(card.members)])
    try:
        network.load_state_dict(load(data))
    except (SafetensorError, RuntimeError) as error:
        raise DataError(f"{weights_path}: the weights do not fit the card ({error}).") from error
    return network.to(device).eval(), card
