"""What the networks cost: multiplications, values and weights by formula, where the architecture is of Otus.

Light: it runs while Snakemake is parsed, and torch is not imported. tests/unit/test_workload.py counts the same in the
networks themselves.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from otus.config import (
    BeatsSettings,
    CrnnSettings,
    DenseResnetSettings,
    Resnet18Settings,
    TcnSettings,
    TimmSettings,
    TrainingSettings,
)

#: Frames that a network of bounded context scores at once; as in otus.dense.
_MOST_FRAMES = 8192

#: A tcn: bands that the first convolution makes one of, and each further one; as in otus.models.tcn.
_THIN_FIRST, _THIN_FURTHER = 4, 2

#: A crnn: how each convolution shrinks frequency, frames of a step of the GRU, frames of the blocks that a network with
#: a GRU scores, and the unit of their context; as in otus.models.crnn.
_POOL, _COARSE, _BLOCK, _BLOCK_CONTEXT = 4, 4, 1024, 64

#: Channels and blocks of the stages of a resnet18, and windows that are scored at once.
_STAGES, _BLOCKS, _WINDOWS = (64, 128, 256, 512), 2, 64

#: A published BEATs: weights, of which a block of the transformer, tokens in a frame of 10 ms, and roughly the values
#: of a frame that are held; blocks of frames and their context as in otus.models.beats.
_BEATS_WEIGHTS, _BEATS_BLOCK_WEIGHTS, _BEATS_TOKENS, _BEATS_VALUES = 90e6, 7.1e6, 0.5, 10_000.0
_BEATS_BLOCK, _BEATS_CONTEXT = 512, 128

#: A backbone of timm is taken for a ResNet-18: 1.8 G multiplications and 2.5 M values on 224 x 224 pixels.
_TIMM_WEIGHTS, _TIMM_MULTIPLICATIONS, _TIMM_VALUES = 11.2e6, 1.8e9 / 224**2, 2.5e6 / 224**2
_TIMM_BLOCK, _TIMM_CONTEXT = 512, 64


@dataclass(frozen=True)
class NetworkCost:
    """What one network takes for a step in time: a frame, or a window of a resnet18.

    `values`: what all convolutions and recurrent layers put out; `weights`: all of them, `learnt`: those that are
    stored with the model. `context` steps on either side of `block` steps are scored with them. `recurrent`: steps are
    computed one after the other.
    """

    multiplications: float
    values: float
    weights: float
    learnt: float
    context: int
    block: int
    recurrent: bool = False


def network_cost(training: TrainingSettings, classes: int) -> NetworkCost:
    """Return what one member of a model costs; exact for tcn, crnn, dense_resnet and resnet18, rough for the others."""
    bands = training.frontend.bands
    match training.network:
        case TcnSettings() as tcn:
            return _tcn(tcn, bands, classes)
        case CrnnSettings() as crnn:
            return _crnn(crnn, bands, classes)
        case DenseResnetSettings() as dense:
            return _dense_resnet(dense, bands, classes)
        case Resnet18Settings() as resnet:
            return _resnet18(resnet, classes)
        case BeatsSettings() as beats:
            learnt = beats.head_channels * 1000.0 + beats.unfreeze_blocks * _BEATS_BLOCK_WEIGHTS
            work, block = _BEATS_WEIGHTS * _BEATS_TOKENS, (_BEATS_CONTEXT, _BEATS_BLOCK)
            return NetworkCost(work, _BEATS_VALUES, _BEATS_WEIGHTS + learnt, learnt, *block)
        case TimmSettings():
            work, values = _TIMM_MULTIPLICATIONS * bands, _TIMM_VALUES * bands
            return NetworkCost(work, values, _TIMM_WEIGHTS, _TIMM_WEIGHTS, _TIMM_CONTEXT, _TIMM_BLOCK)


class _Count:
    """Layers added up: multiplications and values of a step, weights."""

    def __init__(self) -> None:
        self.multiplications, self.values, self.weights = 0.0, 0.0, 0

    def convolution(self, before: int, after: int, kernel: int, places: int, *, bias: bool = False) -> None:
        """A convolution with `kernel` taps that puts out `places` positions a step; without bias, a norm follows it."""
        self.multiplications += before * after * kernel * places
        self.values += after * places
        self.weights += before * after * kernel + (after if bias else 2 * after)

    def cost(self, *, context: int, block: int, recurrent: bool = False) -> NetworkCost:
        return NetworkCost(
            self.multiplications, self.values, self.weights, self.weights, context, block, recurrent=recurrent
        )


def _tcn(network: TcnSettings, bands: int, classes: int) -> NetworkCost:
    """See otus.models.tcn."""
    count = _Count()
    rows, before = bands, 1
    for number, channels in enumerate(network.channels):
        thin = _THIN_FURTHER if number else _THIN_FIRST
        rows = (rows - 1) // thin + 1
        count.convolution(before, channels, 3 * (thin + 1), rows)
        count.convolution(channels, channels, 9, rows)
        before = channels
    width = network.temporal_channels
    count.convolution(before * rows, width, 1, 1)
    for _ in network.dilations:
        count.convolution(width, width, 3, 1)
    count.convolution(width, 2 * classes, 1, 1, bias=True)
    return count.cost(context=2 * len(network.channels) + sum(network.dilations), block=_MOST_FRAMES)


def _crnn(network: CrnnSettings, bands: int, classes: int) -> NetworkCost:
    """See otus.models.crnn."""
    count = _Count()
    rows, before = bands, 1
    for channels in network.channels:
        rows = math.ceil(rows / min(_POOL, rows))
        count.convolution(before, channels, 15, rows)
        before = channels
    width, units = network.temporal_channels, network.recurrent_channels
    count.convolution(before * rows, width, 1, 1)
    for _ in network.dilations:
        count.convolution(width, width, 3, 1)
    count.multiplications += 6 * units * (width + units) / _COARSE
    count.values += 2 * units / _COARSE
    count.weights += 6 * units * (width + units + 2)
    count.convolution(width + 2 * units, 2 * classes, 1, 1, bias=True)
    context = len(network.channels) + sum(network.dilations)
    if not units:
        return count.cost(context=context, block=_MOST_FRAMES)
    context = _BLOCK_CONTEXT * math.ceil((context + _BLOCK_CONTEXT) / _BLOCK_CONTEXT)
    return count.cost(context=context, block=_BLOCK, recurrent=True)


def _dense_resnet(network: DenseResnetSettings, bands: int, classes: int) -> NetworkCost:
    """See otus.models.dense_resnet."""
    count = _Count()
    widths = [round(network.channels * 1.5**i) for i in range(network.frequency_blocks + 1)]
    rows = -(-bands // 2)
    count.convolution(1, widths[0], 15, rows)
    for narrow, wide in pairwise(widths):
        rows = -(-rows // 2)
        count.convolution(narrow, wide, 9, rows)
        count.convolution(wide, wide, 9, rows)
        count.convolution(narrow, wide, 1, rows)
        count.weights -= 2 * wide  # no norm after the shortcut
    width = network.temporal_channels
    count.convolution(widths[-1], width, rows, 1, bias=True)
    for _ in network.dilations:
        count.convolution(width, width, 3, 1)
        count.convolution(width, width, 1, 1, bias=True)
        count.weights += 2 * width  # the norm before both
    count.weights += 2 * width
    count.convolution(width, 2 * classes, 1, 1, bias=True)
    return count.cost(context=1 + 2 * network.frequency_blocks + sum(network.dilations), block=_MOST_FRAMES)


def _resnet18(network: Resnet18Settings, classes: int) -> NetworkCost:
    """See otus.models.resnet18. A step is a window: spectra times bins; noise is a class as well."""
    count = _Count()
    surplus = max(0, math.ceil(network.window_s * network.sample_rate) - network.n_fft)
    height, wide = math.ceil((1 + surplus // network.hop_samples) / 2), math.ceil(network.bins / 2)
    count.convolution(1, _STAGES[0], network.conv_kernel_size**2, height * wide)
    if network.max_pool == 1:
        height, wide = math.ceil(height / 2), math.ceil(wide / 2)
    before = _STAGES[0]
    for stage, channels in enumerate(_STAGES):
        halved = stage > 0 or network.max_pool == 0
        if halved:
            height, wide = math.ceil(height / 2), math.ceil(wide / 2)
            count.convolution(before, channels, 1, height * wide)
        for _ in range(_BLOCKS):
            count.convolution(before, channels, 9, height * wide)
            count.convolution(channels, channels, 9, height * wide)
            before = channels
    count.convolution(before, classes + 1, 1, 1, bias=True)
    return count.cost(context=0, block=_WINDOWS)
