"""Networks and their cards."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from training_corpus import single_threaded

from otus.config import CrnnSettings, DenseResnetSettings, TcnSettings
from otus.errors import DataError
from otus.frontend import Frontend
from otus.models import Ensemble, FrameNetwork, WindowMean, build_network, learnt_state
from otus.models.card import ModelCard, load_card, load_model, save_model

CPU = torch.device("cpu")
SETTINGS = {
    "tcn": TcnSettings(channels=[4, 6], temporal_channels=8, dilations=[1, 2]),
    "dense_resnet": DenseResnetSettings(channels=4, temporal_channels=8, dilations=[1, 2], frequency_blocks=1),
    "crnn": CrnnSettings(channels=[4, 6], temporal_channels=8, dilations=[1, 2], recurrent_channels=4),
    "crnn without GRU": CrnnSettings(channels=[4, 6], temporal_channels=8, dilations=[1, 2], recurrent_channels=0),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


def network(kind="dense_resnet", bands=16, n_classes=2, seed=0):
    torch.manual_seed(seed)
    return build_network(SETTINGS[kind], bands=bands, n_classes=n_classes).eval()


def pair(kind="dense_resnet", bands=16):
    return Ensemble([network(kind, bands, seed=s) for s in (1, 2)]).eval()


def card(kind="dense_resnet", bands=16, **changes):
    facts = {
        "model": "grouped-dense",
        "fold": 1,
        "architecture": kind.split()[0],
        "members": 2,
        "network": SETTINGS[kind].model_dump(),
        "frontend": Frontend(16_000, 160, 512, bands, 0.0, 8000.0, "mel"),
        "classes": ["hum", "bark"],
        "context_frames": 6,
        "inference": "dense",
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
    return ModelCard(**facts | changes)


# Networks


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("bands", [8, 15, 64])
@pytest.mark.parametrize("frames", [1, 2, 5, 50])
def test_time_resolution_is_kept(kind, bands, frames):
    assert network(kind, bands)(torch.zeros(3, bands, frames)).shape == (3, 4, frames)


@pytest.mark.parametrize("kind", ["tcn", "dense_resnet", "crnn without GRU"])
def test_no_frame_beyond_the_context_is_seen(kind):
    net = network(kind)
    x = torch.randn(1, 16, 101)
    changed = x.clone()
    context = net.context_frames
    assert net.block_frames is None
    changed[:, :, : 50 - context] += 5.0
    changed[:, :, 50 + context + 1 :] -= 5.0
    torch.testing.assert_close(net(x)[..., 50], net(changed)[..., 50])
    changed[:, :, 50 - context] += 5.0
    assert not torch.allclose(net(x)[..., 50], net(changed)[..., 50], atol=1e-7)


def test_a_recurrent_network_sees_all_and_is_scored_in_blocks():
    net = network("crnn")
    x = torch.randn(1, 16, 401)
    changed = x.clone()
    changed[:, :, :100] += 5.0
    assert not torch.equal(net(x)[..., 200:], net(changed)[..., 200:])
    assert net.block_frames and net.context_frames >= 64
    for frames in (net.block_frames, net.context_frames):
        assert frames % 4 == 0, "else the recurrent layer would see other frames together at the borders of blocks"


@examples(max_examples=20, deadline=None)
@given(
    bands=st.integers(8, 70),
    channels=st.lists(st.integers(4, 6), min_size=1, max_size=5),
    dilations=st.lists(st.integers(1, 9), max_size=3),
    units=st.one_of(st.none(), st.integers(0, 5)),
    frames=st.integers(1, 30),
    n_classes=st.integers(1, 4),
)
def test_a_small_network_of_any_size_is_a_network(bands, channels, dilations, units, frames, n_classes):
    kind, more = (TcnSettings, {}) if units is None else (CrnnSettings, {"recurrent_channels": units})
    settings = kind(channels=channels, temporal_channels=8, dilations=dilations, **more)
    net = build_network(settings, bands=bands, n_classes=n_classes).eval()
    found = net(torch.randn(2, bands, frames))
    assert found.shape == (2, 2 * n_classes, frames) and found.isfinite().all()


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_examples_of_a_batch_do_not_see_each_other(kind):
    net, x = network(kind), torch.randn(3, 16, 50)
    alone = torch.cat([net(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SETTINGS)
def test_calls_are_rare_at_first(kind):
    assert torch.sigmoid(network(kind)(torch.zeros(1, 16, 50))).mean() < 0.25


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_ensemble_is_the_mean_of_its_members(kind):
    both, x = pair(kind), torch.randn(2, 16, 30)
    torch.testing.assert_close(both(x), (both.members[0](x) + both.members[1](x)) / 2)
    assert not torch.allclose(both.members[0](x), both.members[1](x))
    assert (both.context_frames, both.block_frames) == (both.members[0].context_frames, both.members[0].block_frames)


class Half(FrameNetwork):
    """A network of which a part comes from a file of the user's."""

    context_frames = 0
    frozen = ("encoder.",)

    def __init__(self):
        super().__init__()
        self.encoder, self.head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)


