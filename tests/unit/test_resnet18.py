"""ANIMAL-SPOT's network, its checkpoints, and its card."""

import hashlib
import json
import pickle

import pytest
import torch
from animal_spot_checkpoint import checkpoint

from otus.config import Resnet18Settings
from otus.errors import DataError
from otus.models import Resnet18, WindowEnsemble, resnet18
from otus.models.animal_spot import import_checkpoint
from otus.models.card import ModelCard, load_card, load_model, save_model
from otus.windows import WindowFrontend, window_frontend

NARROW = (4, 8, 8, 16)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def narrow(monkeypatch):
    """A network of few channels; all else is the same."""
    monkeypatch.setattr(resnet18, "_CHANNELS", NARROW)


def saved(tmp_path, content, name="ANIMAL-SPOT.pk"):
    torch.save(content, tmp_path / name)
    return str(tmp_path / name)


def test_the_geometry_is_that_of_animal_spot():
    net = Resnet18(Resnet18Settings(), 2).eval()
    assert sum(p.numel() for p in net.parameters()) == 11_171_266
    assert sum(p.numel() for p in net.encoder.parameters()) == 11_170_240
    assert len(net.encoder.state_dict()) == 120
    assert set(net.classifier.state_dict()) == {"linear.weight", "linear.bias"}
    with torch.inference_mode():
        assert net.encoder(torch.zeros(1, 1, 18, 128)).shape == (1, 512, 2, 8)
        assert net(torch.zeros(3, 1, 17, 128)).shape == (3, 2)


@pytest.mark.parametrize(("max_pool", "positions"), [(0, (1, 4)), (1, (1, 4)), (2, (2, 8))])
def test_max_pool_decides_how_much_is_left(narrow, max_pool, positions):
    net = Resnet18(Resnet18Settings(max_pool=max_pool), 2)
    assert net.encoder(torch.zeros(1, 1, 18, 128)).shape == (1, NARROW[-1], *positions)
    assert ("layer1.0.shortcut.0.weight" in net.encoder.state_dict()) == (max_pool == 0)


def test_an_ensemble_averages_before_the_softmax(narrow):
    torch.manual_seed(0)
    members = [Resnet18(Resnet18Settings(), 3).eval() for _ in range(2)]
    x = torch.randn(2, 1, 18, 128)
    torch.testing.assert_close(WindowEnsemble(members).eval()(x), (members[0](x) + members[1](x)) / 2)


def test_the_checkpoint_knows_better_than_the_settings(narrow, tmp_path):
    content = checkpoint(widths=NARROW, max_pool=1, kernel=5, min_level_db=-90, ref_level_db=10)
    settings = Resnet18Settings(
        checkpoint=saved(tmp_path, content), window_s=0.3, hop_s=0.1, min_max_norm=False, sample_rate=44_100, bins=99
    )
    found = import_checkpoint(settings, ["hum"])
    own = found.settings
    assert (own.sample_rate, own.n_fft, own.hop_samples, own.bins) == (16_000, 512, 160, 64)
    assert (own.low_hz, own.high_hz, own.compression, own.pre_emphasis) == (200, 5000, "linear", 0.98)
    assert (own.max_pool, own.conv_kernel_size) == (1, 5)
    assert (own.window_s, own.hop_s, own.min_max_norm) == (0.3, 0.1, False)
    assert own.checkpoint is None
    assert found.frontend == window_frontend(own, min_level_db=-90, ref_level_db=10)
    assert found.outputs == ["noise", "hum"]


def test_the_record_says_where_it_is_from_and_that_its_data_are_unknown(narrow, tmp_path):
    path = saved(tmp_path, checkpoint(widths=NARROW))
    digest = hashlib.sha256((tmp_path / "ANIMAL-SPOT.pk").read_bytes()).hexdigest()
    record = import_checkpoint(Resnet18Settings(checkpoint=path, sha256=digest), ["hum"]).record
    assert (record["file"], record["sha256"]) == ("ANIMAL-SPOT.pk", digest)
    assert "Nothing is known of the recordings" in record["note"]
    assert str(tmp_path) not in json.dumps(record)


