"""How long it takes to build dataset variants of a large corpus, and what memory: tables only, no audio.

    python benchmarks/datasets.py [--recordings 20000] [--calls 4] [--folds 5]

Each strategy runs in a process of its own. Times are CPU seconds; memory is the largest resident size of the process.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from typing import get_args

import numpy as np
import pandas as pd

from otus.config import DatasetSettings, SplitSettings, Strategy
from otus.datasets import make_variant
from otus.tables import table

RATE = 24_000


def made_up_corpus(recordings: int, calls: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Recordings of a minute, twenty to a group, with so many annotations each, of two labels and three qualities."""
    generator = np.random.default_rng(0)
    ids = np.array([f"site__recording_{i:06d}" for i in range(recordings)])
    facts = {"duration_s": 60.0, "n_samples": 60 * RATE, "sample_rate": RATE, "labelled": True, "readable": True}
    frame = pd.DataFrame(
        {"recording_id": ids, "path": ids, "sha256": ids, "group": [f"g{i // 20}" for i in range(recordings)], **facts}
    )
    start_s = generator.uniform(0, 58, recordings * calls)
    rows = {
        "annotation_id": [f"a{i}" for i in range(recordings * calls)],
        "recording_id": np.repeat(ids, calls),
        "start_s": start_s,
        "end_s": start_s + generator.uniform(0.1, 1.0, len(start_s)),
        "label": generator.choice(["hum", "bark"], len(start_s)),
        "quality": generator.choice(["1", "2", "3"], len(start_s)),
    }
    return table("recordings", frame), table("annotations", pd.DataFrame(rows))


def one(strategy: str, recordings: int, calls: int, folds: int) -> None:
    """Build one variant and print what it took."""
    corpus = made_up_corpus(recordings, calls)
    settings = DatasetSettings.model_validate({"strategy": strategy})
    began = time.process_time()
    made = make_variant(
        *corpus, dataset=strategy, targets=["hum"], split=SplitSettings(folds=folds), settings=settings, seed=1
    )
    cpu_s, mb = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    clips = f"{len(made.clips)} clips of {folds} folds, {made.noise.mined} mined"
    print(f"{strategy}: {clips}, {cpu_s:.1f} CPU-s, {mb:.0f} MB")


def main() -> None:
    """Run every strategy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=20_000)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--strategy", choices=get_args(Strategy), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.strategy:
        one(options.strategy, options.recordings, options.calls, options.folds)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, pandas {pd.__version__}")
    for strategy in get_args(Strategy):
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--strategy", strategy], check=True)


if __name__ == "__main__":
    main()
