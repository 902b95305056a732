"""ONNX: the same logits as the network's, or no file."""

import json
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from otus.cli import main
from otus.config import CrnnSettings, DenseResnetSettings, Resnet18Settings, TimmSettings
from otus.errors import DataError, MissingPartError, StageError
from otus.frontend import INPUT_RANGE, Frontend
from otus.models import Ensemble, Resnet18, WindowEnsemble, WindowMean, build_network
from otus.models import onnx as exporting
from otus.models.card import ModelCard, save_model
from otus.models.onnx import LARGEST_DIFFERENCE, export_onnx
from otus.windows import window_frontend

CRNN = CrnnSettings(channels=[8, 12], temporal_channels=16, dilations=[1, 2], recurrent_channels=8)
DENSE = DenseResnetSettings(channels=4, temporal_channels=8, dilations=[1, 2], frequency_blocks=1)
WINDOWS = Resnet18Settings(window_s=0.2, bins=32)
BANDS = 16


def unsettled(network):
    """The network with statistics and weights of the norms that are not those of a new one, ready to predict."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def members(settings, count=2):
    torch.manual_seed(0)
    return unsettled(Ensemble([build_network(settings, bands=BANDS, n_classes=2) for _ in range(count)]))


def card(**changes):
    values = {
        "model": "grouped-crnn",
        "fold": 3,
        "architecture": "crnn",
        "members": 2,
        "network": CRNN.model_dump(),
        "frontend": Frontend(16_000, 160, 512, BANDS, 100.0, 7000.0, "mel"),
        "classes": ["hum", "bark"],
        "context_frames": 128,
        "inference": "blocks",
        "objective": "frame",
        "window_frames": 1,
        "median_call_s": 0.4,
        "short_call_s": 0.2,
        "training_data_sha256": "0" * 64,
        "training": {},
        "data": {},
        "best_epochs": [3, 4],
        "seed": 1,
        "versions": {},
    }
    return ModelCard(**{**values, **changes})


def logits_of(path, features):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"features": features.numpy()})[0]


def facts_of(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


NETWORKS = {
    "crnn": lambda: members(CRNN),
    "crnn without recurrence": lambda: members(replace_settings(CRNN, recurrent_channels=0)),
    "dense_resnet": lambda: members(DENSE, 1),
    "two dense_resnets on windows": lambda: WindowMean(members(DENSE), 9).eval(),
    "two crnns on windows": lambda: WindowMean(members(CRNN), 9).eval(),
}


def replace_settings(settings, **changes):
    return settings.model_copy(update=changes)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_file_gives_the_logits_of_the_network(kind, tmp_path):
    network = NETWORKS[kind]()
    exported = export_onnx(network, card(), tmp_path / "sub" / "d.onnx")
    assert set(exported.differences) == {"random", "made-up sound"}
    assert max(exported.differences.values()) <= LARGEST_DIFFERENCE
    lengths = [5, 333] if network.block_frames is None else [network.block_frames + 2 * network.context_frames]
    for length in lengths:
        features = torch.randn(1, BANDS, length, generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            ours = network(features).numpy()
        assert ours.shape == (1, 4, length) and ours.std() > 0.01
        np.testing.assert_allclose(logits_of(tmp_path / "sub" / "d.onnx", features), ours, atol=LARGEST_DIFFERENCE)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["d.onnx"], "nothing temporary is left"


def test_windows_go_in_in_any_number(tmp_path):
    torch.manual_seed(0)
    network = unsettled(WindowEnsemble([Resnet18(WINDOWS, 3)]))
    own = card(architecture="resnet18", frontend=window_frontend(WINDOWS), inference="windowed", objective="clip")
    exported = export_onnx(network, own, tmp_path / "d.onnx")
    assert exported.features.startswith("(windows, 1, ") and exported.features.endswith(", 32)")
    assert exported.logits == "(windows, 3)"
    features = torch.rand(7, *map(int, exported.features.strip("()").split(", ")[1:]))
    with torch.inference_mode():
        ours = network(features).numpy()
    np.testing.assert_allclose(logits_of(tmp_path / "d.onnx", features), ours, atol=LARGEST_DIFFERENCE)
    facts = facts_of(tmp_path / "d.onnx")
    assert facts["logits"] == "noise, then every class" and "block_frames" not in facts


def test_an_image_network_is_exported_too(tmp_path):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    network = unsettled(build_network(TimmSettings(backbone="test_resnet"), bands=BANDS, n_classes=2))
    assert export_onnx(network, card(architecture="timm"), tmp_path / "d.onnx").differences


def test_the_metadata_say_what_a_program_has_to_know(tmp_path):
    network = members(CRNN)
    exported = export_onnx(network, card(), tmp_path / "d.onnx")
    facts = facts_of(tmp_path / "d.onnx")
    whole = network.block_frames + 2 * network.context_frames
    assert (exported.features, exported.logits) == (f"(1, 16, {whole})", f"(1, 4, {whole})")
    assert json.loads(facts["classes"]) == ["hum", "bark"]
    assert Frontend(**json.loads(facts["frontend"])) == card().frontend
    assert (float(facts["hop_s"]), float(facts["outside"])) == (0.01, 0.0)
    assert (int(facts["block_frames"]), int(facts["context_frames"])) == (network.block_frames, network.context_frames)
    assert tuple(json.loads(facts["input_range"])) == INPUT_RANGE
    assert (facts["model"], int(facts["fold"]), int(facts["window_frames"])) == ("grouped-crnn", 3, 1)
    exported = export_onnx(members(DENSE), card(), tmp_path / "dense.onnx")
    assert (exported.features, exported.logits) == ("(1, 16, frames)", "(1, 4, frames)")
    assert facts_of(tmp_path / "dense.onnx")["block_frames"] == "0"


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    class Session(onnxruntime.InferenceSession):
        def run(self, *arguments):
            return [logits + 2 * LARGEST_DIFFERENCE for logits in super().run(*arguments)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(StageError, match=r"d\.onnx: not written, because its logits differ by 0\.0002"):
        export_onnx(members(DENSE), card(), tmp_path / "d.onnx")
    assert not list(tmp_path.iterdir())


def test_logits_that_are_no_numbers_are_a_difference(tmp_path):
    network = members(DENSE, 1)
    network.members[0].logits.bias.data[0] = float("nan")
    with pytest.raises(StageError, match="not written"):
        export_onnx(network, card(), tmp_path / "d.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_torch_cannot_export_is_refused_with_its_reason(tmp_path):
    class Odd(type(members(DENSE))):
        def forward(self, x):
            return torch.special.zeta(x.abs() + 2.0, x.abs() + 1.0)

    odd = Odd(list(members(DENSE, 1).members)).eval()
    with pytest.raises(StageError, match="cannot export this network"):
        export_onnx(odd, card(), tmp_path / "d.onnx")
    assert not list(tmp_path.iterdir())


def test_a_beats_is_not_exported(tmp_path):
    with pytest.raises(DataError, match="beats is not exported"):
        export_onnx(members(DENSE), card(architecture="beats"), tmp_path / "d.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_a_sentence_names_the_extra(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPartError, match=r"pip install 'otus\[onnx\]'"):
        export_onnx(members(DENSE), card(), tmp_path / "d.onnx")
    assert not list(tmp_path.iterdir())


def test_the_same_network_gives_the_same_bytes_and_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in "ab":
            export_onnx(members(CRNN), card(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_made_up_sound_lies_in_the_band_and_is_always_the_same():
    sound = exporting._sound(card().frontend, 32_000)
    assert torch.equal(sound, exporting._sound(card().frontend, 32_000))
    assert len(sound) == 32_000 and 0.1 < float(sound.abs().max()) < 0.5


def test_the_command_says_how_large_the_file_is_and_how_exact(tmp_path, capsys):
    folder = tmp_path / "fold1"
    save_model(folder / "model.safetensors", folder / "card.json", members(CRNN), card())
    assert main(["export-onnx", str(folder), "--out", str(tmp_path / "d.onnx")]) == 0
    out = capsys.readouterr().out
    assert "MB, features (1, 16, 1280) to logits (1, 4, 1280)" in out and "(random), " in out
    assert (tmp_path / "d.onnx").exists()


def test_the_command_refuses_a_folder_without_a_model(tmp_path, capsys):
    assert main(["export-onnx", str(tmp_path), "--out", str(tmp_path / "d.onnx")]) == 3
    assert "has no model.safetensors and card.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export-onnx", str(tmp_path)])
