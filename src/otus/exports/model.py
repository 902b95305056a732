"""Everything that is exported of one model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from otus.exports.alpaca import AlpacaRun, alpaca_files
from otus.exports.review import review_files
from otus.hearing import Hearing
from otus.measures.evidence import TestedLayer, tested_layers
from otus.selections import DecodingPoint


@dataclass(frozen=True)
class ExportedLayer:
    """The tables `selections`, `matches` and `counts` of one layer of a model, all folds."""

    selections: pd.DataFrame
    matches: pd.DataFrame
    counts: pd.DataFrame

    def threshold(self) -> float:
        """Return the median of the thresholds that were chosen for the folds and labels."""
        chosen = self.counts[self.counts["selected"].to_numpy(dtype=bool)]
        return float(np.median(chosen.groupby(["fold", "label"])["threshold"].first()))


def export_model(
    plain: ExportedLayer,
    filtered: ExportedLayer,
    features: pd.DataFrame,
    recordings: pd.DataFrame,
    annotations: pd.DataFrame,
    splits: pd.DataFrame,
    decodings: Sequence[DecodingPoint],
    *,
    root: Path,
    labels: Sequence[str],
    hearing: Hearing,
    forests: str,
    generated_at: str,
) -> Mapping[str, str]:
    """Return the text of every file by its path below the folder of the exports.

    `plain` and `filtered` are the layers before and behind the forest; only their test side is exported, all folds
    together. `splits` is the table of the dataset variant, `features` has the features of the candidates of the forest
    by selection_id, `decodings` are what was chosen for the folds and labels; `root` is the folder of the recordings.
    """
    layers = [_tested(tables, annotations, recordings, splits, labels) for tables in (plain, filtered)]
    files: dict[str, str] = {}
    for layer in layers:
        found = review_files(layer, recordings, annotations, root=root, hearing=hearing)
        files |= {f"review/{layer.layer}/{name}": text for name, text in found.items()}
    run = AlpacaRun(
        model=layers[0].model,
        labels=tuple(labels),
        iou=layers[0].iou,
        hearing=hearing,
        window_s=float(np.median([d.window_s or hearing.window_s for d in decodings])),
        hop_s=float(np.median([d.hop_s or hearing.hop_s for d in decodings])),
        threshold=plain.threshold(),
        rf_threshold=filtered.threshold(),
        forests=forests,
        generated_at=generated_at,
    )
    found = alpaca_files(layers[0], layers[1], recordings, features, run)
    return files | {f"alpaca/{name}": text for name, text in found.items()}


def _tested(
    tables: ExportedLayer,
    annotations: pd.DataFrame,
    recordings: pd.DataFrame,
    splits: pd.DataFrame,
    labels: Sequence[str],
) -> TestedLayer:
    """The test side of a layer, all folds together."""
    own = tables.selections, tables.matches, tables.counts
    return tested_layers(*own, annotations, recordings, splits, labels=labels)[-1]
