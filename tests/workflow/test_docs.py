"""Every command in README and docs runs, and what their tables name exists."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from otus.cli import main
from otus.resources.plan import LOCAL_RULES, STAGES
from otus.site import PREFIX, Site, load_site
from tests.workflow.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TEXT = {page.name: page.read_text() for page in PAGES}


def blocks(name, language):
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT[name], re.MULTILINE | re.DOTALL)


def rows(name, head):
    """The cells of the table under the headings `head`."""
    lines = TEXT[name].partition(head + "\n")[2].splitlines()[1:]
    cut = next(i for i, line in enumerate([*lines, ""]) if not line.startswith("|"))
    assert cut, f"{name} has no table {head}"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[:cut]]


COMMANDS = [(name, line) for name in TEXT for block in blocks(name, "bash") for line in block.splitlines() if line]
#: Commands that are run elsewhere: how they begin, and where.
ELSEWHERE = {
    "python3 -m venv": ".ci/run",
    ".venv/bin/pytest": ".ci/run",
    ".venv/bin/snakemake --report": "tests/workflow/test_run.py::test_snakemakes_own_report_can_be_made",
}
FAULTS, DISK = "tests/slurm/test_faults.py", "tests/workflow/test_disk.py"
COMMANDS_OF_SLURM, INFERENCE = "tests/unit/test_slurm_commands.py", "tests/unit/test_inference.py"
SHARD = "tests/unit/test_shard_faults.py"
#: Rows of the table of failures, and the test that shows what they say.
FAILURES = {
    "time limit": f"{FAULTS}::a_training_at_its_time_limit_saves_and_goes_on",
    "out of memory": f"{FAULTS}::a_job_killed_for_its_memory_gets_more",
    "preempted, back in the queue": f"{FAULTS}::a_preempted_training_is_requeued_and_goes_on",
    "preempted, ended": f"{FAULTS}::a_preempted_training_that_slurm_ends_is_submitted_again",
    "`scancel` of one job": f"{FAULTS}::a_cancelled_training_goes_on_where_it_was",
    "node failed": f"{FAULTS}::a_training_whose_node_fails_goes_on_elsewhere",
    "`launch failed requeued held` in `squeue`": None,
    "pending for ever, `PartitionTimeLimit` in `squeue`": None,
    "`sbatch` refuses (account, partition, GPU form)": f"{COMMANDS_OF_SLURM}::test_a_refusal_for_good_is_not_repeated",
    "ssh dropped, login node rebooted, `kill -9`": f"{FAULTS}::a_killed_driver",
    "Slurm's controller away": f"{FAULTS}::the_controller_is_away_for_30_s",
    "Slurm's controller busy, or your queue full": f"{FAULTS}::a_busy_controller_is_asked_again",
    "accounting database down": f"{COMMANDS_OF_SLURM}::test_where_the_database_is_silent_squeue_answers",
    "disk or quota full": f"{DISK}::test_a_full_disk_is_explained_and_no_reason_to_lose_anything",
    "read-only folder": f"{DISK}::test_a_disk_that_may_not_be_written_to_is_named",
    "a corrupt recording": "tests/slurm/test_whole_run.py::test_the_corrupt_recording_is_in_quarantine",
    "a recording that breaks during the run": f"{INFERENCE}::test_too_many_failures_fail_the_job_and_leave_no_scores",
    "a network drive stumbles while a recording is read": (
        f"{SHARD}::test_an_error_that_passes_is_tried_again_with_growing_pauses"
    ),
    "no memory for what is scored at once": f"{SHARD}::test_memory_that_runs_out_halves_what_is_scored_and_says_so",
    "killed in the middle of a prediction": f"{SHARD}::test_twenty_kills_at_random_moments_lose_and_double_nothing",
    "one model fails": f"{FAULTS}::one_failing_model_among_three",
    "settings or code changed meanwhile": f"{FAULTS}::a_killed_driver",
}
#: What a command must print, so that a refusal with exit code 0 does not pass.
PRINTS = {
    "otus init": "targets: [hum]",
    "otus check": "config: ok",
    "otus doctor": "Snakemake",
    "otus plan": "Wall time",
    "otus jobs": "train_model",
    "otus failures": "rerun  ",
    "otus rerun": "take_inventory",
    "otus resume": "take_inventory",
    "otus metrics": "F1",
    "otus database": "leaderboard",
    "otus export-onnx": "largest difference of logits",
    "otus build-soundscapes": "soundscapes",
    "snakemake": "Job stats",
    "source": "",
}
CONDA = """\
case "$*" in
    --version) echo "conda 25.1.1" ;;
    "info --json") echo '{"conda_prefix": "/nowhere", "platform": "linux-64"}' ;;
    *) echo '{"get": {"channel_priority": "strict"}}' ;;
