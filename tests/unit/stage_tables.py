"""A small corpus and the tables that evaluation and forest write about it, for the tests of measures and merge."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from otus.evaluation.tally import Judged, count_per_recording, judge, matched_pairs
from otus.measures.model import LayerTables
from otus.selections import logit
from otus.tables import table

LABELS = ("hum", "cluck")
FOLDS = (1, 2, 3)
RATE = 1000
LENGTH_S = 90.0


@dataclass(frozen=True)
class Corpus:
    """Twelve recordings in six groups; each fold tests four of them and validates on the next four."""

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    splits: pd.DataFrame

    def side(self, fold, split):
        """The recordings of one side of a fold."""
        own = self.splits[(self.splits["fold"] == fold) & (self.splits["split"] == split)]
        rows = self.recordings[self.recordings["recording_id"].isin(own["recording_id"])]
        return rows[["recording_id", "group", "duration_s"]].reset_index(drop=True)


def make_corpus(labels=LABELS, seed=0):
    """Calls of a second, at most one in nine seconds."""
    random = np.random.default_rng(seed)
    names = [f"r{i:02d}" for i in range(12)]
    n_samples = int(LENGTH_S * RATE)
    common = {"duration_s": LENGTH_S, "n_samples": n_samples, "sample_rate": RATE, "labelled": True, "readable": True}
    recordings = [{"recording_id": n, "group": _group(i), "path": f"{n}.wav", **common} for i, n in enumerate(names)]
    annotations = [
        {"annotation_id": f"{name}.{label}.{slot}", "recording_id": name, "label": label, "start_s": float(slot),
         "end_s": slot + 1.0, "quality": random.choice(["good", "faint"]), "snr_db": random.normal(10, 8)}
        for label in labels for name in names for slot in range(0, int(LENGTH_S), 9) if random.random() < 0.4
    ]  # fmt: skip
    sides = ["test", "val", "train"]
    splits = [
        {"recording_id": n, "group": _group(i), "fold": fold, "split": sides[(i // 4 - fold + 1) % 3],
         "start_sample": 0, "end_sample": n_samples, "leaky": False}
        for fold in FOLDS for i, n in enumerate(names)
    ]  # fmt: skip
    return Corpus(
        table("recordings", recordings),
        table("annotations", annotations),
        table("splits", splits),
    )


def _group(i):
    return f"g{i // 2}"


def layer_tables(corpus, model="m1", layer="cnn", labels=LABELS, iou=(0.4,), seed=0):
    """What a layer found at random: half of its selections have a call below them, a little late."""
    random = np.random.default_rng(seed)
    parts = []
    for fold in FOLDS:
        for split in ("test", "val"):
            side = corpus.side(fold, split)
            for label in labels:
                keys = {"model": model, "layer": layer, "fold": fold, "split": split, "label": label, "leaky": False}
                calls = corpus.annotations
                calls = calls[calls["recording_id"].isin(side["recording_id"]) & (calls["label"] == label)]
                parts.append(_one_side(_found(side, random, keys), calls.reset_index(drop=True), side, keys, iou))
    selections, matches, counts, points = (pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True))
    return LayerTables(
        table("selections", selections), table("matches", matches), table("counts", counts), table("points", points)
    )


def _found(side, random, keys):
    filtered = keys["layer"].endswith("+rf")
    rows = []
    for name in side["recording_id"]:
        for slot in range(0, int(LENGTH_S), 9):
            if random.random() < 0.5:
                peak = random.normal(0.5, 1)
                selection_id = f"{name}.{keys['label']}.f{keys['fold']}.{slot}"
                rows.append((selection_id, name, slot + 0.2, slot + 1.2, peak))
    found = pd.DataFrame(rows, columns=["selection_id", "recording_id", "start_s", "end_s", "peak_score"])
    probability = 1 / (1 + np.exp(-3 * found["peak_score"]))
    rank = probability if filtered else found["peak_score"]
    forest = probability if filtered else np.nan
    return found.assign(score=found["peak_score"], probability=probability, rf_probability=forest, rank=rank)


def _one_side(found, calls, side, keys, iou):
    """Selections, matches, counts and points of one side of a fold."""
    filtered = keys["layer"].endswith("+rf")
    chosen = 0.2 + 0.1 * keys["fold"]
    threshold, half = (chosen, 0.5) if filtered else (logit(chosen), 0.0)
    judged = Judged(found, calls, side)
    above = Judged(found[found["rank"] >= threshold], calls, side)
    counts, matches, points = [], [], []
    for value in iou:
        hits = judge(judged, value)
        every = count_per_recording(judged, hits, {"selected": threshold, "0.50": half}, "selected")
        every = every.assign(
            **keys, iou=value, threshold=every["operating_point"].map({"selected": chosen, "0.50": 0.5})
        )
        counts.append(every[every["selected"]])
        if keys["split"] == "test":
            points.append(_by_group(every[~every["selected"]], keys))
        matches.append(matched_pairs(above, value).assign(**keys, iou_threshold=value))
    rows = found.drop(columns="rank").assign(
        **keys, selected=found["rank"] >= threshold, hit=judge(judged, iou[0]), operating_point="selected"
    )
    empty = table("points", [])
    return rows, pd.concat(matches), pd.concat(counts), pd.concat(points) if points else empty


def _by_group(rows, keys):
    summed = rows.groupby(["group", "iou", "operating_point", "threshold"], as_index=False).agg(
        n_recordings=("recording_id", "size"),
        **{name: (name, "sum") for name in ("duration_s", "n_gt", "n_pred", "tp")},
    )
    own = {name: value for name, value in keys.items() if name != "split"}
    return summed.assign(**own, role="fixed", part=None)
