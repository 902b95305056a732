"""The background of a recording: pieces of clips in random order, joined by crossfades, readable at any position."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from otus.audio import Samples
from otus.soundscapes.sources import Cut


@dataclass(frozen=True)
class Bed:
    """Which piece begins where; each overlaps the next by the length of a crossfade."""

    pieces: tuple[Cut, ...]
    starts: tuple[int, ...]


def lay_bed(rng: np.random.Generator, cuts: Sequence[Cut], n_samples: int, crossfade: int) -> Bed:
    """Return a background of `n_samples`: all of `cuts` in random order, again and again until it is long enough.

    The first piece begins before the recording, so that its ramp is not heard. No piece follows itself if there is
    another one. Every cut has to be at least twice as long as a crossfade (in samples).
    """
    pieces: list[Cut] = []
    starts: list[int] = []
    position = -crossfade
    while position < n_samples:
        deck = [cuts[int(i)] for i in rng.permutation(len(cuts))]
        if pieces and deck[0] == pieces[-1]:
            deck.append(deck.pop(0))
        for cut in deck:
            pieces.append(cut)
            starts.append(position)
            position += cut.n_samples - crossfade
            if position >= n_samples:
                break
    return Bed(tuple(pieces), tuple(starts))


def read_bed(bed: Bed, start: int, end: int, sound_of: Callable[[Cut], Samples]) -> Samples:
    """Return samples [start, end) of the background; `sound_of` gives a piece with its ramps.

    The result is the same to the bit wherever the stretch begins and ends.
    """
    out = np.zeros(end - start, dtype=np.float32)
    index = max(0, bisect_right(bed.starts, start) - 2)  # a piece overlaps only its neighbours
    while index < len(bed.starts) and bed.starts[index] < end:
        begin, length = bed.starts[index], bed.pieces[index].n_samples
        first, last = max(start, begin), min(end, begin + length)
        if first < last:
            out[first - start : last - start] += sound_of(bed.pieces[index])[first - begin : last - begin]
        index += 1
    return out
