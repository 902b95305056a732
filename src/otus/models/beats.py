"""A BEATs encoder (Chen et al. 2022) with a head that scores frames.

The encoder sees patches of 16 frames x 16 bands: a token for each of 8 stretches of frequency every 160 ms, ordered by
time, then by frequency. Calls are shorter than that, so the head also sees the filter bank itself.

The encoder's transformer is SpeechBrain's. Everything around it is here, because SpeechBrain computes filter banks one
by one on the CPU and takes no sha256, and because what it calls frozen goes on learning and dropping out.
"""

import contextlib
import copy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from otus.audio import sha256
from otus.config import BeatsSettings
from otus.errors import DataError, MissingPartError
from otus.frontend import FBANK_SILENCE
from otus.models.ensemble import Ensemble
from otus.models.network import FrameNetwork

#: Channels of the branch that sees the filter bank, and frames of its kernels.
_FINE_CHANNELS, _FINE_KERNEL = 48, 5

#: Share of the head's channels that are left out of a training step.
_DROPOUT = 0.2


class _Cfg(BaseModel):
    """The part of a checkpoint's `cfg` that says what its weights mean. No defaults: another value may fit as well."""

    model_config = ConfigDict(frozen=True)

    input_patch_size: int = Field(ge=2)
    embed_dim: int = Field(ge=1)
    conv_bias: bool
    encoder_layers: int = Field(ge=1)
    encoder_embed_dim: int = Field(ge=1)
    encoder_ffn_embed_dim: int = Field(ge=1)
    encoder_attention_heads: int = Field(ge=1)
    activation_fn: Literal["gelu", "relu"]
    layer_norm_first: bool
    deep_norm: bool
    dropout: float = Field(ge=0, lt=1)
    attention_dropout: float = Field(ge=0, lt=1)
    activation_dropout: float = Field(ge=0, lt=1)
    encoder_layerdrop: float = Field(ge=0, lt=1)
    conv_pos: int = Field(ge=2)
    conv_pos_groups: int = Field(ge=1)
    relative_position_embedding: bool
    num_buckets: int = Field(ge=4)
    max_distance: int = Field(ge=4)
    gru_rel_pos: bool


class _Encoder(nn.Module):
    """Tokens from filter banks. The weights have the names of the official checkpoints."""

    def __init__(self, cfg: _Cfg) -> None:
        super().__init__()
        patch, width = cfg.input_patch_size, cfg.encoder_embed_dim
        self.patch_embedding = nn.Conv2d(1, cfg.embed_dim, patch, stride=patch, bias=cfg.conv_bias)
        self.layer_norm = nn.LayerNorm(cfg.embed_dim)
        self.post_extract_proj = nn.Linear(cfg.embed_dim, width) if cfg.embed_dim != width else nn.Identity()
        self.encoder: Any = _transformer(cfg)
        self.norm_at_end = cfg.layer_norm_first  # SpeechBrain leaves it out unless it returns all layers

    def forward(self, fbank: torch.Tensor) -> torch.Tensor:
        """Return (batch, steps x rows, width) from (batch, bands, frames)."""
        patches = self.patch_embedding(fbank.transpose(1, 2).unsqueeze(1))
        embedded = self.post_extract_proj(self.layer_norm(patches.flatten(2).transpose(1, 2)))
        tokens: torch.Tensor = self.encoder(embedded)[0]
        return self.encoder.layer_norm(tokens) if self.norm_at_end else tokens


