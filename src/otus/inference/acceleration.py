"""A network made faster for one device, and the same function: what was learnt is folded, laid out and rounded."""

import copy
import itertools
from collections.abc import Iterator
from typing import Literal, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from otus.devices import native_bfloat16
from otus.models import FrameNetwork, WindowEnsemble

Precision = Literal["auto", "float32", "bfloat16"]
N = TypeVar("N", bound=nn.Module)

#: Parts that are always computed in float32: what gives the logits.
_HEADS = ("logits", "classifier")


def chosen_precision(
    network: FrameNetwork | WindowEnsemble, device: torch.device, precision: Precision, *, imported: bool
) -> torch.dtype:
    """Return the numbers to compute with, float32 or bfloat16; see prediction.precision in the settings.

    `imported`: with auto, the scores are to be those of the program that the network comes from.
    """
    if precision == "auto":
        gains = network.gains_by_bfloat16 and not imported and native_bfloat16(device)
        return torch.bfloat16 if gains else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def accelerated(network: N, device: torch.device, dtype: torch.dtype) -> N:
    """Return a copy of a network on `device`, for prediction only, which gives the same logits up to rounding.

    Normalisation that follows a convolution becomes part of it, channels lie next to each other in memory, and
    weights are `dtype` except those of the heads, so that logits are float32. The input has the dtype of the first
    parameter.
    """
    copied = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    for module in list(copied.modules()):
        _fuse(module)
    copied.to(device, dtype)
    for parameter in copied.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    for name, module in copied.named_modules():
        if name.rpartition(".")[2] in _HEADS:
            module.float()
    return copied


def _fuse(module: nn.Module) -> None:
    """Fold the normalisations among the children of a module into the convolutions before them."""
    for before, after in list(_pairs(module)):
        convolution, norm = module.get_submodule(before), module.get_submodule(after)
        if isinstance(convolution, (nn.Conv1d, nn.Conv2d)) and isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.add_module(before, fuse_conv_bn_eval(convolution, norm))
            module.add_module(after, nn.Identity())
            _overwrite_in_place(module, after)


def _overwrite_in_place(module: nn.Module, norm: str) -> None:
    """Let the rectifier after a folded normalisation overwrite its input, which nobody else gets."""
    children = list(module.named_children()) if isinstance(module, nn.Sequential) else []
    for (name, _), (_, following) in itertools.pairwise(children):
        if name == norm and isinstance(following, nn.ReLU):
            following.inplace = True


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """The names of children of which the second gets what the first gives, and nobody else does."""
    if isinstance(module, nn.Sequential):
        names = [name for name, _ in module.named_children()]
        yield from itertools.pairwise(names)
    yield from getattr(module, "norms", {}).items()
