"""The numbers of the evaluator of the alpaca pipelines, as it computed them, for comparison with its tables.

They are not those of otus.metrics: each call in turn takes the best selection that is left, all tapes are one, and an
empty denominator gives 0. False alarms have no quality, so `f1_q` counts as false what hit a call of another quality.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from otus.matching import Intervals, match_greedily

Reals = NDArray[np.float64]

#: The qualities that are counted apart.
_QUALITIES = (1, 2, 3)

#: The columns of metrics_per_tape.csv and metrics.csv before those that say what was evaluated.
TAPE_COLUMNS = (
    *("n_gt", "n_pred", "tp", "fp", "fn", "precision", "recall", "f1", "mean_dstart_ms", "mean_dend_ms"),
    *(f"{name}_q{quality}" for quality in _QUALITIES for name in ("recall", "f1")),
)
COLUMNS = (*TAPE_COLUMNS, "pearson_calls", "spearman_calls")


def evaluate_tapes(
    calls: pd.DataFrame, found: pd.DataFrame, iou: float
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return the COLUMNS over all tapes, and the TAPE_COLUMNS of every tape with a call or a selection.

    `calls` has tape, label, start_s, end_s and quality (a whole number, or missing), `found` the first four. A call is
    matched with selections of its own label. Where there is nothing to average, and for a quality that no call has,
    the value is NaN; so are the correlations with fewer than two tapes, or where a count is the same in all of them.
    """
    tapes = sorted({*calls["tape"], *found["tape"]})
    calls_of, found_of = (dict(list(rows.groupby(["tape", "label"]))) for rows in (calls, found))
    judged: dict[str, list[pd.DataFrame]] = {tape: [] for tape in tapes}
    for tape, label in sorted({*calls_of, *found_of}):
        own = calls_of.get((tape, label), calls.iloc[:0]), found_of.get((tape, label), found.iloc[:0])
        judged[tape].append(_judged(*own, iou))
    n_found = found["tape"].value_counts()
    counts = {tape: int(n_found.get(tape, 0)) for tape in tapes}
    parts = {tape: pd.concat(rows, ignore_index=True) for tape, rows in judged.items()}
    everything = pd.concat([_judged(calls.iloc[:0], found.iloc[:0], iou), *parts.values()], ignore_index=True)
    heard = [(len(rows), counts[tape]) for tape, rows in parts.items() if len(rows)]
    total = _numbers(everything, len(found)) | _correlations(heard)
    return total, {tape: _numbers(rows, counts[tape]) for tape, rows in parts.items()}


def _judged(calls: pd.DataFrame, found: pd.DataFrame, iou: float) -> pd.DataFrame:
    """A row per call: its quality, whether it was found, and how far the ends are off (s)."""
    pairs = match_greedily(Intervals.of(calls), Intervals.of(found), iou)
    rows = pd.DataFrame({"quality": calls["quality"].astype(float).to_numpy(), "hit": np.zeros(len(calls), dtype=bool)})
    hit = rows["hit"].to_numpy(copy=True)
    hit[pairs.annotation] = True
    rows["hit"] = hit
    for name in ("start_s", "end_s"):
        off = np.full(len(calls), np.nan)
        theirs, ours = found[name].to_numpy(dtype=float), calls[name].to_numpy(dtype=float)
        off[pairs.annotation] = np.abs(theirs[pairs.selection] - ours[pairs.annotation])
        rows[f"off_{name}"] = off
    return rows


def _numbers(calls: pd.DataFrame, n_found: int) -> dict[str, float]:
    """The TAPE_COLUMNS of judged calls and a number of selections."""
    n_calls, tp = len(calls), int(calls["hit"].sum())
    values: dict[str, float] = {"n_gt": n_calls, "n_pred": n_found, "tp": tp, "fp": n_found - tp, "fn": n_calls - tp}
    values |= {"precision": _ratio(tp, n_found), "recall": _ratio(tp, n_calls), "f1": _ratio(2 * tp, n_found + n_calls)}
    for name, column in (("mean_dstart_ms", "off_start_s"), ("mean_dend_ms", "off_end_s")):
        values[name] = 1000.0 * float(calls[column].mean()) if tp else math.nan
    for quality in _QUALITIES:
        own = calls["quality"].to_numpy() == quality
        n_own, tp_own = int(own.sum()), int(calls["hit"].to_numpy()[own].sum())
        of_others = tp - tp_own
        values[f"recall_q{quality}"] = tp_own / n_own if n_own else math.nan
        values[f"f1_q{quality}"] = _ratio(2 * tp_own, tp_own + of_others + n_own) if n_own else math.nan
    return {name: values[name] for name in TAPE_COLUMNS}


def _correlations(counts: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Correlations of the numbers of calls and of selections, over tapes with calls."""
    n_calls, n_found = np.asarray(counts, dtype=float).reshape(-1, 2).T
    return {
        "pearson_calls": _correlation(n_calls, n_found),
        "spearman_calls": _correlation(rankdata(n_calls), rankdata(n_found)),
    }


def _correlation(one: Reals, other: Reals) -> float:
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(np.corrcoef(one, other)[0, 1])


def metrics_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return `rows` as CSV with these columns; what is NaN stays blank."""
    return str(pd.DataFrame(list(rows), columns=list(columns)).to_csv(index=False, lineterminator="\n"))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