class _BandPooling(nn.Module):
    """One vector for each time step: the mean of its tokens, weighted by what they hold and by where they lie."""

    def __init__(self, rows: int, width: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, channels)
        self.weight = nn.Linear(width, 1)
        self.weight_of_row = nn.Parameter(torch.zeros(rows))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return (batch, channels, steps) from (batch, steps, rows, width)."""
        x = self.norm(tokens)
        weight = torch.softmax(self.weight(x).squeeze(-1) + self.weight_of_row, dim=-1)
        return (nn.functional.gelu(self.project(x)) * weight.unsqueeze(-1)).sum(dim=2).transpose(1, 2)


class Beats(FrameNetwork):
    """Frame logits from a normalised filter bank: (batch, bands, frames) to (batch, 2 * classes, frames).

    The encoder is frozen: it learns nothing, drops nothing out, and is not stored with the model. `unfreeze` lets its
    last blocks learn. While it is frozen its tokens may be kept (`encode`) and used again (`forward_tokens`): in half
    precision 415 MB for an hour of blocks with their context, with the published encoders of 768 channels.

    Every token depends on all others, hence recordings are scored in blocks; the input where there is no recording is
    FBANK_SILENCE. Raises MissingPartError without SpeechBrain, DataError for a checkpoint that is missing, another
    one than `sha256` says, or no BEATs checkpoint.
    """

    block_frames = 512
    context_frames = 128

    def __init__(self, *, bands: int, n_classes: int, settings: BeatsSettings) -> None:
        super().__init__()
        cfg, self.encoder = _load_encoder(Path(settings.checkpoint), settings.sha256)
        if settings.unfreeze_blocks > cfg.encoder_layers:
            raise DataError(
                f"{settings.checkpoint}: has {cfg.encoder_layers} blocks, but training.<name>.beats.unfreeze_blocks "
                f"is {settings.unfreeze_blocks}; lower it."
            )
        self._patch, self._width = cfg.input_patch_size, cfg.encoder_embed_dim
        self._rows = bands // self._patch
        channels = settings.head_channels
        self.pooling = _BandPooling(self._rows, self._width, channels)
        self.coarse = nn.Sequential(*_convolution(channels, channels, 3), nn.Dropout(_DROPOUT))
        self.fine = nn.Sequential(
            nn.BatchNorm1d(bands),
            *_convolution(bands, _FINE_CHANNELS, _FINE_KERNEL),
            *_convolution(_FINE_CHANNELS, _FINE_CHANNELS, _FINE_KERNEL),
        )
        self.both = nn.Sequential(*_convolution(channels + _FINE_CHANNELS, channels, 3), nn.Dropout(_DROPOUT))
        self.logits = nn.Conv1d(channels, 2 * n_classes, 1)
        assert self.logits.bias is not None
        nn.init.constant_(self.logits.bias, -2.0)  # calls are rare: start from a low probability
        self.unfreeze(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activity logits of every class, then onset logits of every class."""
        return self.forward_tokens(self.encode(x), x)

    def token_shape(self, frames: int) -> tuple[int, int, int]:
        """Return the shape of the tokens of one stretch of `frames` frames: time steps, rows of frequency, channels."""
        return -(-frames // self._patch), self._rows, self._width

    def encode(self, fbank: torch.Tensor) -> torch.Tensor:
        """Return the tokens (batch, *token_shape(frames)) of filter banks (batch, bands, frames).

        What is missing of the last time step is silence. Gradients are kept only if blocks learn.
        """
        frames = fbank.shape[-1]
        whole = nn.functional.pad(fbank, (0, -frames % self._patch), value=FBANK_SILENCE)
        with torch.set_grad_enabled(self._learning > 0 and torch.is_grad_enabled()):
            tokens: torch.Tensor = self.encoder(whole)
            return tokens.reshape(len(fbank), -1, self._rows, self._width)

    def forward_tokens(self, tokens: torch.Tensor, fbank: torch.Tensor) -> torch.Tensor:
        """Return the logits, as `forward` does, of filter banks whose tokens are known, in any precision."""
        steps = self.coarse(self.pooling(tokens.to(fbank.dtype)))
        # align_corners=False: time step t is centred on frame 16 t + 7.5
        around = nn.functional.interpolate(steps, scale_factor=float(self._patch), mode="linear", align_corners=False)
        both = self.both(torch.cat([around[..., : fbank.shape[-1]], self.fine(fbank)], dim=1))
        logits: torch.Tensor = self.logits(both.to(self.logits.weight.dtype))
        return logits

    @property
    def is_frozen(self) -> bool:
        """Whether the encoder is that of the checkpoint."""
        return self._learning == 0

    def unfreeze(self, blocks: int) -> None:
        """Let the last `blocks` blocks of the encoder learn and be stored with the model, and no others.

        The table of position biases never learns: all blocks share it, so that it would change what the frozen ones
        do, and learning it would take the memory of learning all of them. `blocks` may not exceed those that there are.
        """
        self._learning = blocks
        learning, frozen = self._learning_names(blocks), []
        for name, parameter in self.encoder.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(name in learning)
            if name not in learning:
                frozen.append(f"encoder.{name}")
        self.frozen = tuple(frozen) if blocks else ("encoder.",)
        self.train(self.training)

    def unfrozen(self, blocks: int) -> "Beats":
        """Return a copy of which the last `blocks` blocks learn; what stays frozen is shared with it, not copied."""
        learning = self._learning_names(blocks)
        shared = {id(p): p for name, p in self.encoder.named_parameters() if name not in learning}
        copied = copy.deepcopy(self, shared)
        copied.unfreeze(blocks)
        return copied

    def _learning_names(self, blocks: int) -> set[str]:
        """The encoder's parameters that learn with its last blocks."""
        count = len(self.encoder.encoder.layers)
        last = tuple(f"encoder.layers.{i}." for i in range(count - blocks, count))
        names = [name for name, _ in self.encoder.named_parameters(remove_duplicate=False)]
        return {name for name in names if name.startswith(last) and "relative_attention_bias" not in name}

    def train(self, mode: bool = True) -> "Beats":
        """Set the head and the blocks that learn to training or not; the frozen ones always stay as in prediction."""
        super().train(mode)
        self.encoder.eval()
        layers = self.encoder.encoder.layers
        for block in layers[len(layers) - self._learning :]:
            block.train(mode)
        return self

    def parameter_groups(self, learning_rate: float, unfreeze_learning_rate: float) -> list[dict[str, Any]]:
        """Return what the optimiser learns: the head at one rate and, if there are any, unfrozen blocks at another."""
        blocks = [p for p in self.encoder.parameters() if p.requires_grad]
        head = [p for name, p in self.named_parameters() if not name.startswith("encoder.")]
        groups: list[dict[str, Any]] = [{"params": head, "lr": learning_rate}]
        return [*groups, {"params": blocks, "lr": unfreeze_learning_rate}] if blocks else groups


class _OneEncoder(Ensemble):
    """Networks whose encoders are all the same, frozen one: it hears every input once."""

    def __init__(self, members: Sequence[Beats]) -> None:
        for member in members[1:]:
            member.encoder = members[0].encoder
        super().__init__(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activity logits of every class, then onset logits of every class."""
        members = cast("list[Beats]", list(self.members))
        tokens = members[0].encode(x)
        return torch.stack([member.forward_tokens(tokens, x) for member in members]).mean(dim=0)


def beats_ensemble(members: Sequence[Beats]) -> Ensemble:
    """Return the ensemble of networks from the same checkpoint; if all are frozen they share one encoder."""
    return _OneEncoder(members) if all(member.is_frozen for member in members) else Ensemble(members)


def _convolution(channels_in: int, channels_out: int, kernel: int) -> list[nn.Module]:
    return [
        nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm1d(channels_out),
        nn.ReLU(),
    ]


def _load_encoder(path: Path, digest: str) -> tuple[_Cfg, _Encoder]:
    """The encoder in an official checkpoint, {'cfg': ..., 'model': ...}, and what its cfg says."""
    content = _read_checkpoint(path, digest)
    try:
        cfg = _Cfg.model_validate(content["cfg"])
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{path}: its cfg describes no BEATs encoder that Otus knows "
            f"({'.'.join(map(str, first['loc'])) or 'cfg'}: {first['msg']}); use an official BEATs checkpoint."
        ) from None
    try:
        weights = {name: value for name, value in content["model"].items() if not name.startswith("predictor.")}
        encoder = _Encoder(cfg)
        missing, unexpected = encoder.load_state_dict(weights, strict=False)
        problem = [f"{name} is missing" for name in missing] + [f"{name} is too many" for name in unexpected]
    except (AssertionError, AttributeError, RuntimeError, ValueError) as error:
        problem = [" ".join(str(error).split())]
    if problem:
        raise DataError(
            f"{path}: its weights do not fit its cfg ({problem[0]}); fetch the checkpoint again and correct "
            "training.<name>.beats.sha256."
        )
    return cfg, encoder


def _read_checkpoint(path: Path, digest: str) -> dict[str, Any]:
    """The content of a checkpoint whose digest is right: plain values and tensors, nothing that could run."""
    try:
        found = sha256(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); training.<name>.beats.checkpoint names an official BEATs "
            "checkpoint on your disk."
        ) from error
    if found != digest:
        raise DataError(
            f"{path}: its SHA-256 is {found}, but training.<name>.beats.sha256 is {digest}; "
            "correct the one that is wrong."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises whatever it likes on a file that it does not expect
        reason = str(error).split("\n", maxsplit=1)[0].rstrip(". ")
        raise DataError(
            f"{path}: is no PyTorch file of plain values and tensors ({reason}); use an official BEATs checkpoint."
        ) from error
    parts = (content.get("cfg"), content.get("model")) if isinstance(content, dict) else (None, None)
    if not all(isinstance(part, dict) for part in parts):
        raise DataError(f"{path}: has no 'cfg' and 'model'; use an official BEATs checkpoint.")
    return dict(content)


def _transformer(cfg: _Cfg) -> nn.Module:
    """SpeechBrain's transformer of BEATs, untrained. Its skipping of whole blocks is off: it is never in training."""
    try:
        with _precision_kept():
            from speechbrain.lobes.models.beats import TransformerEncoder
            from speechbrain.utils.importutils import DeprecatedModuleRedirect
    except (ImportError, OSError) as error:
        raise MissingPartError(
            f"the architecture beats needs the package speechbrain, which cannot be imported ({error}); "
            "install it with: pip install 'otus[beats]'."
        ) from error
    for name in [name for name, module in sys.modules.items() if type(module) is DeprecatedModuleRedirect]:
        del sys.modules[name]  # old names of SpeechBrain's: they raise when anybody looks at all loaded modules
    network: nn.Module = TransformerEncoder(cfg)
    return network


@contextlib.contextmanager
def _precision_kept() -> Iterator[None]:
    """Undo what importing SpeechBrain does to all networks on a GPU: coarser products (TF32)."""
    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions
