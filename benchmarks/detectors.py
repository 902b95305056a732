"""The table of detectors: the default, what it is without one of its ideas, other networks, and plain baselines.

    python benchmarks/detectors.py --out detectors.jsonl                       all corpora and methods, three seeds
    python benchmarks/detectors.py --corpus boobook --methods default energy --seeds 1 --out detectors.jsonl
    python benchmarks/detectors.py --corpus boobook --out detectors.jsonl --suspects
    python benchmarks/detectors.py --corpus demo --layer short.yaml --out trial.jsonl

OTUS_DATA names the folder of the real recordings; the corpus `demo` needs none. Each corpus and seed is one run of the
workflow with all networks, which so share the splits and the rest; the baselines (benchmarks/baselines.py) hear what
the default hears. All are judged out of fold by the same code, at the operating point that validation chose, labels
pooled. A result is a line of JSON in --out; what is there is not computed again, so that an interrupted run goes on
(with --folder even inside a training). All of it takes days on two cores: begin with one corpus. --suspects lists false
alarms of the default that look like calls which nobody has marked.
"""

import argparse
import datetime
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from baselines import score_fold
from detector_tables import TITLES, Record, print_suspects, print_table, read_records
from snakemake.utils import update_config

from otus.config import Config, DecodingSettings, parse_config, use_config_file
from otus.errors import OtusError, StageError
from otus.evaluation import FoldScores, evaluate_model
from otus.measures.evidence import tested_layers
from otus.measures.points import metrics_rows
from otus.merge import per_recording_rows
from otus.models.card import load_card
from otus.seeds import derive_seed
from otus.tables import POOLED, read_table, table
from otus.training import TrainingTables

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Corpus:
    """Names of config files, and the windows of the ANIMAL-SPOT preset (`resnet18`) that suit the calls."""

    layers: tuple[str, ...]
    windows: dict[str, Any] = field(default_factory=dict)


_OWL = {"sample_rate": 24_000, "n_fft": 1024, "hop_samples": 600, "low_hz": 200, "high_hz": 2000}
_FINCH = {"sample_rate": 32_000, "window_s": 0.08, "hop_s": 0.01, "n_fft": 512, "hop_samples": 160, "high_hz": 16_000}
_EVENTS = {"sample_rate": 44_100, "n_fft": 2048, "hop_samples": 735, "high_hz": 12_000}

CORPORA = {
    "boobook": Corpus(("boobook",), _OWL),
    "boobook_sites": Corpus(("boobook", "boobook_sites"), _OWL),
    "koumura9": Corpus(("koumura9",), _FINCH),
    "koumura1": Corpus(("koumura9", "koumura1"), _FINCH),
    "esc10_snr": Corpus(("esc10_snr",), _EVENTS),
    "demo": Corpus(("config",), {"sample_rate": 16_000, "n_fft": 512, "hop_samples": 400}),
}

_NO_AUGMENTATION = {
    **dict.fromkeys(("gain_db", "tilt_db", "shift_bands", "shift_time", "masks"), 0),
    **dict.fromkeys(("mix_probability", "noise_probability", "mixup_probability"), 0),
    **dict.fromkeys(("stretch_time", "stretch_pitch"), 1),
}

#: Networks, by what they change in the training configuration `default` of the corpus.
NETWORKS: dict[str, dict[str, Any]] = {
    "default": {},
    "clip": {"objective": "clip"},
    "plain": {"augmentation": _NO_AUGMENTATION},
    "dense_resnet": {"architecture": "dense_resnet"},
    "crnn": {"architecture": "crnn"},
}

#: The network of config/animal_spot.yaml, which takes nothing from the default.
PRESET = "animal_spot"

BASELINES = ("gradient_boosting", "energy")
#: In the order in which they are computed: the last one replaces the evaluation of the default.
METHODS = ("default", "default_rf", "clip", "plain", "dense_resnet", "crnn", PRESET, *BASELINES, "no_hysteresis")
#: The networks of the default are needed for these.
_FROM_DEFAULT = {"default", "default_rf", *BASELINES, "no_hysteresis"}

_ONE_THRESHOLD = {"merge": "threshold", "off_thresholds": [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9, 0.05, 0.95]}
#: Their selections are those of one threshold, which is too little for an average precision.
_WITHOUT_CURVE = {"no_hysteresis", PRESET}

#: With fewer groups on the test side, the intervals resample recordings.
_FEWEST_GROUPS = 10

#: So many lines at the end of Snakemake's output are printed if jobs failed: they say which, and why.
_TOLD_LINES = 25

