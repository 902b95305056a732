"""What the forest behind a detector changes: a verdict in words for every model, and the numbers behind it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from otus.config import EvaluationSettings
from otus.layout import Table
from otus.report.differences import (
    Difference,
    difference_of,
    evidence_in_words,
    labels_of,
    p_in_words,
)
from otus.report.leaderboard import at_iou, deciding_iou, with_interval
from otus.report.results import DASH, MOST_ROWS, Row, aims_at_f1, amount, as_sentence, cell, model_name
from otus.tables import FILTERED, SEE_FORESTS

#: The measure that compares the false alarms of two layers where both find the same share of the calls.
AT_EQUAL_RECALL = "false_alarms_per_hour_at_equal_recall"

_MOST_REASONS = 3

#: Post-filters that are no random forest, as forests.json calls them.
_KINDS = {"boosting": "a set of gradient-boosted trees", "logistic": "a logistic regression"}

Fits = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Gain:
    """What a forest changes: `verdict` says it in a sentence or two, `warning` marks one that speaks against it."""

    model: str
    verdict: str
    warning: bool


def verdicts(
    differences: pd.DataFrame, metrics: pd.DataFrame, board: pd.DataFrame, forests: Fits, evaluation: EvaluationSettings
) -> list[Gain]:
    """Return what the forest of each model changes, in the order of the leader board; none without a layer +rf.

    `forests` holds the forests.json of the models: an entry per forest, with the reason where it is not used. Where
    `evaluation` does not choose by F1, F1 is no verdict.
    """
    rows = at_iou(differences, "iou", deciding_iou(metrics))
    found = []
    for alone, filtered in _pairs(board):
        if filtered["label"] != labels_of(board)[0]:
            continue
        unfitted, all_of_them = _without_forest(forests.get(filtered["model"], ()))
        f1, alarms = (difference_of(rows, filtered, alone, name) for name in ("f1", AT_EQUAL_RECALL))
        judged, warning = _verdict(f1, alarms, str(alone["layer"]))
        if f1 is not None and f1.tested and not aims_at_f1(evaluation):
            judged, warning = _beside_the_aim(f1, alarms), False
        name = model_name(filtered)
        if all_of_them:
            found.append(Gain(name, f"{unfitted} The layer {filtered['layer']} is the layer {alone['layer']}.", True))
        else:
            found.append(Gain(name, " ".join(part for part in (judged, unfitted) if part), warning or bool(unfitted)))
    return found


def gain_table(differences: pd.DataFrame, metrics: pd.DataFrame, board: pd.DataFrame) -> Table | None:
    """Return each model alone and with its forest side by side, a row per label; None if no model has a forest."""
    rows = at_iou(differences, "iou", deciding_iou(metrics))
    body = []
    pairs = _pairs(board)
    for alone, filtered in pairs[:MOST_ROWS]:
        f1, alarms = (difference_of(rows, filtered, alone, name) for name in ("f1", AT_EQUAL_RECALL))
        compared = [f1.with_interval(), p_in_words(f1.p_value)] if f1 else [DASH, DASH]
        rates = [cell(alarms.other, 1), cell(alarms.value, 1)] if alarms else [DASH, DASH]
        f1s = [with_interval(row, "f1", DASH) for row in (alone, filtered)]
        counts = [f"{cell(alone[name], 0)} → {cell(filtered[name], 0)}" for name in ("tp", "fp")]
        body.append([model_name(filtered), cell(filtered["label"]), *f1s, *compared, *rates, *counts])
    columns = ["Model", "Label", "F1, alone", "F1, with forest", "Difference", "p"]
    columns += ["False alarms/h, alone*", "False alarms/h, with forest*", "Hits", "False alarms"]
    left_out = len(pairs) - len(body)
    return Table(columns, body, text_columns=2, left_out=left_out, rest="differences.csv") if body else None


def reasons(forests: Fits) -> frozenset[str]:
    """Return what notes hold that say that a forest was not used, and why."""
    said = (str(fit["reason"]).rstrip(".") for fits in forests.values() for fit in fits if fit["reason"])
    return frozenset([*said, SEE_FORESTS])


def other_kinds(forests: Fits) -> str:
    """Return a sentence if what is called a forest is something else; empty text if all are random forests."""
    kinds = {str(fit["kind"]) for fits in forests.values() for fit in fits} & set(_KINDS)
    if not kinds:
        return ""
    return f"What is called a forest here (+rf) is {' or '.join(_KINDS[kind] for kind in sorted(kinds))}."


def _pairs(board: pd.DataFrame) -> list[tuple[Row, Row]]:
    """The rows of a layer before and behind its forest, in the order of those behind."""
    rows: dict[tuple[Any, ...], Row] = {(r["model"], r["label"], r["layer"]): r for r in board.to_dict("records")}
    behind = [row for row in rows.values() if str(row["layer"]).endswith(FILTERED)]
    keys = [(row["model"], row["label"], str(row["layer"]).removesuffix(FILTERED)) for row in behind]
    return [(rows[key], row) for key, row in zip(keys, behind, strict=True) if key in rows]


def _verdict(f1: Difference | None, alarms: Difference | None, layer: str) -> tuple[str, bool]:
    """What the difference says, and whether it speaks against the forest."""
    if f1 is None:
        return "Nothing is known of the difference.", False
    if not f1.tested:
        return f"No difference could be tested: F1 {_from_to(f1)}, but an interval needs several groups.", False
    words = f"F1 {_from_to(f1)} {evidence_in_words(f1)}"
    if f1.shown and f1.difference > 0:
        return f"The forest helps: {words}.{_rates(alarms)}", False
    if f1.shown:
        return f"The forest does harm: {words}; use the layer {layer}.{_rates(alarms)}", True
    apart = f1.low > 0 or f1.high < 0
    why = " The interval leaves out 0, but the test does not bear it out." if apart else ""
    if alarms is not None and alarms.shown and alarms.difference < 0:
        return f"The forest helps where both find the same calls:{_rates(alarms)} In F1 no difference: {words}.", False
    return f"No difference could be shown: {words}.{why}{_rates(alarms)}", False


def _beside_the_aim(f1: Difference, alarms: Difference | None) -> str:
    """What changes where something else than F1 was chosen by."""
    words = f"F1 {_from_to(f1)} {evidence_in_words(f1)}"
    what_to_do = "The operating points were not chosen by F1: compare hits and false alarms in the table."
    return f"{words}. {what_to_do}{_rates(alarms)}"


def _from_to(f1: Difference) -> str:
    return f"{cell(f1.value)} instead of {cell(f1.other)}"


def _rates(alarms: Difference | None) -> str:
    """The false alarms per hour at equal recall, as a sentence."""
    if alarms is None or pd.isna(alarms.value) or pd.isna(alarms.other):
        return ""
    shown = "" if alarms.shown or not alarms.tested else ", which may be chance"
    return f" At equal recall {cell(alarms.value, 1)} false alarms per hour instead of {cell(alarms.other, 1)}{shown}."


def _without_forest(fits: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """How many forests there are not, and why, as a sentence; and whether there is none at all.

    Of reasons that differ in their numbers only, after the colon, the part before it is said once.
    """
    counted = Counter(str(fit["reason"]) for fit in fits if fit["reason"])
    missing = sum(counted.values())
    if missing == 0:
        return "", False
    labels, folds = len({fit["label"] for fit in fits}), len({fit["fold"] for fit in fits})
    of = "folds" if labels == 1 else f"fits ({amount(folds, 'fold')}, {labels} labels)"
    said = f"No forest was used in {missing} of {len(fits)} {of}"
    alike = Counter[str]()
    for reason, n in counted.items():
        alike[reason.split(": ")[0] if len(counted) > 1 else reason] += n
    told = [reason.rstrip(".") for reason, _ in alike.most_common(_MOST_REASONS)]
    if len(told) == 1:
        return f"{said}: {_within(told[0])}.", missing == len(fits)
    why = " ".join(as_sentence(reason) for reason in told)
    more = " There are other reasons, too." if len(alike) > _MOST_REASONS else ""
    return f"{said}. {why}{more}", missing == len(fits)


def _within(reason: str) -> str:
    """A sentence as it stands after a colon; its first word keeps a capital that is not that of the sentence."""
    return reason if reason[:2].isupper() or reason[1:2].isdigit() else reason[0].lower() + reason[1:]
