"""The forest stage of one model: features of candidate selections, a forest per fold, the layer behind its own.

The layer of a network is `cnn`, behind it `cnn+rf`; of a detector of others `external`, behind it `external+rf`. Who is
fitted on and who is judged says otus.forest.material.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from otus.config import ChoiceSettings, EvaluationSettings, ForestSettings
from otus.criterion import in_words
from otus.evaluation.calibration import fit_calibration
from otus.evaluation.thresholds import Chosen
from otus.forest.candidates import candidate_features
from otus.forest.choosing import Filter, Fitting, choose_filter, told
from otus.forest.daytime import daytime_features
from otus.forest.explain import Explanation, Unseen, explain
from otus.forest.feature_table import FIRST_COLUMNS
from otus.forest.fitting import FoldForest, fit_fold
from otus.forest.judging import FittedForest, JudgedLayer, forest_logit, judge_layer, network_threshold
from otus.forest.material import Material, Side, material, sides
from otus.forest.store import save_forest
from otus.seeds import derive_seed
from otus.tables import FILTERED, table

if TYPE_CHECKING:
    from otus.forest.estimators import Estimator


@dataclass(frozen=True)
class FilteredModel:
    """Tables of the filtered layer of one model, its forests, and what explains them.

    `features` has selection_id, hit and group of every candidate, and then its features by name.
    """

    selections: pd.DataFrame
    matches: pd.DataFrame
    counts: pd.DataFrame
    points: pd.DataFrame
    features: pd.DataFrame
    importances: pd.DataFrame
    dependence: pd.DataFrame
    forests: list[FittedForest]

    @property
    def feature_names(self) -> list[str]:
        """The names of the features, in the order in which the forests take them."""
        return [str(name) for name in self.features.columns[len(FIRST_COLUMNS) :]]


def filter_model(
    root: Path,
    selections: pd.DataFrame,
    counts: pd.DataFrame,
    shapes: pd.DataFrame,
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
    """Fit a forest per fold and label, judge the filtered selections like those of the network, and explain.

    `selections`, `counts` and `shapes` are those of all folds of the model (layer cnn or external): what it found,
    which recordings it searched, and the score curve of each selection (empty for a detector of others); `splits` the
    table of the dataset variant; `operating_points` the chosen points by fold and label. The rows of split val are
    judged by an inner cross-validation of the fitting rows. Where no forest can be fitted, or it gains nothing on
    groups that it did not see (`choose_filter`), the layer is the one before it.
    """
    evidence = (selections, counts, recordings, annotations, splits, operating_points)
    ground = material(*evidence, iou=evaluation.iou[0], candidate_recall=settings.candidate_recall)
    candidates = ground.candidates
    progress(f"{len(candidates)} candidate selections in {candidates['recording_id'].nunique()} recordings")
    band = {"window_s": settings.window_s or window_s, "low_hz": low_hz, "high_hz": high_hz}
    features = candidate_features(
        root, candidates, shapes, recordings, features=settings.features, n_mfcc=settings.mfcc, **band
    )
    if settings.time_of_day:
        features = features.join(daytime_features(candidates, recordings))
    names = {"model": str(counts["model"].iloc[0]), "layer": f"{counts['layer'].iloc[0]}{FILTERED}"}
    forests, parts, unseen = _each_fold(
        ground, features, operating_points, names, targets, settings, evaluation, seed, progress
    )
    explained = [
        explain(folds, list(features), {**names, "label": label, "leaky": ground.leaky}, derive_seed(seed, label))
        for label, folds in unseen.items()
    ]
    return FilteredModel(
        **{name: _together(name, parts) for name in ("selections", "matches", "counts", "points")},
        **{name: _together(name, explained) for name in ("importances", "dependence")},
        features=candidates[list(FIRST_COLUMNS)].join(features).reset_index(drop=True),
        forests=forests,
    )


def _each_fold(
    ground: Material,
    features: pd.DataFrame,
    operating_points: Chosen,
    names: Mapping[str, str],
    targets: Sequence[str],
    settings: ForestSettings,
    evaluation: EvaluationSettings,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[list[FittedForest], list[JudgedLayer], dict[str, list[Unseen]]]:
    """The forests, the layer that they make, and what explains those of each label."""
    parts: list[JudgedLayer] = []
    forests: list[FittedForest] = []
    unseen: dict[str, list[Unseen]] = {label: [] for label in targets}
    for fold, label in itertools.product(sorted(operating_points), targets):
        fitting, judged = sides(fold, label, ground)
        found = _fit_fold(fitting, judged, features, settings, derive_seed(seed, fold, label))
        before = operating_points[fold][label].threshold
        fitted = _fitted({**names, "fold": fold, "label": label}, fitting, found, before, settings, evaluation)
        choice = evaluation.choice_of.get(label, evaluation.choice)
        progress(f"fold {fold} {label}: {in_one_line(fitted, choice)}")
        forests.append(fitted)
        parts.append(judge_layer(fitted, fitting, found.inner_probability, evaluation, "val"))
        parts.append(judge_layer(fitted, judged, found.probability, evaluation, "test"))
        if fitted.forest is not None:
            unseen[label].append(_unseen(fold, fitting, judged, fitted.forest, found.fitted_rows, features))
    return forests, parts, unseen


def save_forests(folder: Path, forests: Sequence[FittedForest], feature_names: Sequence[str]) -> list[dict[str, Any]]:
    """Write every forest that is used to `folder` and return what became of each fold and label (for JSON)."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = []
    for number, fitted in enumerate(forests, start=1):
        facts = asdict(replace(fitted, forest=None))
        del facts["forest"]
        if fitted.forest is not None:
            facts["file"] = f"forest{number:03d}.skops"
            save_forest(folder / facts["file"], fitted.forest, facts | {"feature_names": list(feature_names)})
        summary.append(facts)
    return summary


