"""How the tests are shared out when several workers run them (pytest -n 2 --dist loadgroup)."""

from pathlib import Path

import pytest

#: What waits or computes longest is begun first, so that no worker sits idle at the end.
_FIRST = ("slurm", "workflow", "test_shard_faults")


def group_of(path: Path) -> str:
    """Return with what a test shares a worker: those on a Slurm, those of whole runs, those of a file of units.

    They share what they set up, and that is set up once per worker.
    """
    return path.stem if path.parent.name == "unit" else path.parent.name


def pytest_configure(config):
    """Leave the groups in their order: xdist would put those of few tests last, however long they take."""
    if config.pluginmanager.hasplugin("xdist"):
        config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(config, items):
    """Mark every test with its group, and put the long groups to the front."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(Path(item.path))))
    places = {group: place for place, group in enumerate(_FIRST)}
    items.sort(key=lambda item: places.get(group_of(Path(item.path)), len(_FIRST)))
