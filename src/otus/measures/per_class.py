"""One row of numbers per label, one for all of them pooled (`micro`) and one for the mean over labels (`macro`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.bootstrap import correlation_interval, effective_groups, group_draws, rate_interval, share_interval
from otus.config import EvaluationSettings
from otus.measures.correlations import Counts, drawn_correlations
from otus.measures.coverage import Estimate, layer_psds
from otus.measures.evidence import TestedLayer
from otus.measures.facts import Counted, LabelFacts, added_up, groups_of, label_facts
from otus.measures.notes import Truth, row_notes, truth_of
from otus.measures.ranked import Ranked, drawn_average_precision, ranked_events
from otus.rates import summarise_errors
from otus.tables import MACRO, MICRO, table

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]

_RATE = "false_alarms_per_hour"
_CORRELATIONS = ("count_pearson", "count_spearman")


@dataclass(frozen=True)
class _Layer:
    """What is the same for all labels: the groups, their hours, and how often each resample holds each group."""

    weights: Reals
    hours: Reals
    group_of: Indices


def per_class_rows(layer: TestedLayer, settings: EvaluationSettings, seed: int) -> pd.DataFrame:
    """Return the table `metrics_per_class` of one layer: a row per label, then micro and macro if there are several.

    Counts, precision, recall, F1, collars, segments, frames and presence are those of the chosen operating point;
    average precision ranks everything that was decoded. Micro adds the counts of all labels up (hours once; presence
    counts recordings once per label). Macro is the mean over the labels that have calls, `n_labels` of them; its counts
    are their sums. PSDS of micro is that of all labels together, of a label that of the label alone. A recording with
    neither call nor selection does not enter presence and the correlations of counts. `n_segments` and `n_frames` are
    the units that count, `n_present` the recordings with a call. Intervals resample groups; those of PSDS have 200
    resamples at most.
    """
    names, group_of = groups_of(layer)
    draws = group_draws(names, n=settings.bootstrap, seed=seed)
    seconds = layer.recordings["duration_s"].to_numpy(dtype=float)
    hours = np.bincount(group_of, weights=seconds, minlength=len(names)) / 3600.0
    same = _Layer(draws.weights, hours, group_of)
    facts = {label: label_facts(layer, label, settings) for label in layer.labels}
    psds = layer_psds(layer, draws.weights)
    estimates = {
        label: _estimates(own, same) | dict(zip(("psds1", "psds2"), scores, strict=True))
        for (label, own), scores in zip(facts.items(), psds.alone, strict=True)
    }
    rows = [_row(layer, label, facts[label], estimates[label], same, 1) for label in layer.labels]
    if len(layer.labels) > 1:
        pooled = replace(added_up(list(facts.values())), ranked=ranked_events(layer, layer.labels))
        micro = _estimates(pooled, same) | dict(zip(("psds1", "psds2"), psds.together, strict=True))
        rows.append(_row(layer, MICRO, pooled, micro, same, len(layer.labels)))
        with_calls = [label for label, own in facts.items() if own.calls.n_gt.sum() > 0]
        macro = _macro([estimates[label] for label in with_calls], micro)
        some = added_up([facts[label] for label in with_calls or layer.labels])
        rows.append(_row(layer, MACRO, some, macro, same, len(with_calls)))
    return table("metrics_per_class", rows)


def _estimates(facts: LabelFacts, same: _Layer) -> dict[str, Estimate]:
    """Every measure but PSDS, with its resamples."""
    weights = same.weights
    found = {name: _share(facts.calls, name, weights) for name in ("precision", "recall", "f1")}
    found["average_precision"] = _average_precision(facts.ranked, facts.calls.n_gt, weights)
    for way in ("onset", "onset_offset", "segment", "frame"):
        found[f"{way}_f1"] = _share(getattr(facts, way), "f1", weights)
    found["segment_average_precision"] = _average_precision(facts.ranked_segments, facts.segment.n_gt, weights)
    found["frame_average_precision"] = _average_precision(facts.ranked_frames, facts.frame.n_gt, weights)
    for name in ("precision", "recall", "f1"):
        found[f"presence_{name}"] = _share(facts.presence, name, weights)
    alarms = facts.calls.n_pred - facts.calls.tp
    found[_RATE] = _ratio(alarms, same.hours, weights)
    holds = (facts.recording_n_gt + facts.recording_n_pred) > 0
    counts = Counts(facts.recording_n_gt[holds], facts.recording_n_pred[holds], same.group_of[holds])
    n_groups = effective_groups(np.bincount(counts.group).astype(np.float64))
    for name, (value, resampled) in zip(_CORRELATIONS, drawn_correlations(counts, weights), strict=True):
        found[name] = Estimate(value, resampled, n_groups)
    return found


def _share(counted: Counted, name: Literal["precision", "recall", "f1"], weights: Reals) -> Estimate:
    if name == "f1":
        return _ratio(2.0 * counted.tp, counted.n_pred + counted.n_gt, weights)
    return _ratio(counted.tp, counted.n_pred if name == "precision" else counted.n_gt, weights)


def _ratio(part: Reals, whole: Reals, weights: Reals) -> Estimate:
    """A ratio of sums over groups; NaN where there is nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = weights @ part / (weights @ whole)
        return Estimate(float(part.sum() / whole.sum()), resampled, effective_groups(whole))