esac
"""


def test_the_readme_opens_with_set_up_and_test():
    opening = blocks("README.md", "bash")
    assert opening[0].strip().endswith("&& .venv/bin/snakemake -j2")
    assert opening[1].strip() == ".venv/bin/pytest -n 2 --dist loadgroup"


@pytest.mark.parametrize("name", ["README.md", "cluster.md"])
def test_ci_installs_as_the_pages_do(name):
    installs = re.findall(r"\.venv/bin/pip install ([^&\n]+)", blocks(name, "bash")[0])
    assert len(installs) == 2
    assert all(install.strip() in (REPOSITORY / ".ci" / "run").read_text() for install in installs)


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for path, anchor in re.findall(r"\]\(([^)#:]+)(?:#([^)]*))?\)", page.read_text()):
            target = page.parent / path
            assert target.exists(), f"{page.name} links to {path}"
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
            slugs = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert not anchor or anchor in slugs, f"{page.name} links to {path}#{anchor}"


@pytest.mark.parametrize("place", [*ELSEWHERE.values(), *filter(None, FAILURES.values())])
def test_the_tests_that_are_named_here_exist(place):
    file, _, name = place.partition("::")
    assert not name or re.search(rf"^def {name}\(", (REPOSITORY / file).read_text(), re.MULTILINE)


def test_only_commands_of_other_programs_are_not_run():
    for name in TEXT:
        for block in [*blocks(name, "console"), *blocks(name, "text")]:
            assert not re.search(r"^(\$ )?(\.venv/bin/)?(otus|snakemake)\b", block, re.MULTILINE), f"{name}: {block}"


@pytest.mark.parametrize("name", sorted({c for t in TEXT.values() for c in re.findall(r"`otus ([a-z-]+)", t)}))
def test_commands_in_the_text_exist(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0, capsys.readouterr().err


def test_the_table_of_site_values_is_that_of_the_code():
    found = rows("cluster.md", "| key | variable | default | meaning |")
    for cells, (key, field) in zip(found, Site.model_fields.items(), strict=True):
        default = "" if field.default is None else f"`{field.default}`"
        assert cells == [f"`{key}`", f"`{PREFIX}{key.upper()}`", default, field.description]


def test_the_example_of_a_site_file_is_one(tmp_path):
    (tmp_path / "site.yaml").write_text(blocks("cluster.md", "yaml")[0])
    site = load_site({"HOME": str(tmp_path)}, tmp_path)
    assert site.gpu_partition and site.account and site != Site()


def test_the_table_of_places_names_every_rule_where_it_runs():
    gpu, cpu, here = (set(re.findall(r"`(\w+)`", row[1])) for row in rows("cluster.md", "| where | rules |"))
    assert here == LOCAL_RULES
    profile = (REPOSITORY / "profiles" / "slurm" / "config.yaml").read_text()
    assert gpu == set(re.findall(r'"(\w+)"', re.search(r"\?for rule in \((.*)\):", profile)[1]))
    assert cpu == set(STAGES) - here - gpu


def test_the_table_of_failures_is_the_one_that_is_tested():
    table = rows("failures.md", "| what happened | what Otus does | what you do |")
    assert [row[0] for row in table] == list(FAILURES)
    assert all(len(row) == 3 and all(row) for row in table)


def recordings(folder):
    """Six recordings with Raven tables."""
    folder.mkdir(parents=True)
    head = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
    for i in range(6):
        soundfile.write(folder / f"r{i}.wav", 0.1 * np.random.default_rng(i).standard_normal(16_000), 8000)
        table = f"{head}1\tSpectrogram 1\t1\t0.5\t0.9\t300\t500\thum\n"
        (folder / f"r{i}.Table.1.selections.txt").write_text(table)


def clone(folder):
    """A folder that looks like a clone of Otus with its environment; what is written stays in it."""
    (folder / "config").mkdir(parents=True)
    for path in REPOSITORY.iterdir():
        if path.name in ("Snakefile", "rules", "scripts", "src", "envs", "profiles", "report", "requirements.lock"):
            (folder / path.name).symlink_to(path)
    for path in (REPOSITORY / "config").glob("*.yaml"):
        (folder / "config" / path.name).symlink_to(path)
    (folder / "slurm").symlink_to("profiles/slurm")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


class Home:
    """A user's home: a clone, recordings, stand-ins for programs that are not here, and nobody's site values."""

    def __init__(self, folder):
        self.clone, self.elsewhere, programs = clone(folder / "otus"), folder / "elsewhere", folder / "bin"
        recordings(folder / "tapes" / "owls")
        recordings(self.clone / "PATH" / "TO" / "FOLDER")
        for path in (self.elsewhere, programs):
            path.mkdir()
        for name, text in (("conda", CONDA), ("apptainer", 'echo "apptainer version 1.3.4"')):
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        own = ("OTUS_SLURM_", "OTUS_GENERIC_", "OTUS_SITE", "SNAKEMAKE_PROFILE", "XDG_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(own)} | {
            "HOME": str(folder),
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, line, folder):
        """Run a line as a shell does."""
        return subprocess.run(
            ["bash", "-c", line], cwd=folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def init(self, path, folder):
        """Have the config file at `path`, made by `otus init`."""
        source = "PATH/TO/FOLDER" if path.stem == "FOLDER" else "~/tapes/owls"
        if not path.exists():
            assert self.run(f"otus init {source}", folder).returncode == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def failed(home, tmp_path_factory):
    """A clone in which a run has failed: no label of the recordings is a target."""
    folder = clone(tmp_path_factory.mktemp("failed") / "otus")
    config = folder / "config" / "owls.yaml"
    home.init(config, folder)
    config.write_text(config.read_text().replace("targets: [hum]", "targets: [bark]"))
    assert home.run("snakemake -j1 inventory --configfile config/owls.yaml", folder).returncode == 1
    return folder


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{p}: {c[:60]}" for p, c in COMMANDS])
def test_a_documented_command_runs(page, line, home, request):
    if place := next((place for start, place in ELSEWHERE.items() if line.startswith(start)), None):
        pytest.skip(f"run by {place}")
    if re.search("boobook|soundscapes", line) and "OTUS_DATA" not in os.environ:
        pytest.skip("OTUS_DATA is not set: no real recordings to test on")
    program, *arguments = shlex.split(line)
    program = program.removeprefix(".venv/bin/")
    command = f"{program} {arguments[0]}" if program == "otus" else program
    assert command in PRINTS, f"{page}: unknown command {line}"
    folder = home.elsewhere if "~/otus/" in line else home.clone
    if command in ("otus failures", "otus rerun", "otus resume"):
        folder = request.getfixturevalue("failed")
    elif command in ("otus metrics", "otus database", "otus export-onnx", "otus jobs"):
        folder = request.getfixturevalue("finished")[0].folder
        line = line.replace(".venv/bin/", "").replace("results/owls", "results")
    elif command == "otus init":
        (home.clone / "config" / f"{Path(arguments[0]).name}.yaml").unlink(missing_ok=True)
    for name in set(re.findall(r"config/(owls|FOLDER)\.yaml", line)):
        home.init(home.clone / "config" / f"{name}.yaml", home.clone)
    dry = command in ("snakemake", "otus rerun", "otus resume") and not {"-n", "--dry-run"} & set(arguments)
    done = home.run(re.sub(r"snakemake|otus \w+", r"\g<0> -n", line, count=1) if dry else line, folder)
    text = done.stdout + done.stderr
    assert done.returncode in ((0, 5) if command == "otus doctor" else (0,)), text
    assert "Traceback" not in text and PRINTS[command] in text, text
