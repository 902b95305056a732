"""Layers by chance whose selections are judged as evaluation judges them, for the tests of measures."""

import numpy as np
import pandas as pd

from otus.config import EvaluationSettings
from otus.evaluation.tally import Judged, matched_pairs, settle
from otus.measures.evidence import TestedLayer
from otus.sides import NOWHERE, union
from otus.tables import POOLED

SETTINGS = EvaluationSettings(bootstrap=200, false_alarm_budgets_per_hour=[10.0, 60.0, 1000.0])

EVENTS = ["recording_id", "start_s", "end_s", "label"]


def recordings(groups, duration_s=60.0):
    """Recordings r00, r01, ... of the groups given."""
    names = [f"r{i:02d}" for i in range(len(groups))]
    return pd.DataFrame({"recording_id": names, "group": list(groups), "duration_s": duration_s})


def layer(calls, found, groups, *, labels=("hum",), threshold=0.0, unknown=None, duration_s=60.0, iou=0.4, **names):
    """A layer of calls (recording_id, start_s, end_s, label) and of what was found (the same and its rank)."""
    where = recordings(groups, duration_s)
    truth = pd.DataFrame(list(calls), columns=EVENTS).astype({"start_s": float, "end_s": float})
    truth["annotation_id"] = [f"a{i:04d}" for i in range(len(truth))]
    rows = pd.DataFrame(list(found), columns=[*EVENTS, "rank"])
    rows = rows.astype({"start_s": float, "end_s": float, "rank": float}).assign(score=0.0)
    rows["selection_id"] = [f"s{i:04d}" for i in range(len(rows))]
    spans = {r: union(*np.array(times, dtype=float).T) for r, times in (unknown or {}).items()}
    selections, matches = [], []
    for label in labels:
        own = truth[truth["label"] == label]
        judged = Judged(rows[rows["label"] == label].reset_index(drop=True), own, where, spans)
        settled, hits = settle(judged, iou)
        kept = settled.selections.assign(hit=hits, selected=settled.selections["rank"] >= threshold)
        kept = kept.assign(rank_of_all=kept["rank"])
        selections.append(kept)
        above = Judged(kept[kept["selected"]], own, where, spans)
        matches.append(matched_pairs(above, iou).assign(label=label))
    return TestedLayer(
        **{"model": "m", "layer": "cnn", "fold": POOLED, "leaky": False} | names,
        labels=tuple(labels),
        iou=iou,
        recordings=where,
        calls=truth,
        selections=pd.concat(selections, ignore_index=True),
        matches=pd.concat(matches, ignore_index=True),
        unknown=spans,
    )


def by_chance(seed, *, n_groups=6, per_group=2, labels=("hum", "trill"), unknown=False, **names):
    """A layer that finds most calls, a little off, and something else as well; some recordings hold nothing."""
    random = np.random.default_rng(seed)
    groups = [f"g{i:02d}" for i in range(n_groups) for _ in range(per_group)]
    calls, found = [], []
    for i in range(len(groups)):
        for label in labels if random.random() < 0.8 else ():
            for start in np.sort(random.uniform(0, 55, random.poisson(4))):
                calls.append((f"r{i:02d}", start, start + random.uniform(0.3, 2), label))
                if random.random() < 0.8:
                    moved = start + random.normal(0, 0.1)
                    end = calls[-1][2] + random.normal(0, 0.1)
                    found.append((f"r{i:02d}", max(moved, 0.0), max(end, moved + 0.1), label, random.normal(1.5, 1)))
            for start in random.uniform(0, 55, random.poisson(3)):
                found.append((f"r{i:02d}", start, start + random.uniform(0.2, 1.5), label, random.normal(-0.5, 1)))
    stretches = {"r00": [(5.0, 20.0)], "r03": [(0.0, 9.0), (30.0, 31.0)]} if unknown else {}
    return layer(calls, found, groups, labels=labels, unknown=stretches, **names)


def spans_of(one, recording_id):
    """The stretches of a recording that are labelled unknown."""
    return one.unknown.get(recording_id, NOWHERE)


def resampled(one, weights):
    """The layer of which each group stands as often as its weight says, as groups of their own."""
    names = np.unique(one.recordings["group"])
    frames = {name: [] for name in ("recordings", "calls", "selections", "matches")}
    for group, weight in zip(names, np.asarray(weights, dtype=int), strict=True):
        ids = one.recordings.loc[one.recordings["group"] == group, "recording_id"]
        for copy in range(weight):
            for name, parts in frames.items():
                frame = getattr(one, name)
                part = frame[frame["recording_id"].isin(ids)]
                part = part.assign(recording_id=part["recording_id"] + f"_{copy}")
                parts.append(part.assign(group=f"{group}_{copy}") if name == "recordings" else part)
    joined = {
        name: pd.concat(parts, ignore_index=True) if parts else getattr(one, name).iloc[:0]
        for name, parts in frames.items()
    }
    joined["recordings"] = joined["recordings"].sort_values("recording_id", ignore_index=True)
    spans = {f"{r}_{copy}": s for r, s in one.unknown.items() for copy in range(int(np.max(weights)))}
    kept = {name: getattr(one, name) for name in ("model", "layer", "fold", "leaky", "labels", "iou")}
    return TestedLayer(**kept, **joined, unknown=spans)
