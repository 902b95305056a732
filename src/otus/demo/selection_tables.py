"""Raven selection tables as a person leaves them: boundaries off by hundredths, rows added late, views doubled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from otus.demo.scene import CONFUSER, TARGET, Event

HEADER = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Annotation",
    "Quality",
)

_SHORTEST_S = 0.04


@dataclass(frozen=True)
class Selected:
    """One selection in a table; `quality` runs from 1 (clear) to 4 (barely audible)."""

    label: str
    start_s: float
    end_s: float
    low_hz: float
    high_hz: float
    quality: int


def annotate(rng: np.random.Generator, events: Sequence[Event], duration_s: float, highest_hz: float) -> list[Selected]:
    """Return what a person selects: every target call, about half of the confusers, with shaky boundaries (s, Hz)."""
    hand_s = rng.uniform(0.02, 0.04)
    selected = []
    for event in events:
        if event.label == CONFUSER and rng.random() < 0.5:
            continue
        start_s = float(np.clip(event.start_s + rng.normal(0.0, hand_s), 0.0, duration_s - _SHORTEST_S))
        end_s = float(np.clip(event.end_s + rng.normal(0.0, hand_s), start_s + _SHORTEST_S, duration_s))
        low_hz = max(0.0, event.low_hz * rng.uniform(0.75, 0.98))
        high_hz = min(highest_hz, event.high_hz * rng.uniform(1.02, 1.2))
        selected.append(Selected(event.label, start_s, end_s, low_hz, high_hz, _quality(event.snr_db)))
    return selected


def add_slip(rng: np.random.Generator, selected: Sequence[Selected]) -> list[Selected]:
    """Return the selections with one more that a stray click left: a point in time, labelled like a call."""
    first = selected[0]
    point_s = first.start_s + float(rng.uniform(0.2, 0.8)) * (first.end_s - first.start_s)
    at = int(rng.integers(1, len(selected) + 1))
    return [*selected[:at], replace(first, label=TARGET, start_s=point_s, end_s=point_s), *selected[at:]]


def add_late(rng: np.random.Generator, selected: Sequence[Selected]) -> list[Selected]:
    """Return the selections with up to two of them moved to the end, as when found on a second look."""
    late = set(rng.choice(len(selected) - 1, size=min(2, len(selected) - 1), replace=False).tolist())
    kept = [row for index, row in enumerate(selected) if index not in late]
    return kept + [selected[index] for index in sorted(late)]


def render(selected: Sequence[Selected], *, views: Sequence[str]) -> str:
    """Return the text of a selection table with one line per selection and view, as Raven 1.6 saves it."""
    lines = ["\t".join(HEADER)]
    for number, row in enumerate(selected, start=1):
        times = [f"{row.start_s:.9f}", f"{row.end_s:.9f}"]
        band = [f"{row.low_hz:.3f}", f"{row.high_hz:.3f}"]
        lines += ["\t".join([str(number), view, "1", *times, *band, row.label, str(row.quality)]) for view in views]
    return "\n".join(lines) + "\n"


def _quality(snr_db: float) -> int:
    return 4 - min(3, max(0, math.floor((snr_db + 6.0) / 5.0) + 1))
