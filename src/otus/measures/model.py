"""All measures of one model: of what was found before the forest, of what it left, and of what it gains."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from otus.config import EvaluationSettings
from otus.measures.at_rates import recall_at_rates
from otus.measures.confusion import confusion_rows
from otus.measures.curves import curve_rows
from otus.measures.densities import density_rows
from otus.measures.differences import layer_differences
from otus.measures.evidence import TestedLayer, tested_layers
from otus.measures.per_class import per_class_rows
from otus.measures.points import metrics_rows
from otus.measures.reliability import reliability_rows
from otus.measures.strata import stratum_rows
from otus.tables import FILTERED, MICRO, POOLED, SEE_FORESTS, table

_Measure = Callable[[TestedLayer, EvaluationSettings, int], pd.DataFrame]


@dataclass(frozen=True)
class LayerTables:
    """What evaluation, or the forest, found and counted of one model."""

    selections: pd.DataFrame
    matches: pd.DataFrame
    counts: pd.DataFrame
    points: pd.DataFrame


@dataclass(frozen=True)
class ModelMeasures:
    """The tables of one model, or of several, named as in `otus.tables`."""

    metrics: pd.DataFrame
    metrics_per_class: pd.DataFrame
    recall_at_rates: pd.DataFrame
    strata: pd.DataFrame
    differences: pd.DataFrame
    confusion: pd.DataFrame
    densities: pd.DataFrame
    curves: pd.DataFrame
    reliability: pd.DataFrame


def table_names(kind: type[LayerTables] | type[ModelMeasures]) -> list[str]:
    """Return the names of the tables that it holds."""
    return [field.name for field in fields(kind)]


def measure_model(
    layers: Sequence[LayerTables],
    annotations: pd.DataFrame,
    recordings: pd.DataFrame,
    splits: pd.DataFrame,
    *,
    labels: Sequence[str],
    notes: pd.DataFrame,
    settings: EvaluationSettings,
    seed: int,
) -> ModelMeasures:
    """Return the measures of a model, whose layers are given in their order: what the forest had, what it left.

    `splits` is the table of its dataset variant. Metrics, per class or not, recall at rates and curves are those of
    every fold and of all folds together; strata, differences and confusion those of all folds together. `notes` (layer,
    fold, label, note) are added to the rows of metrics that they concern, and the rows of a fold say which part of the
    corpus it tests, if it tests all of one. All tables rest on the same resamples of the groups, so that a number has
    the same interval wherever it stands.
    """
    tested = [
        tested_layers(own.selections, own.matches, own.counts, annotations, recordings, splits, labels=labels)
        for own in layers
    ]
    every, pooled = [part for parts in tested for part in parts], [parts[-1] for parts in tested]
    counts = rows_of_all("counts", [own.counts for own in layers])
    metrics = metrics_rows(
        counts,
        rows_of_all("points", [own.points for own in layers]),
        every,
        labels=labels,
        bootstrap=settings.bootstrap,
        seed=seed,
    )

    def each(name: str, parts: Sequence[TestedLayer], measure: _Measure) -> pd.DataFrame:
        return rows_of_all(name, [measure(part, settings, seed) for part in parts])

    gains = zip(pooled[1:], pooled[:-1], strict=True)
    return ModelMeasures(
        metrics=_with_notes(_with_parts(metrics, counts), notes),
        metrics_per_class=each("metrics_per_class", every, per_class_rows),
        recall_at_rates=each("recall_at_rates", every, recall_at_rates),
        strata=each("strata", pooled, stratum_rows),
        differences=rows_of_all(
            "differences", [layer_differences(after, before, settings, seed) for after, before in gains]
        ),
        confusion=rows_of_all("confusion", [confusion_rows(part) for part in pooled]),
        densities=rows_of_all("densities", [density_rows(parts[:-1], settings, seed) for parts in tested]),
        curves=rows_of_all("curves", [curve_rows(own.selections, own.counts) for own in layers]),
        reliability=rows_of_all("reliability", [reliability_rows(own.selections, labels) for own in layers]),
    )


def rows_of_all(name: str, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all parts as table `name`."""
    found = [part for part in parts if len(part)]
    return table(name, pd.concat(found, ignore_index=True) if found else [])


def forest_notes(summary: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a note for every forest of a model that is not used: layer, fold, label, note."""
    rows = [
        {
            "layer": f["layer"],
            "fold": f["fold"],
            "label": f["label"],
            "note": f"no forest, {f['layer'].removesuffix(FILTERED)} selections ({f['reason'].rstrip('.')})",
        }
        for f in summary
        if f["reason"]
    ]
    return pd.DataFrame(rows, columns=["layer", "fold", "label", "note"])


def _with_parts(metrics: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
    """The counts behind a forest need not name the part that a fold tests: another one does."""
    part_of = counts[["fold", "part"]].dropna().drop_duplicates("fold")
    return metrics.assign(
        part=metrics["fold"].map(dict(zip(part_of["fold"].astype(str), part_of["part"], strict=True)))
    )


def _with_notes(metrics: pd.DataFrame, notes: pd.DataFrame) -> pd.DataFrame:
    """Add notes to the rows of their layer, label (and micro) and fold; pooled rows say how many there are."""
    text = metrics["note"].fillna("").tolist()
    layer, fold, label = (metrics[name].to_numpy(dtype=object) for name in ("layer", "fold", "label"))
    for (of_layer, of_label), own in notes.groupby(["layer", "label"], sort=False):
        for note in own.itertuples(index=False):
            for row in np.flatnonzero(
                (layer == of_layer) & np.isin(label, [of_label, MICRO]) & (fold == str(note.fold))
            ):
                text[row] = "; ".join(filter(None, [text[row], f"fold {note.fold} {note.label}: {note.note}"]))
    for row in np.flatnonzero(fold == POOLED):
        n = int(((notes["layer"] == layer[row]) & (notes["label"].eq(label[row]) | (label[row] == MICRO))).sum())
        if n:
            unused = f"{n} forest{' is' if n == 1 else 's are'} not used ({SEE_FORESTS})"
            text[row] = "; ".join(filter(None, [text[row], unused]))
    return metrics.assign(note=[t or None for t in text])