@pytest.mark.parametrize(
    ("classes", "rows"),
    [
        ({"noise": 0, "target": 1}, [0, 1]),
        ({"penguin": 0, "Noise": 1}, [1, 0]),
        ({"noise": 0, "penguin": 0}, [0, 1]),  # what ANIMAL-SPOT numbers if no class is called target
    ],
)
def test_one_class_against_noise_serves_any_target(narrow, tmp_path, classes, rows):
    content = checkpoint(widths=NARROW, classes=classes)
    found = import_checkpoint(Resnet18Settings(checkpoint=saved(tmp_path, content)), ["hum"])
    assert torch.equal(found.state["classifier.linear.bias"], content["classifierState"]["linear.bias"][rows])
    assert torch.equal(found.state["classifier.linear.weight"], content["classifierState"]["linear.weight"][rows])


def test_outputs_of_many_classes_are_sorted_by_the_targets(narrow, tmp_path):
    content = checkpoint(widths=NARROW, classes={"bark": 0, "croak": 3, "noise": 2, "hum": 1})
    found = import_checkpoint(Resnet18Settings(checkpoint=saved(tmp_path, content)), ["hum", "bark"])
    assert found.outputs == ["noise", "hum", "bark", "croak"]
    assert torch.equal(found.state["classifier.linear.bias"], content["classifierState"]["linear.bias"][[2, 1, 0, 3]])
    assert found.network()(torch.zeros(1, 1, 17, 64)).shape == (1, 4)


def without(part, key=None):
    def change(content):
        del (content if key is None else content[part])[part if key is None else key]

    return change


def having(part, key, value):
    def change(content):
        content[part][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "targets", "said"),
    [
        (without("dataOpts"), ["hum"], "dataOpts are not in it"),
        (without("encoderState"), ["hum"], "encoderState are not in it"),
        (without("dataOpts", "sr"), ["hum"], "its dataOpts lack sr"),
        (without("encoderState", "bn1.weight"), ["hum"], "bn1.weight"),
        (without("classifierState", "linear.bias"), ["hum"], "linear.bias"),
        (having("encoderState", "conv1.weight", torch.zeros(5, 1, 7, 7)), ["hum"], "conv1.weight"),
        (having("encoderState", "conv1.weight", torch.full((4, 1, 7, 7), torch.nan)), ["hum"], "not finite"),
        (having("encoderState", "conv1.weight", "x"), ["hum"], "conv1.weight"),
        (having("encoderOpts", "resnet_size", 34), ["hum"], "resnet_size is 34"),
        (having("classifierOpts", "pooling", "max"), ["hum"], "pooling is max"),
        (having("dataOpts", "freq_compression", "mfcc"), ["hum"], "freq_compression is 'mfcc'"),
        (having("dataOpts", "n_fft", "many"), ["hum"], "n_fft is 'many'"),
        (having("dataOpts", "min_level_db", 0), ["hum"], "min_level_db"),
        (having("dataOpts", "fmin", 9000), ["hum"], "9000-5000 Hz does not fit"),
        (without("classes", "noise"), ["hum"], "is noise"),
        (lambda content: None, ["hum", "bark"], "corpus.targets names hum, bark"),
    ],
)
def test_what_is_no_checkpoint_for_these_targets_is_refused(narrow, tmp_path, change, targets, said):
    content = checkpoint(widths=NARROW)
    change(content)
    with pytest.raises(DataError, match=said) as error:
        import_checkpoint(Resnet18Settings(checkpoint=saved(tmp_path, content)), targets)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("classes", "targets", "said"),
    [
        (
            {"noise": 0, "hum": 1, "bark": 2},
            ["hum", "moo"],
            "does not know moo of corpus.targets; its classes are noise",
        ),
        ({"noise": 0, "hum": 1, "bark": 3}, ["hum"], "do not fit its 3 outputs"),
        ({"noise": 0, "hum": 1, "bark": "2"}, ["hum"], "do not fit its 3 outputs"),
        ({"moo": 0, "hum": 1, "bark": 2}, ["hum"], "is noise"),
        ({"noise": 0, "hum": 1, "bark": 2}, ["noise"], "does not know noise"),
    ],
)
def test_classes_that_do_not_fit_are_refused(narrow, tmp_path, classes, targets, said):
    content = checkpoint(widths=NARROW, classes=classes)
    with pytest.raises(DataError, match=said):
        import_checkpoint(Resnet18Settings(checkpoint=saved(tmp_path, content)), targets)


