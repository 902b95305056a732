"""thresholds.yaml: the operating point of every fold and label of a model, with the validation curve behind it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from otus.atomic import write_text
from otus.errors import DataError
from otus.evaluation.calibration import Calibration
from otus.selections import DecodingPoint

VERSION = 2

_HEADER = """\
# Model {model}: which selections count, fold by fold and label by label, chosen on validation groups.
#
# threshold               a selection counts if its peak score reaches this (a probability of the network)
# decoding                how frame scores become selections (thresholds are probabilities of the network; durations
#                         were set in units of median_call_s, the shortest in units of short_call_s)
# val_f1                  best F1 of this decoding on validation
# val_average_precision   average precision of this decoding on validation
# n_calls                 annotated calls of the label on validation
# calibration             how the peak score (as a logit) becomes the probability of a hit, the column probability:
#                         platt, temperature: 1 / (1 + exp(-(slope * peak + intercept)));
#                         isotonic: straight lines between knots (peak) and values (probability); none: no probability;
#                         fitted on n selections of validation, n_hits of them hits
# curve                   what this and other thresholds reach on validation, highest first
# reached                 by what validation chose (criterion), and what threshold and decoding reach in its hours of
#                         sound: selections (n_pred), hits (tp), and ratios; a note where the criterion could not decide
#
# Written by the rules evaluate_model and evaluate_external, read by the post-filter and the exports. To change what is
# chosen from, set evaluation.decoding in the config; to change by what, set evaluation.choice.
"""


@dataclass(frozen=True)
class ThresholdCurve:
    """What some thresholds (probabilities) reach on validation, highest first; rounded."""

    threshold: tuple[float, ...] = ()
    precision: tuple[float, ...] = ()
    recall: tuple[float, ...] = ()
    f1: tuple[float, ...] = ()
    false_alarms_per_hour: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reached:
    """What was chosen by (`criterion`, in words), and what the chosen point reaches in `hours` of validation; rounded.

    Ratios without a denominator are 0. `note` says where the criterion could not decide.
    """

    criterion: str = ""
    hours: float = 0.0
    n_pred: int = 0
    tp: int = 0
    precision: float = 0.0
    recall: float = 0.0
    f1: float = 0.0
    false_alarms_per_hour: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class ChosenPoint:
    """What one fold does with the scores of one label, and what that reached on validation."""

    threshold: float
    decoding: DecodingPoint
    val_f1: float
    val_average_precision: float
    n_calls: int
    calibration: Calibration
    curve: ThresholdCurve
    reached: Reached = Reached()


#: Fold -> label -> what was chosen.
Chosen = Mapping[int, Mapping[str, ChosenPoint]]


def write_thresholds(path: str | Path, model: str, chosen: Chosen) -> None:
    """Write the chosen points of a model as YAML with a header that explains it, atomically."""
    folds = {fold: {label: _readable(point) for label, point in labels.items()} for fold, labels in chosen.items()}
    content = {"version": VERSION, "model": model, "folds": folds}
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    write_text(path, _HEADER.format(model=model) + text)


def read_thresholds(path: str | Path) -> dict[int, dict[str, ChosenPoint]]:
    """Return the chosen points by fold and label, as they were written.

    Raises DataError if the file is missing or is no thresholds.yaml of this version.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        version = content["version"]
        if version == VERSION:
            return {
                int(fold): {str(label): _point(values) for label, values in labels.items()}
                for fold, labels in content["folds"].items()
            }
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run evaluate again.") from error
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise DataError(
            f"{path}: not the thresholds of a model, or altered; delete it and run evaluate again."
        ) from error
    raise DataError(
        f"{path}: thresholds of version {version}, this Otus reads {VERSION}; delete it and run evaluate again."
    )


def points_in_words(chosen: Chosen) -> Iterator[str]:
    """Yield a line for a log on every chosen point, and one for each of its notes."""
    for fold, labels in chosen.items():
        for label, point in labels.items():
            got = point.reached
            yield (
                f"fold {fold} {label}: threshold {point.threshold:.3g} by {got.criterion}; on validation F1 "
                f"{got.f1:.3f}, recall {got.recall:.3f}, {got.false_alarms_per_hour:.3g} false alarms per hour"
            )
            yield from (f"fold {fold} {label}: {note}" for note in (got.note, point.calibration.reason) if note)


def _readable(point: ChosenPoint) -> dict[str, Any]:
    """The fields, without those of the calibration and of the decoding that it does not have, and empty notes."""
    values = asdict(point)
    for part in ("decoding", "calibration", "reached"):
        values[part] = {k: v for k, v in values[part].items() if v not in (None, (), "")}
    return values


def _point(values: Mapping[str, Any]) -> ChosenPoint:
    parts = {
        "decoding": DecodingPoint(**values["decoding"]),
        "calibration": Calibration(**_with_tuples(values["calibration"])),
        "curve": ThresholdCurve(**_with_tuples(values["curve"])),
        "reached": Reached(**values["reached"]),
    }
    return ChosenPoint(**{**values, **parts})


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
