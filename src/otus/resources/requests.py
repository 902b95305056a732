"""What a job will take and what it asks for: measured figures, corrected by what past jobs took.

A job takes a fixed part (starting Python, loading libraries) and a part that grows with its load. The figures that
come with Otus (usage_defaults.csv, written by benchmarks/resources.py on one core) say how much; past jobs of the same
rule and device correct the two parts apart, so that slow starts on a network disk do not count for every hour of audio.
"""

import csv
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from otus.resources.usage import Usage
from otus.resources.workload import Load

_FIGURES = Path(__file__).with_name("usage_defaults.csv")

#: Reading recordings from a network disk at 100 MB/s: 48 kHz, mono, 16 bit. CPU seconds do not show it.
_READ_S_PER_H = 3.5

#: Libraries and context of a GPU in main memory; assumed, not measured.
_CUDA_MB = 2500.0

#: Past jobs correct the figures by no more than this factor, either way; no request is larger than so many times what
#: the figures say.
LARGEST_FACTOR = 20.0

#: Newest past jobs of a rule and device that are looked at.
_LOOKED_AT = 50

#: Requests: safety over what is expected and over the worst past job; Snakemake beside the job; the smallest ones.
_TIME_SAFETY, _WORST_TIME_SAFETY, _MEMORY_SAFETY = 3.0, 1.5, 1.5
_SNAKEMAKE_MB = 300.0
SMALLEST_MB = 1500
SMALLEST_MIN = {"train_model": 240, "predict_shard": 120, "run_external": 120}
SMALLEST_CPU_MIN = 30


@dataclass(frozen=True)
class Figures:
    """What a rule takes: a fixed part, and so much more per unit of work and per MB of data."""

    base_s: float
    s_per_work: float
    base_mb: float
    mb_per_mb: float


@dataclass(frozen=True)
class Estimate:
    """What a job is expected to take, and how many past jobs that rests on."""

    wall_s: float
    cpu_s: float
    max_rss_mb: float
    from_runs: int


@cache
def shipped_figures() -> dict[str, Figures]:
    """Return the figures that come with Otus, by rule."""
    with _FIGURES.open(encoding="utf-8", newline="") as file:
        return {row.pop("rule"): Figures(**{k: float(v) for k, v in row.items()}) for row in csv.DictReader(file)}


#: A rule without figures.
_UNMEASURED = Figures(base_s=60.0, s_per_work=0.0, base_mb=700.0, mb_per_mb=1.0)


def estimate(rule: str, load: Load, device: str, past: Sequence[Usage]) -> Estimate:
    """Return what a job is expected to take on `device` (cpu or cuda): the figures, corrected by past jobs."""
    rows = _alike(rule, device, past)
    wall_s, cpu_s, max_rss_mb = (
        _expected(quantity, rule, load, device, rows, statistics.median) for quantity in (_WALL_S, _CPU_S, _MEMORY_MB)
    )
    return Estimate(wall_s, cpu_s, max_rss_mb, len(rows))


def request_mb(rule: str, load: Load, device: str, past: Sequence[Usage], attempt: int) -> int:
    """Return the memory that a job asks for; an attempt after one that ran out of memory asks for more."""
    rows = _alike(rule, device, past)
    worst = max(_expected(_MEMORY_MB, rule, load, device, rows, pick) for pick in (statistics.median, max))
    asked = min(_MEMORY_SAFETY * worst + _SNAKEMAKE_MB, LARGEST_FACTOR * sum(_memory_mb(rule, load, device)))
    return attempt * max(SMALLEST_MB, 100 * math.floor(asked / 100))


def request_min(rule: str, load: Load, device: str, past: Sequence[Usage], attempt: int) -> int:
    """Return the minutes that a job asks for; an attempt after one that ran out of time asks for more."""
    rows = _alike(rule, device, past)
    usual, worst = (_expected(_WALL_S, rule, load, device, rows, pick) for pick in (statistics.median, max))
    asked_s = worst if _upper_limit(rule, device, rows) else max(_TIME_SAFETY * usual, _WORST_TIME_SAFETY * worst)
    asked_s = min(asked_s, LARGEST_FACTOR * sum(_wall_s(rule, load, device)))
    return attempt * max(SMALLEST_MIN.get(rule, SMALLEST_CPU_MIN), math.floor(asked_s / 60))


def _upper_limit(rule: str, device: str, rows: Sequence[Usage]) -> bool:
    """Whether the expected time is the most that it can be: on a GPU, until a long job says better than the figures."""
    parts = [_wall_s(rule, row.load, device) for row in rows if row.attempts == 1]
    return device == "cuda" and not any(growing > fixed for fixed, growing in parts)


#: A fixed part and one that grows with the load.
_Parts = tuple[float, float]


def _cpu_s(rule: str, load: Load, _device: str) -> _Parts:
    """CPU time. For a GPU the figures of the CPU stand as an upper limit."""
    figures = shipped_figures().get(rule, _UNMEASURED)
    return figures.base_s, figures.s_per_work * load.work


def _wall_s(rule: str, load: Load, device: str) -> _Parts:
    fixed, growing = _cpu_s(rule, load, device)
    return fixed, growing + _READ_S_PER_H * load.read_h


def _memory_mb(rule: str, load: Load, device: str) -> _Parts:
    figures = shipped_figures().get(rule, _UNMEASURED)
    return figures.base_mb + (_CUDA_MB if device == "cuda" else 0.0), figures.mb_per_mb * load.data_mb


@dataclass(frozen=True)
class _Quantity:
    """Something that jobs take: what the figures say, what a past job took, and whether that counts.

    The time of a job that took up the work of an earlier attempt is not the whole time.
    """

    said: Callable[[str, Load, str], _Parts]
    took: Callable[[Usage], float]
    only_first_attempts: bool


_WALL_S = _Quantity(_wall_s, lambda row: row.wall_s, True)
_CPU_S = _Quantity(_cpu_s, lambda row: row.cpu_s, True)
_MEMORY_MB = _Quantity(_memory_mb, lambda row: row.max_rss_mb, False)


def _alike(rule: str, device: str, past: Sequence[Usage]) -> list[Usage]:
    return [row for row in past if row.rule == rule and row.device == device][-_LOOKED_AT:]


def _expected(
    quantity: _Quantity, rule: str, load: Load, device: str, rows: Sequence[Usage], pick: Callable[[list[float]], float]
) -> float:
    """The sum of both parts, each corrected by those past jobs in which it was the larger one."""
    fixed, growing = quantity.said(rule, load, device)
    past = [
        (*quantity.said(rule, row.load, device), quantity.took(row))
        for row in rows
        if row.attempts == 1 or not quantity.only_first_attempts
    ]
    of_fixed = _factor([(took - more) / base for base, more, took in past if more <= base], pick)
    of_growing = _factor([(took - of_fixed * base) / more for base, more, took in past if more > base], pick)
    return of_fixed * fixed + of_growing * growing


def _factor(ratios: list[float], pick: Callable[[list[float]], float]) -> float:
    return min(max(pick(ratios), 1 / LARGEST_FACTOR), LARGEST_FACTOR) if ratios else 1.0