#: Snakemake looks at what a job takes every half second for so long, then every so many seconds.
_FIRST_LOOKS_S, _LOOK_EVERY_S = 15.5, 30.0


@dataclass(frozen=True)
class Tables:
    """Counts, selections and matches of one method, all folds, and CPU and wall seconds of training a fold."""

    counts: pd.DataFrame
    selections: pd.DataFrame
    matches: pd.DataFrame
    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class Run:
    """One corpus and seed in a working folder; `layer` is laid over its config."""

    corpus: str
    seed: int
    folder: Path
    jobs: int
    layer: dict[str, Any]

    @property
    def results(self) -> Path:
        """The results folder of the workflow."""
        return self.folder / f"seed{self.seed}"

    def values(self, trainings: Sequence[str]) -> dict[str, Any]:
        """Return the content of a config file with these training configurations."""
        corpus, values = CORPORA[self.corpus], {}
        for name in (*corpus.layers, PRESET):
            update_config(values, use_config_file(REPOSITORY / "config" / f"{name}.yaml"))
        update_config(values, {"training": {PRESET: {"resnet18": corpus.windows}}})
        update_config(values, self.layer)
        given, chosen = values["training"], {}
        for name in trainings:
            chosen[name] = {}
            if name in NETWORKS:
                update_config(chosen[name], given.get("default", {}))
                update_config(chosen[name], NETWORKS[name])
            update_config(chosen[name], given.get(name, {}))
        decoding_of = {k: v for k, v in values["evaluation"]["decoding_of"].items() if k in trainings}
        values["evaluation"]["decoding_of"] = decoding_of
        return values | {"training": chosen, "seed": self.seed, "results_dir": self.results.name}

    def make(self, values: dict[str, Any], targets: Sequence[Path], *options: str) -> None:
        """Let the workflow make the targets anew, as far as it can; what it says is added to snakemake.log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(values))
        for path in targets:
            path.unlink(missing_ok=True)
        command = [sys.executable, "-m", "snakemake", *(str(t.relative_to(self.folder)) for t in targets)]
        command += ["-s", str(REPOSITORY / "Snakefile"), "-d", str(self.folder), "--configfile", "config.yaml"]
        command += [f"-j{self.jobs}", "--keep-going", "--rerun-incomplete", "--nolock", "--nocolor", *options]
        with (self.folder / "snakemake.log").open("a") as log:
            done = subprocess.run(command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            last = (self.folder / "snakemake.log").read_text(errors="replace").splitlines()[-_TOLD_LINES:]
            print("\n".join([f"{self.corpus} seed {self.seed}: some jobs failed:", *last]), file=sys.stderr)


def compute(run: Run, methods: Sequence[str]) -> Iterator[Record]:
    """Yield the results of the methods, one by one; those that fail are told on stderr and left out."""
    trainings = [name for name in (*NETWORKS, PRESET) if name in methods]
    if "default" not in trainings and _FROM_DEFAULT & set(methods):
        trainings.insert(0, "default")
    values = run.values(trainings)
    config = parse_config(values)
    models = {name: f"{next(iter(config.datasets))}-{name}" for name in trainings}
    targets = [run.results / "evaluation" / model / "counts.parquet" for model in models.values()]
    if "default_rf" in methods:
        targets.append(run.results / "forest" / models["default"] / "counts.parquet")
    run.make(values, targets)
    for method in methods:
        try:
            if method in BASELINES:
                tables = baseline_tables(run, config, models["default"], method)
            elif method == "no_hysteresis":
                update_config(values, {"evaluation": {"decoding_of": {"default": _ONE_THRESHOLD}}})
                run.make(values, targets[:1], "--allowed-rules", "evaluate_model")
                tables = model_tables(run, config, models["default"], "evaluation")
            elif method == "default_rf":
                tables = model_tables(run, config, models["default"], "forest")
            else:
                tables = model_tables(run, config, models[method], "evaluation")
            yield record_of(run, config, method, tables)
        except OtusError as error:
            print(f"{run.corpus} {method} seed {run.seed}: failed: {error}", file=sys.stderr)


def folds_of(config: Config) -> range:
    """Return the numbers of the folds."""
    return range(1, (config.split.folds or 1) + 1)


def model_tables(run: Run, config: Config, model: str, stage: str) -> Tables:
    """Return what evaluation or forest wrote of a model; StageError if that is not there."""
    if not (run.results / stage / model / "counts.parquet").exists():
        raise StageError(f"{model}: the workflow could not make its {stage}; see the jobs that failed.")
    names = ("counts", "selections", "matches")
    read = [read_table(run.results / stage / model / f"{name}.parquet", name) for name in names]
    folder = run.results / "benchmarks" / "train_model"
    costs = [training_cost(folder / f"{model}.fold{fold}.tsv") for fold in folds_of(config)]
    return Tables(*read, *(statistics.fmean(values) for values in zip(*costs, strict=True)))


def training_cost(path: Path) -> tuple[float, float]:
    """Return CPU and wall seconds of a job by its benchmark file.

    CPU seconds are those of Snakemake's last look at the job, extended at the same pace to its end.
    """
    row = pd.read_csv(path, sep="\t").iloc[0]
    wall_s = float(row["s"])
    later_s = max(0.0, wall_s - _FIRST_LOOKS_S)
    seen_s = min(wall_s, _FIRST_LOOKS_S) + later_s // _LOOK_EVERY_S * _LOOK_EVERY_S
    return float(pd.to_numeric(row["cpu_time"], errors="coerce")) * wall_s / seen_s, wall_s


def baseline_tables(run: Run, config: Config, model: str, method: str) -> Tables:
    """Train a baseline on every fold, in processes of their own, and judge it as the workflow judges a model."""
    root = run.folder / config.corpus.root
    how = (run.results, root, model, method, config.evaluation.decoding, run.seed)
    with ProcessPoolExecutor(run.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        scored = list(pool.map(_score_fold, *([value] * len(folds_of(config)) for value in how), folds_of(config)))
    annotations = read_table(run.results / "inventory" / "annotations.parquet", "annotations")
    folds, *costs = zip(*scored, strict=True)
    found = evaluate_model(folds, annotations, classes=config.corpus.targets, settings=config.evaluation, model=method)
    return Tables(found.counts, found.selections, found.matches, *map(statistics.fmean, costs))


def _score_fold(
    results: Path, root: Path, model: str, method: str, decoding: DecodingSettings, seed: int, fold: int
) -> tuple[FoldScores, float, float]:
    """Read what the workflow wrote for a fold, train a baseline and score with it."""
    dataset = results / "datasets" / model.partition("-")[0]
    clips, splits = (read_table(dataset / f"{name}.parquet", name) for name in ("clips", "splits"))
    tables = TrainingTables(
        read_table(results / "inventory" / "recordings.parquet", "recordings"),
        read_table(results / "inventory" / "annotations.parquet", "annotations"),
        clips[clips["fold"] == fold],
        splits[splits["fold"] == fold],
    )
    card, _ = load_card(results / "models" / model / f"fold{fold}" / "card.json")
    own_seed = derive_seed(seed, method, fold)
    return score_fold(root, tables, card, method=method, decoding=decoding, seed=own_seed)


def record_of(run: Run, config: Config, method: str, tables: Tables) -> Record:
    """Return the pooled test result at the selected operating point, by the code of the workflow's measures."""
    counts, labels = tables.counts, config.corpus.targets
    tested = counts[counts["split"] == "test"]
    resampled = "groups" if tested["group"].nunique() >= _FEWEST_GROUPS else "recordings"
    if resampled == "recordings":
        counts = counts.assign(group=counts["recording_id"])
    recordings, annotations = (
        read_table(run.results / "inventory" / f"{name}.parquet", name) for name in ("recordings", "annotations")
    )
    splits = read_table(run.results / "datasets" / next(iter(config.datasets)) / "splits.parquet", "splits")
    found = (tables.selections, tables.matches, counts)
    layers = tested_layers(*found, annotations, recordings, splits, labels=labels)
    resamples = {"bootstrap": config.evaluation.bootstrap, "seed": run.seed}
    row = _selected(metrics_rows(counts, table("points", []), layers, labels=labels, **resamples), config)
    own = _selected(per_recording_rows(counts.drop(columns="part"), labels), config)
    total = "micro" if len(labels) > 1 else labels[0]
    pooled = row[row["label"] == total].iloc[0]
    by_label = row[row["label"].isin(labels)]
    precision = None if method in _WITHOUT_CURVE else float(by_label["average_precision"].mean())
    columns = ["recording_id", "group", "n_gt", "n_pred", "tp"]
    return Record(
        corpus=run.corpus,
        method=method,
        seed=run.seed,
        layer=run.layer,
        average_precision=precision,
        **{name: float(pooled[name]) for name in ("f1", "f1_low", "f1_high", "precision", "recall")},
        **{name: int(pooled[name]) for name in ("tp", "fp", "fn")},
        by_label={r.label: [int(r.tp), int(r.fp), int(r.fn)] for r in by_label.itertuples()},
        train_cpu_s=round(tables.cpu_s, 1),
        train_wall_s=round(tables.wall_s, 1),
        resampled=resampled,
        recordings=own[own["label"] == total][columns].to_numpy(dtype=object).tolist(),
        false_alarms=false_alarms(run, tables.selections) if method == "default" else [],
        date=datetime.date.today().isoformat(),
        versions=versions(),
    )


