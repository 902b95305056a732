"""Examples of hits, false alarms and misses: which ones, and each as a picture and a sound."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soxr

from otus import audio
from otus.errors import DataError
from otus.report.figures import Mark, spectrogram_png, wav_bytes
from otus.report.leaderboard import number

_LEAST_CONTEXT_S, _MOST_CONTEXT_S = 1.0, 10.0
_LONGEST_EVENT_S = 60.0  # of a longer event the beginning is shown
_SOUND_BYTES = 170_000  # a clip; eighteen of them and their pictures keep the default report below 6 MB
_HEARD_RATE = 48_000  # browsers play nothing above it

Row = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """One figure of the report: `picture` and `sound` are data URIs, `problem` says why there is no picture."""

    recording: str
    facts: str
    picture: str | None = None
    sound: str | None = None
    sound_note: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class View:
    """How spectrograms are drawn (None = the figure's own choice) and whether sounds are embedded."""

    window_s: float | None
    low_hz: float | None
    high_hz: float | None
    sound: bool


def choose_examples(matches: pd.DataFrame, outcome: str, n: int) -> list[Row]:
    """Return up to `n` rows of table matches with this outcome, always the same ones, spread over recordings.

    Hits are spread evenly over their scores, highest first; false alarms come highest score first and misses
    longest first, one of each recording before the second of any.
    """
    rows = [{str(k): v for k, v in row.items()} for row in matches[matches["outcome"].eq(outcome)].to_dict("records")]
    rows.sort(key=lambda row: (*_rank(row, outcome), str(row["recording_id"]), row["start_s"], str(row["label"])))
    if outcome == "hit":
        return _from_strata(rows, n)
    seen: Counter[str] = Counter()
    turns = []
    for row in rows:
        turns.append(seen[row["recording_id"]])
        seen[row["recording_id"]] += 1
    order = sorted(range(len(rows)), key=lambda i: turns[i])  # stable: keeps the ranking within a turn
    return [rows[i] for i in sorted(order[:n])]


def draw_example(
    row: Row, recording: Mapping[str, Any] | None, root: Path, marks: Sequence[Mark], view: View
) -> Example:
    """Return the example for a row of table matches, read from its recording below `root`.

    About max(1 s, the event's length) is shown on either side. A recording that cannot be read gives an example
    whose `problem` says so in a sentence.
    """
    facts = _facts(row)
    if recording is None:
        name = str(row["recording_id"])
        return Example(name, facts, problem=f"{name} is not in the table of recordings, so nothing can be shown.")
    name = str(recording["path"])
    path = root / name
    try:
        samples, rate, start = _read_around(path, row)
    except DataError as error:  # named below the root: a report that is handed on tells nothing about this machine
        reason = str(error).replace(f"{root}/", "")
        return Example(name, facts, problem=f"This recording could not be read for the report: {reason}")
    if len(samples) == 0:
        return Example(name, facts, problem=f"{name} holds no sound at {number(row['start_s'])} s.")
    png = spectrogram_png(
        samples,
        rate,
        start_s=start / rate,
        marks=marks,
        window_s=view.window_s,
        low_hz=view.low_hz,
        high_hz=view.high_hz,
    )
    sound, note = _sound(samples, rate, row, start) if view.sound else (None, "")
    return Example(name, facts, picture=_data_uri("image/png", png), sound=sound, sound_note=note)


def marks_of(row: Row, selections: pd.DataFrame, annotations: pd.DataFrame) -> list[Mark]:
    """Return the marks for the picture of `row`: selections (rows of matches) and annotations of its recording.

    Annotations of another label than the row's are marked as such; the row's own interval is the focus.
    """
    marks = []
    for other in selections[selections["recording_id"].eq(row["recording_id"])].to_dict("records"):
        own = other["selection_id"] == row["selection_id"]
        marks.append(Mark("selection", float(other["start_s"]), float(other["end_s"]), focus=own))
    for note in annotations[annotations["recording_id"].eq(row["recording_id"])].to_dict("records"):
        low, high = (None if pd.isna(note[side]) else float(note[side]) for side in ("low_hz", "high_hz"))
        own = note["annotation_id"] == row["annotation_id"] and row["outcome"] == "miss"
        kind = "annotation" if note["label"] == row["label"] else "other"
        marks.append(Mark(kind, float(note["start_s"]), float(note["end_s"]), low, high, own))  # type: ignore[arg-type]
    return marks


def _rank(row: Row, outcome: str) -> tuple[float, ...]:
    if outcome == "miss":
        return (float(row["start_s"]) - float(row["end_s"]),)
    return (np.inf if pd.isna(row["score"]) else -float(row["score"]),)


def _from_strata(rows: list[Row], n: int) -> list[Row]:
    """Of each of `n` equal parts of `rows` the one nearest to the middle among the recordings used least so far."""
    used: Counter[str] = Counter()
    chosen = []
    for part in np.array_split(np.arange(len(rows)), max(1, min(n, len(rows)))):
        if n == 0 or len(part) == 0:
            continue
        middle = part.mean()
        best = min(part, key=lambda i: (used[rows[i]["recording_id"]], abs(i - middle), i))
        used[rows[best]["recording_id"]] += 1
        chosen.append(rows[best])
    return chosen


def _read_around(path: Path, row: Row) -> tuple[audio.Samples, int, int]:
    """Samples around the event, their rate and the position of the first."""
    rate = audio.inspect(path).sample_rate
    begin = max(0.0, float(row["start_s"]))
    end = min(float(row["end_s"]), begin + _LONGEST_EVENT_S)
    context = min(_MOST_CONTEXT_S, max(_LEAST_CONTEXT_S, end - begin))
    start = max(0, round((begin - context) * rate))
    samples, _ = audio.read(path, start, round((end + context) * rate))
    return samples, rate, start


def _sound(samples: audio.Samples, rate: int, row: Row, start: int) -> tuple[str, str]:
    """The sound as a data URI, cut around the middle of the event if it is too long, and what to say about it."""
    notes = []
    heard_rate = min(rate, _HEARD_RATE)
    most = _SOUND_BYTES // 2 * rate // heard_rate
    if len(samples) > most:
        middle = round((float(row["start_s"]) + float(row["end_s"])) / 2 * rate) - start
        first = int(np.clip(middle - most // 2, 0, len(samples) - most))
        samples = samples[first : first + most]
        notes.append(f"Sound: {number((start + first) / rate)}–{number((start + first + most) / rate)} s.")
    if heard_rate < rate:
        samples = soxr.resample(samples, rate, heard_rate, quality="HQ")
        notes.append(f"Recorded at {rate / 1000:g} kHz; the sound here ends at {heard_rate / 2000:g} kHz.")
    return _data_uri("audio/wav", wav_bytes(samples, heard_rate)), " ".join(notes)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _facts(row: Row) -> str:
    parts = [f"{row['label']}, {number(row['start_s'])}–{number(row['end_s'])} s"]
    if not pd.isna(row["score"]):
        parts.append(f"score {number(row['score'])}")
    if row["outcome"] == "hit" and not pd.isna(row["iou"]):
        parts.append(f"IoU {number(row['iou'])}")
    return ", ".join(parts)