def in_one_line(fitted: FittedForest, choice: ChoiceSettings) -> str:
    """Return what became of the forest of a fold and label, which was chosen by `choice`, for the log."""
    groups = "1 group" if fitted.n_groups == 1 else f"{fitted.n_groups} groups"
    rows = f"{fitted.n_rows} candidates ({fitted.n_hits} hits) of {groups}"
    if fitted.forest is None or fitted.alone is None or fitted.filtered is None:
        return f"no forest from {rows}: {fitted.reason}"
    alone, filtered = told(fitted.alone, choice), told(fitted.filtered, choice)
    gain = f"{alone} without it, {filtered} with it on groups it did not see"
    return f"{fitted.kind} fitted on {rows}, {gain}; keeps probability >= {fitted.threshold:.2f}"


def _fit_fold(fitting: Side, judged: Side, features: pd.DataFrame, settings: ForestSettings, seed: int) -> FoldForest:
    rows = fitting.candidates
    return fit_fold(
        features.loc[rows.index].to_numpy(dtype=float),
        rows["hit"].to_numpy(dtype=bool),
        rows["group"].to_numpy(dtype=str),
        features.loc[judged.candidates.index].to_numpy(dtype=float),
        settings=settings,
        seed=seed,
    )


def _fitted(
    keys: Mapping[str, Any],
    fitting: Side,
    found: FoldForest,
    before: float,
    settings: ForestSettings,
    evaluation: EvaluationSettings,
) -> FittedForest:
    """The forest with its threshold and calibration, or why there is none; `before` is the threshold of the layer."""
    rows = fitting.candidates
    hits, steps = rows["hit"].to_numpy(dtype=bool), rows["step"].to_numpy(dtype=float)
    choice = evaluation.choice_of.get(keys["label"], evaluation.choice)
    chosen = _choose(fitting, found, hits, steps, choice)
    reason = found.reason if chosen is None else chosen.reason
    facts: dict[str, Any] = {
        **keys,
        "kind": settings.kind,
        "reason": reason,
        "chosen_by": in_words(choice),
        "alone": None if chosen is None else chosen.alone,
        "filtered": None if chosen is None else chosen.filtered,
        "n_rows": len(rows),
        "n_hits": int(hits.sum()),
        "n_groups": int(rows["group"].nunique()),
        "n_calls": len(fitting.calls),
    }
    if chosen is None or reason:
        return FittedForest(
            forest=None,
            candidate=None,
            threshold=network_threshold(before),
            candidate_step=1.0,
            calibration=None,
            **facts,
        )
    among = steps >= chosen.step
    calibration = fit_calibration(forest_logit(found.inner_probability[among]), hits[among], evaluation.calibration)
    return FittedForest(
        forest=found.forest,
        candidate=found.candidate,
        threshold=chosen.threshold,
        candidate_step=chosen.step,
        calibration=calibration,
        **facts,
    )


def _choose(
    fitting: Side, found: FoldForest, hits: np.ndarray, steps: np.ndarray, choice: ChoiceSettings
) -> Filter | None:
    """The filter that the fitting side chooses; None without a forest."""
    if found.forest is None:
        return None
    groups = np.unique(fitting.recordings["group"].to_numpy(dtype=str))
    of_row = np.searchsorted(groups, fitting.candidates["group"].to_numpy(dtype=str))
    inner_fold = np.full(len(groups), -1)
    inner_fold[of_row] = found.inner_fold
    n_calls, hours = fitting.truth(groups.tolist())
    lead = (fitting.candidates["peak_score"] - fitting.candidates["own_logit"]).to_numpy(dtype=float)
    rows = Fitting(found.inner_probability, steps, lead, hits, of_row, n_calls, hours, inner_fold)
    return choose_filter(rows, choice)


def _unseen(
    fold: int, fitting: Side, judged: Side, forest: "Estimator", fitted_rows: np.ndarray, features: pd.DataFrame
) -> Unseen:
    """What explains the forest of a fold: the rows that it judges, and those that it was fitted on."""
    fitted = fitting.candidates.iloc[fitted_rows]
    return Unseen(
        fold=fold,
        estimator=forest,
        rows=features.loc[judged.candidates.index].to_numpy(dtype=float),
        hit=judged.candidates["hit"].to_numpy(dtype=bool),
        group=judged.candidates["group"].to_numpy(dtype=str),
        fitted_rows=features.loc[fitted.index].to_numpy(dtype=float),
        fitted_hit=fitted["hit"].to_numpy(dtype=bool),
    )


def _together(name: str, parts: Sequence[JudgedLayer | Explanation]) -> pd.DataFrame:
    """One table of all folds and labels."""
    return table(name, pd.concat([getattr(part, name) for part in parts], ignore_index=True))
