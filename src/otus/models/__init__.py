"""Networks: spectrogram in, frame logits out. One file per architecture; `card` saves and loads them."""

from otus.config import NetworkSettings
from otus.models.dense_resnet import DenseResnet
from otus.models.ensemble import Ensemble

__all__ = ["DenseResnet", "Ensemble", "build_network"]


def build_network(architecture: str, *, bands: int, n_classes: int, settings: NetworkSettings) -> DenseResnet:
    """Return an untrained network that maps (batch, bands, frames) to (batch, 2 * classes, frames).

    The first half of the output channels are activity logits, the second half onset logits.
    """
    return {"dense_resnet": DenseResnet}[architecture](bands=bands, n_classes=n_classes, settings=settings)
