"""The files that the scripts and notebooks of the alpaca pipelines read: result tables, indexes, features, metrics.

There, what a network found is the layer `evaluation`, and what the forest left of it `postrf`. Times are rounded to
milliseconds, and the metrics are computed from the rounded ones, so that their evaluator gets the same from the index.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from otus.annotations.writing import plain_number
from otus.exports.old_evaluator import COLUMNS, TAPE_COLUMNS, evaluate_tapes, metrics_table
from otus.exports.review import judgements
from otus.forest.features import feature_names
from otus.forest.spectra import fft_length
from otus.hearing import Hearing
from otus.measures.evidence import TestedLayer

EVALUATION, POSTRF = "evaluation", "postrf"

#: Columns of the result tables, which differ in their order.
_RESULT_COLUMNS = {
    EVALUATION: (
        *("Selection", "View", "Channel", "Begin time (s)", "End time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
        *("Sound type", "Comments", "CNN logit (mean)"),
    ),
    POSTRF: (
        *("Selection", "View", "Channel", "Begin time (s)", "End time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
        *("CNN logit (mean)", "Sound type", "Comments"),
    ),
}
_VIEW, _CHANNEL = "Spectrogram_1", "1"

#: What ANIMAL-SPOT calls the only class that is no noise.
_TARGET = "target"

#: Longest name of a recording, in bytes, that leaves room for the endings of the files within 255.
_LONGEST_STEM = 190


@dataclass(frozen=True)
class AlpacaRun:
    """One model as their files name it.

    Of window, hop and thresholds, which are chosen for every fold and label, they know but one: it is the median.
    `labels` are the target labels, `forests` says where the forests are, `generated_at` is a time in UTC.
    """

    model: str
    labels: tuple[str, ...]
    iou: float
    hearing: Hearing
    window_s: float
    hop_s: float
    threshold: float
    rf_threshold: float
    forests: str
    generated_at: str

    @property
    def variant(self) -> str:
        """The tag of the operating point."""
        return variant_tag(self.window_s, self.hop_s, self.threshold)


def variant_tag(window_s: float, hop_s: float, threshold: float) -> str:
    """Return a tag such as len400_hop050_th90: window and hop in ms, threshold in percent, each rounded."""
    return f"len{round(1000 * window_s):03d}_hop{round(1000 * hop_s):03d}_th{round(100 * threshold):02d}"


def tape_stems(recordings: pd.DataFrame) -> dict[str, str]:
    """Return, by recording_id, the name of each recording as a tape: its file name without the suffix, dots and all.

    Where two recordings share it, whatever the case, or it cannot be part of a file name everywhere, it is the id.
    """
    stems = {
        str(recording_id): PurePosixPath(str(path)).stem
        for recording_id, path in zip(recordings["recording_id"], recordings["path"], strict=True)
    }
    uses = Counter(stem.casefold() for stem in stems.values())
    uses.update({recording_id.casefold(): 1 for recording_id, stem in stems.items() if stem != recording_id})
    return {
        recording_id: stem if uses[stem.casefold()] == 1 and _is_safe(stem) else recording_id
        for recording_id, stem in stems.items()
    }


def alpaca_files(
    plain: TestedLayer, filtered: TestedLayer, recordings: pd.DataFrame, features: pd.DataFrame, run: AlpacaRun
) -> dict[str, str]:
    """Return the texts of the files of a model by their paths.

    `plain` and `filtered` are what was tested before and behind the forest; `features` has selection_id and the
    features of the candidates of the forest, of which those that the alpaca pipelines know are written.
    """
    rows = recordings.set_index("recording_id", drop=False).loc[sorted(plain.recordings["recording_id"])]
    stems = tape_stems(rows.reset_index(drop=True))
    rates = rows["sample_rate"].astype(int)
    before, behind = _found(plain, stems), _found(filtered, stems)
    files: dict[str, str] = {}
    entries = {}
    for stage, found in ((EVALUATION, before), (POSTRF, behind)):
        names = {stem: f"{stage}/annotations/{_result_name(stem)}.txt" for stem in stems.values()}
        bands = {stems[i]: (run.hearing.low_hz, run.hearing.high_below(rate)) for i, rate in rates.items()}
        rows_of = dict(list(found.groupby("tape")))
        for stem, name in sorted(names.items()):
            files[name] = _result_table(rows_of.get(stem, found.iloc[:0]), stage, bands[stem], run.labels)
        entries[stage] = [_index_entry(row, names[row["tape"]], stage) for row in found.to_dict("records")]
    meta = {"generated_at": run.generated_at, "n_preds": len(before)}
    files[f"{EVALUATION}/index.json"] = _index(meta, entries[EVALUATION])
    known = known_features(features.columns)
    files[f"{POSTRF}/index.json"] = _index(_forest_meta(run, known, rates, len(behind)), entries[POSTRF])
    for stem, text in _feature_tables(before, behind, features[["selection_id", *known]], stems).items():
        files[f"{POSTRF}/features_py/{_result_name(stem)}.features_all.csv"] = text
    return files | _metrics(plain, before, behind, stems, run)


def known_features(columns: Sequence[str]) -> list[str]:
    """Return those of `columns` that the alpaca pipelines have, in their order (see otus.forest.features)."""
    numbers = [int(found[1]) for name in columns if (found := re.fullmatch(r"mfcc(\d+)_mean", name))]
    present = set(columns)
    return [name for name in feature_names(max(numbers, default=0)) if name in present]


def _found(layer: TestedLayer, stems: Mapping[str, str]) -> pd.DataFrame:
    """What a layer selected, by tape and time: tape, number within it, times in s, rounded, label, score, rf_prob."""
    rows = layer.selections[layer.selections["selected"].to_numpy(dtype=bool)]
    found = pd.DataFrame(
        {
            "tape": rows["recording_id"].map(stems),
            "start_s": _to_ms(rows["start_s"]),
            "end_s": _to_ms(rows["end_s"]),
            "rf_prob": judgements(rows),
            **{name: rows[name] for name in ("label", "score", "selection_id")},
        }
    ).sort_values(["tape", "start_s", "end_s", "label", "selection_id"], ignore_index=True)
    return found.assign(number=found.groupby("tape").cumcount() + 1)


def _result_name(stem: str) -> str:
    return f"{stem}_predict_output.log.annotation.result"


def _result_table(rows: pd.DataFrame, stage: str, band: tuple[float, float], labels: Sequence[str]) -> str:
    """One `.annotation.result.txt`: the selections of a tape, or the header alone."""
    columns = _RESULT_COLUMNS[stage]
    lines = ["\t".join(columns)]
    for row in rows.to_dict("records"):
        cells = {
            "Selection": str(row["number"]),
            "View": _VIEW,
            "Channel": _CHANNEL,
            "Begin time (s)": plain_number(row["start_s"]),
            "End time (s)": plain_number(row["end_s"]),
            "Low Freq (Hz)": f"{band[0]:g}",
            "High Freq (Hz)": f"{band[1]:g}",
            "Sound type": _TARGET if len(labels) == 1 else row["label"],
            "Comments": f"rf_prob={row['rf_prob']:.6f}" if stage == POSTRF else "",
            "CNN logit (mean)": plain_number(row["score"]),
        }
        lines.append("\t".join(" ".join(cells[name].split()) for name in columns))
    return "\n".join(lines) + "\n"


def _index_entry(row: Mapping[Any, Any], path: str, stage: str) -> dict[str, Any]:
    entry = {
        "pred_path": path,
        "tape": f"{row['tape']}.wav",
        "start_s": row["start_s"],
        "end_s": row["end_s"],
        "dur_s": round(row["end_s"] - row["start_s"], 3),
    }
    return entry | ({"rf_prob": round(float(row["rf_prob"]), 6)} if stage == POSTRF else {})


def _index(meta: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str:
    """An index with one entry a line, numbered from 1."""
    lines = ",\n".join(json.dumps({"uid": uid, **entry}, allow_nan=False) for uid, entry in enumerate(entries, start=1))
    return f'{{"meta": {json.dumps(meta, allow_nan=False)},\n"entries": [\n{lines}\n]}}\n'


def _forest_meta(run: AlpacaRun, known: Sequence[str], rates: "pd.Series[int]", n_entries: int) -> dict[str, Any]:
    """What the index says of the forest; lengths of spectra are those at the most usual sample rate."""
    n_fft = fft_length(run.hearing.spectrum_s, int(rates.mode().iloc[0]))
    return {
        "generated_at": run.generated_at,
        "rf_model": run.forests,
        "features": "all",
        "rf_threshold": run.rf_threshold,
        "n_entries": n_entries,
        "stft": {"n_fft": n_fft, "hop": n_fft // 2},
        "mfcc": {
            "n_mfcc": sum(bool(re.fullmatch(r"mfcc\d+_mean", name)) for name in known),
            "include_deltas": any(name.startswith("d_mfcc") for name in known),
        },
    }


def _feature_tables(
    before: pd.DataFrame, behind: pd.DataFrame, features: pd.DataFrame, stems: Mapping[str, str]
) -> dict[str, str]:
    """One `features_all.csv` per tape; `selection` is the number in the table of the layer `evaluation`.

    A forest may keep what the network alone would not have selected; such selections are numbered on behind.
    """
    only = behind[~behind["selection_id"].isin(before["selection_id"])]
    last = before["tape"].value_counts()
    own = only.groupby("tape").cumcount() + 1 + only["tape"].map(last).fillna(0).astype(int)
    listed = pd.concat([before, only.assign(number=own)], ignore_index=True)
    listed = listed.merge(features.drop_duplicates("selection_id"), on="selection_id", how="inner")
    listed = listed.assign(wave_file=listed["tape"] + ".wav", selection=listed["number"])
    columns = ["wave_file", "selection", *features.columns.drop("selection_id")]
    rows_of = dict(list(listed.sort_values(["tape", "number"]).groupby("tape")))
    nothing = listed.iloc[:0]
    return {
        stem: rows_of.get(stem, nothing)[columns].to_csv(index=False, lineterminator="\n")
        for stem in sorted(stems.values())
    }


def _metrics(
    layer: TestedLayer, before: pd.DataFrame, behind: pd.DataFrame, stems: Mapping[str, str], run: AlpacaRun
) -> dict[str, str]:
    """metrics.csv and metrics_per_tape.csv: the numbers of both layers."""
    calls = pd.DataFrame(
        {
            "tape": layer.calls["recording_id"].map(stems),
            "label": layer.calls["label"],
            "start_s": _to_ms(layer.calls["start_s"]),
            "end_s": _to_ms(layer.calls["end_s"]),
            "quality": layer.calls["quality"].map(_quality).astype(float),
        }
    )
    totals: list[dict[str, Any]] = []
    tapes: list[dict[str, Any]] = []
    for stage, found in ((EVALUATION, before), (POSTRF, behind)):
        names = {"model": run.model, "variant": run.variant, "layer": stage}
        total, per_tape = evaluate_tapes(calls, found, run.iou)
        totals.append({**total, **names})
        tapes += [{**row, "tape": f"{tape}.wav", **names} for tape, row in per_tape.items()]
    return {
        "metrics.csv": metrics_table(totals, [*COLUMNS, "model", "variant", "layer"]),
        "metrics_per_tape.csv": metrics_table(tapes, [*TAPE_COLUMNS, "tape", "model", "variant", "layer"]),
    }


def _to_ms(times_s: "pd.Series[float]") -> "pd.Series[float]":
    """Times in s rounded to ms as Python rounds a number."""
    return times_s.map(lambda time_s: round(float(time_s), 3)).astype(float)


def _quality(text: object) -> float:
    """A quality such as 2, Q2 or 2.0 as a number; NaN for any other."""
    found = re.fullmatch(r"[Qq]?[ _-]?(\d+)(?:[.,]0+)?", text.strip()) if isinstance(text, str) else None
    return float(found[1]) if found else math.nan


def _is_safe(stem: str) -> bool:
    """Whether a name can be part of a file name on every system."""
    return stem.isprintable() and not re.search(r'[\\/:*?"<>|]', stem) and len(stem.encode()) <= _LONGEST_STEM
