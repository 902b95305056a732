"""Checkpoints of ANIMAL-SPOT (`ANIMAL-SPOT.pk`): read without running what they may hold, checked, converted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from otus.audio import sha256
from otus.config import Resnet18Settings
from otus.errors import DataError
from otus.models.resnet18 import Resnet18
from otus.windows import MIN_LEVEL_DB, REF_LEVEL_DB, WindowFrontend, window_frontend

_PARTS = ("encoderOpts", "classifierOpts", "dataOpts", "encoderState", "classifierState", "classes")

#: What the options of a checkpoint are called here.
_DATA_OPTIONS = {
    "sample_rate": "sr",
    "pre_emphasis": "preemphases",
    "n_fft": "n_fft",
    "hop_samples": "hop_length",
    "bins": "n_freq_bins",
    "low_hz": "fmin",
    "high_hz": "fmax",
    "compression": "freq_compression",
}
_ENCODER_OPTIONS = {"conv_kernel_size": "conv_kernel_size", "max_pool": "max_pool"}

#: What has one value in every checkpoint that is understood here.
_FIXED: dict[str, dict[str, Any]] = {
    "encoderOpts": {"input_channels": 1, "resnet_size": 18},
    "classifierOpts": {"pooling": "avg"},
}

_NOISE = "noise"
_UNKNOWN_DATA = (
    "Nothing is known of the recordings that this checkpoint was trained on; recordings that it is tested on here may "
    "be among them, and nothing proves that they are not."
)


@dataclass(frozen=True)
class ImportedNetwork:
    """A converted checkpoint.

    `settings` are those of the config with everything that the checkpoint knows better, `outputs` the classes of the
    network's outputs: noise, the targets in the order of the config, then what is no target. `record` is what the
    model card says of it.
    """

    settings: Resnet18Settings
    frontend: WindowFrontend
    outputs: list[str]
    state: dict[str, torch.Tensor]
    record: dict[str, Any]

    def network(self) -> Resnet18:
        """Return a new network with these weights."""
        network = Resnet18(self.settings, len(self.outputs))
        network.load_state_dict(self.state)
        return network


def import_checkpoint(settings: Resnet18Settings, targets: Sequence[str]) -> ImportedNetwork:
    """Return the network in the file `settings.checkpoint`, converted to find `targets`.

    A checkpoint that tells one class from noise serves any single target, whatever that is called; the classes of
    others are found by name. Raises DataError if the file is missing, another one than `settings.sha256` says, no
    checkpoint of a ResNet-18, or does not know the targets.
    """
    path = Path(settings.checkpoint or "")
    digest = _checked_digest(path, settings.sha256)
    content = _load(path)
    own = _own_settings(path, content, settings)
    outputs, rows = _outputs(path, content, list(targets))
    state = _state(path, content, own, rows)
    record = {"file": path.name, "sha256": digest, "classes": outputs, "note": _UNKNOWN_DATA}
    return ImportedNetwork(own, _frontend(path, content["dataOpts"], own), outputs, state, record)


def _checked_digest(path: Path, expected: str | None) -> str:
    try:
        digest = sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the checkpoint ({error.strerror}); set resnet18.checkpoint.") from error
    if expected is not None and digest != expected:
        raise DataError(
            f"{path}: its SHA-256 is {digest}, not the one that resnet18.sha256 says; find the right file or correct "
            "the digest."
        )
    return digest


def _load(path: Path) -> Mapping[str, Any]:
    """The content of a checkpoint; nothing in it is run."""
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises all kinds of errors for files that it does not understand
        raise DataError(
            f"{path}: cannot be read as an ANIMAL-SPOT checkpoint: it is damaged, something else, or holds code, which "
            "is never run; give the .pk file that a training wrote (without jit_save)."
        ) from error
    parts = content if isinstance(content, dict) else {}
    if lacking := [name for name in _PARTS if not isinstance(parts.get(name), dict)]:
        raise DataError(
            f"{path}: is no ANIMAL-SPOT model: {', '.join(lacking)} are not in it; give the .pk file that a training "
            "wrote, not one of its checkpoints."
        )
    return parts


def _own_settings(path: Path, content: Mapping[str, Any], settings: Resnet18Settings) -> Resnet18Settings:
    """The settings with what the checkpoint says; the file itself is done with."""
    for part, fixed in _FIXED.items():
        for option, only in fixed.items():
            if (found := content[part].get(option, only)) != only:
                raise DataError(
                    f"{path}: its {option} is {found}, and only {only} is understood; train a ResNet-18 of "
                    "ANIMAL-SPOT's usual form."
                )
    values = settings.model_dump() | {"checkpoint": None, "sha256": None}
    for part, names in (("dataOpts", _DATA_OPTIONS), ("encoderOpts", _ENCODER_OPTIONS)):
        if lacking := [name for name in names.values() if name not in content[part]]:
            raise DataError(f"{path}: its {part} lack {', '.join(lacking)}; give a model of a newer ANIMAL-SPOT.")
        values |= {ours: content[part][theirs] for ours, theirs in names.items()}
    try:
        return Resnet18Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        option = (_DATA_OPTIONS | _ENCODER_OPTIONS).get(name, name)
        raise DataError(
            f"{path}: its {option} is {first['input']!r}, which is not supported ({first['msg']}); train it again with "
            "another one."
        ) from error


def _frontend(path: Path, data: Mapping[str, Any], settings: Resnet18Settings) -> WindowFrontend:
    try:
        levels = float(data.get("min_level_db", MIN_LEVEL_DB)), float(data.get("ref_level_db", REF_LEVEL_DB))
        if not levels[0] < 0:
            raise ValueError("min_level_db is not below 0")
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: its levels in dB cannot be used ({error}); train it again with others.") from error
    return window_frontend(settings, min_level_db=levels[0], ref_level_db=levels[1])


def _outputs(path: Path, content: Mapping[str, Any], targets: list[str]) -> tuple[list[str], list[int]]:
    """The classes of the converted network's outputs, and which output of the checkpoint each of them is."""
    number = {str(name): index for name, index in content["classes"].items()}
    known = ", ".join(number)
    noise = next((name for name in number if name.lower() == _NOISE), None)
    n_outputs = content["classifierOpts"].get("num_classes", len(number))
    if noise is None:
        raise DataError(f"{path}: none of its classes ({known}) is noise; give a model that was trained with noise.")
    if n_outputs == 2:  # the other class may be called anything; ANIMAL-SPOT then numbers both 0
        if len(targets) != 1:
            raise DataError(
                f"{path}: tells one class from noise, but corpus.targets names {', '.join(targets)}; name one target "
                "or give a model that knows them all."
            )
        background = 1 if number[noise] == 1 else 0
        return [_NOISE, targets[0]], [background, 1 - background]
    indices = sorted(index for index in number.values() if isinstance(index, int))
    if len(number) != n_outputs or indices != list(range(n_outputs)):
        raise DataError(f"{path}: its classes ({known}) do not fit its {n_outputs} outputs; it is damaged.")
    if lacking := [target for target in targets if target not in number or target == noise]:
        raise DataError(
            f"{path}: does not know {', '.join(lacking)} of corpus.targets; its classes are {known}, so name targets "
            "(or map labels) accordingly."
        )
    others = sorted((name for name in number if name not in (noise, *targets)), key=lambda name: number[name])
    names = [noise, *targets, *others]
    return [_NOISE, *names[1:]], [number[name] for name in names]


def _state(
    path: Path, content: Mapping[str, Any], settings: Resnet18Settings, rows: list[int]
) -> dict[str, torch.Tensor]:
    """The weights by the names of our network, the outputs in our order."""
    state = {f"encoder.{name}": value for name, value in content["encoderState"].items()}
    state |= {f"classifier.{name}": value for name, value in content["classifierState"].items()}
    try:
        for name in ("classifier.linear.weight", "classifier.linear.bias"):
            state[name] = state[name][rows]
        Resnet18(settings, len(rows)).load_state_dict(state)
        finite = all(bool(value.isfinite().all()) for value in state.values())
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: its weights are not those of a ResNet-18 as its options describe it ({reason}); give the .pk "
            "file that a training wrote."
        ) from error
    if not finite:
        raise DataError(f"{path}: some of its weights are not finite; train it again.")
    return state
