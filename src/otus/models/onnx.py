"""Networks as ONNX files, for programs without torch: the network alone, from its input to logits.

The exporter is torch's older one, which records one call of the network. It needs nothing but torch, takes half a
second, and its files of recurrent networks are as exact as those of the newer one, which needs onnxscript and 40 s.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otus import __version__
from otus.atomic import replacing
from otus.errors import DataError, MissingPartError, StageError
from otus.frontend import INPUT_RANGE, Frontend, band_power, relative_log_power
from otus.models import FrameNetwork, WindowEnsemble
from otus.models.card import ModelCard
from otus.windows import WindowFrontend, window_inputs

if TYPE_CHECKING:
    import onnxruntime

#: Logits of the file and of the network may differ by this.
LARGEST_DIFFERENCE = 1e-4

#: Version of the operators: of 2022, so that older programs read the files as well.
_OPERATORS = 17

#: Lengths on which a network of any number of frames is compared; windows that are compared at once.
_FRAMES, _WINDOWS = (1, 37, 300, 1500), (1, 5)


@dataclass(frozen=True)
class Exported:
    """Shapes of input and output as text, and the largest difference of logits by the kind of input."""

    features: str
    logits: str
    differences: Mapping[str, float]


def export_onnx(network: FrameNetwork | WindowEnsemble, card: ModelCard, path: Path) -> Exported:
    """Write `network` (on the CPU, ready to predict) to `path` as ONNX, if it gives the same logits there.

    Input `features` and output `logits` are those of the network's forward; the number of frames is free unless the
    network scores blocks: then it is that of a block with its context. What a program has to know to make the input
    is in the metadata (see `metadata`). Raises MissingPartError without onnx and onnxruntime, DataError for a beats,
    StageError if the network cannot be exported or logits differ by more than LARGEST_DIFFERENCE, on random input or
    on that of a made-up sound; nothing is written then.
    """
    onnx_library, runtime = _packages()
    if card.architecture == "beats":
        raise DataError(
            f"{card.model}: a beats is not exported, because its encoder is in a checkpoint that is not Otus's to pass "
            "on; export a crnn or a dense_resnet."
        )
    examples = dict(_examples(network, card.frontend))
    with replacing(path) as temporary:
        _write(network, examples["random"][0], temporary)
        model = onnx_library.load(str(temporary))
        _name_shape(model.graph.output[0].type.tensor_type.shape, network, examples["random"][0])
        onnx_library.helper.set_model_props(model, metadata(network, card))
        onnx_library.save(model, str(temporary))
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(str(temporary), options, providers=["CPUExecutionProvider"])
        differences = {
            kind: max(_difference(network, session, features) for features in inputs)
            for kind, inputs in examples.items()
        }
        worst = max(differences.values())
        if not worst <= LARGEST_DIFFERENCE:
            raise StageError(
                f"{path}: not written, because its logits differ by {worst:.2g} from those of the network, which is "
                f"more than {LARGEST_DIFFERENCE:g}; another version of onnxruntime may do better."
            )
    return Exported(_shape(session.get_inputs()[0]), _shape(session.get_outputs()[0]), differences)


def metadata(network: FrameNetwork | WindowEnsemble, card: ModelCard) -> dict[str, str]:
    """Return what a program has to know besides the network, as text; lists and dictionaries are JSON.

    `outside` is the input where there is no recording; `block_frames` is 0 if any number of frames may be scored.
    """
    frontend = card.frontend
    common: dict[str, Any] = {
        "otus": __version__,
        "model": card.model,
        "fold": card.fold,
        "architecture": card.architecture,
        "classes": card.classes,
        "frontend": asdict(frontend),
        "hop_s": frontend.hop_s,
        "window_frames": card.window_frames,
        "median_call_s": card.median_call_s,
        "short_call_s": card.short_call_s,
        "training_data_sha256": card.training_data_sha256,
    }
    if isinstance(network, WindowEnsemble):
        own: dict[str, Any] = {"logits": "noise, then every class"}
    else:
        assert isinstance(frontend, Frontend)
        own = {
            "logits": "activity of every class, then onset of every class",
            "context_frames": network.context_frames,
            "block_frames": network.block_frames or 0,
            "input_range": list(INPUT_RANGE),
            "outside": frontend.outside,
        }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in (common | own).items()}


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingPartError(
            f"export-onnx needs the packages onnx and onnxruntime, which cannot be imported ({error}); install them "
            "with: pip install 'otus[onnx]'."
        ) from error
    return onnx, onnxruntime


def _free_axes(network: FrameNetwork | WindowEnsemble) -> dict[int, str]:
    """The axis of input and output that may have any length, by number and name; none if a network scores blocks."""
    if isinstance(network, WindowEnsemble):
        return {0: "windows"}
    return {} if network.block_frames else {2: "frames"}


def _write(network: FrameNetwork | WindowEnsemble, example: torch.Tensor, path: Path) -> None:
    """Write the network as the exporter records it."""
    free = _free_axes(network)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # that there is a newer exporter, and that shapes are recorded
            torch.onnx.export(
                network,
                (example,),
                str(path),
                input_names=["features"],
                output_names=["logits"],
                dynamic_axes={"features": free, "logits": free},
                opset_version=_OPERATORS,
                dynamo=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        reason = str(error).split("\n", maxsplit=1)[0].rstrip(". ")
        raise StageError(f"{path.name}: torch cannot export this network ({reason}).") from error


def _name_shape(shape: Any, network: FrameNetwork | WindowEnsemble, example: torch.Tensor) -> None:
    """Say the shape of the output plainly: the exporter gives every axis that it does not follow a name of its own."""
    with torch.inference_mode():
        sizes = network(example).shape
    free = _free_axes(network)
    for axis, size in enumerate(sizes):
        if axis in free:
            shape.dim[axis].dim_param = free[axis]
        else:
            shape.dim[axis].dim_value = size


def _examples(
    network: FrameNetwork | WindowEnsemble, frontend: Frontend | WindowFrontend
) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Inputs by their kind; the first of the first kind is the one that the exporter records."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(frontend, WindowFrontend):
        sounds = [
            window_inputs(_sound(frontend, frontend.window_samples + (n - 1) * frontend.hop_samples), frontend)
            for n in _WINDOWS
        ]
        yield "random", [torch.rand(sound.shape, generator=generator) for sound in reversed(sounds)]
    else:
        assert isinstance(network, FrameNetwork)
        block = network.block_frames
        lengths = [block + 2 * network.context_frames] if block else list(reversed(_FRAMES))
        low, high = INPUT_RANGE
        shapes = [(1, frontend.bands, length) for length in lengths]
        yield "random", [low + (high - low) * torch.rand(shape, generator=generator) for shape in shapes]
        sounds = [_features(frontend, length) for length in lengths]
    yield "made-up sound", sounds


def _features(frontend: Frontend, frames: int) -> torch.Tensor:
    """The network's input (1, bands, frames) for a made-up sound."""
    margin = frontend.n_fft - frontend.hop_samples
    power = band_power(_sound(frontend, frames * frontend.hop_samples + margin), frontend)
    return relative_log_power(power, power.median(dim=-1).values).unsqueeze(0)


def _sound(frontend: Frontend | WindowFrontend, n_samples: int) -> torch.Tensor:
    """Noise with rising calls in the band, one each second."""
    rate = frontend.sample_rate
    time_s = np.arange(n_samples) / rate
    noise = np.random.default_rng(0).standard_normal(n_samples) * 0.01
    low, high = max(frontend.low_hz, 0.02 * rate), min(frontend.high_hz, 0.45 * rate)
    within = time_s % 1.0
    calls = 0.2 * np.sin(2 * np.pi * (low * within + (high - low) * within**2)) * (within < 0.3)
    return torch.from_numpy((noise + calls).astype(np.float32))


def _difference(network: torch.nn.Module, session: "onnxruntime.InferenceSession", features: torch.Tensor) -> float:
    """The largest difference of logits; not a number if one of them is none."""
    with torch.inference_mode():
        ours = network(features).numpy()
    theirs = session.run(["logits"], {"features": features.numpy()})[0]
    return float(np.abs(ours - theirs).max())


def _shape(value: Any) -> str:
    return f"({', '.join(map(str, value.shape))})"
