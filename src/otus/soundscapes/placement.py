"""When events are heard: a Poisson process for each sound, and which events may overlap."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np

from otus.config import SnrSettings
from otus.soundscapes.sources import Cut, Sound

#: How often another place is drawn for an event that does not fit, before it is dropped.
TRIES = 100

Overlap = Literal["forbid", "other", "allow"]


@dataclass(frozen=True)
class Place:
    """An event to be heard from sample `start` on, `snr_db` above the background there."""

    start: int
    label: str
    cut: Cut
    snr_db: float

    @property
    def end(self) -> int:
        """One past the last sample."""
        return self.start + self.cut.n_samples


@dataclass(frozen=True)
class Placement:
    """Where events are, in order of time; `drawn` and `crowded_out` count events by label."""

    places: tuple[Place, ...]
    drawn: Counter[str]
    crowded_out: Counter[str]


@dataclass
class _Timeline:
    """Stretches that do not overlap, in order of time."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def is_free(self, start: int, end: int, gap: int) -> bool:
        following = bisect_left(self.starts, end + gap)
        return following == 0 or self.ends[following - 1] + gap <= start

    def take(self, start: int, end: int) -> None:
        index = bisect_left(self.starts, start)
        self.starts.insert(index, start)
        self.ends.insert(index, end)


def place_events(
    rng: np.random.Generator,
    sounds: Sequence[Sound],
    n_samples: int,
    sample_rate: int,
    *,
    overlap: Overlap,
    gap_s: float,
    snr: SnrSettings,
) -> Placement:
    """Return a draw of events in a recording of `n_samples`, each of them whole.

    The number of events of each sound is Poisson with its rate; the clip is drawn first, then one of its events, then
    the place. A place that `overlap` and `gap_s` do not allow is drawn again up to TRIES times; then the event is
    dropped. Events of all sounds are placed in random order, so that none has the first choice.
    """
    minutes = n_samples / sample_rate / 60.0
    counts = [rng.poisson(sound.rate_per_min * minutes) for sound in sounds]
    drawn: Counter[str] = Counter()
    crowded_out: Counter[str] = Counter()
    timelines: dict[str, _Timeline] = {}
    places = []
    for index in rng.permutation(np.repeat(np.arange(len(sounds)), counts)):
        sound = sounds[int(index)]
        cuts = sound.clips[int(rng.integers(len(sound.clips)))]
        cut = cuts[int(rng.integers(len(cuts)))]
        snr_db = draw_snr(rng, snr)
        timeline = None
        if overlap != "allow":
            timeline = timelines.setdefault("" if overlap == "forbid" else sound.label, _Timeline())
        start = _free_start(rng, cut.n_samples, n_samples, timeline, round(gap_s * sample_rate))
        drawn[sound.label] += 1
        if start is None:
            crowded_out[sound.label] += 1
            continue
        if timeline is not None:
            timeline.take(start, start + cut.n_samples)
        places.append(Place(start, sound.label, cut, snr_db))
    places.sort(key=lambda place: (place.start, place.label, place.cut.path, place.cut.start))
    return Placement(tuple(places), drawn, crowded_out)


def draw_snr(rng: np.random.Generator, snr: SnrSettings) -> float:
    """Return an SNR (dB) from the normal distribution of the settings, truncated to [low_db, high_db]."""
    if snr.sd_db == 0.0:
        return snr.mean_db
    normal = NormalDist(snr.mean_db, snr.sd_db)
    share = rng.uniform(normal.cdf(snr.low_db), normal.cdf(snr.high_db))
    drawn = normal.inv_cdf(min(max(share, 1e-300), 1.0 - 1e-16))
    return min(max(drawn, snr.low_db), snr.high_db)


def _free_start(
    rng: np.random.Generator, length: int, n_samples: int, timeline: _Timeline | None, gap: int
) -> int | None:
    """A place for an event of `length` samples; None if none was found."""
    if length > n_samples:
        return None
    for _ in range(TRIES):
        start = int(rng.integers(n_samples - length + 1))
        if timeline is None or timeline.is_free(start, start + length, gap):
            return start
    return None
