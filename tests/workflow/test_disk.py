"""Disks that are full or may not be written to: one sentence that says so, and nothing lost."""

import shutil
import subprocess

import pytest

from tests.workflow.conftest import Workflow

MODEL = "grouped-default"


@pytest.fixture
def small_disk(finished, tmp_path):
    """Make a copy of the finished run whose models lie on a disk of their own; needs the right to mount."""
    flow, _ = finished
    folder = tmp_path / "run"
    shutil.copytree(flow.folder, folder, symlinks=True)
    models = folder / "results" / "models"
    shutil.rmtree(models / MODEL / "fold1")
    mounted = []

    def make(options):
        aside = tmp_path / "models"
        shutil.copytree(models, aside)
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(models)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("this machine does not let the test mount a disk")
        mounted.append(models)
        shutil.copytree(aside, models, dirs_exist_ok=True)
        if options == "full":
            with (models / "filler").open("wb") as filler, pytest.raises(OSError, match="No space"):
                while True:
                    filler.write(b"x" * 65536)
                    filler.flush()
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(models)], check=True)
        return Workflow(folder, *flow.configs), models

    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_is_explained_and_no_reason_to_lose_anything(small_disk, finished):
    flow, models = small_disk("full")
    target = f"results/models/{MODEL}/fold1/card.json"
    done = flow.run("-j1", target)
    assert done.returncode == 1
    log = (flow.folder / f"results/logs/train_model/{MODEL}.fold1.log").read_text()
    assert "Traceback" not in log
    assert "No space left" in log or "full" in log
    assert "free" in log.splitlines()[-1]
    (models / "filler").unlink()
    assert flow.run("-j1", target, "--rerun-incomplete").returncode == 0
    name = f"results/models/{MODEL}/fold1/model.safetensors"
    assert (flow.folder / name).read_bytes() == (finished[0].folder / name).read_bytes()


def test_a_disk_that_may_not_be_written_to_is_named(small_disk):
    flow, models = small_disk("read-only")
    done = flow.run("-j1", f"results/models/{MODEL}/fold1/card.json")
    assert done.returncode == 1
    assert "Read-only file system" in done.stdout + done.stderr
    assert str(models.relative_to(flow.folder)) in done.stdout + done.stderr
