"""Whether probabilities hold: selections in bins of their probability against the share of them that are hits."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.tables import FILTERED, MICRO, table

Reals = NDArray[np.float64]

BINS = 10
_Z = 1.959963984540054  # 95 % of a normal distribution lie within


def reliability_rows(selections: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Return the table `reliability` of the selections of one model: the test sides of all folds, before any forest.

    Every label has its bins, and the label 'micro', where there are several, those of all together. Selections without
    a probability do not count.
    """
    wanted = selections["split"].eq("test") & ~selections["layer"].str.endswith(FILTERED)
    tested = selections[wanted & selections["probability"].notna()]
    if len(labels) > 1:
        tested = pd.concat([tested, tested.assign(label=MICRO)], ignore_index=True)
    parts = [
        reliability_bins(rows["probability"].to_numpy(dtype=float), rows["hit"].to_numpy(dtype=bool)).assign(
            model=model, label=label, leaky=bool(rows["leaky"].iloc[0])
        )
        for (model, label), rows in tested.groupby(["model", "label"])
    ]
    return table("reliability", pd.concat(parts, ignore_index=True) if parts else [])


def reliability_bins(probability: Reals, hit: NDArray[np.bool_]) -> pd.DataFrame:
    """Return a row for each of ten equally wide bins that holds a selection, by rising probability.

    bin_low, bin_high: its limits (the upper one belongs to the next bin, 1 to the last); n; mean_probability;
    hit_share with its 95 % Wilson interval hit_share_low, hit_share_high; brier_score: the mean squared difference of
    probability and hit (1 or 0).
    """
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(bins):
        own = bins == number
        n, n_hits = int(own.sum()), int(hit[own].sum())
        low, high = wilson_interval(n_hits, n)
        rows.append(
            {
                "bin_low": number / BINS,
                "bin_high": (number + 1) / BINS,
                "n": n,
                "mean_probability": float(probability[own].mean()),
                "hit_share": n_hits / n,
                "hit_share_low": low,
                "hit_share_high": high,
                "brier_score": float(np.mean((probability[own] - hit[own]) ** 2)),
            }
        )
    return pd.DataFrame(rows)


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927); 0 and 1 if n is 0."""
    if n == 0:
        return 0.0, 1.0
    share, weight = successes / n, _Z**2 / n
    middle = (share + weight / 2) / (1 + weight)
    half = _Z * np.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
