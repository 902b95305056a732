"""The benchmark file that Snakemake writes of a job that succeeded."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Benchmark:
    """Wall and processor time and the largest memory of a job; None where the file does not tell."""

    wall_s: float | None = None
    cpu_s: float | None = None
    rss_mb: float | None = None


def read_benchmark(path: Path) -> Benchmark:
    """Return what a benchmark file says of the last run of its job; nothing if there is no file, or half of one.

    Jobs of less than a second have NA or - for most.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        row = list(csv.DictReader(io.StringIO(text), delimiter="\t"))[-1]
    except (OSError, IndexError, csv.Error):
        return Benchmark()
    return Benchmark(_quantity(row.get("s")), _quantity(row.get("cpu_time")), _quantity(row.get("max_rss")))


def _quantity(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None
