"""The forest stage of one model: features of candidate selections, a forest per fold, the layer behind its own.

The layer of a network is `cnn`, behind it `cnn+rf`; of a detector of others `external`, behind it `external+rf`.

With cross-validation, the forest of a fold is fitted on the selections of all other folds, each made by a network
that never saw the recording (out-of-fold), and judges the test recordings of its fold. With a single split it is
fitted on the validation selections. Either way no group is judged by a forest that saw it, except in leaky dataset
variants: if every fold tests every group there, the forest of a fold is fitted on the fold's own validation time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from otus.audio import AudioInfo
from otus.config import EvaluationSettings, ForestSettings
from otus.evaluation.tally import Judged, count_per_recording, matched_pairs, settle
from otus.evaluation.thresholds import Chosen
from otus.forest.features import feature_names, selection_features
from otus.forest.fitting import FoldForest, choose_threshold, fit_fold, importances
from otus.forest.store import save_forest
from otus.seeds import derive_seed
from otus.selections import logit
from otus.sides import Spans, rows_inside, side_spans, unknown_spans
from otus.tables import FILTERED, table

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

#: Where candidates begin between the permissive threshold (0) and the network's own (1), in logits.
_STEPS = (1.0, 0.5, 0.0)

#: A forest is fitted and its threshold chosen on at least so many groups.
_FEWEST_GROUPS = 2

#: How many calls a filter must be worth on the fitting side to be used, and the limits of that in F1.
_MARGIN_CALLS = 2
_MARGIN_F1 = (0.01, 0.05)


@dataclass(frozen=True)
class FittedForest:
    """The forest of one fold and label, with everything that applying it needs. `forest` is None with a reason."""

    model: str
    layer: str
    fold: int
    label: str
    forest: "RandomForestClassifier | None"
    reason: str
    threshold: float
    candidate_step: float
    n_rows: int
    n_hits: int
    n_groups: int


@dataclass(frozen=True)
class FilteredModel:
    """Tables of the filtered layer of one model, and its forests."""

    selections: pd.DataFrame
    matches: pd.DataFrame
    counts: pd.DataFrame
    forests: list[FittedForest]


@dataclass(frozen=True)
class _Evidence:
    """What the forests of all folds and labels are made from.

    `searched` has one row per label, fold, split and recording that the network searched; `spans` the time of every
    recording on a side of a fold, by (fold, split); `across`: forests are fitted on the other folds.
    """

    candidates: pd.DataFrame
    features: np.ndarray
    searched: pd.DataFrame
    annotations: pd.DataFrame
    unknown: Mapping[str, Spans]
    spans: Mapping[tuple[int, str], Mapping[str, Spans]]
    across: bool
    leaky: bool


@dataclass(frozen=True)
class _Side:
    """Candidates (with hit, group and features) of one label, and the recordings and calls that they come from."""

    candidates: pd.DataFrame
    features: np.ndarray
    recordings: pd.DataFrame
    calls: pd.DataFrame
    unknown: Mapping[str, Spans]
    leaky: bool


def filter_model(
    root: Path,
    selections: pd.DataFrame,
    counts: pd.DataFrame,
    recordings: pd.DataFrame,
    annotations: pd.DataFrame,
    splits: pd.DataFrame,
    operating_points: Chosen,
    *,
    targets: Sequence[str],
    settings: ForestSettings,
    evaluation: EvaluationSettings,
    window_s: float,
    low_hz: float,
    high_hz: float,
    seed: int,
    progress: Callable[[str], None],
) -> FilteredModel:
    """Fit a forest per fold and label, and judge the filtered selections like those of the network.

    `selections` and `counts` are those of all folds of the model (layer cnn or external): what it found, and which
    recordings it searched; `splits` the table of the dataset variant; `operating_points` the chosen points by fold and
    label. The rows of split val are judged by an inner cross-validation of the fitting rows.
    """
    searched = counts[counts["selected"] & (counts["iou"] == evaluation.iou[0])]
    across = _fits_across(searched)
    candidates = _candidates(selections, operating_points, settings, across=across)
    group_of = searched.drop_duplicates("recording_id").set_index("recording_id")["group"]
    candidates["group"] = candidates["recording_id"].map(group_of)
    progress(f"{len(candidates)} candidate selections in {candidates['recording_id'].nunique()} recordings")
    features = _features(root, candidates, recordings, settings, window_s=window_s, low_hz=low_hz, high_hz=high_hz)
    sides = _spans_of_folds(splits, recordings)
    leaky = bool(searched["leaky"].any())
    evidence = _Evidence(
        candidates, features, searched, annotations, unknown_spans(annotations), sides, across=across, leaky=leaky
    )
    parts, forests = [], []
    for fold in sorted(operating_points):
        for label in targets:
            fitting, judged = _sides(fold, label, evidence)
            names = {"model": str(counts["model"].iloc[0]), "layer": f"{counts['layer'].iloc[0]}{FILTERED}"}
            keys = {**names, "fold": fold, "label": label}
            fitted, probabilities = _fit(keys, fitting, judged, settings, derive_seed(seed, fold, label))
            progress(f"fold {fold} {label}: {_in_words(fitted)}")
            forests.append(fitted)
            for split, side, probability in zip(("val", "test"), (fitting, judged), probabilities, strict=True):
                parts.append(_judge(fitted, side, probability, evaluation, split))
    return FilteredModel(
        table("selections", pd.concat([p[0] for p in parts], ignore_index=True)),
        table("matches", pd.concat([p[1] for p in parts], ignore_index=True)),
        pd.concat([p[2] for p in parts], ignore_index=True),
        forests,
    )


def _fits_across(searched: pd.DataFrame) -> bool:
    """Whether every forest can be fitted on test selections of the other folds.

    Always with several folds, unless the dataset variant is leaky and a fold tests nearly all groups of the others.
    """
    several_folds = bool(searched["fold"].nunique() > 1)
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


def _candidates(
    selections: pd.DataFrame,
    operating_points: Chosen,
    settings: ForestSettings,
    *,
    across: bool,
) -> pd.DataFrame:
    """The selections that a forest may keep; `step` is where each lies between permissive (0) and chosen (1).

    A decoding with one threshold finds nothing below the chosen one, so all that it found are candidates.
    """
    parts = [selections.iloc[:0].assign(step=0.0)]
    for (fold, label), rows in selections.groupby(["fold", "label"]):
        chosen = logit(operating_points[int(fold)][label].threshold)
        val_hits = rows.loc[(rows["split"] == "val") & rows["hit"], "peak_score"].to_numpy(dtype=float)
        permissive = float(np.quantile(val_hits, 1 - settings.candidate_recall)) if len(val_hits) else chosen
        permissive = min(permissive, chosen)
        peak = rows["peak_score"].to_numpy(dtype=float)
        step = np.clip((peak - permissive) / max(chosen - permissive, 1e-9), -1.0, 1.0)
        keep = (peak >= permissive) & ((rows["split"] == "test").to_numpy() | (not across))
        parts.append(rows.assign(step=np.where(peak >= chosen, 1.0, step))[keep])
    return pd.concat(parts, ignore_index=True).sort_values("selection_id", ignore_index=True)


def _features(
    root: Path, candidates: pd.DataFrame, recordings: pd.DataFrame, settings: ForestSettings, **band: float
) -> np.ndarray:
    """One row of features per candidate; every recording is read once."""
    facts = recordings.set_index("recording_id")
    values = np.zeros((len(candidates), len(feature_names(settings.mfcc))))
    for recording_id, rows in sorted(candidates.groupby("recording_id").indices.items()):
        fact, part = facts.loc[recording_id], candidates.iloc[rows]
        info = AudioInfo(int(fact["n_samples"]), int(fact["sample_rate"]), int(fact["channels"]), str(fact["subtype"]))
        values[rows] = selection_features(
            root / fact["path"],
            info,
            part["start_s"],
            np.minimum(part["end_s"], info.duration_s),
            part["score"],
            window_s=settings.window_s or band["window_s"],
            low_hz=band["low_hz"],
            high_hz=min(band["high_hz"], info.sample_rate / 2),
            n_mfcc=settings.mfcc,
        )
    return values


def _sides(fold: int, label: str, evidence: _Evidence) -> tuple[_Side, _Side]:
    """The fitting side and the judged side of a fold: disjoint in groups where that can be had."""
    own = evidence.searched[evidence.searched["label"] == label]
    judged = (own["split"] == "test") & (own["fold"] == fold)
    if evidence.across:
        tested_groups = set(own.loc[judged, "group"])
        fitted = (own["split"] == "test") & (own["fold"] != fold) & ~own["group"].isin(tested_groups)
    else:
        fitted = (own["split"] == "val") & (own["fold"] == fold)
    return _side(own[fitted], label, evidence), _side(own[judged], label, evidence)


def _side(wanted: pd.DataFrame, label: str, evidence: _Evidence) -> _Side:
    """What lies in the recordings of `wanted`, on the sides of the folds that its rows name."""
    candidates, calls = evidence.candidates, evidence.annotations[evidence.annotations["label"] == label]
    keys = ["fold", "split", "recording_id"]
    among = pd.MultiIndex.from_frame(candidates[keys]).isin(pd.MultiIndex.from_frame(wanted[keys]))
    rows = np.asarray(among) & (candidates["label"] == label).to_numpy(dtype=bool)
    inside = np.zeros(len(calls), dtype=bool)
    for (fold, split), part in wanted.groupby(["fold", "split"]):
        spans = evidence.spans[int(fold), split]
        inside |= rows_inside(calls, {recording_id: spans[recording_id] for recording_id in part["recording_id"]})
    recordings = wanted.groupby(["recording_id", "group"], sort=False, as_index=False)["duration_s"].sum()
    part = candidates[rows].reset_index(drop=True)
    return _Side(part, evidence.features[rows], recordings, calls[inside], evidence.unknown, evidence.leaky)


def _fit(
    keys: Mapping[str, Any], fitting: _Side, judged: _Side, settings: ForestSettings, seed: int
) -> tuple[FittedForest, tuple[np.ndarray, np.ndarray]]:
    """Fit on one side; return the forest with its thresholds, and the probabilities of both sides.

    Without a forest the network's own selections pass (probability 1) and nothing else does.
    """
    hits = fitting.candidates["hit"].to_numpy(dtype=bool)
    groups = fitting.candidates["group"].to_numpy(dtype=str)
    found = fit_fold(fitting.features, hits, groups, judged.features, settings=settings, seed=seed)
    facts = {**keys, "n_rows": len(hits), "n_hits": int(hits.sum()), "n_groups": len(np.unique(groups))}
    if found.forest is None:
        own = tuple((s.candidates["step"].to_numpy(dtype=float) >= 1.0).astype(float) for s in (fitting, judged))
        return FittedForest(forest=None, reason=found.reason, threshold=0.5, candidate_step=1.0, **facts), (
            own[0],
            own[1],
        )
    step, threshold = _choose(fitting, found, hits)
    fitted = FittedForest(forest=found.forest, reason="", threshold=threshold, candidate_step=step, **facts)
    return fitted, (found.inner_probability, found.probability)


def _choose(fitting: _Side, found: FoldForest, hits: np.ndarray) -> tuple[float, float]:
    """Where candidates begin and from which probability on they are kept: best F1 on the fitting side.

    The network's own threshold without any filter (step 1, probability 0) is among the choices. A filter must beat it
    by more than two calls are worth (within limits), or chance alone would choose one on a small corpus.
    """
    n_gt, steps = len(fitting.calls), fitting.candidates["step"].to_numpy(dtype=float)
    own = steps >= 1.0
    margin = float(np.clip(_MARGIN_CALLS / max(n_gt, 1), *_MARGIN_F1))
    best = (_f1(own, hits, n_gt) + margin, 1.0, 0.0)
    for step in _STEPS:
        among = steps >= step
        threshold = choose_threshold(found.inner_probability[among], hits[among], n_gt)
        kept = among & (found.inner_probability >= threshold)
        f1 = _f1(kept, hits, n_gt)
        if f1 > best[0] + 1e-9:
            best = (f1, step, threshold)
    return best[1], best[2]


def _f1(kept: np.ndarray, hits: np.ndarray, n_gt: int) -> float:
    return 2.0 * float(hits[kept].sum()) / max(float(kept.sum()) + n_gt, 1.0)


def _judge(
    fitted: FittedForest,
    side: _Side,
    probability: np.ndarray,
    evaluation: EvaluationSettings,
    split: str,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Selections, matches and counts of one fold, label and split of the layer."""
    among = side.candidates["step"].to_numpy(dtype=float) >= fitted.candidate_step
    found = side.candidates[among].drop(columns=["step", "group"]).assign(rank=probability[among])
    keys = {"model": fitted.model, "layer": fitted.layer, "fold": fitted.fold, "split": split, "label": fitted.label}
    keys["leaky"] = side.leaky
    everything = Judged(found, side.calls, side.recordings, side.unknown)
    thresholds = {"selected": fitted.threshold, **{f"{t:.2f}": t for t in evaluation.thresholds}}
    counts, matches, rows = [], [], []
    for iou in evaluation.iou:
        settled, hits = settle(everything, iou)
        selected = settled.selections["rank"] >= fitted.threshold
        counts.append(count_per_recording(settled, hits, thresholds, "selected").assign(**keys, iou=iou))
        above = replace(settled, selections=settled.selections[selected])
        matches.append(matched_pairs(above, iou).assign(**keys, iou_threshold=iou))
        judged = settled.selections.assign(rf_probability=settled.selections["rank"]).drop(columns="rank")
        rows.append(judged.assign(**keys, selected=selected, hit=hits))
    return rows[0], pd.concat(matches, ignore_index=True), pd.concat(counts, ignore_index=True)


def save_forests(folder: Path, forests: Sequence[FittedForest], settings: ForestSettings) -> list[dict[str, Any]]:
    """Write every fitted forest to `folder` and return what became of each fold and label (for JSON)."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(feature_names(settings.mfcc))
    summary = []
    for number, fitted in enumerate(forests, start=1):
        facts = {k: v for k, v in asdict(replace(fitted, forest=None)).items() if k != "forest"}
        if fitted.forest is not None:
            facts["file"] = f"forest{number:03d}.skops"
            save_forest(folder / facts["file"], fitted.forest, facts | {"feature_names": names})
            facts["importances"] = dict(importances(fitted.forest, names)[:15])
        summary.append(facts)
    return summary


def _in_words(fitted: FittedForest) -> str:
    rows = f"{fitted.n_rows} candidates ({fitted.n_hits} hits) of {fitted.n_groups} groups"
    if fitted.forest is None:
        return f"no forest from {rows}: {fitted.reason}"
    return f"forest fitted on {rows}; keeps probability >= {fitted.threshold:.2f}"
