"""Free time of recordings, and places in it for clips: every place where a clip fits is equally likely."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Draws from all free time, of which those that fall on something taken are drawn again, before room is looked for.
_DRAWS = 64


@dataclass(frozen=True, slots=True)
class Slot:
    """Samples [start, end) of a recording."""

    recording_id: str
    start_sample: int
    end_sample: int
    sample_rate: int


def free_slots(
    recordings: pd.DataFrame, annotations: pd.DataFrame, clips: pd.DataFrame | None, margin_s: float
) -> list[Slot]:
    """Return the time of `recordings` (index: recording_id, in its order) that nothing touches.

    Annotations (s) of any label are grown by the margin, `clips` (samples) are not.
    """
    taken: dict[str, list[tuple[float, float]]] = {}
    rows = annotations[["recording_id", "start_s", "end_s"]]
    for recording_id, start_s, end_s in rows.itertuples(index=False, name=None):
        taken.setdefault(recording_id, []).append((start_s - margin_s, end_s + margin_s))
    cut: dict[str, list[tuple[int, int]]] = {}
    if clips is not None:
        for recording_id, start, end in clips[["recording_id", "start_sample", "end_sample"]].itertuples(
            index=False, name=None
        ):
            cut.setdefault(recording_id, []).append((start, end))
    slots: list[Slot] = []
    facts = recordings[["n_samples", "sample_rate"]]
    for recording_id, n_samples, rate in facts.itertuples(name=None):
        grown = [(int(np.floor(a * rate)), int(np.ceil(b * rate))) for a, b in taken.get(recording_id, [])]
        free_from = 0
        for start, end in sorted([*grown, *cut.get(recording_id, [])]):
            if start > free_from:
                slots.append(Slot(recording_id, free_from, start, int(rate)))
            free_from = max(free_from, end)
        if n_samples > free_from:
            slots.append(Slot(recording_id, free_from, int(n_samples), int(rate)))
    return slots


class _Gaps:
    """What is left of free slots, gap by gap (number of the slot, first sample, one past the last)."""

    def __init__(self, gaps: NDArray[np.int64], slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._gaps = gaps
        self._rates = np.array([slots[number].sample_rate for number in gaps[:, 0]], dtype=np.int64)
        self._too_long_s = np.inf

    def draw(self, duration_s: float, generator: np.random.Generator) -> Slot | None:
        """Return a free place, which is taken from now on, in proportion to the room in each gap; None without any."""
        if duration_s >= self._too_long_s:
            return None
        lengths = np.maximum(1, (duration_s * self._rates + 1e-6).astype(np.int64))
        places = np.maximum(self._gaps[:, 2] - self._gaps[:, 1] - lengths + 1, 0)
        total = np.cumsum(places / self._rates)
        if len(total) == 0 or total[-1] <= 0:
            self._too_long_s = duration_s
            return None
        gap = int(np.searchsorted(total, generator.uniform(0.0, total[-1]), side="right"))
        gap = min(gap, int(np.flatnonzero(places)[-1]))
        number, first, last = (int(value) for value in self._gaps[gap])
        start = first + int(generator.integers(0, places[gap]))
        end = start + int(lengths[gap])
        self._gaps[gap, 2] = start
        self._gaps = np.vstack([self._gaps, [[number, end, last]]])
        self._rates = np.append(self._rates, self._rates[gap])
        slot = self._slots[number]
        return Slot(slot.recording_id, start, end, slot.sample_rate)


class Room:
    """Free slots that fill up with clips.

    A place is drawn evenly from all free time that there was at first, and again until the clip fits there without
    touching another: that makes every place where it fits equally likely, without a look at all slots. Once that fails
    too often, the room that is left is measured.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._until_s = np.cumsum([(s.end_sample - s.start_sample) / s.sample_rate for s in slots])
        self._starts: list[list[int]] = [[] for _ in slots]
        self._ends: list[list[int]] = [[] for _ in slots]
        self._gaps: _Gaps | None = None

    def draw(self, duration_s: float, generator: np.random.Generator) -> Slot | None:
        """Return a free place of that length, which is taken from now on; None if there is none left."""
        if len(self._slots) == 0:
            return None
        if self._gaps is not None:
            return self._gaps.draw(duration_s, generator)
        for position_s in generator.uniform(0.0, self._until_s[-1], size=_DRAWS):
            number = min(int(np.searchsorted(self._until_s, position_s, side="right")), len(self._slots) - 1)
            slot = self._slots[number]
            length = _length(duration_s, slot)
            before_s = self._until_s[number - 1] if number else 0.0
            start = slot.start_sample + int((position_s - before_s) * slot.sample_rate)
            if start + length <= slot.end_sample and self._is_free(number, start, start + length):
                return self._take(number, start, length)
        self._gaps = self._measure()
        return self._gaps.draw(duration_s, generator)

    def _measure(self) -> _Gaps:
        """The gaps that are left in all slots."""
        found = [
            (number, start, end)
            for number, slot in enumerate(self._slots)
            for start, end in zip(
                [slot.start_sample, *self._ends[number]], [*self._starts[number], slot.end_sample], strict=True
            )
            if end > start
        ]
        return _Gaps(np.array(found, dtype=np.int64).reshape(-1, 3), self._slots)

    def _is_free(self, number: int, start: int, end: int) -> bool:
        after = bisect.bisect_left(self._starts[number], start)
        ends, starts = self._ends[number], self._starts[number]
        return (after == 0 or ends[after - 1] <= start) and (after == len(starts) or end <= starts[after])

    def _take(self, number: int, start: int, length: int) -> Slot:
        after = bisect.bisect_left(self._starts[number], start)
        self._starts[number].insert(after, start)
        self._ends[number].insert(after, start + length)
        slot = self._slots[number]
        return Slot(slot.recording_id, start, start + length, slot.sample_rate)


def _length(duration_s: float, slot: Slot) -> int:
    """Samples of a clip; not more than the duration holds, or a slot of just that length would be too short."""
    return max(1, int(duration_s * slot.sample_rate + 1e-6))
