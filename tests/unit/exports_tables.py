"""A small model of two folds, made by hand: five recordings, two labels, what both of its layers found."""

import math

import pandas as pd

from otus.exports import ExportedLayer, Hearing
from otus.selections import DecodingPoint
from otus.tables import table

MODEL = "grouped-crnn"
LABELS = ("howl", "hum")
HEARING = Hearing(low_hz=100.0, high_hz=6000.0, window_s=0.4, hop_s=0.05, spectrum_s=0.04)

#: id, path, group, sample rate, length in s, fold that tests it (0: none does).
RECORDINGS = (
    ("a__tape.23", "a/tape.23.wav", "a", 48_000, 60.0, 1),
    ("b__tape.23", "b/tape.23.wav", "b", 8_000, 30.0, 2),
    ("quiet", "quiet.flac", "c", 48_000, 20.0, 1),
    ("x_1", "x_1.wav", "d", 48_000, 40.0, 2),
    ("never", "never.wav", "e", 48_000, 40.0, 0),
)

#: id, recording, start, end, low, high, label, quality.
CALLS = (
    ("a1", "a__tape.23", 1.0, 2.0, 200.0, 900.0, "hum", "3"),
    ("a2", "a__tape.23", 5.0, 6.0, None, None, "hum", "Q1"),
    ("a3", "a__tape.23", 8.0, 8.5, 30_000.0, 40_000.0, "howl", None),
    ("a4", "a__tape.23", 30.0, 31.0, 1.0, 2.0, "other", "1"),
    ("b1", "b__tape.23", 2.25, 3.0, 300.0, 20_000.0, "hum", "2.0"),
    ("n1", "never", 2.0, 3.0, None, None, "hum", "2"),
)

#: id, recording, fold, start, end, label, mean logit, peak logit, probability, selected, forest's probability,
#: kept by the forest (None: no candidate), call of the pair (if hit).
SELECTIONS = (
    ("s1", "a__tape.23", 1, 1.1, 2.0, "hum", 1.5, 3.0, 0.9, True, 0.8, True, "a1"),
    ("s2", "a__tape.23", 1, 4.0, 4.5, "hum", 0.5, 1.0, None, True, 0.2, False, None),
    ("s3", "a__tape.23", 1, 8.0, 8.4, "hum", -0.5, 2.0, 0.4, True, 0.7, True, None),
    ("s4", "a__tape.23", 1, 5.0, 5.9, "hum", -2.0, -1.0, 0.1, False, 0.9, True, "a2"),
    ("s5", "b__tape.23", 2, 2.25, 2.9000000000000004, "hum", 2.0, 4.0, 0.95, True, 0.6, True, "b1"),
    ("s6", "x_1", 2, 0.0, 0.00001234567, "howl", 0.0, 0.5, 0.3, True, None, None, None),
)

#: The chosen threshold of both layers, by fold.
THRESHOLDS = {"cnn": {1: 0.6, 2: 0.5}, "cnn+rf": {1: 0.5, 2: 0.25}}


def decodings() -> list[DecodingPoint]:
    """Fold 1 was given windows of 0.5 s, fold 2 takes the scores as they are; two labels."""
    windows = DecodingPoint(0.3, 1.0, 0.0, 0.0, 0.0, window_s=0.5, hop_s=0.05)
    return [windows, windows, *[DecodingPoint(0.3, 1.0, 0.0, 0.0, 0.0)] * 2]


def recordings() -> pd.DataFrame:
    names = ("recording_id", "path", "group", "sample_rate", "duration_s")
    rows = [dict(zip(names, row[:5], strict=True)) for row in RECORDINGS]
    return table("recordings", [row | {"n_samples": round(row["sample_rate"] * row["duration_s"])} for row in rows])


def annotations() -> pd.DataFrame:
    names = ("annotation_id", "recording_id", "start_s", "end_s", "low_hz", "high_hz", "label", "quality")
    return table("annotations", [dict(zip(names, row, strict=True)) for row in CALLS])


def splits() -> pd.DataFrame:
    rows = []
    for recording_id, _, group, rate, length_s, tested in RECORDINGS:
        for fold in (1, 2):
            split = "test" if fold == tested else "val" if tested == 0 else "train"
            row = {"recording_id": recording_id, "group": group, "fold": fold, "split": split, "leaky": False}
            rows.append(row | {"start_sample": 0, "end_sample": round(rate * length_s)})
    return table("splits", rows)


def layer(name: str) -> ExportedLayer:
    """The tables of the layer `cnn` or `cnn+rf`."""
    filtered = name == "cnn+rf"
    keys = {"model": MODEL, "layer": name, "split": "test", "leaky": False}
    rows, matches, hit = [], [], set()
    for identity, recording_id, fold, start_s, end_s, label, mean, peak, probability, own, rf, kept, call in SELECTIONS:
        if filtered and kept is None:
            continue
        selected = bool(kept) if filtered else own
        where = {"recording_id": recording_id, "fold": fold, "label": label, "start_s": start_s, "end_s": end_s}
        scores = {"score": mean, "peak_score": peak, "probability": probability}
        found = keys | where | scores | {"selection_id": identity, "selected": selected, "hit": call is not None}
        rows.append(found | {"rf_probability": rf if filtered else None, "operating_point": "off0.3"})
        if selected:
            matches.append(keys | where | _pair(identity, mean, call))
            hit.add(call)
    tested = {recording_id: fold for recording_id, *_, fold in RECORDINGS}
    for identity, recording_id, start_s, end_s, _, _, label, _ in CALLS:
        if identity not in hit and label in LABELS and tested[recording_id]:
            where = {"recording_id": recording_id, "fold": tested[recording_id], "label": label}
            times = {"start_s": start_s, "end_s": end_s, "outcome": "miss", "annotation_id": identity}
            matches.append(keys | where | times | {"iou_threshold": 0.4})
    return ExportedLayer(table("selections", rows), table("matches", matches), _counts(name, keys))


def _pair(identity: str, mean: float, call: str | None) -> dict[str, object]:
    found = {"selection_id": identity, "annotation_id": call, "score": mean, "iou_threshold": 0.4}
    if call is None:
        return found | {"outcome": "false_alarm"}
    return found | {"outcome": "hit", "iou": 0.9, "onset_error_s": 0.1, "offset_error_s": 0.0}


def _counts(name: str, keys: dict[str, object]) -> pd.DataFrame:
    """Which recordings were searched; the counts themselves are not looked at."""
    rows = [
        keys
        | {"recording_id": recording_id, "group": group, "duration_s": length_s, "fold": fold, "label": label}
        | {"iou": 0.4, "operating_point": "selected", "selected": True, "threshold": THRESHOLDS[name][fold]}
        for recording_id, _, group, _, length_s, fold in RECORDINGS
        if fold
        for label in LABELS
    ]
    return table("counts", rows)


def features(names: list[str]) -> pd.DataFrame:
    """A table of features as the forest stage writes it: the n-th candidate has n in every column."""
    ids = [row[0] for row in SELECTIONS if row[11] is not None]
    values = {name: [float(number) for number in range(len(ids))] for name in names}
    return pd.DataFrame({"selection_id": ids, "hit": True, "group": "a"} | values)


def same(one: float, other: float) -> bool:
    return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
