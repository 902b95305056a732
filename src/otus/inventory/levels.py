"""How loud a recording is, and whether it is clipped, silent or has dead channels: gathered block by block."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A flat top is so many equal samples or more at the largest or smallest value of its channel.
_FLAT_SAMPLES = 3
#: Below full scale a limit shows by being reached so often, at this share of full scale or more.
_FLAT_TOPS, _LOWEST_LIMIT = 3, 0.1
#: A wave that is cut off arrives at the limit with a step larger than this share of full scale; the slow top of a low
#: tone, which rounding makes flat as well, does not. Two steps of 16 bits; formats with 8 bits have coarser ones.
_STEP, _COARSE_STEP = 2 / 32768, 1 / 16
_COARSE = frozenset({"PCM_U8", "PCM_S8", "ULAW", "ALAW"})
#: Digital silence lasts at least so long (s), and is below this share of full scale: wind that overloads a microphone
#: holds the limit just as long.
_SILENT_S, _SILENT_BELOW = 0.01, 0.5
#: A channel this much below the loudest one (60 dB) is dead.
_DEAD_RATIO = 1e-3

Block = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels in dB of full scale (None = digital silence), and shares of the samples.

    `peak_dbfs`: the largest absolute value. `rms_dbfs`: root mean square about the mean of each channel (a sine at
    full scale has -3 dB). `clipped_share`: samples in flat tops, that is three or more equal samples at the largest or
    the smallest value of their channel, entered or left with a step, if this value is full scale or is reached by
    three flat tops or more and lies above -20 dBFS. `silent_share`: samples in stretches of 10 ms and more in which
    no channel changes or reaches half of full scale. `dead_channels`: numbers, from 1, of channels that never change
    or lie 60 dB below the loudest.
    """

    peak_dbfs: float | None
    rms_dbfs: float | None
    clipped_share: float
    silent_share: float
    dead_channels: tuple[int, ...]


class LevelMeter:
    """Takes the samples of one recording, block by block, and tells the levels of all."""

    def __init__(self, sample_rate: int, channels: int, subtype: str, full_scale: float) -> None:
        """`full_scale` is the value of the loudest sample: 32768 for 16-bit samples, 1 for floating point."""
        step = full_scale * (_COARSE_STEP if subtype in _COARSE else _STEP)
        self._full_scale = full_scale
        self._n_samples = 0
        self._sums, self._squares = [0.0] * channels, [0.0] * channels
        self._ends = [(_FlatTops(1, step), _FlatTops(-1, step)) for _ in range(channels)]
        self._silence = _Silence(max(2, math.ceil(_SILENT_S * sample_rate)), _SILENT_BELOW * full_scale)

    def add(self, block: Block) -> bool:
        """Take samples x channels, the next ones of the recording; return whether all are finite numbers."""
        planes = np.ascontiguousarray(block.T)
        for channel, plane in enumerate(planes):
            highest, lowest = plane.max(), plane.min()
            if not (np.isfinite(highest) and np.isfinite(lowest)):
                return False
            values = plane.astype(np.float64)
            self._sums[channel] += float(values.sum())
            self._squares[channel] += float(np.einsum("i,i->", values, values))
            top, bottom = self._ends[channel]
            top.add(plane, highest)
            bottom.add(plane, lowest)
        self._silence.add(planes)
        self._n_samples += len(block)
        return True

    def levels(self) -> Levels:
        """Return the levels of everything that was added; there must be a sample."""
        n, channels = self._n_samples, len(self._ends)
        variances = [
            max(0.0, squares / n - (total / n) ** 2) if top.value != bottom.value else 0.0
            for total, squares, (top, bottom) in zip(self._sums, self._squares, self._ends, strict=True)
        ]
        sides = [side for pair in self._ends for side in pair]
        clipped = sum(side.clipped(self._full_scale) for side in sides)
        loudest = max(variances)
        return Levels(
            peak_dbfs=self._dbfs(max(abs(side.value) for side in sides)),
            rms_dbfs=self._dbfs(math.sqrt(sum(variances) / channels)),
            clipped_share=clipped / (n * channels),
            silent_share=self._silence.samples() / n,
            dead_channels=tuple(
                number
                for number, variance in enumerate(variances, start=1)
                if loudest > 0 and variance <= loudest * _DEAD_RATIO**2
            ),
        )

    def _dbfs(self, value: float) -> float | None:
        """`value` in dB of full scale with two decimals, which do not depend on the order of a summation."""
        return round(20 * math.log10(value / self._full_scale), 2) + 0.0 if value > 0 else None