def _selected(frame: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The pooled test rows at the selected operating point and the IoU that decides."""
    pooled = (frame["fold"] == POOLED) & (frame["split"] == "test")
    return frame[pooled & frame["selected"] & (frame["iou"] == config.evaluation.iou[0])]


def false_alarms(run: Run, selections: pd.DataFrame) -> list[list[Any]]:
    """Return the selected false alarms on the test side as `Record.false_alarms` has them."""
    inventory = run.results / "inventory"
    path_of = read_table(inventory / "recordings.parquet", "recordings").set_index("recording_id")["path"]
    annotations = read_table(inventory / "annotations.parquet", "annotations")
    chosen = selections[(selections["split"] == "test") & selections["selected"]]
    rows = []
    for label, own in chosen.groupby("label"):
        peaks = own.loc[own["hit"], "peak_score"]
        for alarm in own[~own["hit"]].itertuples():
            there = annotations[annotations["recording_id"] == alarm.recording_id]
            there = there[(there["start_s"] < alarm.end_s) & (there["end_s"] > alarm.start_s)]["label"]
            marked = label if label in set(there) else min(there, default="")
            lower = float((peaks < alarm.peak_score).mean()) if len(peaks) else 1.0
            times = [round(alarm.start_s, 3), round(alarm.end_s, 3)]
            rows.append([path_of[alarm.recording_id], label, *times, round(lower, 3), marked])
    return sorted(rows)


def versions() -> dict[str, str]:
    """Return the versions of what the results depend on."""
    return {p: importlib.metadata.version(p) for p in ("otus", "torch", "scikit-learn", "snakemake")}


def missing_methods(run: Run, methods: Sequence[str], records: Sequence[Record]) -> list[str]:
    """Return the methods without a result of this corpus, seed and layer, in the order of computing."""
    done = {r.method for r in records if (r.corpus, r.seed, r.layer) == (run.corpus, run.seed, run.layer)}
    return [method for method in METHODS if method in methods and method not in done]


def parsed_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = [name for name in CORPORA if name != "demo"]
    parser.add_argument("--corpus", nargs="+", choices=list(CORPORA), default=real)
    parser.add_argument("--methods", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="jobs at a time")
    parser.add_argument("--out", type=Path, required=True, help="file of results, one line of JSON each")
    parser.add_argument("--folder", type=Path, help="keep the results of the workflow here")
    parser.add_argument("--layer", type=Path, help="config file laid over every corpus, e.g. with fewer epochs")
    parser.add_argument("--suspects", action="store_true", help="list suspected missing marks")
    options = parser.parse_args()
    if options.suspects and "default" not in options.methods:
        parser.error("--suspects needs the method default")
    return options


def main() -> None:
    """Compute what is missing, then print the tables."""
    options = parsed_options()
    layer = use_config_file(options.layer) if options.layer else {}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, {gpu}, ", end="")
    print(f"Python {platform.python_version()}, {versions()}", flush=True)
    failed = []
    for corpus in options.corpus:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as temporary:
                folder = (options.folder or Path(temporary)).resolve() / corpus
                run = Run(corpus, seed, folder, options.jobs, layer)
                missing = missing_methods(run, options.methods, read_records(options.out))
                for record in compute(run, missing) if missing else ():
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(record.line())
                    print(record.said(), flush=True)
            left = missing_methods(run, options.methods, read_records(options.out))
            failed += [f"{corpus} {method} seed {seed}" for method in left]
        wanted = corpus, layer, options.seeds, options.methods
        records = [r for r in read_records(options.out) if _is_wanted(r, *wanted)]
        if records:
            print_table(corpus, records)
        if options.suspects and (defaults := [r for r in records if r.method == "default"]):
            print_suspects(defaults)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _is_wanted(
    record: Record, corpus: str, layer: dict[str, Any], seeds: Sequence[int], methods: Sequence[str]
) -> bool:
    return (record.corpus, record.layer) == (corpus, layer) and record.seed in seeds and record.method in methods


if __name__ == "__main__":
    try:
        main()
    except OtusError as error:
        sys.exit(str(error))