class Trap:
    """Pickled code that leaves a file behind when it is run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_checkpoint_is_never_run(narrow, tmp_path):
    content = checkpoint(widths=NARROW) | {"extra": Trap(tmp_path / "ran")}
    (tmp_path / "plain.pk").write_bytes(pickle.dumps(Trap(tmp_path / "ran"), protocol=2))
    for path in (saved(tmp_path, content), str(tmp_path / "plain.pk")):
        with pytest.raises(DataError, match="never run") as error:
            import_checkpoint(Resnet18Settings(checkpoint=path), ["hum"])
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("data", [b"", b"RIFF not a checkpoint", b"PK\x03\x04 cut short"])
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "a.pk").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.pk: cannot be read as an ANIMAL-SPOT checkpoint"):
        import_checkpoint(Resnet18Settings(checkpoint=str(tmp_path / "a.pk")), ["hum"])


def test_a_truncated_a_missing_and_another_file_are_refused(narrow, tmp_path):
    path = saved(tmp_path, checkpoint(widths=NARROW))
    with pytest.raises(DataError, match=r"not the one that resnet18\.sha256 says"):
        import_checkpoint(Resnet18Settings(checkpoint=path, sha256="0" * 64), ["hum"])
    data = (tmp_path / "ANIMAL-SPOT.pk").read_bytes()
    (tmp_path / "ANIMAL-SPOT.pk").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="damaged"):
        import_checkpoint(Resnet18Settings(checkpoint=path), ["hum"])
    with pytest.raises(DataError, match="No such file"):
        import_checkpoint(Resnet18Settings(checkpoint=str(tmp_path / "none.pk")), ["hum"])


def make_card(settings, *, classes, imported=None, members=1):
    return ModelCard(
        model="grouped-animal_spot",
        fold=1,
        architecture="resnet18",
        members=members,
        network=settings.model_dump(),
        frontend=window_frontend(settings),
        classes=classes,
        context_frames=0,
        inference="windowed",
        objective="clip",
        window_frames=8,
        median_call_s=0.3,
        short_call_s=0.2,
        training_data_sha256="0" * 64,
        training={},
        data={},
        best_epochs=[3] * members,
        seed=1,
        versions={},
        imported=imported,
    )


def test_a_model_comes_back_as_it_was(narrow, tmp_path):
    torch.manual_seed(3)
    settings = Resnet18Settings(max_pool=1)
    net = WindowEnsemble([Resnet18(settings, 3) for _ in range(2)]).eval()
    card = make_card(settings, classes=["hum", "bark"], members=2)
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", net, card)
    again, read = load_model(tmp_path / "m.safetensors", tmp_path / "card.json", torch.device("cpu"))
    x = torch.randn(2, 1, 17, 128)
    assert torch.equal(again(x), net(x))
    assert read == card
    assert isinstance(read.frontend, WindowFrontend)


def test_a_converted_checkpoint_keeps_outputs_that_are_no_target(narrow, tmp_path):
    content = checkpoint(widths=NARROW, classes={"bark": 0, "hum": 1, "noise": 2})
    found = import_checkpoint(Resnet18Settings(checkpoint=saved(tmp_path, content)), ["hum"])
    net = WindowEnsemble([found.network()]).eval()
    card = make_card(found.settings, classes=["hum"], imported=found.record)
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", net, card)
    again, read = load_model(tmp_path / "m.safetensors", tmp_path / "card.json", torch.device("cpu"))
    x = torch.randn(2, 1, 17, 64)
    assert torch.equal(again(x), net(x))
    assert read.imported == found.record


def test_a_card_of_windows_with_a_frontend_of_frames_is_refused(narrow, tmp_path):
    settings = Resnet18Settings()
    net = WindowEnsemble([Resnet18(settings, 2)])
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", net, make_card(settings, classes=["hum"]))
    content = json.loads((tmp_path / "card.json").read_text())
    content["frontend"]["kind"] = "relative"
    (tmp_path / "card.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="not a model card"):
        load_card(tmp_path / "card.json")