def test_what_is_frozen_stays_frozen_within_others():
    assert set(learnt_state(Half())) == {"head.weight", "head.bias"}
    several = WindowMean(Ensemble([Half(), Half()]), 5)
    assert set(learnt_state(several)) == {f"network.members.{i}.head.{p}" for i in (0, 1) for p in ("weight", "bias")}
    assert set(learnt_state(network())) == set(network().state_dict())


# Cards


def saved(folder, net, its_card):
    save_model(folder / "m.safetensors", folder / "card.json", net, its_card)
    return folder / "m.safetensors", folder / "card.json", CPU


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_model_comes_back_as_it_was(tmp_path, kind):
    net = pair(kind)
    again, read = load_model(*saved(tmp_path, net, card(kind)))
    x = torch.randn(2, 16, 30)
    assert torch.equal(again(x), net(x)) and not again.training
    assert read == card(kind)


def test_a_model_of_windows_comes_back_as_it_was(tmp_path):
    net, of_windows = WindowMean(pair("crnn"), 12).eval(), card("crnn", objective="clip", window_frames=12)
    again, read = load_model(*saved(tmp_path, net, of_windows))
    x = torch.randn(2, 16, 30)
    assert torch.equal(again(x), net(x)) and again.window_frames == read.window_frames == 12
    assert again.context_frames == net.context_frames


def test_altered_weights_are_refused(tmp_path):
    places = saved(tmp_path, pair(), card())
    data = bytearray(places[0].read_bytes())
    data[-1] ^= 1
    places[0].write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"m\.safetensors: altered since card\.json was written; train the model again"):
        load_model(*places)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_file_that_is_missing_is_named(tmp_path, missing):
    places = saved(tmp_path, pair(), card())
    places[missing].unlink()
    with pytest.raises(DataError, match=[r"m\.safetensors: ", r"card\.json: "][missing]):
        load_model(*places)


@pytest.mark.parametrize(
    "change",
    [
        {"card_version": 99},
        {"card_version": 1},
        {"frontend": 3},
        {"frontend": {"kind": "relative"}},
        {"unknown": 1},
        {"architecture": "perceptron"},
        {"network": {"width": 2}},
        {"network": {"channels": 0}},
        {"network": 5},
    ],
)
def test_a_foreign_card_is_refused_in_one_sentence(tmp_path, change):
    places = saved(tmp_path, pair(), card())
    content = json.loads(places[1].read_text()) | change
    places[1].write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"card\.json: .*; train the model again") as error:
        load_model(*places)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "5", '{"card_version": 2}'])
def test_what_is_no_card_is_refused(tmp_path, content):
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(DataError, match=r"card\.json: not a model card of Otus .*; train the model again"):
        load_card(tmp_path / "card.json")


def test_weights_of_another_size_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"do not fit the card \(size mismatch.*; train the model again\.$") as error:
        load_model(*saved(tmp_path, pair(bands=64), card(bands=16)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("members", [1, 3])
def test_weights_of_another_number_of_networks_are_refused(tmp_path, members):
    with pytest.raises(DataError, match=r"the weights do not fit the card \(.*missing or too many"):
        load_model(*saved(tmp_path, pair(), card(members=members)))