def _average_precision(rows: Ranked, n_gt: Reals, weights: Reals) -> Estimate:
    return Estimate(*drawn_average_precision(rows, n_gt, weights), effective_groups(n_gt))


def _macro(labels: Sequence[Mapping[str, Estimate]], like: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The mean over labels of every measure, and of its resamples; a label in which it is undefined does not count."""
    found = {}
    for name, example in like.items():
        if not labels:
            found[name] = Estimate(np.nan, np.full(len(example.resampled), np.nan), 0)
            continue
        each = np.stack([np.append(own[name].resampled, own[name].value) for own in labels])
        defined = np.isfinite(each)
        with np.errstate(invalid="ignore"):
            means = np.where(defined, each, 0.0).sum(axis=0) / defined.sum(axis=0)
        found[name] = Estimate(float(means[-1]), means[:-1], max(own[name].n_groups for own in labels))
    return found


def _row(
    layer: TestedLayer, label: str, facts: LabelFacts, estimates: Mapping[str, Estimate], same: _Layer, n_labels: int
) -> dict[str, Any]:
    n_gt, n_pred, tp = (int(getattr(facts.calls, name).sum()) for name in ("n_gt", "n_pred", "tp"))
    errors = {name: summarise_errors(getattr(facts, f"{name}_s")) for name in ("onset_error", "offset_error")}
    row: dict[str, Any] = {name: getattr(layer, name) for name in ("model", "layer", "fold", "iou", "leaky")}
    row |= {"label": label, "n_labels": n_labels, "n_recordings": len(layer.recordings), "n_groups": len(same.hours)}
    row |= {"hours": layer.hours, "n_gt": n_gt, "n_pred": n_pred, "tp": tp, "fp": n_pred - tp, "fn": n_gt - tp}
    for name, own in estimates.items():
        if name == _RATE:
            interval = rate_interval(own.value, own.resampled, own.n_groups, layer.hours)
        elif name in _CORRELATIONS:
            interval = correlation_interval(own.value, own.resampled, own.n_groups)
        else:
            interval = share_interval(own.value, own.resampled, own.n_groups)
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    for name, error in errors.items():
        row |= {f"{name}_median_s": error.median, f"{name}_p90_s": error.p90}
    row |= {"n_errors": errors["onset_error"].n, "n_onset_hits": int(facts.onset.tp.sum())}
    row |= {"n_onset_offset_hits": int(facts.onset_offset.tp.sum()), "n_present": int(facts.presence.n_gt.sum())}
    row |= {"n_segments": facts.n_segments, "n_frames": facts.n_frames}
    return row | {"note": row_notes(_truth(layer, label), leaky=layer.leaky)}


def _truth(layer: TestedLayer, label: str) -> Truth:
    calls = layer.calls if label in (MICRO, MACRO) else layer.calls[layer.calls["label"] == label]
    return truth_of(calls, layer.recordings)
