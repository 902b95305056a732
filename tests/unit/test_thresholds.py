"""thresholds.yaml."""

from dataclasses import replace

import pytest
import yaml

from otus.errors import DataError
from otus.evaluation.calibration import Calibration
from otus.evaluation.thresholds import (
    ChosenPoint,
    Reached,
    ThresholdCurve,
    points_in_words,
    read_thresholds,
    write_thresholds,
)
from otus.selections import DecodingPoint

PLATT = Calibration("platt", 71, 38, "isotonic needs 200 selections, validation has 71", 1 / 3, -1.5505401912754412)
POINT = ChosenPoint(
    threshold=0.1 + 0.2,
    decoding=DecodingPoint(0.3, 1.0, 0.0, 0.08504152184999994, 1e-7),
    val_f1=0.76,
    val_average_precision=2 / 3,
    n_calls=39,
    calibration=PLATT,
    curve=ThresholdCurve((0.9, 0.3), (1.0, 0.5), (0.1, 0.9), (0.2, 0.6), (0.0, 12.5)),
    reached=Reached("the best F1", 1.25, 60, 30, 0.5, 0.7692, 0.6061, 24.0),
)
UNION = replace(
    POINT,
    decoding=DecodingPoint(0.8, 1.0, 0.0, 0.0, 0.0, "union", smoothing_by="ema", max_duration_s=2.5, window_s=0.4),
    calibration=Calibration("isotonic", 200, 100, knots=(-3.25, 1e-9, 4.0), values=(0.0, 0.1, 1.0)),
)
EMPTY = replace(POINT, calibration=Calibration("none", 0, 0, "only 0 hits"), curve=ThresholdCurve(), n_calls=0)
EMPTY = replace(EMPTY, reached=Reached("the best recall", 1.0, note="no annotated call on validation"))


def test_what_was_written_is_read_exactly(tmp_path):
    chosen = {2: {"hum": POINT, "no": EMPTY}, 1: {"hum": UNION, "no": POINT}}
    write_thresholds(tmp_path / "thresholds.yaml", "grouped-default", chosen)
    assert read_thresholds(tmp_path / "thresholds.yaml") == chosen


@pytest.mark.parametrize("label", ["yes", "1", "1e3", "null", "a: b", "#", "Käuzchen", "'", "%", "- x", "{y}"])
def test_labels_are_data(tmp_path, label):
    write_thresholds(tmp_path / "thresholds.yaml", "m", {1: {label: POINT}})
    assert read_thresholds(tmp_path / "thresholds.yaml") == {1: {label: POINT}}


def test_a_person_can_read_it(tmp_path):
    write_thresholds(tmp_path / "thresholds.yaml", "grouped-default", {1: {"hum": POINT, "cluck": UNION}})
    text = (tmp_path / "thresholds.yaml").read_text()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert "grouped-default" in head[0] and len(head) == text.splitlines().index("version: 2")
    content = yaml.safe_load(text)
    hum, cluck = content["folds"][1]["hum"], content["folds"][1]["cluck"]
    assert list(content["folds"][1]) == ["hum", "cluck"], "in the order of the config"
    for name in hum:
        assert any(line.split()[1:2] == [name] or f" {name} " in line for line in head), f"{name} is explained"
    assert "knots" not in hum["calibration"] and "slope" not in cluck["calibration"], "nothing that is not meant"
    assert cluck["decoding"]["merge"] == "union" and "window_s" not in hum["decoding"]
    assert hum["reached"]["criterion"] == "the best F1" and "note" not in hum["reached"]
    assert "!!" not in text


OTHER = "not the thresholds of a model, or altered; delete it and run evaluate again"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\nfolds: {}\n", "version 1, this Otus reads 2; delete it and run evaluate again"),
        ("folds: {}\n", OTHER),
        ("", OTHER),
        ("version: 2\nfolds: [1]\n", OTHER),
        ("version: 2\nfolds: {1: {hum: {threshold: 0.3}}}\n", OTHER),
        ("version: [", OTHER),
        ("!!python/object/apply:os.system [exit]", OTHER),
        ("version: 2 # K\xe4uzchen\nfolds: {}\n", OTHER),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "thresholds.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as raised:
        read_thresholds(path)
    assert str(raised.value).startswith(f"{path}: ") and message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nothing.yaml: cannot be read .*; run evaluate again"):
        read_thresholds(tmp_path / "nothing.yaml")


def test_field_that_this_version_does_not_know_is_refused(tmp_path):
    write_thresholds(tmp_path / "thresholds.yaml", "m", {1: {"hum": POINT}})
    text = (tmp_path / "thresholds.yaml").read_text()
    (tmp_path / "thresholds.yaml").write_text(text.replace("n_calls: 39", "n_calls: 39\n      extra: 1"))
    with pytest.raises(DataError, match=OTHER):
        read_thresholds(tmp_path / "thresholds.yaml")


def test_every_point_and_every_note_is_a_line_of_the_log():
    first, second, third, fourth, fifth = points_in_words({1: {"hum": POINT}, 2: {"no": EMPTY}})
    assert first == (
        "fold 1 hum: threshold 0.3 by the best F1; on validation F1 0.606, recall 0.769, 24 false alarms per hour"
    )
    assert second == "fold 1 hum: isotonic needs 200 selections, validation has 71"
    assert third.startswith("fold 2 no: threshold 0.3 by the best recall")
    assert [fourth, fifth] == ["fold 2 no: no annotated call on validation", "fold 2 no: only 0 hits"]
