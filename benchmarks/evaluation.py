"""Measure what the evaluation of one model takes: the choice of the operating points, and every table it writes.

    python benchmarks/evaluation.py                    the whole stage, thrice
    python benchmarks/evaluation.py --grid union       the same with a grid of windows
    python benchmarks/evaluation.py --profile          where the time goes, once

Scores are made up: calls and noise of a known number, as a good network would give them. Every repeat is a process of
its own. Times are CPU seconds, memory is the largest resident size of the process, scores and libraries included; other
work on the machine does not show. About 2 minutes.
"""

import argparse
import cProfile
import json
import os
import platform
import pstats
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import scipy

from otus.config import DecodingSettings, EvaluationSettings
from otus.evaluation import FoldScores, evaluate_model
from otus.selections import decoding_grid
from otus.sides import EVERYWHERE

FRAME_S = 0.01
CALL_S = 0.3

#: Each grid has 200 operating points: decodings times thresholds, or decodings that have a threshold each.
GRIDS = {
    "hysteresis": (
        DecodingSettings(off_thresholds=[0.3, 0.1, 0.2, 0.4, 0.5]),
        [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    ),
    "union": (
        DecodingSettings(
            merge="union",
            windows_s=[0.1, 0.2, 0.3, 0.4, 0.5],
            hops_s=[0.02, 0.05],
            off_thresholds=[i / 20 for i in range(19, 0, -1)] + [0.99],
            onset_thresholds=1.0,
            gaps=0.0,
            smoothing=0.0,
            min_duration=0.0,
        ),
        [0.5],
    ),
}


def made_up_scores(
    frames: int, recordings: int, labels: list[str], calls: int, folds: int, settings: DecodingSettings
) -> tuple[list[FoldScores], pd.DataFrame]:
    """Folds that test and validate every recording once, with networks that differ, and the annotations."""
    generator = np.random.default_rng(1)
    n = frames // recordings
    ids = [f"r{i:05d}" for i in range(recordings)]
    rows = []
    for number in range(calls):
        start = float(generator.uniform(0, n * FRAME_S - 1))
        own = (ids[number % recordings], start, start + CALL_S * float(generator.uniform(0.6, 1.6)))
        rows.append((f"a{number}", *own, labels[number // recordings % len(labels)]))
    columns = ["annotation_id", "recording_id", "start_s", "end_s", "label"]
    annotations = pd.DataFrame(rows, columns=columns)
    grid = decoding_grid(settings, median_call_s=CALL_S, short_call_s=0.15)
    made = []
    for fold in range(folds):
        split = {fold: "test", (fold + 1) % folds: "val"} if folds > 1 else {0: "test", 1: "val"}
        parts = max(folds, 2)
        sides = pd.DataFrame({"recording_id": ids, "duration_s": n * FRAME_S}).assign(
            group=[f"g{i // 5:04d}" for i in range(recordings)],
            split=[split.get(i // 5 % parts, "train") for i in range(recordings)],
        )
        sides = sides[sides["split"] != "train"].reset_index(drop=True)
        logits = {i: scores_of(i, annotations, labels, n, generator) for i in sides["recording_id"]}
        spans = {side: dict.fromkeys(own["recording_id"], EVERYWHERE) for side, own in sides.groupby("split")}
        made.append(FoldScores(fold + 1, labels, sides, logits, FRAME_S, grid, spans, leaky=False))
    return made, annotations


def scores_of(
    recording_id: str, annotations: pd.DataFrame, labels: list[str], n: int, generator: np.random.Generator
) -> np.ndarray:
    """Noise that comes and goes, with a bump at every call and as many where there is none."""
    noise = generator.normal(0, 1, (2 * len(labels), n)).cumsum(axis=1)
    noise -= np.linspace(0, 1, n) * noise[:, -1:]
    width = 50
    slow = noise - np.stack([np.convolve(row, np.ones(width) / width, mode="same") for row in noise])
    logits = (slow - 5.0).astype(np.float32)
    own = annotations[annotations["recording_id"] == recording_id]
    for start_s, end_s, label in own[["start_s", "end_s", "label"]].itertuples(index=False):
        target = labels.index(label)
        for first, height in ((int(start_s / FRAME_S), 9.0), (int(generator.integers(0, n - 100)), 5.0)):
            last = first + int((end_s - start_s) / FRAME_S)
            logits[target, first:last] += height + generator.normal(0, 1.5)
            logits[len(labels) + target, first : first + 3] += 6.0
    return logits


def evaluate_once(options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds and peak memory of one evaluation in this process, and how much there was to do."""
    decoding, thresholds = GRIDS[options.grid]
    labels = [f"label{i}" for i in range(options.labels)]
    settings = EvaluationSettings(decoding=decoding, thresholds=thresholds)
    folds, annotations = made_up_scores(
        options.frames, options.recordings, labels, options.calls, options.folds, decoding
    )
    began = time.process_time()
    found = evaluate_model(folds, annotations, classes=labels, settings=settings, model="m")
    cpu_s = time.process_time() - began
    of_grid = found.points[found.points["role"] == "grid"]
    chosen = found.counts[found.counts["split"] == "test"]
    tp, n_pred, n_gt = (int(chosen[name].sum()) for name in ("tp", "n_pred", "n_gt"))
    return {
        "cpu_s": cpu_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "frames": sum(logits.shape[1] for fold in folds for logits in fold.logits.values()),
        "points": of_grid["operating_point"].nunique(),
        "references": len(annotations),
        "selections": len(found.selections),
        "f1": 2 * tp / (n_pred + n_gt),
    }


def measured(arguments: list[str], repeats: int) -> list[dict[str, float]]:
    """The results of some processes, one after the other and with one thread each."""
    command = [sys.executable, __file__, *arguments, "--once"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    runs = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(repeats)
    )
    return [json.loads(done.stdout) for done in runs]


def main() -> None:
    """Print CPU seconds and memory, with the versions they belong to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=list(GRIDS), default="hysteresis", help="which 200 operating points")
    parser.add_argument("--frames", type=int, default=1_000_000, help="frames of all recordings together")
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--labels", type=int, default=4)
    parser.add_argument("--calls", type=int, default=10_000, help="annotated calls of all labels together")
    parser.add_argument("--folds", type=int, default=5, help="1: a single split into val and test")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="once, with the 30 functions that take longest")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(evaluate_once(options)))
        return
    if options.profile:
        with cProfile.Profile() as profile:
            evaluate_once(options)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(30)
        return
    results = measured(sys.argv[1:], options.repeats)
    first = results[0]
    print(f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, ", end="")
    print(f"pandas {pd.__version__}, {platform.machine()}")
    print(f"{first['frames']} frames scored x {options.labels} labels x {first['points']} operating points, ", end="")
    print(f"{first['references']} calls, {options.folds} folds; {first['selections']} selections, F1 {first['f1']:.3f}")
    cpu_s = [result["cpu_s"] for result in results]
    print(
        f"CPU {statistics.median(cpu_s):.1f} s (median of {len(cpu_s)}, {min(cpu_s):.1f} to {max(cpu_s):.1f}), ", end=""
    )
    print(f"peak {max(result['peak_mb'] for result in results):.0f} MB")


if __name__ == "__main__":
    main()
