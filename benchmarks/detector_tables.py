"""What benchmarks/detectors.py says: a line per result, a table per corpus, calls that nobody may have marked."""

import contextlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from otus.seeds import derive_seed

TITLES = {
    "default": "default",
    "default_rf": "default, with the forest (cnn+rf)",
    "clip": "default, clips instead of frames",
    "plain": "default, no augmentation",
    "no_hysteresis": "default, one threshold instead of hysteresis",
    "dense_resnet": "dense_resnet",
    "crnn": "crnn",
    "animal_spot": "ANIMAL-SPOT preset",
    "gradient_boosting": "gradient boosting on frames",
    "energy": "energy threshold",
}

_RESAMPLES = 2000

#: A false alarm is a suspect if this share of the hits has a lower score, in this share of the seeds.
_SHARE_OF_HITS, _SHARE_OF_SEEDS = 0.5, 2 / 3


@dataclass(frozen=True)
class Record:
    """The out-of-fold result of one method on one corpus with one seed; `layer` is what was laid over the config.

    F1, precision and recall pool the labels, average precision is the mean over labels (None if the method has only
    one threshold). `recordings` has recording_id, unit that is resampled, annotated calls, selections and hits of every
    tested recording; `by_label` hits, false alarms and misses. `false_alarms` (of the default only): path, label,
    start_s, end_s, share of the hits that have a lower score, label that a person wrote there. Times are means over
    the folds.
    """

    corpus: str
    method: str
    seed: int
    layer: dict[str, Any]
    f1: float
    f1_low: float
    f1_high: float
    precision: float
    recall: float
    average_precision: float | None
    tp: int
    fp: int
    fn: int
    by_label: dict[str, list[int]]
    train_cpu_s: float
    train_wall_s: float
    resampled: str
    recordings: list[list[Any]]
    false_alarms: list[list[Any]]
    date: str
    versions: dict[str, str]

    @classmethod
    def of_line(cls, line: str) -> Self:
        """Return the record of a line of JSON."""
        return cls(**json.loads(line))

    def line(self) -> str:
        """Return the record as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    def said(self) -> str:
        """Return the record in one line for a person."""
        ap = "" if self.average_precision is None else f" AP {self.average_precision:.3f}"
        return (
            f"{self.corpus} {self.method} seed {self.seed}: F1 {self.f1:.3f} [{self.f1_low:.3f}, {self.f1_high:.3f}] "
            f"P {self.precision:.3f} R {self.recall:.3f}{ap} tp {self.tp} fp {self.fp} fn {self.fn}; training "
            f"{self.train_cpu_s:.0f} CPU-s, {self.train_wall_s:.0f} s a fold"
        )


def read_records(path: Path) -> list[Record]:
    """Return the records in a file, in order; none if there is no file. A line that was cut off is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(Record.of_line(line))
    return found


