"""Measure what it takes to merge the measures of many models and operating points, and to measure one model.

    OMP_NUM_THREADS=1 python benchmarks/merge.py
    OMP_NUM_THREADS=1 python benchmarks/merge.py --models 10 --points 200 --recordings 1000

The tables are made up: ten calls in each recording of two minutes, five folds of groups of ten recordings, as many
operating points of every model as asked for, and a forest behind each. Merging is measured whole: tables are read from
a temporary folder, merged, and written as Parquet and CSV. CPU seconds are those of the process.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import otus
from otus.config import EvaluationSettings
from otus.measures.model import LayerTables, ModelMeasures, forest_notes, measure_model, table_names
from otus.merge import merge_metrics
from otus.tables import read_table, table, write_table

RATE, LENGTH_S, CALLS, FOLDS, IN_GROUP = 24_000, 120.0, 10, 5, 10
LABEL = "hum"
#: Share of the calls that are found, false alarms per call, and fixed thresholds.
FOUND, ALARMS, FIXED = 0.8, 1.0, 9


@dataclass(frozen=True)
class Corpus:
    """Recordings, their calls, and which fold tests them."""

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    splits: pd.DataFrame
    fold_of: "pd.Series[int]"


def make_corpus(n_recordings: int) -> Corpus:
    """Return recordings with a call in each tenth of them."""
    ids = [f"r{i:05d}" for i in range(n_recordings)]
    numbers = np.arange(n_recordings)
    n_samples = int(RATE * LENGTH_S)
    common = {"duration_s": LENGTH_S, "n_samples": n_samples, "sample_rate": RATE, "labelled": True, "readable": True}
    recordings = pd.DataFrame({"recording_id": ids, "group": [f"g{n:04d}" for n in numbers // IN_GROUP]} | common)
    calls = recordings.loc[recordings.index.repeat(CALLS), ["recording_id"]].reset_index(drop=True)
    calls["start_s"] = np.tile(np.arange(CALLS) * LENGTH_S / CALLS + 1.0, n_recordings)
    calls["annotation_id"] = [f"a{n}" for n in range(len(calls))]
    calls = calls.assign(end_s=calls["start_s"] + 0.5, label=LABEL, quality=np.resize(["good", "faint"], len(calls)))
    fold_of = pd.Series(numbers // IN_GROUP % FOLDS + 1, index=ids)
    splits = []
    for fold in range(1, FOLDS + 1):
        side = np.select([fold_of == fold, fold_of == fold % FOLDS + 1], ["test", "val"], "train")
        own = recordings[["recording_id", "group"]].assign(fold=fold, split=side, leaky=False)
        splits.append(own.assign(start_sample=0, end_sample=n_samples))
    frames = {"recordings": recordings, "annotations": calls, "splits": pd.concat(splits, ignore_index=True)}
    return Corpus(**{name: table(name, frame) for name, frame in frames.items()}, fold_of=fold_of)


def found_by(corpus: Corpus, model: str, layer: str, seed: int) -> pd.DataFrame:
    """Return selections on the test side of every fold: most calls, and as many false alarms."""
    random = np.random.default_rng(seed)
    calls = corpus.annotations
    hits = calls[random.random(len(calls)) < FOUND].assign(hit=True)
    alarms = calls[random.random(len(calls)) < ALARMS].assign(hit=False, annotation_id=None)
    alarms = alarms.assign(start_s=alarms["start_s"] + 3.0, end_s=alarms["end_s"] + 3.0)
    rows = pd.concat([hits, alarms], ignore_index=True).drop(columns=["low_hz", "high_hz", "quality", "snr_db"])
    peak = random.normal(np.where(rows["hit"], 1.5, -1.0), 1.5)
    probability = 1 / (1 + np.exp(-peak))
    rows = rows.assign(selection_id=[f"s{n}" for n in range(len(rows))], score=peak, peak_score=peak)
    rows = rows.assign(probability=probability, rf_probability=probability if layer.endswith("+rf") else np.nan)
    rows = rows.assign(selected=peak > 0, fold=rows["recording_id"].map(corpus.fold_of), split="test", leaky=False)
    return rows.assign(model=model, layer=layer, operating_point="selected", probability_of=probability)


def layer_tables(corpus: Corpus, model: str, layer: str, n_points: int, seed: int) -> LayerTables:
    """Return what the stages write of one layer, with counts at `n_points` thresholds."""
    found = found_by(corpus, model, layer, seed)
    names = {"model": model, "layer": layer, "label": LABEL, "leaky": False}
    chosen = found[found["selected"]]
    missed = corpus.annotations[~corpus.annotations["annotation_id"].isin(chosen["annotation_id"])]
    matches = pd.concat(
        [
            chosen.assign(
                outcome=np.where(chosen["hit"], "hit", "false_alarm"), onset_error_s=0.01, offset_error_s=0.02
            ),
            missed.assign(outcome="miss", fold=missed["recording_id"].map(corpus.fold_of)),
        ]
    )
    matches = matches.assign(**names, split="test", iou_threshold=0.4, iou=matches["outcome"].map({"hit": 0.7}))
    side = corpus.recordings[["recording_id", "group", "duration_s"]].assign(
        fold=corpus.recordings["recording_id"].map(corpus.fold_of), n_gt=CALLS
    )
    counts = _counted(side, chosen, "recording_id").assign(
        **names, split="test", iou=0.4, operating_point="selected", threshold=0.5, selected=True
    )
    counts = counts.assign(fp=counts["n_pred"] - counts["tp"], fn=counts["n_gt"] - counts["tp"])
    points = []
    for number in range(n_points):
        threshold = (number + 0.5) / n_points
        above = found[found["probability_of"] >= threshold]
        own = _counted(side, above, "recording_id").groupby(["fold", "group"], as_index=False)
        sums = own[["duration_s", "n_gt", "n_pred", "tp"]].sum().assign(n_recordings=IN_GROUP, threshold=threshold)
        role = "fixed" if number < FIXED else "grid"
        points.append(sums.assign(**names, iou=0.4, role=role, operating_point=f"{role}{threshold:.4f}"))
    frames = {"selections": found, "matches": matches, "counts": counts, "points": pd.concat(points)}
    return LayerTables(**{n: table(n, f[[c for c in f if c in table(n, []).columns]]) for n, f in frames.items()})


def _counted(side: pd.DataFrame, found: pd.DataFrame, by: str) -> pd.DataFrame:
    n_pred, tp = (rows[by].value_counts() for rows in (found, found[found["hit"]]))
    return side.assign(**{n: side[by].map(v).fillna(0).astype(int) for n, v in (("n_pred", n_pred), ("tp", tp))})


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the CPU and wall seconds of a block."""
    cpu_s, wall_s = time.process_time(), time.monotonic()
    yield
    print(f"| {what} | {time.process_time() - cpu_s:.2f} | {time.monotonic() - wall_s:.2f} |", flush=True)


