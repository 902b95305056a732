"""Working copies of the repository, a finished local run to compare with, and two live clusters."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.slurm.cluster import Cluster, missing_programs, running

REPOSITORY = Path(__file__).parents[2]
FAULTS = Path(__file__).parent / "faults"
#: The demo, so small that a job is mostly its start.
SMALL = {
    "results_dir": "results",
    "seed": 1,
    "corpus": {
        "root": "demo-corpus",
        "demo": {"seed": 1, "recordings": 12, "duration_s": 20.0},
        "annotations": [{"files": "**/*.selections.txt"}],
        "targets": ["hum"],
        "group": "^(?P<group>site_[a-z])",
    },
    "training": {name: {"members": 1, "epochs": 4, "cuts_per_epoch": 64} for name in ("a", "b", "c")},
    "chunking": {"shards": 2, "chunk_s": 5.0},
    "evaluation": {"bootstrap": 100},
    "report": {"examples": 1},
}
#: Tables that must not depend on where and in how many attempts they were made.
FINAL = ("metrics.csv", "metrics_per_recording.csv", "curves.parquet", "matches.csv")


class Copy:
    """A copy of the repository with the small config, as a user has it after a clone; commands run in it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.results = folder, folder / "results"
        self.environment = {
            **environment,
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "PYTHONPATH": f"{folder / 'src'}:{FAULTS}",
            "OTUS_SLURM_POLL_S": "3",
            "TERM": "dumb",
        }
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command in the background; its output goes to driver.log."""
        with (self.folder / "driver.log").open("a") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def run(self, *command: str, timeout_s: float = 600, **environment: str) -> str:
        """Run a command to its end and return what it printed; `code` holds its exit code."""
        before = self.printed
        process = self.start(*command, **environment)
        try:
            self.code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"{command} still ran after {timeout_s} s:\n{self.printed[-6000:]}") from None
        return self.printed[len(before) :]

    @property
    def printed(self) -> str:
        """All that the commands printed until now."""
        log = self.folder / "driver.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def log_of(self, rule: str, job: str) -> str:
        """The log of a job, empty if there is none yet."""
        path = self.results / "logs" / rule / f"{job}.log"
        return path.read_text() if path.exists() else ""

    def digest(self, *paths: str) -> dict[str, str]:
        """SHA-256 of results files."""
        return {p: hashlib.sha256((self.results / p).read_bytes()).hexdigest() for p in paths}

    def submissions(self) -> list[str]:
        """The rule of every job that Slurm took."""
        return re.findall(r"Job (\d+) has been submitted", self.printed)

    def copied(self, folder: Path, environment: dict[str, str]) -> "Copy":
        """A copy of this copy with all that is finished in it."""
        shutil.copytree(self.folder, folder, symlinks=True)
        (folder / "driver.log").unlink()
        return Copy(folder, environment)

    def without(self, *folders: str) -> "Copy":
        """Remove parts of the results and all logs, so that they must be made again."""
        shutil.rmtree(self.results / "logs")
        for name in folders:
            shutil.rmtree(self.results / name, ignore_errors=True)
        for path in self.results.glob("*.*"):
            path.unlink()
        return self


def copy_repository(folder: Path, config: dict) -> None:
    """What git would clone, with another config."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, check=True
    )
    for name in listed.stdout.decode().splitlines():
        source, target = REPOSITORY / name, folder / name
        if source.exists() or source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config))


def until(condition, what: str, timeout_s: float = 180.0) -> None:
    """Wait until `condition()` holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what}"
        time.sleep(0.3)


@contextlib.contextmanager
def _cluster(*, accounting: bool) -> Iterator[Cluster]:
    if missing := missing_programs(accounting=accounting):
        pytest.skip(f"no Slurm to test on ({', '.join(missing)} not installed; .ci/install-slurm installs it)")
    if os.geteuid() != 0:
        pytest.skip("a private Slurm needs root")
    folder = Path(tempfile.mkdtemp(prefix="otus-slurm-"))  # short: sockets have short names
    try:
        with running(folder, accounting=accounting) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def plain() -> Iterator[Cluster]:
    """A cluster without accounting: jobs are watched with squeue."""
    with _cluster(accounting=False) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def accounted() -> Iterator[Cluster]:
    """A cluster with an accounting database: jobs are watched with sacct."""
    with _cluster(accounting=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def local(tmp_path_factory) -> Copy:
    """A finished run without Slurm, of three models: what every run on the cluster must end with."""
    folder = tmp_path_factory.mktemp("local") / "otus"
    copy_repository(folder, SMALL)
    copy = Copy(folder, {**os.environ, "OMP_NUM_THREADS": "1"})
    printed = copy.run("snakemake", "-j2", "--notemp")
    assert copy.code == 0, printed
    return copy
