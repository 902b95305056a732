"""What each kind of augmentation brings: the train stage with every kind switched off, or on, against the config's own.

    python benchmarks/augmentation.py --seeds 1 2 3                                   the embedded demo
    python benchmarks/augmentation.py --config config/boobook.yaml --seeds 1 2 3 --jobs 2
    python benchmarks/augmentation.py --kinds noise mixup --change '{stretch_time: 1.3}'

Judged by the detection quality on the validation recordings of every fold (`detection` of best_metrics.json, the mean
of best F1 and average precision), never on test recordings, so that kinds may be chosen by it. Every seed has its own
splits and weights, the same for all kinds: compare the paired differences. Training stops by the same number, so that
all of them are a little too good. Everything is trained kinds x seeds x folds times: start with one kind and one seed.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from otus.config import Config, load_config

REPOSITORY = Path(__file__).parents[1]

#: For every kind: the settings that switch it off, and those that switch it on where it is off.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gain": ({"gain_db": 0.0}, {"gain_db": 6.0}),
    "tilt": ({"tilt_db": 0.0}, {"tilt_db": 6.0}),
    "mix": ({"mix_probability": 0.0}, {"mix_probability": 0.5}),
    "noise": ({"noise_probability": 0.0}, {"noise_probability": 0.5}),
    "mixup": ({"mixup_probability": 0.0}, {"mixup_probability": 0.5}),
    "shift-bands": ({"shift_bands": 0}, {"shift_bands": 2}),
    "stretch-time": ({"stretch_time": 1.0}, {"stretch_time": 2.0}),
    "stretch-pitch": ({"stretch_pitch": 1.0}, {"stretch_pitch": 1.5}),
    "shift-time": ({"shift_time": 0.0}, {"shift_time": 0.5}),
    "masks": ({"masks": 0}, {"masks": 2}),
}

#: Detection quality by seed, model and fold.
Quality = dict[tuple[int, str, int], float]


def variants(base: dict[str, Any], kinds: list[str], changes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the settings that differ from `base`, by name of the variant; first the config as it is."""
    found: dict[str, dict[str, Any]] = {"as configured": {}}
    for kind in kinds:
        off, on = KINDS[kind]
        is_on = any(base[name] != value for name, value in off.items())
        found[f"without {kind}" if is_on else f"with {kind}"] = off if is_on else on
    found["without any"] = {name: value for off, _ in KINDS.values() for name, value in off.items()}
    return found | {f"with {json.dumps(change)}": change for change in changes}


def train(
    configs: list[Path], config: Config, training: str, layer: dict[str, Any], jobs: int, folder: Path
) -> tuple[dict[tuple[str, int], float], float]:
    """Train all folds; return the detection quality by model and fold, and CPU seconds.

    What an earlier call left in the folder is used again if it does not depend on the layer.
    """
    path, results = folder / "layer.yaml", folder / "results"
    path.write_text(yaml.safe_dump(layer | {"results_dir": str(results)}))
    folds = range(1, (config.split.folds or 1) + 1)
    models = {(f"{dataset}-{training}", fold) for dataset in config.datasets for fold in folds}
    best = {(model, fold): results / "models" / model / f"fold{fold}" / "best_metrics.json" for model, fold in models}
    command = [sys.executable, "-m", "snakemake", *sorted(str(b) for b in best.values())]
    command += ["-s", str(REPOSITORY / "Snakefile"), "-d", str(folder), f"-j{jobs}", "--quiet", "rules"]
    command += ["--configfile", *(str(c.resolve()) for c in configs), str(path)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {key: json.loads(file.read_text())["detection"] for key, file in best.items()}, cpu_s


def seeds_of(values: dict[tuple[int, str, int], float]) -> list[float]:
    """Return the mean over models and folds of every seed."""
    seeds = sorted({seed for seed, _, _ in values})
    return [statistics.fmean(v for key, v in values.items() if key[0] == seed) for seed in seeds]


def print_table(quality: dict[str, Quality]) -> None:
    """Print mean and spread of every variant and of its differences from the first."""
    reference = next(iter(quality.values()))
    print("| augmentation | detection | over seeds | difference | over seeds | std. error | folds better, worse |")
    print("|---|---|---|---|---|---|---|")
    for name, values in quality.items():
        by_seed = seeds_of(values)
        line = f"| {name} | {statistics.fmean(by_seed):.3f} | {min(by_seed):.3f} to {max(by_seed):.3f} |"
        if values is reference:
            print(f"{line} | | | |")
            continue
        pairs = {key: value - reference[key] for key, value in values.items()}
        apart = seeds_of(pairs)
        error = f"{statistics.stdev(pairs.values()) / len(pairs) ** 0.5:.3f}" if len(pairs) > 1 else ""
        better, worse = (sum(sign * p > 0 for p in pairs.values()) for sign in (1, -1))
        line += f" {statistics.fmean(apart):+.3f} | {min(apart):+.3f} to {max(apart):+.3f} | {error}"
        print(f"{line} | {better}, {worse} of {len(pairs)} |")


def main() -> None:
    """Print one line per seed and variant, then a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, nargs="+", default=[REPOSITORY / "config" / "config.yaml"])
    parser.add_argument("--training", help="name of the training configuration; the first if left out")
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument(
        "--change", type=yaml.safe_load, action="append", default=[], help="settings of a variant, YAML"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    config = load_config(options.config)
    training = options.training or next(iter(config.training))
    base = config.training[training].augmentation.model_dump()
    versions = {p: importlib.metadata.version(p) for p in ("otus", "torch", "snakemake")}
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    quality: dict[str, Quality] = {}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for name, change in variants(base, options.kinds, options.change).items():
                layer = {"seed": seed, "training": {training: {"augmentation": change}}}
                found, cpu_s = train(options.config, config, training, layer, options.jobs, Path(folder))
                own = {(seed, model, fold): value for (model, fold), value in found.items()}
                quality.setdefault(name, {}).update(own)
                folds = " ".join(f"{value:.3f}" for _, value in sorted(own.items()))
                print(
                    f"seed {seed}, {name}: {statistics.fmean(own.values()):.3f} ({folds}), {cpu_s:.0f} CPU-s",
                    flush=True,
                )
    print_table(quality)


if __name__ == "__main__":
    main()
