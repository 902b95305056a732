"""Run the whole workflow on a config with several seeds and print out-of-fold results, wall and CPU time.

    python benchmarks/cross_validation.py config/boobook.yaml --seeds 1 2 3 --jobs 2

One run of one seed is an anecdote on a small corpus: quote the median over seeds, with the intervals.
"""

import argparse
import importlib.metadata
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

REPOSITORY = Path(__file__).parents[1]


def run(configs: list[Path], seed: int, jobs: int, folder: Path) -> tuple[pd.DataFrame, float, float]:
    """Run the workflow once; return the selected pooled test rows, wall and CPU seconds."""
    layer = folder / "layer.yaml"
    layer.write_text(yaml.safe_dump({"seed": seed, "results_dir": str(folder / "results")}))
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "-d", str(folder), f"-j{jobs}"]
    command += ["--configfile", *(str(c.resolve()) for c in configs), str(layer), "--quiet", "rules"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    metrics = pd.read_csv(folder / "results" / "metrics.csv", dtype={"fold": str})
    rows = metrics[(metrics["fold"] == "pooled") & (metrics["split"] == "test") & metrics["selected"]]
    return rows, wall, cpu


def main() -> None:
    """Print one line per seed and layer, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    versions = {p: importlib.metadata.version(p) for p in ("otus", "torch", "scikit-learn", "snakemake")}
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    found: dict[str, list[float]] = {}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows, wall, cpu = run(options.config, seed, options.jobs, Path(folder))
        for row in rows.itertuples():
            found.setdefault(f"{row.model} {row.layer} {row.label}", []).append(row.f1)
            print(
                f"seed {seed} {row.model} {row.layer} {row.label}: "
                f"F1 {row.f1:.3f} [{row.f1_low:.3f}, {row.f1_high:.3f}] tp {row.tp} fp {row.fp} fn {row.fn} "
                f"AP {row.average_precision:.3f}; {wall:.0f} s wall, {cpu:.0f} s CPU",
                flush=True,
            )
    for name, values in found.items():
        print(f"median over {len(values)} seeds, {name}: F1 {statistics.median(values):.3f}")


if __name__ == "__main__":
    main()
