"""Running the workflow as a user does: the snakemake command in a process of its own."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "config" / "config.yaml"


#: A demo corpus and a training that take seconds.
SMALL = {
    "corpus": {"root": "corpus", "demo": {"recordings": 12, "duration_s": 20.0}},
    "training": {"default": {"members": 2, "epochs": 3, "cuts_per_epoch": 64}},
    "chunking": {"shards": 2, "chunk_s": 12.0},
    "evaluation": {"bootstrap": 200},
    "report": {"examples": 2},
}


class Workflow:
    """One working folder with its config files; `run` starts snakemake there."""

    def __init__(self, folder: Path, *configs: Path | dict) -> None:
        self.folder = folder
        self.configs = []
        for config in configs:
            path = config
            if isinstance(config, dict):
                path = folder / f"layer{len(list(folder.glob('layer*.yaml')))}.yaml"
                path.write_text(yaml.safe_dump(config))
            self.configs.append(str(path))

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "-d", str(self.folder)]
        command += ["--configfile", *self.configs, "--nocolor", *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )

    def layer(self, values: dict) -> "Workflow":
        """The same folder with one more config file on top."""
        return Workflow(self.folder, *map(Path, self.configs), values)

    def planned(self, *arguments: str) -> Counter:
        """Jobs by rule of a dry run."""
        done = self.run("-n", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        if "Nothing to be done" in done.stdout + done.stderr:
            return Counter()
        stats = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\ntotal", done.stdout + done.stderr, re.DOTALL)
        assert stats, done.stdout + done.stderr
        return Counter({name: int(n) for name, n in (line.split() for line in stats.group(1).splitlines())})


@pytest.fixture
def workflow(tmp_path):
    """Make a Workflow in an empty folder."""

    def make(*configs):
        return Workflow(tmp_path, *configs)

    return make


@pytest.fixture(scope="session")
def otus_data() -> Path:
    """The folder of real recordings; skip without it."""
    folder = os.environ.get("OTUS_DATA")
    if not folder:
        pytest.skip("OTUS_DATA is not set: no real recordings to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run and what it printed."""
    flow = Workflow(tmp_path_factory.mktemp("run"), DEMO, SMALL)
    done = flow.run("-j2")
    assert done.returncode == 0, done.stdout + done.stderr
    return flow, done
