"""Measure what the driver takes on a large corpus: dry runs, the plan, and its memory while all jobs run.

    python benchmarks/scale.py
    python benchmarks/scale.py --recordings 20000 --models 5 --shards 64 --folds 1 4

In a temporary folder: so many WAV files of 1 kB, each with a Raven table, and a config with so many training
configurations and shards. Every command runs three times in a process of its own: before the first run, with an
inventory (taken for real), and when nothing is left to do. In between the workflow runs, with a stand-in for a
scheduler that makes the outputs of a job at once. CPU seconds and memory are the system's own count at the end of a
process, the processes that it started included (memory: the largest of them). Linux; about 5 minutes without folds,
8 with four.
"""

import argparse
import importlib.metadata
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from otus.resources.usage import KEPT_PER_RULE, Usage, add_usage
from otus.resources.workload import WORK_UNITS

REPOSITORY = Path(__file__).parents[1]
REPEATS = 3

#: Recordings of a site, each in a folder of its own.
PER_SITE = 200

#: Everything but merge and report, whose jobs the driver's machine really runs: they need results.
TARGETS = ("predict", "forest")

#: Submits a job: makes its outputs and benchmark file and tells Snakemake that it has finished.
STAND_IN = r"""
import json, re, sys
from pathlib import Path

script = Path(sys.argv[1]).read_text()
properties = json.loads(re.search(r"^# properties = (.*)$", script, re.MULTILINE)[1])
for path in map(Path, properties["output"]):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch() if path.suffix else path.mkdir()
benchmark = Path(properties["log"][0].replace("/logs/", "/benchmarks/")).with_suffix(".tsv")
benchmark.parent.mkdir(parents=True, exist_ok=True)
benchmark.write_text("s\tcpu_time\tmax_rss\n900\t800\t900\n")
Path(re.search(r"touch '(\S+\.jobfinished)'", script)[1]).touch()
print(properties["jobid"])
"""


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def make_corpus(root: Path, recordings: int) -> None:
    """Write recordings of 60 ms, each with a Raven table of one call."""
    head = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 996, b"WAVEfmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 960)
    names = (
        "Selection",
        "View",
        "Channel",
        "Begin Time (s)",
        "End Time (s)",
        "Low Freq (Hz)",
        "High Freq (Hz)",
        "Call",
    )
    cells = ("1", "Spectrogram 1", "1", "0.010", "0.050", "500", "2000", "hum")
    table = "\t".join(names) + "\n" + "\t".join(cells) + "\n"
    for n in range(recordings):
        site = root / f"site_{n // PER_SITE:04d}"
        if n % PER_SITE == 0:
            site.mkdir(parents=True)
        (site / f"recording_{n:06d}.wav").write_bytes(head + struct.pack("<480h", *[n % 32768, n // 32768] * 240))
        (site / f"recording_{n:06d}.selections.txt").write_text(table)


def write_settings(folder: Path, root: Path, models: int, shards: int, folds: int) -> None:
    """Write config, site settings and as long a table of past jobs as Otus keeps."""
    config = {
        "corpus": {
            "root": str(root),
            "annotations": [{"files": "**/*.selections.txt"}],
            "targets": ["hum"],
            "group": "folder",
        },
        "split": {"folds": folds} if folds > 1 else {},
        "training": {f"channels{8 + n}": {"tcn": {"temporal_channels": 8 + n}} for n in range(models)},
        "chunking": {"shards": shards},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "site.yaml").write_text("usage: usage.csv\n")
    (folder / "stand_in.py").write_text(STAND_IN)
    figures = {"work": 1.0, "read_h": 1.0, "data_mb": 100.0, "wall_s": 900.0, "cpu_s": 800.0, "max_rss_mb": 900.0}
    facts = {"model": "", "device": "cpu", "wait_s": 60.0, "attempts": 1, "host": "node", "version": "0"}
    past = (
        Usage(
            rule=rule, job=f"{rule}.tsv", finished=f"2026-01-{1 + n // 24:02d}T{n % 24:02d}:00:00", **figures, **facts
        )
        for rule in WORK_UNITS
        for n in range(KEPT_PER_RULE)
    )
    add_usage(folder / "usage.csv", past)


def snakemake(*arguments: str) -> list[str]:
    """The command of a run."""
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--configfile", "config.yaml"]
    return [*command, *arguments]


def start(command: list[str], folder: Path) -> subprocess.Popen:
    """Start a command; what it says goes to output.txt. Site settings of whoever measures are left out."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTUS_")}
    environment["OTUS_SITE"] = str(folder / "site.yaml")
    with (folder / "output.txt").open("w") as file:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen, folder: Path, began: float) -> Cost:
    """What a process took, once it has ended."""
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - began
    if status:
        sys.exit((folder / "output.txt").read_text())
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def measure(command: list[str], folder: Path) -> Cost:
    """What a command takes."""
    began = time.monotonic()
    return finish(start(command, folder), folder, began)


def measure_driver(command: list[str], folder: Path) -> tuple[Cost, list[float]]:
    """What a run takes: its peak is that of the driver alone. And the driver's memory (MB), sampled over the run."""
    began = time.monotonic()
    process, peak_mb, samples = start(command, folder), 0.0, []
    while True:
        status = Path(f"/proc/{process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        if "VmHWM" not in fields:  # it has ended
            break
        peak_mb = int(fields["VmHWM"].split()[0]) / 1024
        samples.append(int(fields["VmRSS"].split()[0]) / 1024)
        time.sleep(0.1)
    cost = finish(process, folder, began)
    return Cost(cost.wall_s, cost.cpu_s, peak_mb), samples


def report(state: str, name: str, costs: list[Cost]) -> None:
    """Print one row of the table: medians and worst."""
    walls, cpus = [cost.wall_s for cost in costs], [cost.cpu_s for cost in costs]
    times = " | ".join(f"{statistics.median(values):.1f} | {max(values):.1f}" for values in (walls, cpus))
    print(f"| {state} | `{name}` | {times} | {max(cost.peak_mb for cost in costs):.0f} |", flush=True)


def measure_all(state: str, folder: Path, targets: tuple[str, ...] = ()) -> None:
    """Print what the commands take that only look."""
    slurm = ["--profile", str(REPOSITORY / "slurm")]
    plan = [sys.executable, "-m", "otus", "plan", "--configfile", "config.yaml", *slurm, "--", *targets]
    commands = {
        "snakemake -n -q": snakemake("-n", "-q", "all", "--", *targets),
        "snakemake -n": snakemake("-n", "--", *targets),
        "snakemake --profile slurm -n": snakemake(*slurm, "-n", "--", *targets),
        "otus plan --profile slurm": plan,
    }
    for name, command in commands.items():
        report(state, name, [measure(command, folder) for _ in range(REPEATS)])


def main() -> None:
    """Print the table of every number of folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=20_000)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--folds", type=int, nargs="+", default=[1], help="1 = no cross-validation, else 3 and more")
    options = parser.parse_args()
    names = ("otus", "snakemake", "snakemake-executor-plugin-slurm", "snakemake-executor-plugin-cluster-generic")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "corpus")
        make_corpus(root, options.recordings)
        for folds in options.folds:
            folder = Path(name, f"folds{folds}")
            folder.mkdir()
            write_settings(folder, root, options.models, options.shards, folds)
            measure_folds(folder, options, folds)


def measure_folds(folder: Path, options: argparse.Namespace, folds: int) -> None:
    """Print the table of one number of folds."""
    predictions = options.models * folds * options.shards
    print(
        f"\n{options.recordings} recordings, {options.models} models x {folds} fold(s) x {options.shards} shards = ",
        end="",
    )
    print(f"{predictions} prediction jobs; load {os.getloadavg()[0]:.1f} at the start\n")
    print(
        "| state | command | wall s, median | worst | CPU s, median | worst | peak MB |\n|---|---|--:|--:|--:|--:|--:|"
    )
    measure_all("before the first run", folder)
    report("inventory", "snakemake -j2 inventory", [measure(snakemake("-j2", "inventory"), folder)])
    measure_all("inventory taken", folder)
    submit = f"{sys.executable} stand_in.py"
    remote = ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", submit, "-j50", "--scheduler", "greedy"]
    remote += ["--seconds-between-status-checks", "1"]
    cost, samples = measure_driver(snakemake(*remote, "--", *TARGETS), folder)
    report("driver of all jobs", f"snakemake {' '.join(TARGETS)}", [cost])
    measure_all("nothing left to do", folder, TARGETS)
    parts = ", ".join(f"{samples[(len(samples) - 1) * n // 4]:.0f}" for n in range(1, 5))
    print(f"\nDriver: {parts} MB after each quarter of the run.")


if __name__ == "__main__":
    main()
