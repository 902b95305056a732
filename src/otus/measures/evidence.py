"""What one layer of one model found on test recordings, and the truth there: all that measures are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from otus.errors import StageError
from otus.sides import Spans, rows_inside, side_spans, unknown_spans
from otus.tables import FILTERED, POOLED


@dataclass(frozen=True)
class TestedLayer:
    """The test side of one fold of a layer, or of all its folds together (`fold` is then 'pooled').

    recordings: recording_id, group, duration_s (the time that was tested), each recording once, sorted;
    calls: annotations of the target labels there: annotation_id, recording_id, start_s, end_s, label, quality, snr_db;
    selections: everything that was decoded there and is hit or false alarm at the deciding IoU: selection_id,
    recording_id, start_s, end_s, label, fold, rank (what ranks it: peak logit, or the forest's probability),
    rank_of_all (what ranks it among those of all labels),
    probability, selected (at the chosen operating point), hit;
    matches: hits, misses and false alarms of the selected ones at the deciding IoU (table `matches`);
    unknown: the time of each recording that is labelled unknown.
    """

    __test__ = False  # for pytest, whose tests import it

    model: str
    layer: str
    fold: str
    leaky: bool
    labels: tuple[str, ...]
    iou: float
    recordings: pd.DataFrame
    calls: pd.DataFrame
    selections: pd.DataFrame
    matches: pd.DataFrame
    unknown: Mapping[str, Spans]

    @property
    def hours(self) -> float:
        """Hours of sound that were tested."""
        return float(self.recordings["duration_s"].sum()) / 3600.0


def tested_layers(
    selections: pd.DataFrame,
    matches: pd.DataFrame,
    counts: pd.DataFrame,
    annotations: pd.DataFrame,
    recordings: pd.DataFrame,
    splits: pd.DataFrame,
    *,
    labels: Sequence[str],
) -> list[TestedLayer]:
    """Return the folds of one layer of one model, and all of them together as the last one.

    `selections`, `matches` and `counts` are those of the layer; `splits` the table of its dataset variant. The first
    IoU of `counts` is the one that decides. Raises StageError if no test recording was searched.
    """
    if not counts["split"].eq("test").any():
        raise StageError("measure: no test recording was searched; see the failed items, and run the search again.")
    iou = float(counts["iou"].iloc[0])
    searched = counts[(counts["split"] == "test") & np.isclose(counts["iou"], iou) & counts["selected"]]
    found = selections[selections["split"] == "test"]
    pairs = matches[(matches["split"] == "test") & np.isclose(matches["iou_threshold"], iou)]
    sample_rates = recordings.set_index("recording_id")["sample_rate"]
    wanted = annotations[annotations["label"].isin(labels)]
    unknown = unknown_spans(annotations)
    names = {"model": str(counts["model"].iloc[0]), "layer": str(counts["layer"].iloc[0])}
    leaky = bool(counts["leaky"].any())
    parts = []
    for fold, own in searched.groupby("fold"):
        spans = side_spans(splits[splits["fold"] == fold], sample_rates, "test")
        here = own.drop_duplicates("recording_id")[["recording_id", "group", "duration_s"]]
        own_spans = {recording_id: spans[recording_id] for recording_id in here["recording_id"]}
        parts.append(
            TestedLayer(
                fold=str(fold),
                leaky=leaky,
                labels=tuple(labels),
                iou=iou,
                recordings=here.sort_values("recording_id", ignore_index=True),
                calls=wanted[rows_inside(wanted, own_spans)].reset_index(drop=True),
                selections=_ranked(found[found["fold"] == fold].reset_index(drop=True)),
                matches=pairs[pairs["fold"] == fold].reset_index(drop=True),
                unknown=unknown,
                **names,
            )
        )
    return [*parts, _pooled(parts)]


def _pooled(parts: Sequence[TestedLayer]) -> TestedLayer:
    """All folds together; a recording of which several folds test parts stands once."""
    recordings = pd.concat([part.recordings for part in parts], ignore_index=True)
    first = parts[0]
    return TestedLayer(
        model=first.model,
        layer=first.layer,
        fold=POOLED,
        leaky=first.leaky,
        labels=first.labels,
        iou=first.iou,
        recordings=recordings.groupby(["recording_id", "group"], as_index=False)["duration_s"].sum(),
        calls=pd.concat([part.calls for part in parts], ignore_index=True),
        selections=_ranked(pd.concat([part.selections for part in parts], ignore_index=True)),
        matches=pd.concat([part.matches for part in parts], ignore_index=True),
        unknown=first.unknown,
    )


def _ranked(selections: pd.DataFrame) -> pd.DataFrame:
    return selections.assign(rank=ranks(selections), rank_of_all=ranks_of_all(selections))


def ranks(selections: pd.DataFrame) -> NDArray[np.float64]:
    """Return what ranks the selections of one layer: the peak logit, or behind a forest the forest's probability.

    Where a label has a forest in some folds only, the others have the network's scores in its place, and the two are
    not alike: the selections of that label are ranked by the calibrated probability, as far as it is known. Each label
    is ranked by itself, so that its curve does not depend on which others are there.
    """
    peak = selections["peak_score"].to_numpy(dtype=float)
    if not selections["layer"].str.endswith(FILTERED).all():
        return np.asarray(peak)
    in_fold = _behind_forest(selections).groupby(selections["label"].to_numpy())
    some_folds = (in_fold.transform("any") & ~in_fold.transform("all")).to_numpy(dtype=bool)
    return _calibrated_where(some_folds, selections)


def ranks_of_all(selections: pd.DataFrame) -> NDArray[np.float64]:
    """Return what ranks the selections of all labels of one layer together: as `ranks`, but on one scale.

    Where some labels or folds have a forest and others have not, all are ranked by the calibrated probability, as far
    as it is known.
    """
    if not selections["layer"].str.endswith(FILTERED).all():
        return ranks(selections)
    used = _behind_forest(selections)
    return _calibrated_where(np.full(len(selections), used.any() and not used.all()), selections)


def _behind_forest(selections: pd.DataFrame) -> "pd.Series[bool]":
    """Whether the label and fold of each selection has a forest: elsewhere the network's score stands for it."""
    own, peak = (selections[name].to_numpy(dtype=float) for name in ("rf_probability", "peak_score"))
    used = pd.Series(~np.isclose(own, expit(peak), rtol=0.0, atol=1e-12))
    return used.groupby([selections[name].to_numpy() for name in ("label", "fold")]).transform("any")


def _calibrated_where(mixed: NDArray[np.bool_], selections: pd.DataFrame) -> NDArray[np.float64]:
    own, known = (selections[name].to_numpy(dtype=float) for name in ("rf_probability", "probability"))
    return np.asarray(np.where(mixed & ~np.isnan(known), known, own))
