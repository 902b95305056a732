"""Recall by quality, duration and SNR of the calls, and precision by duration: where a detector is good, and where not.

A selection has a duration of its own, but no quality and no SNR, so that false alarms fall into bins of duration alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.bootstrap import GroupDraws, effective_groups, group_draws, share_interval
from otus.config import EvaluationSettings
from otus.measures.evidence import TestedLayer
from otus.measures.facts import label_sets
from otus.metrics import Interval, ratio
from otus.rates import summarise_errors
from otus.tables import table

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: The bins of calls whose quality nobody gave, and whose SNR could not be measured.
NOT_GIVEN, NOT_MEASURED = "none given", "not measured"

_ERRORS = ["onset_error_s", "offset_error_s"]


@dataclass(frozen=True)
class _Bin:
    """The calls (and false alarms, None where they have no bin) of one bin; its borders are NaN where it has none."""

    name: str
    low: float
    high: float
    calls: Mask
    alarms: Mask | None


def stratum_rows(layer: TestedLayer, settings: EvaluationSettings, seed: int) -> pd.DataFrame:
    """Return the table `strata` of a layer at its chosen operating point and the IoU that decides.

    For every label, and for all together ('micro') where there are several, a row per bin of quality (every value that
    occurs), duration (`settings.strata`, or thirds of the annotated calls) and SNR: calls and how many were found,
    recall, and the median boundary errors of those found. In a bin of duration also false alarms, by their own
    duration, and precision; a hit counts with its call. Intervals resample the groups of the recordings; null if the
    calls (or selections) of the bin are of fewer than two groups, which n_groups counts. An empty bin stands only
    between others. What no call tells has no rows: quality or SNR that are null for all.
    """
    group_of = layer.recordings.drop_duplicates("recording_id").set_index("recording_id")["group"]
    calls, alarms = _calls(layer, group_of), _alarms(layer, group_of)
    draws = group_draws(layer.recordings["group"].to_numpy(dtype=str), n=settings.bootstrap, seed=seed)
    rows = []
    for label, members in label_sets(layer.labels):
        own_calls, own_alarms = (part[part["label"].isin(members)] for part in (calls, alarms))
        for stratum, bin_ in _bins(own_calls, own_alarms, settings):
            part = _row(own_calls[bin_.calls], None if bin_.alarms is None else own_alarms[bin_.alarms], draws)
            names = {"label": label, "stratum": stratum, "bin": bin_.name, "bin_low": bin_.low, "bin_high": bin_.high}
            rows.append(names | part)
    frame = pd.DataFrame(rows).assign(model=layer.model, layer=layer.layer, iou=layer.iou, leaky=layer.leaky)
    return table("strata", frame)


def _calls(layer: TestedLayer, group_of: "pd.Series[str]") -> pd.DataFrame:
    """The calls with group, duration_s, hit and the boundary errors of the selection that found them."""
    hits = layer.matches[layer.matches["outcome"] == "hit"].set_index("annotation_id")
    calls = layer.calls.assign(
        duration_s=layer.calls["end_s"] - layer.calls["start_s"],
        group=layer.calls["recording_id"].map(group_of).astype(str),
        hit=layer.calls["annotation_id"].isin(hits.index),
    )
    return calls.assign(**{name: calls["annotation_id"].map(hits[name]).astype(float) for name in _ERRORS})


def _alarms(layer: TestedLayer, group_of: "pd.Series[str]") -> pd.DataFrame:
    """The false alarms with group and duration_s."""
    alarms = layer.matches[layer.matches["outcome"] == "false_alarm"]
    return alarms.assign(
        duration_s=alarms["end_s"] - alarms["start_s"], group=alarms["recording_id"].map(group_of).astype(str)
    )


def _bins(calls: pd.DataFrame, alarms: pd.DataFrame, settings: EvaluationSettings) -> Iterator[tuple[str, _Bin]]:
    """The bins of every stratum that something is known of."""
    yield from (("quality", bin_) for bin_ in _quality_bins(calls["quality"]))
    duration_s = calls["duration_s"].to_numpy(dtype=float)
    given = settings.strata.duration_edges_s
    edges = _thirds(duration_s) if given is None else np.unique(given)
    if len(duration_s):
        alarm_s = alarms["duration_s"].to_numpy(dtype=float)
        yield from (("duration", bin_) for bin_ in _numeric_bins(duration_s, alarm_s, edges, "s"))
    snr_db = calls["snr_db"].to_numpy(dtype=float)
    if np.isfinite(snr_db).any():
        yield from (
            ("snr", bin_) for bin_ in _numeric_bins(snr_db, None, np.unique(settings.strata.snr_edges_db), "dB")
        )


def _quality_bins(quality: "pd.Series[str]") -> Iterator[_Bin]:
    """A bin for every value, numbers in their order and before other text, and one for the calls without."""
    if quality.isna().all():
        return
    for value in sorted(quality.dropna().unique(), key=_by_number):
        yield _Bin(str(value), math.nan, math.nan, quality.eq(value).fillna(False).to_numpy(dtype=bool), None)
    if quality.isna().any():
        yield _Bin(NOT_GIVEN, math.nan, math.nan, quality.isna().to_numpy(dtype=bool), None)


def _by_number(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _thirds(duration_s: Reals) -> Reals:
    """Borders between the thirds, in three significant digits, so that a bin is what its name says."""
    if len(duration_s) == 0:
        return np.zeros(0)
    return np.unique([float(f"{border:.3g}") for border in np.quantile(duration_s, [1 / 3, 2 / 3])])


def _numeric_bins(calls: Reals, alarms: Reals | None, edges: Reals, unit: str) -> Iterator[_Bin]:
    """The bins between the edges from the first to the last that holds something, and one for values that are NaN.

    A value at an edge belongs to the bin above.
    """
    if len(edges) == 0:
        return
    of_call = np.where(np.isnan(calls), -1, np.searchsorted(edges, calls, side="right"))
    of_alarm = None if alarms is None else np.searchsorted(edges, alarms, side="right")
    held = np.concatenate([of_call[of_call >= 0], of_alarm if of_alarm is not None else np.zeros(0, np.int64)])
    borders = np.concatenate([[math.nan], edges, [math.nan]])
    for number in range(int(held.min()), int(held.max()) + 1):
        low, high = float(borders[number]), float(borders[number + 1])
        inside = None if of_alarm is None else of_alarm == number
        yield _Bin(_range_name(low, high, unit), low, high, of_call == number, inside)
    if (of_call < 0).any():
        yield _Bin(NOT_MEASURED, math.nan, math.nan, of_call < 0, None)


def _range_name(low: float, high: float, unit: str) -> str:
    if math.isnan(low):
        return f"below {high:g} {unit}"
    return f"{low:g} {unit} and more" if math.isnan(high) else f"{low:g} to {high:g} {unit}"


def _row(calls: pd.DataFrame, alarms: pd.DataFrame | None, draws: GroupDraws) -> dict[str, Any]:
    """The counts, ratios and boundary errors of one bin."""
    hit = calls["hit"].to_numpy(dtype=float)
    groups = [calls["group"].to_numpy(dtype=str)]
    n_gt, tp = len(calls), int(hit.sum())
    row: dict[str, Any] = {"n_gt": n_gt, "tp": tp, "fn": n_gt - tp}
    row |= _ratio_columns("recall", hit, np.ones(n_gt), groups[0], draws)
    if alarms is not None:
        groups.append(alarms["group"].to_numpy(dtype=str))
        right = np.concatenate([hit, np.zeros(len(alarms))])
        selected = np.concatenate([hit, np.ones(len(alarms))])
        row |= {"n_pred": tp + len(alarms), "fp": len(alarms)}
        row |= _ratio_columns("precision", right, selected, np.concatenate(groups), draws)
    row["n_groups"] = len(np.unique(np.concatenate(groups)))
    for name in _ERRORS:
        summary = summarise_errors(calls[name].to_numpy(dtype=float))
        row[f"{name.removesuffix('_s')}_median_s"] = summary.median
    return row


def _ratio_columns(
    name: str, part: Reals, whole: Reals, groups: NDArray[np.str_], draws: GroupDraws
) -> dict[str, float]:
    """A share of summed counts under `name`, with its interval."""
    value = ratio(float(part.sum()), float(whole.sum()))
    found = Interval(value, math.nan, math.nan)
    if len(np.unique(groups[whole > 0])) > 1:
        sums = draws.sums(np.stack([part, whole], axis=1), groups)
        with np.errstate(invalid="ignore"):
            found = share_interval(value, sums[:, 0] / sums[:, 1], effective_groups(draws.totals(whole, groups)))
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
