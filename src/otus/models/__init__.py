"""Networks: spectrogram in, frame logits out. One file per architecture; `card` saves and loads them."""

from otus.config import BeatsSettings, CrnnSettings, DenseResnetSettings, TcnSettings, TimmSettings
from otus.models.beats import Beats
from otus.models.crnn import Crnn
from otus.models.dense_resnet import DenseResnet
from otus.models.ensemble import Ensemble, WindowMean
from otus.models.network import FrameNetwork, learnt_state
from otus.models.resnet18 import Resnet18, WindowEnsemble
from otus.models.tcn import Tcn
from otus.models.timm_backbone import TimmBackbone

__all__ = [
    "NETWORK_SETTINGS",
    "Crnn",
    "DenseResnet",
    "Ensemble",
    "FrameNetwork",
    "FrameNetworkSettings",
    "Resnet18",
    "Tcn",
    "WindowEnsemble",
    "WindowMean",
    "build_network",
    "learnt_state",
]

FrameNetworkSettings = TcnSettings | CrnnSettings | DenseResnetSettings | BeatsSettings | TimmSettings

#: The settings of every architecture that scores frames.
NETWORK_SETTINGS: dict[str, type[FrameNetworkSettings]] = {
    "tcn": TcnSettings,
    "crnn": CrnnSettings,
    "dense_resnet": DenseResnetSettings,
    "beats": BeatsSettings,
    "timm": TimmSettings,
}


def build_network(settings: FrameNetworkSettings, *, bands: int, n_classes: int) -> FrameNetwork:
    """Return an untrained network that maps (batch, bands, frames) to (batch, 2 * classes, frames).

    Raises MissingPartError if it needs a package that is not installed, DataError if a file of weights that it needs
    is missing or another one.
    """
    match settings:
        case TcnSettings():
            return Tcn(bands=bands, n_classes=n_classes, settings=settings)
        case CrnnSettings():
            return Crnn(bands=bands, n_classes=n_classes, settings=settings)
        case DenseResnetSettings():
            return DenseResnet(bands=bands, n_classes=n_classes, settings=settings)
        case BeatsSettings():
            return Beats(bands=bands, n_classes=n_classes, settings=settings)
        case TimmSettings():
            return TimmBackbone(bands=bands, n_classes=n_classes, settings=settings)