def merge_folder(folder: Path, models: list[str]) -> int:
    """Merge the tables of the models as the rule does; return the number of rows of metrics."""
    names = table_names(ModelMeasures)
    layers = [folder / model / layer for model in models for layer in ("cnn", "cnn+rf")]
    merged = merge_metrics(
        [ModelMeasures(**{n: read_table(folder / model / f"{n}.parquet", n) for n in names}) for model in models],
        [read_table(layer / "counts.parquet", "counts") for layer in layers],
        [read_table(layer / "matches.parquet", "matches") for layer in layers],
        labels=[LABEL],
        bootstrap=EvaluationSettings().bootstrap,
        seed=1,
    )
    tables = {name: getattr(merged.measures, name) for name in names}
    for name, frame in (tables | {"metrics_per_recording": merged.per_recording, "matches": merged.matches}).items():
        write_table(folder / f"{name}.parquet", name, frame, csv=folder / f"{name}.csv" if name != "curves" else None)
    return len(merged.measures.metrics)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--points", type=int, default=100, help="operating points of each model before the forest")
    parser.add_argument("--recordings", type=int, default=200)
    options = parser.parse_args()
    models = [f"grouped-m{n}" for n in range(options.models)]
    print(
        f"otus {otus.__version__}, pandas {pd.__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    )
    print(f"{options.models} models x {options.points} points, {options.recordings} recordings\n")
    print("| what | CPU s | wall s |\n|---|--:|--:|")
    corpus = make_corpus(options.recordings)
    settings = EvaluationSettings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, model in enumerate(models):
            layers = [
                layer_tables(corpus, model, layer, n_points, 2 * number + i)
                for i, (layer, n_points) in enumerate((("cnn", options.points), ("cnn+rf", FIXED)))
            ]
            for layer, own in zip(("cnn", "cnn+rf"), layers, strict=True):
                for kind in ("counts", "matches"):
                    write_table(folder / model / layer / f"{kind}.parquet", kind, getattr(own, kind))
            truth = (corpus.annotations, corpus.recordings, corpus.splits)
            with timed(f"measures of {model}"):
                measures = measure_model(
                    layers, *truth, labels=[LABEL], notes=forest_notes([]), settings=settings, seed=number
                )
            for kind in table_names(ModelMeasures):
                write_table(folder / model / f"{kind}.parquet", kind, getattr(measures, kind))
        with timed("merge"):
            n_rows = merge_folder(folder, models)
        print(f"\n{n_rows} rows of metrics")


if __name__ == "__main__":
    main()
