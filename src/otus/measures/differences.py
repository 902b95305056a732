"""What one result is better by than another on the same recordings: layers of a model, and models."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.bootstrap import GroupDraws, group_draws
from otus.config import EvaluationSettings
from otus.measures.evidence import TestedLayer
from otus.measures.facts import groups_of, label_sets
from otus.measures.paired import Measure, Sums, compare, pair_note, row_of
from otus.measures.ranked import GroupCurves, Ranked, group_curves, ranked_events, thinned
from otus.seeds import derive_seed
from otus.tables import FILTERED, table

Reals = NDArray[np.float64]

#: With no more results than this, every pair is compared; with more, each with the best that is not leaky.
_ALL_PAIRS = 8

#: Beside average precision before and behind a forest.
_FEWER_RANKED = "not like with like: the forest ranks its candidates alone, the layer before it everything decoded"

_SLACK = 1e-9
_RESULT = ["model", "layer"]


def layer_differences(layer: TestedLayer, other: TestedLayer, settings: EvaluationSettings, seed: int) -> pd.DataFrame:
    """Return the table `differences` of two layers (value of `layer` less that of `other`) on the recordings of both.

    Per label and, of several, micro. `false_alarms_per_hour_at_equal_recall` is the rate of each at the largest recall
    that both reach and that is not above the recall of `layer` at its chosen operating point. For the p-value of what
    depends on the ranking, the scores of both are put on one scale: how many selections of the layer have as much.
    Intervals of these measures and their p-values come from a thinned set of thresholds. A layer behind a forest ranks
    fewer selections than the one before it, for which its average precision is the lower: the note there says so.
    """
    shared = sorted(set(layer.recordings["recording_id"]) & set(other.recordings["recording_id"]))
    pair = [_only(one, shared) for one in (layer, other)]
    names, _ = groups_of(pair[0])
    draws = group_draws(names, n=settings.bootstrap, seed=seed)
    leaky = layer.leaky or other.leaky
    same: dict[str, Any] = {
        "model": layer.model,
        "layer": layer.layer,
        "other_model": other.model,
        "other_layer": other.layer,
    }
    same |= {"iou": layer.iou, "leaky": leaky, "n_recordings": len(shared), "n_groups": len(names)}
    same |= {"note": pair_note(len(names), leaky=leaky)}
    rows = []
    for label, labels in label_sets(layer.labels):
        ranked = [_by_place(ranked_events(one, labels)) for one in pair]
        threshold = thinned(np.concatenate([one.score for one in ranked]))
        first, second = (
            _sums(one, labels, group_curves(rows_of, len(names), threshold))
            for one, rows_of in zip(pair, ranked, strict=True)
        )
        exact = [_exact(one, rows_of) for one, rows_of in zip((first, second), ranked, strict=True)]
        found = compare(first, second, _OF_COUNTS | _OF_CURVES, draws, derive_seed(seed, label))
        for name, measure in _OF_CURVES.items():
            found[name] = found[name].moved_to(*(float(v[0]) for v in measure.of(exact[0], exact[1])))
        rows += [same | {"label": label} | row_of(compared, name) for name, compared in found.items()]
    if layer.layer.endswith(FILTERED) != other.layer.endswith(FILTERED):
        for row in rows:
            if row["measure"] == "average_precision":
                row["note"] = "; ".join(filter(None, [row["note"], _FEWER_RANKED]))
    return table("differences", rows)


def count_differences(counts: pd.DataFrame, *, labels: Sequence[str], bootstrap: int, seed: int) -> pd.DataFrame:
    """Return the table `differences` across models, per label and, of several, micro.

    `counts` has the rows per recording of the chosen operating points of all models and layers, of single folds; test
    sides at the first IoU are compared, on the recordings that two results have in common (and of which they tested as
    much). Up to 8 results, every pair of different models; of more, each with the best F1 of those that are not leaky
    (if all are, with the best). `model` is the better one of a pair by F1 on its own recordings.
    """
    if counts.empty:
        return table("differences", [])
    iou = float(counts["iou"].iloc[0])
    wanted = counts["selected"].astype(bool) & (counts["split"] == "test") & np.isclose(counts["iou"], iou)
    tested = counts[wanted]
    drawn: dict[tuple[str, ...], GroupDraws] = {}
    rows = []
    for label, of_label in label_sets(labels):
        results = _results(tested[tested["label"].isin(of_label)])
        for first, other in _pairs(results):
            own, others = _common(results[first], results[other])
            names = np.unique(own["group"].to_numpy(dtype=str))
            draws = drawn.setdefault(tuple(names), group_draws(names, n=bootstrap, seed=seed))
            leaky = bool(own["leaky"].any() or others["leaky"].any())
            same: dict[str, Any] = dict(zip(_RESULT, first, strict=True))
            same |= {"other_model": other[0], "other_layer": other[1], "label": label, "iou": iou, "leaky": leaky}
            same |= {"n_recordings": len(own), "n_groups": len(names), "note": pair_note(len(names), leaky=leaky)}
            sums = [_counted(one, draws) for one in (own, others)]
            found = compare(sums[0], sums[1], _OF_COUNTS, draws, derive_seed(seed, label, *first, *other))
            rows += [same | row_of(compared, name) for name, compared in found.items()]
    return table("differences", rows)


def _ratio(parts: Callable[[Sums], tuple[Reals, Reals]]) -> Callable[[Sums, Sums], tuple[Reals, Reals]]:
    """The ratio of each result by itself."""

    def of(first: Sums, other: Sums) -> tuple[Reals, Reals]:
        with np.errstate(invalid="ignore", divide="ignore"):
            one, two = (np.divide(*parts(sums)) for sums in (first, other))
        return one, two

    return of


def _average_precision(first: Sums, other: Sums) -> tuple[Reals, Reals]:
    one, two = (GroupCurves(s.n_gt, s.curve_n_pred, s.curve_tp).average_precision(s.n_gt) for s in (first, other))
    return one, two


def _at_equal_recall(first: Sums, other: Sums) -> tuple[Reals, Reals]:
    """False alarms per hour of both at the recall of the first, or the largest that both reach; NaN if that is 0."""
    n = len(first.n_gt)
    curves = [
        [np.concatenate([np.zeros((n, 1)), c], axis=1) for c in (sums.curve_tp, sums.curve_n_pred)]
        for sums in (first, other)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        recalls = [tp / sums.n_gt[:, None] for (tp, _), sums in zip(curves, (first, other), strict=True)]
        target = np.minimum(first.tp / first.n_gt, np.minimum(*(recall[:, -1] for recall in recalls)))
        rates = []
        for (tp, n_pred), recall, sums in zip(curves, recalls, (first, other), strict=True):
            at = np.argmax(recall >= target[:, None] - _SLACK, axis=1)[:, None]
            alarms = np.take_along_axis(n_pred - tp, at, axis=1)[:, 0]
            rates.append(np.where(target > 0, alarms / sums.hours, np.nan))
    return rates[0], rates[1]


def _calls(first: Sums, _: Sums) -> Reals:
    return first.n_gt


def _found(first: Sums, other: Sums) -> Reals:
    return first.n_pred + other.n_pred


_OF_COUNTS: dict[str, Measure] = {
    "f1": Measure(
        _ratio(lambda s: (2.0 * s.tp, s.n_pred + s.n_gt)), lambda first, other: _found(first, other) + 2 * first.n_gt
    ),
    "precision": Measure(_ratio(lambda s: (s.tp, s.n_pred)), _found),
    "recall": Measure(_ratio(lambda s: (s.tp, s.n_gt)), _calls),
    "false_alarms_per_hour": Measure(_ratio(lambda s: (s.n_pred - s.tp, s.hours)), lambda first, _: first.hours),
}
_OF_CURVES: dict[str, Measure] = {
    "average_precision": Measure(_average_precision, _calls),
    "false_alarms_per_hour_at_equal_recall": Measure(_at_equal_recall, _calls),
}


def _only(layer: TestedLayer, recordings: Sequence[str]) -> TestedLayer:
    """The layer on some of its recordings."""
    names = ("recordings", "calls", "selections", "matches")
    kept = {name: (frame := getattr(layer, name))[frame["recording_id"].isin(recordings)] for name in names}
    return replace(layer, **kept)


def _by_place(rows: Ranked) -> Ranked:
    """The rows with a score that is minus the number of selections of the layer with theirs or a higher one."""
    points = rows.curve()
    place = points.n_pred[np.searchsorted(-points.threshold, -rows.score)]
    return replace(rows, score=-place.astype(np.float64))


def _sums(layer: TestedLayer, labels: Sequence[str], curves: GroupCurves) -> Sums:
    names, group_of = groups_of(layer)
    of_recording = pd.Series(group_of, index=layer.recordings["recording_id"])

    def per_group(rows: pd.DataFrame) -> Reals:
        number = of_recording.reindex(rows["recording_id"]).to_numpy(dtype=np.int64)
        return np.bincount(number, minlength=len(names)).astype(np.float64)

    found = layer.selections[layer.selections["label"].isin(labels) & layer.selections["selected"].astype(bool)]
    seconds = np.bincount(group_of, weights=layer.recordings["duration_s"].to_numpy(dtype=float), minlength=len(names))
    return Sums(
        n_gt=per_group(layer.calls[layer.calls["label"].isin(labels)]),
        n_pred=per_group(found),
        tp=per_group(found[found["hit"].astype(bool)]),
        hours=seconds / 3600.0,
        curve_n_pred=curves.n_pred,
        curve_tp=curves.tp,
    )


def _exact(sums: Sums, rows: Ranked) -> Sums:
    """The sums of all groups, with the curve over all distinct scores."""
    whole, points = sums.drawn(np.ones((1, len(sums.n_gt)))), rows.curve()
    n_pred, tp = (counts[None].astype(np.float64) for counts in (points.n_pred, points.tp))
    return replace(whole, curve_n_pred=n_pred, curve_tp=tp)


def _results(tested: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """The counts of every recording for each model and layer, labels and folds added up; the best F1 first."""
    found = {}
    of_time = ["fold", "recording_id", "group", "duration_s", "leaky"]
    for key, own in tested.groupby(_RESULT, sort=True):
        in_fold = own.groupby(of_time, as_index=False)[["n_gt", "n_pred", "tp"]].sum()
        found[(str(key[0]), str(key[1]))] = in_fold.groupby(["recording_id", "group"], as_index=False).agg(
            **{name: (name, "sum") for name in ("duration_s", "n_gt", "n_pred", "tp")}, leaky=("leaky", "any")
        )

    def f1(key: tuple[str, str]) -> float:
        n_gt, n_pred, tp = found[key][["n_gt", "n_pred", "tp"]].sum()
        return 2.0 * float(tp) / max(float(n_gt + n_pred), 1.0)

    return {key: found[key] for key in sorted(found, key=lambda key: (-f1(key), key))}


def _pairs(results: Mapping[tuple[str, str], pd.DataFrame]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """The pairs of different models that are compared, in the order of the results."""
    sound = [key for key, counts in results.items() if not counts["leaky"].any()]
    with_best = {*sound[:1]} or {*list(results)[:1]}
    for pair in combinations(results, 2):
        if pair[0][0] != pair[1][0] and (len(results) <= _ALL_PAIRS or not with_best.isdisjoint(pair)):
            yield pair


def _common(first: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of both for the recordings of which they tested the same time, in the same order."""
    both = first[["recording_id", "group", "duration_s"]].merge(
        other[["recording_id", "group", "duration_s"]], on=["recording_id", "group"], suffixes=("", "_other")
    )
    shared = both[np.isclose(both["duration_s"], both["duration_s_other"])]["recording_id"].sort_values()
    one, two = (frame.set_index("recording_id").loc[shared].reset_index() for frame in (first, other))
    return one, two


def _counted(rows: pd.DataFrame, draws: GroupDraws) -> Sums:
    values = rows[["n_gt", "n_pred", "tp", "duration_s"]].to_numpy(dtype=float)
    n_gt, n_pred, tp, seconds = draws.totals(values, rows["group"].to_numpy(dtype=str)).T
    none = np.zeros((len(n_gt), 0))
    return Sums(n_gt, n_pred, tp, seconds / 3600.0, none, none)
