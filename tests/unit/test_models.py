"""Networks and their cards."""

import json

import pytest
import torch

from otus.config import NetworkSettings
from otus.errors import DataError
from otus.frontend import Frontend
from otus.models import Ensemble, build_network
from otus.models.card import ModelCard, load_model, save_model

SETTINGS = NetworkSettings(channels=4, temporal_channels=8, dilations=[1, 2], frequency_blocks=1)


def network(bands=16, n_classes=2):
    torch.manual_seed(0)
    return build_network("dense_resnet", bands=bands, n_classes=n_classes, settings=SETTINGS).eval()


def pair(bands=16):
    torch.manual_seed(1)
    settings = {"bands": bands, "n_classes": 2, "settings": SETTINGS}
    return Ensemble([build_network("dense_resnet", **settings) for _ in range(2)]).eval()


def card(bands=16):
    return ModelCard(
        model="grouped-dense",
        fold=1,
        architecture="dense_resnet",
        members=2,
        network=SETTINGS.model_dump(),
        frontend=Frontend(16_000, 160, 512, bands, 0.0, 8000.0, "mel"),
        classes=["hum", "bark"],
        context_frames=6,
        inference="dense",
        median_call_s=0.4,
        short_call_s=0.2,
        training_data_sha256="0" * 64,
        training={},
        best_epochs=[3, 4],
        seed=1,
        versions={},
    )


@pytest.mark.parametrize("bands", [8, 15, 64])
@pytest.mark.parametrize("frames", [1, 50])
def test_time_resolution_is_kept(bands, frames):
    assert network(bands)(torch.zeros(3, bands, frames)).shape == (3, 4, frames)


def test_no_frame_beyond_the_context_is_seen():
    net = network()
    x = torch.randn(1, 16, 101)
    changed = x.clone()
    context = net.context_frames
    changed[:, :, : 50 - context] += 5.0
    changed[:, :, 50 + context + 1 :] -= 5.0
    torch.testing.assert_close(net(x)[..., 50], net(changed)[..., 50])
    changed[:, :, 50 - context] += 5.0
    assert not torch.allclose(net(x)[..., 50], net(changed)[..., 50], atol=1e-7)


def test_an_ensemble_is_the_mean_of_its_members():
    both, x = pair(), torch.randn(2, 16, 30)
    torch.testing.assert_close(both(x), (both.members[0](x) + both.members[1](x)) / 2)
    assert not torch.allclose(both.members[0](x), both.members[1](x))
    assert both.context_frames == both.members[0].context_frames


def test_a_model_comes_back_as_it_was(tmp_path):
    net = pair()
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", net, card())
    again, read = load_model(tmp_path / "m.safetensors", tmp_path / "card.json", torch.device("cpu"))
    x = torch.randn(2, 16, 30)
    assert torch.equal(again(x), net(x))
    assert read == card()


def test_altered_weights_are_refused(tmp_path):
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", pair(), card())
    data = bytearray((tmp_path / "m.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "m.safetensors").write_bytes(bytes(data))
    with pytest.raises(DataError, match="altered"):
        load_model(tmp_path / "m.safetensors", tmp_path / "card.json", torch.device("cpu"))


@pytest.mark.parametrize("change", [{"card_version": 99}, {"frontend": 3}, {"unknown": 1}, {"network": {"width": 2}}])
def test_a_foreign_card_is_refused(tmp_path, change):
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", pair(), card())
    content = json.loads((tmp_path / "card.json").read_text()) | change
    (tmp_path / "card.json").write_text(json.dumps(content))
    with pytest.raises((DataError, ValueError), match=r"card|network|width"):
        load_model(tmp_path / "m.safetensors", tmp_path / "card.json", torch.device("cpu"))


def test_weights_of_another_size_are_refused(tmp_path):
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", pair(bands=64), card(bands=16))
    with pytest.raises(DataError, match="do not fit"):
        load_model(tmp_path / "m.safetensors", tmp_path / "card.json", torch.device("cpu"))
