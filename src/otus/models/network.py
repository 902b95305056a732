"""What every network that scores frames is: spectrogram in, frame logits out."""

import torch
from torch import nn


class FrameNetwork(nn.Module):
    """Frame logits from a spectrogram: (batch, bands, frames) to (batch, 2 * classes, frames).

    The first half of the output channels are activity logits, the second half onset logits.

    `context_frames`: so many frames on either side are read with every stretch that is scored. `block_frames`: None
    if an output frame depends on nothing beyond that context, so that any stretch of a recording may be scored at
    once. Otherwise recordings are scored in blocks of so many frames, which start at multiples of that length: then
    scores do not depend on how a recording is cut into chunks either. `frozen` names the prefixes of parameters that
    come from a file of the user's and are neither learnt nor stored with the model. `gains_by_bfloat16`: a job was
    found to be at least 1.5 times as fast in bfloat16, where the processor has that; the small networks are not, as
    other work takes as long as they do. Only the logits are then computed in float32.
    """

    context_frames: int
    block_frames: int | None = None
    frozen: tuple[str, ...] = ()
    gains_by_bfloat16: bool = False


def learnt_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights and buffers of a network without those that come from a file of the user's (`frozen`)."""
    frozen = tuple(getattr(network, "frozen", ()))
    return {name: value for name, value in network.state_dict().items() if not name.startswith(frozen)}
