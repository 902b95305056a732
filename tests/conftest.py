"""How the tests are shared out when several workers run them (pytest -n 2 --dist loadgroup)."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config, items):
    """The tests on a Slurm and those of whole runs each stay with one worker, as they share what they set up.

    Unit tests of a file stay together, too.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        path = Path(item.path)
        group = path.stem if path.parent.name == "unit" else path.parent.name
        item.add_marker(pytest.mark.xdist_group(group))