class _FlatTops:
    """The flat stretches at the outermost value that one channel has had so far, on one side."""

    def __init__(self, sign: int, step: float) -> None:
        """`sign` is 1 for the largest value, -1 for the smallest."""
        self._sign, self._step = sign, step
        self.value = -math.inf * sign
        self._last: float | None = None  # the sample before the block
        self._start_over()

    def _start_over(self) -> None:
        self._tops = self._samples = 0
        self._open, self._open_has_step = 0, False  # the stretch that reaches the end of the last block

    def add(self, plane: Block, outermost: Any) -> None:
        """Take the next samples, whose own outermost value is given."""
        value = float(outermost)
        if self._sign * value > self._sign * self.value:
            self.value = value
            self._start_over()
        if value == self.value:
            self._add_stretches(plane, np.flatnonzero(plane == outermost))
        else:
            self._close(self._is_step(plane[0]))
        self._last = float(plane[-1])

    def clipped(self, full_scale: float) -> int:
        """Return how many samples of this side are clipped."""
        self._close(False)
        share = abs(self.value) / full_scale
        is_limit = share >= 1 - 2**-15 or (self._tops >= _FLAT_TOPS and share >= _LOWEST_LIMIT)
        return self._samples if is_limit else 0

    def _add_stretches(self, plane: Block, hits: NDArray[np.intp]) -> None:
        """Take the stretches of a block from the positions that have the outermost value."""
        gaps = np.flatnonzero(np.diff(hits) > 1)
        firsts, lasts = hits[np.append(0, gaps + 1)], hits[np.append(gaps, len(hits) - 1)]
        lengths = lasts - firsts + 1
        entered = self._is_step(plane[firsts - 1])
        left = self._is_step(plane[np.minimum(lasts + 1, len(plane) - 1)])
        if firsts[0] > 0:
            self._close(self._is_step(plane[0]))
        elif self._open:
            lengths[0] += self._open
            entered[0] = self._open_has_step
        else:
            entered[0] = self._last is not None and self._is_step(self._last)
        flat = (lengths >= _FLAT_SAMPLES) & (entered | left)
        self._open = 0
        if lasts[-1] == len(plane) - 1:
            self._open, self._open_has_step, flat[-1] = int(lengths[-1]), bool(entered[-1]), False
        self._tops += int(flat.sum())
        self._samples += int(lengths[flat].sum())

    def _close(self, left_with_step: bool) -> None:
        """End the stretch that reached the end of the last block."""
        if self._open >= _FLAT_SAMPLES and (self._open_has_step or left_with_step):
            self._tops += 1
            self._samples += self._open
        self._open = 0

    def _is_step(self, neighbour: Any) -> Any:
        return np.abs(np.asarray(neighbour, np.float64) - self.value) > self._step


class _Silence:
    """Stretches in which no channel changes, or is loud."""

    def __init__(self, shortest: int, loud: float) -> None:
        self._shortest, self._loud = shortest, loud
        self._samples = 0
        self._open = 0  # length of the stretch that reaches the end of the last block
        self._last: Block | None = None

    def add(self, planes: Block) -> None:
        """Take the next samples, channels x samples."""
        before = planes[:, :1] if self._last is None else self._last
        still = np.ones(planes.shape[1], dtype=bool)
        for plane, first in zip(planes, before, strict=True):
            still &= plane == np.append(first, plane[:-1])
            if plane.max() >= self._loud or plane.min() <= -self._loud:
                still &= (plane < self._loud) & (plane > -self._loud)
        self._last = planes[:, -1:].copy()
        if still.all():
            self._open += len(still)
            return
        self._samples += self._counted(self._open + int(still.argmin())) + self._within(still)
        self._open = int(still[::-1].argmin()) + 1

    def samples(self) -> int:
        """Return how many samples lie in silent stretches."""
        return self._samples + self._counted(self._open)

    def _counted(self, length: int) -> int:
        return length if length >= self._shortest else 0

    def _within(self, still: NDArray[np.bool_]) -> int:
        """Silent samples between the first and the last change of a block; a long stretch fills a part of it."""
        part = self._shortest // 2
        whole = len(still) // part * part
        if not still[:whole].reshape(-1, part).all(axis=1).any():
            return 0
        lengths = np.diff(np.flatnonzero(~still))
        return int(lengths[lengths >= self._shortest].sum())
