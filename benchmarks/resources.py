"""Measure what jobs take, for usage_defaults.csv and the unit costs in src/otus/resources.

    python benchmarks/resources.py            print the figures of every rule, measured now
    python benchmarks/resources.py --write    write them to src/otus/resources/usage_defaults.csv as well
    python benchmarks/resources.py --parts    print only the unit costs, beside those that otus.resources has

The workflow runs on demo corpora of three sizes, one job at a time and one thread each; what grows with large tables
is measured by calls of the library on made-up ones. Times are CPU seconds and memory is the largest resident size of
the job's process, as the system counts both at its end: other work on the machine does not show. About 9 minutes.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from otus.config import (
    ChoiceSettings,
    Config,
    DatasetSettings,
    DecodingSettings,
    ForestSettings,
    SplitSettings,
    parse_config,
)
from otus.resources import job_facts, workload
from otus.resources.requests import Figures, shipped_figures
from otus.resources.workload import Workload

REPOSITORY = Path(__file__).parents[1]
TABLE = REPOSITORY / "src" / "otus" / "resources" / "usage_defaults.csv"

#: Recordings and seconds of each: 4 minutes, 24 minutes, an hour.
SIZES = ((12, 20.0), (24, 60.0), (30, 120.0))

#: A job that takes less than so many times longer at the largest size than at the smallest does not grow.
LEAST_GROWTH = 1.5

#: Data that differ by less than this say nothing about how memory grows.
LEAST_RANGE_MB = 50.0

#: Put on the path of every job: at its end, the system's own count goes to a file.
METER = """
import atexit, json, os, resource, sys

def _note(path=os.environ["OTUS_METER"]):
    own = resource.getrusage(resource.RUSAGE_SELF)
    with open(path, "a") as file:
        note = {"script": sys.argv[0], "cpu_s": own.ru_utime + own.ru_stime, "max_rss_mb": own.ru_maxrss / 1024}
        file.write(json.dumps(note) + chr(10))

atexit.register(_note)
"""


def layer(folder: Path, recordings: int, duration_s: float) -> dict:
    """A demo corpus of a size, one small model, three folds, and a short hop that makes more frames of it."""
    return {
        "results_dir": str(folder / "results"),
        "corpus": {"root": str(folder / "corpus"), "demo": {"recordings": recordings, "duration_s": duration_s}},
        "split": {"folds": 3},
        "training": {
            "dense": {"architecture": "dense_resnet", "members": 1, "epochs": 2, "frontend": {"hop_s": 0.005}}
        },
        "chunking": {"shards": 1},
        "report": {"examples": 6},
    }


def run_workflow(folder: Path, recordings: int, duration_s: float) -> tuple[Config, list[dict]]:
    """Run the workflow once; return its config and what each of its processes took."""
    (folder / "sitecustomize.py").write_text(METER)
    (folder / "layer.yaml").write_text(yaml.safe_dump(layer(folder, recordings, duration_s)))
    demo = REPOSITORY / "config" / "config.yaml"
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "-d", str(folder), "-j1"]
    command += ["--configfile", str(demo), str(folder / "layer.yaml"), "--quiet", "rules"]
    meter = folder / "meter.jsonl"
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": path, "OTUS_METER": str(meter), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    merged = yaml.safe_load(demo.read_text())
    for key, value in layer(folder, recordings, duration_s).items():
        merged[key] = {**merged[key], **value} if isinstance(merged.get(key), dict) else value
    return parse_config(merged), [json.loads(line) for line in meter.read_text().splitlines()]


def measured_jobs() -> dict[str, list[tuple[workload.Load, float, float]]]:
    """Load, CPU seconds and MB of every rule at every size (the median over its jobs)."""
    points: dict[str, list[tuple[workload.Load, float, float]]] = {}
    for recordings, duration_s in SIZES:
        with tempfile.TemporaryDirectory() as name:
            began = time.monotonic()
            config, notes = run_workflow(Path(name), recordings, duration_s)
            loads = Workload(config)
            for rule in workload.WORK_UNITS:
                own = [note for note in notes if note["script"].endswith(f".{rule}.py")]
                if not own:  # soundscapes are made by benchmarks/soundscapes.py
                    continue
                cpu_s, mb = (statistics.median(note[key] for note in own) for key in ("cpu_s", "max_rss_mb"))
                points.setdefault(rule, []).append((loads.load(rule, {}), cpu_s, mb))
                load = points[rule][-1][0]
                print(f"{recordings} x {duration_s:g} s {rule}: work {load.work:.3f}, {cpu_s:.2f} s; ", end="")
                print(f"data {load.data_mb:.1f} MB, {mb:.0f} MB", flush=True)
            print(f"{recordings} x {duration_s:g} s: {time.monotonic() - began:.0f} s of wall time", flush=True)
    return points


def time_line(pairs: list[tuple[float, float]], slope: float | None) -> tuple[float, float]:
    """Fixed part (half a second at least) and slope of a straight line through the points; the slope may be given.

    Where the largest size takes hardly more than the smallest, the difference is noise and the slope none.
    """
    x, y = (np.asarray(column, dtype=float) for column in zip(*pairs, strict=True))
    if slope is None:
        slope = max(0.0, float(np.polyfit(x, y, 1)[0])) if y[-1] > LEAST_GROWTH * y[0] else 0.0
    return max(0.5, float(np.median(y - slope * x))), slope


def memory_line(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Fixed part and slope of a line above all points; what the arithmetic says (1) where the data hardly differ."""
    x, y = (np.asarray(column, dtype=float) for column in zip(*pairs, strict=True))
    slope = max(1.0, float(np.polyfit(x, y, 1)[0])) if np.ptp(x) > LEAST_RANGE_MB else 1.0
    return max(0.0, float(np.max(y - slope * x))), slope


