"""`otus doctor` on a live cluster."""

import json

import pytest

from tests.slurm.conftest import Copy, copy_repository


@pytest.fixture(params=["plain", "accounted"])
def shell(request, tmp_path):
    """A clone on a login node of one of the clusters."""
    cluster = request.getfixturevalue(request.param)
    copy_repository(tmp_path / "otus", {"results_dir": "results"})
    return cluster, Copy(tmp_path / "otus", cluster.environment)


def findings(copy, **environment):
    printed = copy.run("otus", "doctor", "--slurm", "--json", **environment)
    report = json.loads(printed[printed.index("{" if printed.lstrip().startswith("{") else "[") :])
    return {f["name"]: f for f in (report["findings"] if isinstance(report, dict) else report)}


def test_a_sound_cluster(shell):
    cluster, copy = shell
    found = findings(copy)
    assert copy.code == 0, found
    assert not [f for f in found.values() if f["status"] == "missing"]
    text = " ".join(f["text"] for f in found.values())
    assert ("sacct" if cluster.accounting else "squeue") in text
    assert "gpu" in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [("GPU_PARTITION", "cpu"), ("GPU_PARTITION", "nowhere"), ("GPU_MODEL", "a100"), ("GPU_CONSTRAINT", "slow")],
)
def test_a_site_value_that_this_cluster_cannot_serve(shell, variable, value):
    _, copy = shell
    found = findings(copy, **{f"OTUS_SLURM_{variable}": value})
    assert copy.code == 5
    assert any(value in f["text"] for f in found.values() if f["status"] == "missing"), found


def test_values_that_it_can_serve(shell):
    _, copy = shell
    found = findings(copy, OTUS_SLURM_GPU_MODEL="fake", OTUS_SLURM_GPU_CONSTRAINT="fast")
    assert copy.code == 0, found
