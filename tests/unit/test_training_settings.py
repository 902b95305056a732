"""Training configurations: which keys go together, and what follows from them."""

import pytest

from otus.config import CrnnSettings, TrainingSettings, parse_config
from otus.errors import DataError

SHA256 = "0" * 64
BEATS = {"checkpoint": "/b.pt", "sha256": SHA256}


def refusal(training):
    """What is said of a config with this training configuration, `mine`."""
    with pytest.raises(DataError) as error:
        parse_config({"corpus": {"root": "/data", "targets": ["hum"]}, "training": {"mine": training}})
    return str(error.value)


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        (
            {"architecture": "crnn", "dense_resnet": {"channels": 32}},
            "dense_resnet is set but the architecture is crnn",
        ),
        ({"architecture": "dense_resnet", "crnn": {"dropout": 0.5}}, "crnn is set but the architecture is dense_resn"),
        ({"architecture": "crnn", "beats": BEATS}, "beats is set but the architecture is crnn; drop one of them"),
        ({"architecture": "crnn", "timm": {"backbone": "a"}}, "timm is set but the architecture is crnn"),
        ({"architecture": "beats"}, "architecture beats needs the key beats"),
        ({"architecture": "timm"}, "architecture timm needs the key timm"),
        ({"architecture": "beats", "beats": BEATS, "objective": "clip"}, "architecture beats knows the objective"),
        ({"epochs": 0}, "epochs: 0 needs architecture resnet18 and resnet18.checkpoint"),
        ({"architecture": "resnet18", "epochs": 0}, "epochs: 0 needs architecture resnet18 and resnet18.checkpoint"),
    ],
)
def test_a_training_that_contradicts_itself_is_refused(training, expected):
    text = refusal(training)
    assert f"'training.mine': {expected}" in text


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({"noise_low_db": 20}, "noise_low_db (20) must not lie above noise_high_db (12)"),
        ({"mix_high_db": -9}, "mix_low_db (-8) must not lie above mix_high_db (-9)"),
    ],
)
def test_levels_of_mixing_are_in_order(levels, expected):
    assert f"'training.mine.augmentation': {expected}" in refusal({"augmentation": levels})


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        (
            {"architecture": "beats", "beats": {"checkpoint": "/b.pt"}},
            "the key 'training.mine.beats.sha256' is missing",
        ),
        ({"architecture": "timm", "timm": {}}, "the key 'training.mine.timm.backbone' is missing"),
        (
            {"architecture": "timm", "timm": {"backbone": "a", "weights": "/w"}},
            "'training.mine.timm': weights need sha256, the digest that the file must have",
        ),
    ],
)
def test_the_section_of_a_network_has_to_be_complete(training, expected):
    assert expected in refusal(training)


def test_the_network_is_that_of_the_architecture():
    sections = {"beats": BEATS, "timm": {"backbone": "a"}}
    for name in ("tcn", "crnn", "dense_resnet", "resnet18", "beats", "timm"):
        section = {name: sections[name]} if name in sections else {}
        settings = TrainingSettings(architecture=name, **section)
        assert settings.network == getattr(settings, name)
        assert TrainingSettings.model_validate(settings.model_dump(mode="json")) == settings
    imported = {"architecture": "resnet18", "epochs": 0, "resnet18": {"checkpoint": "/a.pk"}}
    assert TrainingSettings.model_validate(imported).epochs == 0
    assert TrainingSettings(architecture="crnn", dense_resnet={}).crnn == CrnnSettings(), "a default is no choice"


@pytest.mark.parametrize(("n_batches", "epochs"), [(1, 40), (10, 40), (20, 25), (50, 10), (1000, 5)])
def test_epochs_that_nobody_sets_make_about_500_batches(n_batches, epochs):
    assert TrainingSettings().n_epochs(n_batches) == epochs
    assert TrainingSettings(epochs=3).n_epochs(n_batches) == 3
