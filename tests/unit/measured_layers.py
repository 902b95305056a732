"""Tested layers made by hand or by chance, for the tests of measures."""

import numpy as np
import pandas as pd

from otus.measures.evidence import TestedLayer
from otus.tables import POOLED

_CALLS = ["annotation_id", "recording_id", "start_s", "end_s", "label", "quality", "snr_db"]
_SELECTIONS = ["selection_id", "recording_id", "start_s", "end_s", "label", "fold", "rank", "probability", "selected"]
_MATCHES = ["fold", "recording_id", "label", "outcome", "selection_id", "annotation_id", "start_s", "end_s"]


def recordings(groups, duration_s=60.0):
    """Recordings r00, r01, ... of the groups given."""
    ids = [f"r{i:02d}" for i in range(len(groups))]
    return pd.DataFrame({"recording_id": ids, "group": list(groups), "duration_s": duration_s})


def layer(groups, *, labels=("owl",), calls=(), selections=(), matches=(), fold=POOLED, duration_s=60.0):
    """A layer whose tables are given as lists of dicts; columns that nobody gives are null."""
    frames = [
        pd.DataFrame(list(rows), columns=columns)
        for rows, columns in (
            (calls, _CALLS),
            (selections, [*_SELECTIONS, "hit"]),
            (matches, [*_MATCHES, "onset_error_s", "offset_error_s"]),
        )
    ]
    return TestedLayer(
        model="m",
        layer="cnn",
        fold=fold,
        leaky=False,
        labels=tuple(labels),
        iou=0.5,
        recordings=recordings(groups, duration_s),
        calls=frames[0].astype({"snr_db": float}),
        selections=frames[1].astype({"probability": float, "selected": bool, "hit": bool}),
        matches=frames[2].astype({"onset_error_s": float, "offset_error_s": float}),
        unknown={},
    )


def simulated(rng, n_groups, *, per_group=2, recall=0.8, calls=4.0, false_alarms=3.0, spread=0.0, probabilities=True):
    """A fold in which groups differ in calls, false alarms and recall by lognormal factors of `spread`."""
    groups, truth, found = [], [], []
    for group in range(n_groups):
        factors = np.exp(spread * rng.standard_normal(3) - spread**2 / 2)
        share = 1.0 / (1.0 + (1.0 / recall - 1.0) / factors[2])
        for _ in range(per_group):
            recording = f"r{len(groups):02d}"
            groups.append(f"g{group:03d}")
            n_gt = rng.poisson(calls * factors[0])
            n_hits = rng.binomial(n_gt, share)
            n_false = rng.poisson(false_alarms * factors[1])
            truth += [{"recording_id": recording, "label": "owl"}] * n_gt
            for hit in [True] * n_hits + [False] * n_false:
                score = rng.normal(1.2 if hit else -1.2)
                # the calibration was fitted where calls are as frequent as false alarms
                probability = 1.0 / (1.0 + np.exp(-2.4 * score)) if probabilities else np.nan
                found.append(
                    {"recording_id": recording, "label": "owl", "hit": hit, "selected": score > 0}
                    | {"probability": probability}
                )
    return layer(groups, calls=truth, selections=found, fold="1")
