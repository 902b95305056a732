"""Measure what the inventory of a large corpus takes: the first time, the second time, and after a few changes.

    python benchmarks/inventory.py
    python benchmarks/inventory.py --files 100000 --seconds 1 --threads 2

In a temporary folder: so many WAV files of noise (24 kHz, mono, 16 bits), and a Raven table of five calls for every
fourth. Each inventory runs in a process of its own; its CPU seconds and its memory are the system's count at the end.
The files have just been written, so they mostly come from memory, not from the disk. Linux; 20,000 files of 5 s take
5 GB and about 2 minutes.
"""

import argparse
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RATE = 24_000
#: Recordings of a site, each in a folder of its own; every fourth recording has a table.
PER_SITE, PER_TABLE = 200, 4
CALLS = 5

TAKE = """
import sys
from pathlib import Path
from otus.config import AnnotationSource, CorpusSettings
from otus.inventory import summary_lines, take_inventory

root, cache, threads, check = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
settings = CorpusSettings(
    root=str(root), annotations=[AnnotationSource(files="**/*.txt")], targets=["hum"], group="folder", audio_check=check
)
print(*summary_lines(take_inventory(root, settings, workers=threads, cache=cache)), sep="\\n")
"""


def make_corpus(root: Path, files: int, seconds: float) -> None:
    """Write the recordings, each another stretch of one noise, and the tables."""
    n_samples = round(seconds * RATE)
    noise = np.random.default_rng(1).normal(0, 1000, n_samples + files).astype("<i2").tobytes()
    size = 2 * n_samples
    head = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", size
    )
    times = np.linspace(0, seconds, 2 * CALLS + 2)[1:-1].reshape(CALLS, 2)
    rows = (f"{i}\tSpectrogram 1\t1\t{a:.4f}\t{b:.4f}\t500\t2000\thum\n" for i, (a, b) in enumerate(times, start=1))
    names = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tCall\n"
    table = names + "".join(rows)
    for n in range(files):
        site = root / f"site_{n // PER_SITE:04d}"
        if n % PER_SITE == 0:
            site.mkdir(parents=True)
        (site / f"recording_{n:06d}.wav").write_bytes(head + noise[2 * n : 2 * n + size])
        if n % PER_TABLE == 0:
            (site / f"recording_{n:06d}.selections.txt").write_text(table)


def measure(name: str, root: Path, cache: Path, threads: int, check: str) -> None:
    """Take the inventory and print what that took."""
    began = time.monotonic()
    command = [sys.executable, "-c", TAKE, str(root), str(cache), str(threads), check]
    with (root.parent / "output.txt").open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit((root.parent / "output.txt").read_text())
    cpu_s, peak_mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    print(f"| {name} | {time.monotonic() - began:.1f} | {cpu_s:.1f} | {peak_mb:.0f} |", flush=True)


def touch(root: Path, every: int) -> int:
    """Give some recordings another time of change; return how many."""
    changed = sorted(root.rglob("*.wav"))[::every]
    for path in changed:
        path.touch()
    return len(changed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a recording")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--check", choices=["full", "ends"], default="full", help="corpus.audio_check")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root, cache = Path(name, "corpus"), Path(name, "cache", "inventory.parquet")
        make_corpus(root, options.files, options.seconds)
        print(f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
        print(f"{options.files} recordings of {options.seconds:g} s, {options.check}\n")
        print("| inventory | wall s | CPU s | peak MB |\n|---|--:|--:|--:|")
        measure("first", root, cache, options.threads, options.check)
        measure("second", root, cache, options.threads, options.check)
        changed = touch(root, every=100)
        measure(f"after {changed} changes", root, cache, options.threads, options.check)
        print(f"\ncache: {cache.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