def print_table(corpus: str, records: Sequence[Record]) -> None:
    """Print a Markdown table of the corpus: means over seeds, spread, intervals, paired differences to the default."""
    first = records[0]
    n_calls, n_units = first.tp + first.fn, len({r[1] for r in first.recordings})
    print(f"\n### {corpus}: {n_calls} calls, {len(first.recordings)} recordings")
    print(f"\nIntervals resample {n_units} {first.resampled}. AP: mean over labels. Times: training of a fold.\n")
    print(
        "| method | seeds | F1 | min to max | interval (median seed) | precision | recall | AP | difference to default "
        "| CPU-s | wall s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    by_method = {m: [r for r in records if r.method == m] for m in TITLES}
    for method, own in by_method.items():
        if own:
            print(_row(method, own, by_method["default"]))


def _row(method: str, own: Sequence[Record], defaults: Sequence[Record]) -> str:
    """One row of the table."""
    f1 = [r.f1 for r in own]
    median = sorted(own, key=lambda r: r.f1)[(len(own) - 1) // 2]
    precisions = [r.average_precision for r in own if r.average_precision is not None]
    seeds = {r.seed for r in own}
    paired = [(r, d) for d in defaults for r in own if r.seed == d.seed]
    cells = [
        TITLES[method],
        str(len(seeds)),
        f"{statistics.fmean(f1):.3f}",
        f"{min(f1):.3f} to {max(f1):.3f}",
        f"{median.f1_low:.3f} to {median.f1_high:.3f}",
        f"{statistics.fmean(r.precision for r in own):.3f}",
        f"{statistics.fmean(r.recall for r in own):.3f}",
        f"{statistics.fmean(precisions):.3f}" if precisions else "",
        "{:+.3f} ({:+.3f} to {:+.3f})".format(*paired_difference(paired)) if paired and method != "default" else "",
        f"{statistics.fmean(r.train_cpu_s for r in own):.0f}",
        f"{statistics.fmean(r.train_wall_s for r in own):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def paired_difference(paired: Sequence[tuple[Record, Record]]) -> tuple[float, float, float]:
    """Return the mean over seeds of F1 minus the other's F1, and its 95 % bootstrap interval.

    Both of a pair are of one seed. Every resample takes the same units (groups or recordings) of all of them.
    """
    units = sorted({row[1] for pair in paired for record in pair for row in record.recordings})
    generator = np.random.default_rng(derive_seed(0, "paired", *units))
    n = len(units)
    draws = np.concatenate([np.ones((1, n)), generator.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)])
    differences = np.mean([_f1(draws, units, a) - _f1(draws, units, b) for a, b in paired], axis=0)
    low, high = np.nanpercentile(differences[1:], [2.5, 97.5])
    return float(differences[0]), float(low), float(high)


def _f1(draws: NDArray[np.float64], units: Sequence[str], record: Record) -> NDArray[np.float64]:
    """F1 of each draw, given how often it takes every unit."""
    number = {unit: i for i, unit in enumerate(units)}
    counts = np.zeros((len(units), 3))
    for _, unit, *of_recording in record.recordings:
        counts[number[unit]] += of_recording
    n_gt, n_pred, tp = (draws @ counts).T
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * tp / (n_gt + n_pred))


def print_suspects(records: Sequence[Record]) -> None:
    """Print the false alarms of the default that several seeds find with a score above that of most hits.

    What overlaps a call of the label is no suspect: there the call was found, and its ends were missed.
    """
    needed = max(1, int(np.ceil(_SHARE_OF_SEEDS * len(records) - 1e-9)))
    print(f"\n### {records[0].corpus}: suspected missing marks, found by {needed} or more of {len(records)} seeds\n")
    print("| recording | label | start s | end s | hits with a lower score, by seed | marked there |")
    print("|---|---|---|---|---|---|")
    for found in _clusters(records):
        convincing = {seed for seed, alarm in found if alarm[4] > _SHARE_OF_HITS}
        path, label = found[0][1][:2]
        if len(convincing) >= needed and all(alarm[5] != label for _, alarm in found):
            start_s, end_s = (statistics.median(alarm[i] for _, alarm in found) for i in (2, 3))
            shares = ", ".join(f"{seed}: {100 * alarm[4]:.0f} %" for seed, alarm in found)
            marked = max(alarm[5] for _, alarm in found) or "nothing"
            print(f"| {path} | {label} | {start_s:.2f} | {end_s:.2f} | {shares} | {marked} |")


def _clusters(records: Sequence[Record]) -> list[list[tuple[int, list[Any]]]]:
    """False alarms with their seeds; those of one label that overlap, directly or by way of others, together."""
    alarms = sorted(((r.seed, a) for r in records for a in r.false_alarms), key=lambda item: (*item[1][:3], item[0]))
    clusters: list[list[tuple[int, list[Any]]]] = []
    end_s = 0.0
    for seed, alarm in alarms:
        if clusters and clusters[-1][0][1][:2] == alarm[:2] and alarm[2] < end_s:
            clusters[-1].append((seed, alarm))
            end_s = max(end_s, alarm[3])
        else:
            clusters.append([(seed, alarm)])
            end_s = alarm[3]
    return clusters
