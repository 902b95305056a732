"""Every command in README and docs runs: a command that this test does not know is a failure."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.workflow.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = [(p.name, line) for p in PAGES for b in BLOCK.findall(p.read_text()) for line in b.splitlines() if line]


def test_the_readme_opens_with_set_up_and_test():
    blocks = BLOCK.findall((REPOSITORY / "README.md").read_text())
    assert blocks[0].strip().endswith("&& .venv/bin/snakemake -j2")
    assert blocks[1].strip() == ".venv/bin/pytest"


def test_ci_installs_as_the_readme_does():
    readme = BLOCK.findall((REPOSITORY / "README.md").read_text())[0]
    ci = (REPOSITORY / ".ci" / "run").read_text()
    for install in re.findall(r"\.venv/bin/pip install ([^&\n]+)", readme):
        assert install.strip() in ci


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{p}: {c[:60]}" for p, c in COMMANDS])
def test_a_documented_command_runs(page, line, tmp_path, request):
    words = shlex.split(line)
    if words[:3] == ["python3", "-m", "venv"] or words == [".venv/bin/pytest"]:
        pytest.skip("run as a whole by .ci/run")
    if "boobook" in line and "OTUS_DATA" not in os.environ:
        pytest.skip("OTUS_DATA is not set: no real recordings to test on")
    program, *arguments = words
    folder = REPOSITORY
    if "FOLDER" in line:  # the three commands for one's own recordings, on a tiny corpus
        folder = request.getfixturevalue("own_corpus")
        arguments = [a.replace("PATH/TO/FOLDER", str(folder / "FOLDER")) for a in arguments]
    if program == ".venv/bin/snakemake":
        source = [] if folder == REPOSITORY else ["-s", str(REPOSITORY / "Snakefile")]
        if "--report" in arguments:
            pytest.skip("run on a finished workflow by test_run")
        command = [sys.executable, "-m", "snakemake", *source, *arguments, *([] if "-n" in arguments else ["-n"])]
    elif program == ".venv/bin/otus":
        if arguments[0] == "metrics":
            flow, _ = request.getfixturevalue("finished")
            folder = flow.folder
        if arguments[0] == "check" and folder != REPOSITORY:
            subprocess.run([sys.executable, "-m", "otus", "init", str(folder / "FOLDER")], cwd=folder, check=True)
        command = [sys.executable, "-m", "otus", *arguments]
    else:
        pytest.fail(f"{page}: unknown command {line}")
    if program == ".venv/bin/snakemake" and folder != REPOSITORY:
        subprocess.run([sys.executable, "-m", "otus", "init", str(folder / "FOLDER")], cwd=folder, check=True)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def own_corpus(tmp_path):
    """A folder FOLDER with six labelled recordings."""
    import numpy as np
    import soundfile

    (tmp_path / "FOLDER").mkdir()
    for i in range(6):
        noise = 0.1 * np.random.default_rng(i).standard_normal(16_000)
        soundfile.write(tmp_path / "FOLDER" / f"r{i}.wav", noise, 8000)
        (tmp_path / "FOLDER" / f"r{i}.txt").write_text("0.5\t0.9\thum\n")
    return tmp_path