# What grows with tables that no demo corpus has -----------------------------------------------------------------------


def made_up_corpus(recordings: int, calls: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables recordings (of a minute) and annotations of a corpus of which there is no audio."""
    from otus.tables import table

    ids = [f"site__recording_{i:06d}" for i in range(recordings)]
    facts = {"duration_s": 60.0, "n_samples": 2_880_000, "sample_rate": 48_000, "channels": 1, "subtype": "PCM_16"}
    rows = [
        {"recording_id": i, "path": f"{i}.wav", "group": f"g{n % 40}", "labelled": True, "readable": True, **facts}
        for n, i in enumerate(ids)
    ]
    generator = np.random.default_rng(0)
    start_s = generator.uniform(0, 59, calls)
    annotations = {
        "annotation_id": [f"a{i}" for i in range(calls)],
        "recording_id": [ids[i] for i in generator.integers(0, recordings, calls)],
        "start_s": start_s,
        "end_s": start_s + 0.3,
        "label": ["hum"] * calls,
        **dict.fromkeys(("low_hz", "high_hz", "quality", "source_file", "source_row"), [None] * calls),
    }
    return table("recordings", rows), table("annotations", annotations)


def part_take_inventory() -> dict[str, float]:
    """An hour of WAV files of a minute at 48 kHz."""
    import soundfile

    from otus.inventory.examine import examine

    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name, f"{i}.wav") for i in range(60)]
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, 48_000 * 60)
        for path in paths:
            soundfile.write(path, noise, 48_000)
        with _Meter() as meter:
            for path in paths:
                examine(path, "full")
    return {"take_inventory s_per_work": meter.cpu_s}


def part_make_chunks() -> dict[str, float]:
    """A hundred hours."""
    from otus.chunks import make_chunks
    from otus.config import ChunkSettings

    recordings, _ = made_up_corpus(6000, 1)
    with _Meter() as meter:
        make_chunks(recordings, ChunkSettings(shards=10))
    return {"make_chunks s_per_work": meter.cpu_s / 100}


def part_make_dataset() -> dict[str, float]:
    """Clips of 10,000 calls in 6000 recordings, five folds."""
    from otus.datasets import make_variant

    recordings, annotations = made_up_corpus(6000, 10_000)
    split, settings = SplitSettings(folds=5), DatasetSettings()
    with _Meter() as meter:
        made = make_variant(
            recordings, annotations, dataset="d", targets=["hum"], split=split, settings=settings, seed=1
        )
    work = len(made.clips) / 1000
    return {"make_dataset s_per_work": meter.cpu_s / work, "_CLIP_BYTES": meter.bytes / len(made.clips)}


def part_evaluate_model() -> dict[str, float]:
    """Scores of 10 hours at a hop of 10 ms."""
    from otus.evaluation.operating import ScoredRecording, choose_operating_point, judge_recording
    from otus.matching import Intervals
    from otus.scores import ScoreWriter, read_scores
    from otus.selections import decoding_grid

    recordings, annotations = made_up_corpus(600, 1000)
    walk = np.random.default_rng(0).standard_normal(6000).astype(np.float32).cumsum() * 0.05 - 3
    with tempfile.TemporaryDirectory() as name:
        with ScoreWriter(Path(name, "scores"), ["hum"], 0.01) as writer:
            for i, recording_id in enumerate(recordings["recording_id"]):
                writer.write(recording_id, 0, np.stack([np.roll(walk, 7 * i), walk]))
        with _Meter() as reading:
            scores, _, _ = read_scores([Path(name, "scores")], only=set(recordings["recording_id"]))
    grid = decoding_grid(DecodingSettings(), median_call_s=0.3, short_call_s=0.2)
    calls = dict(list(annotations.groupby("recording_id")))
    none = annotations.iloc[:0]
    truth = {i: calls.get(i, none)[["start_s", "end_s"]].to_numpy(dtype=float) for i in scores}
    scored = [ScoredRecording(v[0], v[1], 0.01, grid, Intervals(*truth[i].T), 60.0) for i, v in scores.items()]
    with _Meter() as choosing:
        choose_operating_point([judge_recording(one, 0.4) for one in scored], choice=ChoiceSettings())
    frames = 600 * 6000
    return {
        "evaluate_model s_per_work": (reading.cpu_s + choosing.cpu_s) / (frames * len(grid) / 360_000),
        "_READ_FRAME_BYTES": reading.bytes / frames / 2,
    }


def part_filter_selections() -> dict[str, float]:
    """Forests on 2000 selections."""
    from otus.forest.fitting import fit_fold

    generator = np.random.default_rng(0)
    features = generator.standard_normal((2000, 90))
    hits = features[:, 0] + generator.standard_normal(2000) > 0
    groups = generator.integers(0, 20, 2000).astype(str)
    with _Meter() as meter:
        fit_fold(features, hits, groups, features[:500], settings=ForestSettings(), seed=1)
    return {"filter_selections s_per_work": meter.cpu_s / (6 * 2.2)}


def part_merge_metrics() -> dict[str, float]:
    """Counts of 6000 recordings, five folds, two models."""
    from otus.evaluation.tally import Judged, count_per_recording
    from otus.measures.model import ModelMeasures, table_names
    from otus.merge import merge_metrics
    from otus.tables import table

    recordings, annotations = made_up_corpus(6000, 1000)
    none = pd.DataFrame({"recording_id": pd.Series(dtype=str), **dict.fromkeys(("start_s", "end_s", "rank"), 0.0)})
    counts = []
    for fold in range(5):
        for split in ("val", "test"):
            own = recordings.iloc[fold::5]
            judged = Judged(none.iloc[:0], annotations[annotations["recording_id"].isin(own["recording_id"])], own)
            found = count_per_recording(judged, np.zeros(0, dtype=bool), {"selected": 0.5}, "selected")
            found = found.assign(layer="cnn", fold=fold, split=split, label="hum", iou=0.4, leaky=False)
            counts += [found.assign(model=model) for model in "ab"]
    nothing = ModelMeasures(**{name: table(name, []) for name in table_names(ModelMeasures)})
    with _Meter() as meter:
        merge_metrics([nothing], counts, [table("matches", [])], labels=["hum"], bootstrap=2000, seed=1)
    rows = sum(map(len, counts)) + 2 * 6000
    return {"merge_metrics s_per_work": meter.cpu_s / (rows / 1000), "_COUNT_BYTES": meter.bytes / rows}


def part_network() -> dict[str, float]:
    """A frame trained on, decoded, and its spectrum, in frames scored; bytes of a sample's spectrum."""
    import soundfile
    import torch

    from otus.audio import inspect
    from otus.config import DenseResnetSettings, FrontendSettings
    from otus.frontend import choose_frontend, read_band_power, relative_log_power
    from otus.models import build_network
    from otus.selections import decode, decoding_grid
    from otus.training.loop import uses_bf16

    torch.set_num_threads(1)
    network = build_network(DenseResnetSettings(), bands=64, n_classes=1).eval()
    with torch.inference_mode():
        scored = seconds(lambda: network(torch.zeros(1, 64, 8192)), 5) / 8192
    network.train()
    low_precision = uses_bf16("auto", torch.device("cpu"))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            logits = network(torch.zeros(16, 64, 256))
        logits.float().square().mean().backward()

    trained = seconds(step, 8) / 4096
    walk = np.random.default_rng(0).standard_normal(360_000).cumsum() * 0.05
    grid = decoding_grid(DecodingSettings(), median_call_s=0.3, short_call_s=0.1)
    decoded = seconds(lambda: [decode(walk, walk, 0.01, point) for point in grid], 1) / len(grid) / len(walk)
    none = np.array([np.nan])
    spectra, largest = [], 0
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "noise.wav")
        soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 48_000 * 600), 48_000)
        info = inspect(path)
        for hop_s in (0.002, 0.02):
            frontend = choose_frontend(
                FrontendSettings(hop_s=hop_s), sample_rates=[48_000], call_durations_s=np.array([0.3]),
                call_low_hz=none, call_high_hz=none,
            )  # fmt: skip
            with _Meter() as meter:
                power = read_band_power(path, info, frontend, 0, frontend.n_frames(info))
                relative_log_power(power, power.median(dim=1).values)
            largest = max(largest, meter.bytes)
            spectra.append((frontend.hop_samples, meter.cpu_s / frontend.n_frames(info)))
    of_sample = (spectra[1][1] - spectra[0][1]) / (spectra[1][0] - spectra[0][0])
    of_frame = spectra[0][1] - of_sample * spectra[0][0]
    return {
        "scored frame (s)": scored,
        "_TRAINED": trained / scored,
        "_DECODED": decoded / scored,
        "_FRAME_SPECTRUM": of_frame / scored,
        "_SAMPLE_SPECTRUM": of_sample / scored,
        "_SAMPLE_BYTES": largest / info.n_samples,
    }


