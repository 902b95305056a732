import pytest
from pydantic import ValidationError

from otus.config import Config, ExternalSettings, parse_config
from otus.errors import DataError

COMMAND = {"runner": "command", "command": ["detect", "{input}", "{output}"]}
HAWKEARS = {"runner": "hawkears", "min_score": 0.2}


def config(**external):
    return {"corpus": {"root": "r", "targets": ["owl", "jay"]}, "external": external}


@pytest.mark.parametrize("settings", [COMMAND, HAWKEARS, {"runner": "hawkears", "hawkears": {"segment_s": 3}}])
def test_what_is_needed_is_enough(settings):
    found = ExternalSettings(**settings)
    assert found.label_map(["owl", "jay"]) == {"owl": "owl", "jay": "jay"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"command": []}, "command: name the program"),
        ({"command": ["detect", "{output}"]}, "{input} (the sound file) is missing"),
        ({"command": ["detect", "{input}"]}, "either command has {output}, or output names the file"),
        ({"output": "x.csv"}, "either command has {output}, or output names the file"),
        ({"command": ["detect", "{input}"], "output": "a/x.csv"}, "without folders"),
        ({"command": ["detect", "{input}"], "output": ""}, "without folders"),
        ({"min_score": 5}, "min_score is no probability"),
        ({"hawkears": {"models": 2}}, "hawkears has no effect with runner: command"),
        ({"format": "audacity", "columns": {"label": "x"}}, "columns has no effect with format: audacity"),
        ({"format": "raven", "columns": {"start": "x"}}, "start and end of a Raven table"),
        ({"format": "wav"}, "format"),
        ({"columns": {"begin": "x"}}, "begin"),
        ({"low_hz": 500, "high_hz": 400}, "high_hz is not above low_hz"),
        ({"max_failed_fraction": 1.5}, "max_failed_fraction"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"gap_s": -1}, "gap_s"),
        ({"threads": 0}, "threads"),
    ],
)
def test_a_command_that_cannot_work_is_refused(change, sentence):
    with pytest.raises(ValidationError) as caught:
        ExternalSettings(**{**COMMAND, **change})
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"command": ["x", "{input}"]}, "command has no effect with runner: hawkears"),
        ({"format": "raven"}, "format has no effect with runner: hawkears"),
        ({"columns": {"start": "x"}}, "columns has no effect"),
        ({"scores": "number"}, "HawkEars reports probabilities"),
        ({"min_score": None}, "one selection per label and file"),
        ({"min_score": 0}, "one selection per label and file"),
    ],
)
def test_a_hawkears_that_cannot_work_is_refused(change, sentence):
    with pytest.raises(ValidationError) as caught:
        ExternalSettings(**{**HAWKEARS, **change})
    assert sentence in str(caught.value)


def test_labels_lead_to_targets_and_names_are_free():
    with pytest.raises(DataError, match=r"external.birds.labels.OWL: 'hawk' is no target; there are owl, jay"):
        parse_config(config(birds={**COMMAND, "labels": {"OWL": "hawk"}}))
    with pytest.raises(DataError, match=r"external.default: a training configuration has this name"):
        parse_config(config(default=COMMAND))
    with pytest.raises(DataError, match=r"unknown key 'external.birds.comand'; did you mean 'command'"):
        parse_config(config(birds={**COMMAND, "comand": []}))


def test_without_detectors_nothing_is_there():
    assert Config.model_validate({"corpus": {"root": "r", "targets": ["owl"]}}).external == {}
