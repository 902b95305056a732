"""Faults for the tests on a cluster: wraps functions of Otus in every Python that has this folder on its path.

OTUS_FAULTS names a folder of files; each wrapped function looks there at the moment it is called:
slow-<model>    training waits 3 s, or as many as the file says, before each batch while the file exists
hog-<model>     training takes 2 GB of memory
broken-<model>  training raises
slow-chunks     prediction waits 1 s at each chunk while the file exists
"""

import importlib.abc
import importlib.machinery
import os
import sys
import time
from pathlib import Path

FOLDER = os.environ.get("OTUS_FAULTS")
hoard = []


def training(module):
    """Wrap train_fold."""
    real = module.train_fold

    def train_fold(*arguments, model, **named):
        training.model = model.split("-")[-1]
        if Path(FOLDER, f"broken-{training.model}").exists():
            raise RuntimeError("a fault of the test")
        if Path(FOLDER, f"hog-{training.model}").exists():
            hoard.append(bytearray(os.urandom(1)) * 2_000_000_000)
            time.sleep(8)
        return real(*arguments, model=model, **named)

    module.train_fold = train_fold


def batches(module):
    """Wrap augment, which every batch goes through."""
    real = module.augment

    def augment(*arguments, **named):
        slow = Path(FOLDER, f"slow-{getattr(training, 'model', '')}")
        if slow.exists():
            time.sleep(float(slow.read_text() or 3))
        return real(*arguments, **named)

    module.augment = augment


def chunks(module):
    """Wrap what takes a chunk, or a piece of one."""
    real = module._Work._take

    def take(*arguments, **named):
        if Path(FOLDER, "slow-chunks").exists():
            time.sleep(1)
        return real(*arguments, **named)

    module._Work._take = take


WRAPPERS = {"otus.training.stage": training, "otus.training.frames": batches, "otus.inference.shard": chunks}


class Finder(importlib.abc.MetaPathFinder):
    """Let the usual finders find a module, and wrap it after it has run."""

    def find_spec(self, name, path=None, target=None):
        """Return the module's own spec with a loader that wraps."""
        if name not in WRAPPERS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            WRAPPERS[name](module)

        spec.loader.exec_module = exec_module
        return spec


if FOLDER:
    sys.meta_path.insert(0, Finder())
