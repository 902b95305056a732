"""Tests that share a set-up run on one worker, or every worker would set it up again."""

from pathlib import Path

import pytest
from tests.conftest import group_of


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("tests/unit/test_workers.py", "test_workers"),
        ("tests/slurm/test_doctor.py", "slurm"),
        ("tests/workflow/test_run.py", "workflow"),
    ],
)
def test_what_shares_a_set_up_is_one_group(path, group):
    assert group_of(Path(path)) == group


def test_the_workers_keep_to_the_groups(request):
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not run on several workers with --dist loadgroup")
    assert request.node.nodeid.endswith("@test_workers")