PARTS: dict[str, Callable[[], dict[str, float]]] = {
    name.removeprefix("part_"): value for name, value in list(globals().items()) if name.startswith("part_")
}


def seconds(call: Callable[[], object], times: int) -> float:
    """CPU seconds of a call, after one that does not count."""
    call()
    began = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began) / times


class _Meter:
    """CPU seconds and additional bytes (at the peak) of a block."""

    def __enter__(self) -> "_Meter":
        self._before, self._began = _peak_bytes(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s, self.bytes = time.process_time() - self._began, _peak_bytes() - self._before


def _peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured_parts() -> dict[str, float]:
    """All unit costs, each group measured in a process of its own."""
    found: dict[str, float] = {}
    for name in PARTS:
        done = subprocess.run([sys.executable, __file__, "--part", name], stdout=subprocess.PIPE, text=True, check=True)
        found |= json.loads(done.stdout)
    for name, value in found.items():
        used = getattr(workload, name, getattr(job_facts, name, None))
        print(
            f"{name}: {value:.4g}" + (f" (otus.resources has {used:g})" if used is not None else ""),
            flush=True,
        )
    return found


def main() -> None:
    """Print, and perhaps write, the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part]()))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    parts = measured_parts()
    if options.parts:
        return
    before, rows = shipped_figures(), []
    for rule, points in measured_jobs().items():
        base_s, s_per_work = time_line([(p.work, cpu) for p, cpu, _ in points], parts.get(f"{rule} s_per_work"))
        base_mb, mb_per_mb = memory_line([(p.data_mb, mb) for p, _, mb in points])
        figures = Figures(base_s, s_per_work, base_mb, mb_per_mb)
        rows.append({"rule": rule, **{key: f"{value:.3g}" for key, value in vars(figures).items()}})
        print(rows[-1], "was", before.get(rule), flush=True)
    if options.write:
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
