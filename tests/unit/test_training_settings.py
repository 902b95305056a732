"""Training configurations: which keys go together, and what follows from them."""

from pathlib import Path

import pytest

from otus.config import CrnnSettings, TrainingSettings, load_config, parse_config
from otus.errors import DataError

CONFIGS = Path(__file__).parents[2] / "config"
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


SPOT = {"architecture": "resnet18"}
PLATEAU = {"schedule": "plateau"}


@pytest.mark.parametrize(
    ("training", "key", "choice"),
    [
        (SPOT | {"frontend": {"bands": 32}}, "frontend", "architecture: resnet18"),
        (SPOT | {"clip_s": 0.4}, "clip_s", "architecture: resnet18"),
        (SPOT | {"cut_frames": 100}, "cut_frames", "architecture: resnet18"),
        (SPOT | {"target_share": 0.5}, "target_share", "architecture: resnet18"),
        (SPOT | {"balance": "groups"}, "balance", "architecture: resnet18"),
        *(
            (SPOT | {"optimisation": {key: 3.0}}, f"optimisation.{key}", "architecture: resnet18")
            for key in ("positive_weight", "onset_weight", "focal_gamma")
        ),
        *(
            (SPOT | {"augmentation": {key: 1}}, f"augmentation.{key}", "architecture: resnet18")
            for key in ("tilt_db", "mix_low_db", "mixup_probability", "shift_bands", "shift_time", "masks")
        ),
        ({"clip_s": 0.4}, "clip_s", "objective: frame"),
        ({"architecture": "beats", "beats": BEATS, "clip_s": 0.4}, "clip_s", "objective: frame"),
        ({"architecture": "beats", "beats": BEATS, "cut_frames": 99}, "cut_frames", "architecture: beats"),
        ({"objective": "clip", "cut_frames": 100}, "cut_frames", "objective: clip"),
        ({"objective": "clip", "optimisation": {"onset_weight": 1}}, "optimisation.onset_weight", "objective: clip"),
        *(
            ({"optimisation": {key: 0.4 if "r" in key else 9}}, f"optimisation.{key}", "optimisation.schedule: cosine")
            for key in ("plateau_patience", "plateau_factor")
        ),
        ({"optimisation": PLATEAU | {"warm_up": 0}}, "optimisation.warm_up", "optimisation.schedule: plateau"),
        (
            {"optimisation": {"method": "adam", "weight_decay": 0.1}},
            "optimisation.weight_decay",
            "optimisation.method: adam",
        ),
    ],
)
def test_a_key_that_would_do_nothing_is_refused(training, key, choice):
    assert f"'training.mine': {key} is set, but {choice} does nothing with it; drop it" in refusal(training)


@pytest.mark.parametrize(
    "training",
    [
        SPOT | {"objective": "clip", "augmentation": {"stretch_time": 2, "noise_probability": 1}, "cuts_per_epoch": 99},
        SPOT | {"optimisation": PLATEAU | {"method": "adam", "plateau_patience": 2, "plateau_factor": 0.1}},
        {"objective": "clip", "clip_s": 0.4, "optimisation": {"focal_gamma": 2, "warm_up": 0}},
        {"cut_frames": 100, "optimisation": {"onset_weight": 1, "weight_decay": 0}},
        {"architecture": "beats", "beats": BEATS | {"cache_tokens": False}, "augmentation": {"masks": 0}},
        SPOT | {"target_share": 0.6, "frontend": {}, "cut_frames": 256},
    ],
)
def test_keys_that_do_something_and_defaults_are_no_mistake(training):
    settings = TrainingSettings.model_validate(training)
    assert TrainingSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_a_share_of_cuts_that_leaves_calls_out_is_refused():
    assert "'training.mine.target_share': Input should be greater than or equal to 0.1" in refusal({"target_share": 0})


@pytest.mark.parametrize(
    ("network", "what"), [({"resnet18": {"sha256": SHA256}}, "checkpoint"), ({"timm": {"backbone": "a"}}, "weights")]
)
def test_a_digest_that_nothing_is_compared_with_is_refused(network, what):
    ((name, section),) = network.items()
    text = refusal({"architecture": name, name: section | {"sha256": SHA256}})
    assert f"'training.mine.{name}': sha256 is set, but there" in text and f"; set {what}" in text


def test_the_layer_of_animal_spot_leaves_the_default_of_a_config_as_it_is():
    given, layer = (CONFIGS / f"{name}.yaml" for name in ("config", "animal_spot"))
    assert load_config([given, layer]).training["default"] == load_config([given]).training["default"]


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
