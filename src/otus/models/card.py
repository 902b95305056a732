"""A trained model on disk: weights as safetensors, everything else that prediction needs as a JSON card."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from otus.atomic import read_json, replacing, write_json
from otus.config import BeatsSettings, Resnet18Settings
from otus.errors import DataError
from otus.frontend import Frontend
from otus.models import (
    NETWORK_SETTINGS,
    Ensemble,
    FrameNetwork,
    Resnet18,
    WindowEnsemble,
    WindowMean,
    build_network,
    learnt_state,
)
from otus.models.beats import Beats, beats_ensemble
from otus.windows import WindowFrontend

CARD_VERSION = 2


@dataclass(frozen=True)
class ModelCard:
    """What a model is and what it was made from. Durations of training calls scale the decoding.

    `best_stages` says from which of two stages of its training each network is, None if there was only one.
    `imported` tells of the checkpoint that the network was converted from, or its training started from: `file`,
    `sha256`, `classes` of the outputs, and a `note` on what it may have been trained on.
    """

    model: str
    fold: int
    architecture: str
    members: int
    network: dict[str, Any]
    frontend: Frontend | WindowFrontend
    classes: list[str]
    context_frames: int
    inference: str
    objective: str
    window_frames: int
    median_call_s: float
    short_call_s: float
    training_data_sha256: str
    training: dict[str, Any]
    data: dict[str, Any]
    best_epochs: list[int]
    seed: int
    versions: dict[str, str]
    imported: dict[str, Any] | None = None
    best_stages: list[int] | None = None


def save_model(weights_path: Path, card_path: Path, network: nn.Module, card: ModelCard) -> None:
    """Write the weights, then the card with their SHA-256; both atomically."""
    data = save({name: value.detach().cpu().contiguous() for name, value in learnt_state(network).items()})
    with replacing(weights_path) as temporary:
        temporary.write_bytes(data)
    content = {"card_version": CARD_VERSION, "weights_sha256": hashlib.sha256(data).hexdigest(), **asdict(card)}
    write_json(card_path, content)


def load_card(card_path: Path) -> tuple[ModelCard, str]:
    """Return the card and the SHA-256 that the weights must have. Raises DataError if it is not a model card."""
    try:
        content = dict(read_json(card_path))
        version, digest = content.pop("card_version"), content.pop("weights_sha256")
        if version != CARD_VERSION:
            raise DataError(
                f"{card_path}: card version {version}, this Otus reads {CARD_VERSION}; train the model again."
            )
        kind: type[Frontend | WindowFrontend] = WindowFrontend if content["frontend"]["kind"] == "windows" else Frontend
        card = ModelCard(**{**content, "frontend": kind(**content["frontend"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{card_path}: not a model card of Otus ({error}); train the model again.") from error
    return card, str(digest)


def load_model(
    weights_path: Path, card_path: Path, device: torch.device
) -> tuple[FrameNetwork | WindowEnsemble, ModelCard]:
    """Return the network, ready to predict on `device`, and its card.

    Raises DataError if the card describes no network or the weights are missing or not those that it was written for.
    """
    card, digest = load_card(card_path)
    try:
        data = weights_path.read_bytes()
    except OSError as error:
        raise DataError(f"{weights_path}: cannot be read ({error.strerror}); train the model again.") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise DataError(f"{weights_path}: altered since {card_path.name} was written; train the model again.")
    try:
        network = empty_network(card)
    except (KeyError, ValueError, TypeError) as error:
        what = f"the network {card.architecture} of the card is not one of this Otus"
        raise DataError(f"{card_path}: {what} ({_first_reason(error)}); train the model again.") from error
    try:
        stored = load(data)
        missing, unexpected = network.load_state_dict(stored, strict=False)
        if unexpected or set(missing) & set(learnt_state(network)):
            raise RuntimeError(f"{(unexpected or missing)[0]} is missing or too many")
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()  # torch tells of every weight, on a line each
        raise DataError(
            f"{weights_path}: the weights do not fit the card ({reason}); train the model again."
        ) from error
    return network.to(device).eval(), card


def _first_reason(error: Exception) -> str:
    """The first thing that is wrong, in a few words."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(['network', *map(str, first['loc'])])}: {first['msg']}"
    return str(error)


def empty_network(card: ModelCard) -> FrameNetwork | WindowEnsemble:
    """Return the network that a card describes, without its weights."""
    if card.architecture == "resnet18":
        windows = Resnet18Settings.model_validate(card.network)
        n_outputs = len(card.imported["classes"]) if card.imported else 1 + len(card.classes)
        return WindowEnsemble([Resnet18(windows, n_outputs) for _ in range(card.members)])
    assert isinstance(card.frontend, Frontend)  # all others score frames
    settings = NETWORK_SETTINGS[card.architecture].model_validate(card.network)
    shape = {"bands": card.frontend.bands, "n_classes": len(card.classes)}
    members = [build_network(settings, **shape) for _ in range(card.members)]
    if isinstance(settings, BeatsSettings):
        return _beats(cast("list[Beats]", members), card, settings)
    network = Ensemble(members)
    return WindowMean(network, card.window_frames) if card.objective == "clip" else network


def _beats(members: list[Beats], card: ModelCard, settings: BeatsSettings) -> FrameNetwork:
    """Networks with the encoder of the checkpoint; the stored weights of a second stage hold its last blocks too."""
    for member, stage in zip(members, card.best_stages or [1] * len(members), strict=True):
        if stage == 2:
            member.unfreeze(settings.unfreeze_blocks)
    return beats_ensemble(members)
