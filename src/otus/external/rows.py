"""From what a detector says about the sound file of a chunk to selections in the recording."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from otus.external.programs import ProgramError
from otus.external.results import Found

#: Probabilities are kept this far from 0 and 1, where a logit has no end.
_CLAMP = 1e-6

#: Times may lie so far outside the sound file (s), by rounding.
_SLACK_S = 0.5

#: The last window of a detector may reach so far beyond the end of the sound file (s); what does so is cut.
_OVERHANG_S = 60.0

#: The score of what a detector reports without one.
_SURE = 1.0


@dataclass(frozen=True)
class ChunkTimes:
    """In s of the recording: the chunk, the sound file that was cut of it with context, and the recording's end."""

    start_s: float
    end_s: float
    file_start_s: float
    file_end_s: float


@dataclass(frozen=True)
class Kept:
    """The selections of one chunk, and how many rows of which labels were dropped."""

    rows: list[dict[str, Any]]
    dropped: dict[str, int]


def peak_logit(score: float, kind: Literal["probability", "number"]) -> float:
    """Return the score on the scale of logits, rising with the score.

    A probability becomes its logit, kept within one in a million of 0 and 1. Any other number x becomes asinh(x):
    about x near 0, and never so large that its probability rounds to 1. Raises ProgramError for a probability outside
    0 to 1.
    """
    if kind == "number":
        return math.asinh(score)
    if not 0.0 <= score <= 1.0:
        raise ProgramError(f"the score {score:g} is no probability; set scores: number")
    kept = min(max(score, _CLAMP), 1.0 - _CLAMP)
    return math.log(kept / (1.0 - kept))


def selections_of_chunk(
    found: Iterable[Found],
    times: ChunkTimes,
    labels: dict[str, str],
    *,
    kind: Literal["probability", "number"],
    min_score: float | None,
) -> Kept:
    """Return what counts of `found`, with times of the recording; the columns are those of table selections.

    `labels` maps the detector's labels to targets; others are dropped and counted. `score` is the detector's own,
    `peak_score` the logit of it. A selection belongs to the chunk that holds its midpoint (`selected`). One that lies
    across a border of the chunk with its midpoint beyond is kept as well, for the case that the neighbour does not
    report it (see otus.external.joining). Raises ProgramError if a time lies outside the sound file.
    """
    rows, dropped = [], dict[str, int]()
    length_s = times.file_end_s - times.file_start_s
    for one in found:
        if not -_SLACK_S <= one.start_s <= length_s + _SLACK_S or one.end_s > length_s + _OVERHANG_S:
            raise ProgramError(
                f"a selection lasts from {one.start_s:g} to {one.end_s:g} s, but the sound file is {length_s:g} s "
                "long; times are to be in seconds from its start"
            )
        if one.label not in labels:
            dropped[one.label] = dropped.get(one.label, 0) + 1
            continue
        score = _SURE if one.score is None else one.score
        peak = peak_logit(score, kind)
        start_s = max(one.start_s, 0.0) + times.file_start_s
        end_s = min(one.end_s + times.file_start_s, times.file_end_s)
        middle_s = (start_s + end_s) / 2
        own = times.start_s <= middle_s < times.end_s
        touches = start_s < times.end_s and end_s > times.start_s
        if end_s <= start_s or not touches or (min_score is not None and score < min_score):
            continue
        row = {"start_s": start_s, "end_s": end_s, "label": labels[one.label], "score": score, "peak_score": peak}
        rows.append(row | {"selected": own})
    rows.sort(key=lambda row: (row["start_s"], row["end_s"], row["label"], row["score"]))
    return Kept(rows, dict(sorted(dropped.items())))


def numbered(rows: Sequence[dict[str, Any]], chunk_id: str, recording_id: str) -> list[dict[str, Any]]:
    """Return the rows of a chunk with their ids."""
    return [
        {"selection_id": f"{chunk_id}_s{number:05d}", "recording_id": recording_id, **row}
        for number, row in enumerate(rows)
    ]
