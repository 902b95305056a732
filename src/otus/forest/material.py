"""What the forests of a model are fitted on and judge: candidates, the time that was searched, and the calls there.

With cross-validation, the forest of a fold is fitted on the selections of all other folds, each made by a network
that never saw the recording (out-of-fold), and judges the test recordings of its fold. With a single split it is
fitted on the validation selections. So it is where a fold tests a site, a recorder or a part of the day: the networks
of the other folds know it. Either way no group is judged by a forest that saw it, except in leaky dataset variants: if
every fold tests every group there, the forest of a fold is fitted on the fold's own validation time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.evaluation.thresholds import Chosen
from otus.selections import logit
from otus.sides import Spans, rows_inside, side_spans, unknown_spans

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]

#: A forest is fitted and its threshold chosen on at least so many groups.
_FEWEST_GROUPS = 2


@dataclass(frozen=True)
class Material:
    """Everything that the forests of all folds and labels are made from.

    `found` are the selections of the layer before (see `material`); `searched` has one row per label, fold, split and
    recording that it searched; `spans` the time of every recording on a side of a fold, by (fold, split); `across`:
    forests are fitted on the other folds.
    """

    found: pd.DataFrame
    searched: pd.DataFrame
    annotations: pd.DataFrame
    unknown: Mapping[str, Spans]
    spans: Mapping[tuple[int, str], Mapping[str, Spans]]
    across: bool
    leaky: bool

    @property
    def candidates(self) -> pd.DataFrame:
        """What a forest may keep, in the order of `found`."""
        return candidates_of(self.found)


@dataclass(frozen=True)
class Side:
    """What was found of one label in some recordings, and the recordings (with group, duration_s, part) and calls."""

    found: pd.DataFrame
    recordings: pd.DataFrame
    calls: pd.DataFrame
    unknown: Mapping[str, Spans]
    leaky: bool

    @property
    def candidates(self) -> pd.DataFrame:
        """What the forest is fitted on or judges, in the order of `found`."""
        return candidates_of(self.found)

    def truth(self, groups: Sequence[str]) -> tuple[Indices, Reals]:
        """Return the number of calls and the hours of each of the groups."""
        number = self.recordings["group"].map({group: i for i, group in enumerate(groups)}).to_numpy(dtype=np.int64)
        calls = self.calls["recording_id"].value_counts().reindex(self.recordings["recording_id"], fill_value=0)
        n_calls = np.bincount(number, weights=calls.to_numpy(dtype=float), minlength=len(groups))
        hours = np.bincount(number, weights=self.recordings["duration_s"] / 3600.0, minlength=len(groups))
        return n_calls.astype(np.int64), hours.astype(np.float64)


def candidates_of(found: pd.DataFrame) -> pd.DataFrame:
    """Return the selections that a forest may keep: those from the permissive threshold on."""
    return found[found["step"] >= 0.0]


def material(
    selections: pd.DataFrame,
    counts: pd.DataFrame,
    recordings: pd.DataFrame,
    annotations: pd.DataFrame,
    splits: pd.DataFrame,
    operating_points: Chosen,
    *,
    iou: float,
    candidate_recall: float,
) -> Material:
    """Return what the forests of a model are made from, given the tables of the layer before (as in `filter_model`).

    `found` has group, `step` (where a selection lies between the permissive threshold, 0, and that of the layer, 1;
    -1 below) and `own_logit` (the layer's threshold in its fold). The permissive threshold keeps `candidate_recall` of
    the best recall on validation. A decoding with one threshold finds nothing below it, so all that it found are
    candidates.
    """
    searched = counts[counts["selected"] & np.isclose(counts["iou"], iou)]
    across = _fits_across(searched)
    parts = [selections.iloc[:0].assign(step=0.0, own_logit=0.0)]
    for (fold, label), rows in selections.groupby(["fold", "label"]):
        chosen = logit(operating_points[int(fold)][label].threshold)
        val_hits = rows.loc[(rows["split"] == "val") & rows["hit"], "peak_score"].to_numpy(dtype=float)
        permissive = float(np.quantile(val_hits, 1 - candidate_recall)) if len(val_hits) else chosen
        step = _steps(rows["peak_score"].to_numpy(dtype=float), min(permissive, chosen), chosen)
        keep = (rows["split"] == "test").to_numpy() | (not across)
        parts.append(rows.assign(step=step, own_logit=chosen)[keep])
    found = pd.concat(parts, ignore_index=True).sort_values("selection_id", ignore_index=True)
    group_of = searched.drop_duplicates("recording_id").set_index("recording_id")["group"]
    return Material(
        found.assign(group=found["recording_id"].map(group_of)),
        searched,
        annotations,
        unknown_spans(annotations),
        _spans_of_folds(splits, recordings),
        across=across,
        leaky=bool(searched["leaky"].any()),
    )


def sides(fold: int, label: str, material: Material) -> tuple[Side, Side]:
    """Return the fitting side and the judged side of a fold: disjoint in groups where that can be had."""
    own = material.searched[material.searched["label"] == label]
    judged = (own["split"] == "test") & (own["fold"] == fold)
    if material.across:
        tested_groups = set(own.loc[judged, "group"])
        fitted = (own["split"] == "test") & (own["fold"] != fold) & ~own["group"].isin(tested_groups)
    else:
        fitted = (own["split"] == "val") & (own["fold"] == fold)
    return _side(own[fitted], label, material), _side(own[judged], label, material)


def _steps(peak: Reals, permissive: float, chosen: float) -> Reals:
    between = np.clip((peak - permissive) / max(chosen - permissive, 1e-9), 0.0, 1.0)
    return np.where(peak >= chosen, 1.0, np.where(peak >= permissive, between, -1.0))


def _fits_across(searched: pd.DataFrame) -> bool:
    """Whether every forest can be fitted on test selections of the other folds.

    Always with several folds, unless they test parts of which nothing must have been heard before, or the dataset
    variant is leaky and a fold tests nearly all groups of the others.
    """
    several_folds = bool(searched["fold"].nunique() > 1)
    if "part" in searched and searched["part"].notna().any():
        return False
    if not several_folds or not searched["leaky"].any():
        return several_folds
    tested = searched[searched["split"] == "test"]
    groups = {fold: set(rows["group"]) for fold, rows in tested.groupby("fold")}
    others = {fold: set().union(*(g for f, g in groups.items() if f != fold)) for fold in groups}
    return all(len(others[fold] - groups[fold]) >= _FEWEST_GROUPS for fold in groups)


def _spans_of_folds(splits: pd.DataFrame, recordings: pd.DataFrame) -> dict[tuple[int, str], dict[str, Spans]]:
    sample_rates = recordings.set_index("recording_id")["sample_rate"]
    return {
        (int(fold), split): side_spans(rows, sample_rates, split)
        for fold, rows in splits.groupby("fold")
        for split in ("val", "test")
    }


def _side(wanted: pd.DataFrame, label: str, material: Material) -> Side:
    """What lies in the recordings of `wanted`, on the sides of the folds that its rows name."""
    found, calls = material.found, material.annotations[material.annotations["label"] == label]
    keys = ["fold", "split", "recording_id"]
    among = pd.MultiIndex.from_frame(found[keys]).isin(pd.MultiIndex.from_frame(wanted[keys]))
    rows = np.asarray(among) & (found["label"] == label).to_numpy(dtype=bool)
    inside = np.zeros(len(calls), dtype=bool)
    for (fold, split), part in wanted.groupby(["fold", "split"]):
        spans = material.spans[int(fold), split]
        inside |= rows_inside(calls, {recording_id: spans[recording_id] for recording_id in part["recording_id"]})
    recordings = wanted.groupby(["recording_id", "group"], sort=False, as_index=False)["duration_s"].sum()
    parts = wanted["part"].unique() if "part" in wanted else [None]
    recordings = recordings.assign(part=parts[0] if len(parts) == 1 else None)
    return Side(found[rows], recordings, calls[inside], material.unknown, material.leaky)
