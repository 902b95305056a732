"""Measure what the intervals cost: measures of one layer with resampled groups, and how often they hold the truth.

    python benchmarks/bootstrap.py
    python benchmarks/bootstrap.py --recordings 1000 --labels 4 --resamples 2000
    python benchmarks/bootstrap.py --coverage 2000

Made-up recordings of a minute with calls, hits and false alarms that differ from group to group. Prints the CPU seconds
of each table (medians of --repeats), with and without the scores (PSDS), whose resamples are counted apart. With
--coverage, the share of so many corpora whose interval holds the true value, by number of groups. About a minute.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy

from otus.bootstrap import effective_groups, group_draws, rate_interval, share_interval
from otus.config import EvaluationSettings
from otus.measures.at_rates import recall_at_rates
from otus.measures.coverage import layer_psds
from otus.measures.differences import layer_differences
from otus.measures.evidence import TestedLayer
from otus.measures.facts import groups_of
from otus.measures.per_class import per_class_rows
from otus.tables import POOLED

MINUTE_S = 60.0


def made_up_layer(recordings: int, groups: int, labels: int, seed: int) -> TestedLayer:
    """A layer in which calls last about a second; every hit is a little off, and false alarms rank lower."""
    random = np.random.default_rng(seed)
    names = [f"r{i:04d}" for i in range(recordings)]
    group = [f"g{i % groups:03d}" for i in range(recordings)]
    calls, found = [], []
    for label in (f"label{i}" for i in range(labels)):
        often, right = random.gamma(2.0, 4.0, groups), random.beta(6.0, 2.0, groups)
        for i, name in enumerate(names):
            n = random.poisson(often[i % groups])
            start = np.sort(random.uniform(0.0, MINUTE_S - 2.0, n))
            own = pd.DataFrame({"recording_id": name, "start_s": start, "end_s": start + random.uniform(0.5, 1.5, n)})
            calls.append(own.assign(label=label))
            hit = random.uniform(size=n) < right[i % groups]
            hits = own[hit].assign(label=label, hit=True, rank=random.normal(1.5, 1.0, int(hit.sum())))
            hits["start_s"] += random.normal(0.0, 0.05, len(hits))
            at = random.uniform(0.0, MINUTE_S - 2.0, random.poisson(6.0))
            wrong = pd.DataFrame({"recording_id": name, "start_s": at, "end_s": at + 0.8, "label": label})
            found += [hits, wrong.assign(hit=False, rank=random.normal(-1.0, 1.0, len(at)))]
    truth, selections = pd.concat(calls, ignore_index=True), pd.concat(found, ignore_index=True)
    truth["annotation_id"] = [f"a{i}" for i in range(len(truth))]
    selections["selected"] = selections["rank"] > 0.0
    hits = selections[selections["hit"] & selections["selected"]]
    matches = hits.assign(outcome="hit", onset_error_s=0.05, offset_error_s=0.1)
    return TestedLayer(
        model="made_up",
        layer="cnn",
        fold=POOLED,
        leaky=False,
        labels=tuple(f"label{i}" for i in range(labels)),
        iou=0.4,
        recordings=pd.DataFrame({"recording_id": names, "group": group, "duration_s": MINUTE_S}),
        calls=truth,
        selections=selections,
        matches=matches,
        unknown={},
    )


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """The median CPU time of the work in this process."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return statistics.median(times)


def print_times(options: argparse.Namespace) -> None:
    """The CPU seconds of each table of one layer."""
    layer = made_up_layer(options.recordings, options.groups, options.labels, seed=1)
    other = made_up_layer(options.recordings, options.groups, options.labels, seed=2)
    settings = EvaluationSettings(bootstrap=options.resamples)
    names, _ = groups_of(layer)
    weights = group_draws(names, n=options.resamples, seed=1).weights
    whole = cpu_seconds(lambda: per_class_rows(layer, settings, 1), options.repeats)
    alone = cpu_seconds(lambda: layer_psds(layer, weights), options.repeats)
    print(
        f"{options.recordings} recordings of a minute in {options.groups} groups, {options.labels} labels, "
        f"{len(layer.calls)} calls, {len(layer.selections)} selections, {options.resamples} resamples"
    )
    print(f"metrics_per_class        {whole:6.2f} CPU-s, of which PSDS {alone:.2f} (200 resamples)")
    print(f"  without any resample   {no_resample(layer, options.repeats):6.2f} CPU-s")
    rates = cpu_seconds(lambda: recall_at_rates(layer, settings, 1), options.repeats)
    print(f"recall_at_rates          {rates:6.2f} CPU-s")
    differ = cpu_seconds(lambda: layer_differences(layer, other, settings, 1), options.repeats)
    print(f"differences              {differ:6.2f} CPU-s")


def no_resample(layer: TestedLayer, repeats: int) -> float:
    """The CPU seconds of the same values without intervals."""
    settings = EvaluationSettings(bootstrap=0)
    return cpu_seconds(lambda: per_class_rows(layer, settings, 1), repeats)


def print_coverage(corpora: int) -> None:
    """The share of corpora whose interval holds the truth; counts of groups are overdispersed."""
    print(f"intervals that hold the truth, of {corpora} corpora each (%)")
    print("groups    F1  recall  precision  false alarms per hour")
    for groups in (3, 4, 6, 8, 12, 20, 40):
        held = np.mean([covered(groups, seed) for seed in range(corpora)], axis=0)
        print(f"{groups:6d} " + "  ".join(f"{100 * share:5.1f}" for share in held))


def covered(groups: int, seed: int) -> list[bool]:
    """Whether the interval of each measure holds its truth in one corpus."""
    random = np.random.default_rng([groups, seed])
    n_gt = random.poisson(random.gamma(1.5, 20.0, groups))
    tp = random.binomial(n_gt, random.beta(6.0, 2.0, groups))
    hours = random.uniform(0.2, 1.0, groups)
    alarms = random.poisson(random.gamma(1.0, 15.0, groups) * hours)
    names = np.array([f"g{i:02d}" for i in range(groups)])
    weights = group_draws(names, n=1000, seed=seed).weights
    n_pred, true = tp + alarms, {"tp": 22.5, "alarms": 9.0, "n_gt": 30.0}
    truths = [
        2 * true["tp"] / (true["tp"] + true["alarms"] + true["n_gt"]),
        true["tp"] / true["n_gt"],
        true["tp"] / (true["tp"] + true["alarms"]),
        15.0,
    ]
    held = []
    for truth, (part, every) in zip(
        truths, [(2 * tp, n_pred + n_gt), (tp, n_gt), (tp, n_pred), (alarms, hours)], strict=True
    ):
        with np.errstate(invalid="ignore", divide="ignore"):
            value, resampled = float(part.sum() / every.sum()), (weights @ part) / (weights @ every)
        if every is hours:
            interval = rate_interval(value, resampled, effective_groups(hours), float(hours.sum()))
        else:
            interval = share_interval(value, resampled, effective_groups(every))
        held.append(bool(interval.low <= truth <= interval.high))
    return held


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--labels", type=int, default=1)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--coverage", type=int, metavar="CORPORA", default=0)
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, {platform.machine()}"
    )
    print_times(options)
    if options.coverage:
        print_coverage(options.coverage)


if __name__ == "__main__":
    main()
