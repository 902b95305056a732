"""The profiles: what jobs ask for with every site value, what sbatch gets, and jobs through other programs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from otus.resources.plan import LOCAL_RULES
from otus.site import Site
from tests.workflow.conftest import DEMO, REPOSITORY, SMALL

SLURM = REPOSITORY / "slurm"
GENERIC = REPOSITORY / "profiles" / "generic"
SLURM_COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr", "sshare")
GPU_RULES = ("train_model", "predict_shard")
CPU_RULES = (
    "take_inventory",
    "make_dataset",
    "describe_dataset",
    "evaluate_model",
    "filter_selections",
    "measure_model",
)

#: A value of every key that decides what jobs ask for, and where it shows: in GPU jobs, in CPU jobs.
ASKED = {
    "account": ("birds-2026", "slurm_account=birds-2026", "slurm_account=birds-2026"),
    "cpu_partition": ("standard", None, "slurm_partition=standard"),
    "gpu_partition": ("gpu,gpu-long", "slurm_partition=gpu,gpu-long", None),
    "gpu_model": ("a100", "gpu_model=a100", None),
    "gpu_constraint": ("a100&80g", "constraint=a100&80g", None),
    "cpu_constraint": ("skylake", None, "constraint=skylake"),
    "longest_min": (25, "runtime=25", "runtime=25"),
    "signal_s": (300, "slurm_extra=--signal=TERM@300", None),
}
#: A value of every key that decides how the driver works, and the setting of the profile that it becomes.
DRIVEN = {
    "qos": ("long", "slurm-qos"),
    "reservation": ("owls", "slurm-reservation"),
    "activate": ('module load cuda/12.4 && echo "node: ready"', "precommand"),
    "jobs": (7, "jobs"),
    "max_gpus": (3, "gpu_jobs"),
    "status_command": ("sacct", "slurm-status-command"),
    "poll_s": (45, "slurm-init-seconds-before-status-checks"),
}
#: Shown by tests of their own: gres here, container at the end, usage in tests/unit/test_usage.py.
ELSEWHERE = {"gres", "container", "usage"}


@pytest.fixture(autouse=True)
def nobodys_site(monkeypatch, tmp_path):
    """No site values and no profile of whoever runs the tests."""
    for name in os.environ:
        if name.startswith(("OTUS_SLURM_", "OTUS_GENERIC_", "OTUS_SITE", "SNAKEMAKE_PROFILE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))


def variables(values):
    """Site values as variables."""
    return {f"OTUS_SLURM_{key.upper()}": str(value) for key, value in values.items()}


def asked(flow, *arguments, **environment):
    """What the jobs of a dry run with the Slurm profile ask for: rule -> resource -> value."""
    done = flow.run("--profile", str(SLURM), "-n", *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for rule, line in re.findall(r"^rule (\w+):\n(?: .*\n)*? +resources: (.*)$", done.stdout, re.MULTILINE):
        found.setdefault(rule, []).append(dict(re.findall(r"(\w+)=(.*?)(?=, \w+=|$)", line)))
    assert set(found) >= {*GPU_RULES, *CPU_RULES, *LOCAL_RULES}
    for rule, jobs in found.items():
        assert all(job == jobs[0] for job in jobs), f"jobs of {rule} differ"
    return {rule: jobs[0] for rule, jobs in found.items()}


def shown(resources):
    """Resources as the dry run writes them."""
    return {f"{name}={value}" for name, value in resources.items()}


def test_every_site_value_is_tested_here():
    assert set(ASKED) | set(DRIVEN) | ELSEWHERE == set(Site.model_fields)


def test_without_site_values_the_clusters_defaults_hold(workflow):
    jobs = asked(workflow(DEMO))
    for rule in GPU_RULES:
        assert shown(jobs[rule]) >= {"gpu=1", "gpu_jobs=1", "slurm_extra=--signal=TERM@120"}
    for rule in (*CPU_RULES, *LOCAL_RULES):
        assert not {"gpu", "gpu_jobs", "gres", "slurm_extra"} & set(jobs[rule])
    for resources in jobs.values():
        assert not {"slurm_account", "slurm_partition", "gpu_model", "gres", "constraint"} & set(resources)
        assert int(resources["mem_mb"]) >= 1000 and int(resources["runtime"]) >= 10


@pytest.mark.parametrize("source", ["variables", "site.yaml"])
def test_every_site_value_reaches_the_jobs_that_it_is_for(workflow, tmp_path, source):
    values = {key: value for key, (value, *_) in ASKED.items()}
    if source == "site.yaml":
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(values))
    jobs = asked(workflow(DEMO), **(variables(values) if source == "variables" else {}))
    for rules, place in ((GPU_RULES, 1), (CPU_RULES, 2)):
        for rule in rules:
            wanted = {row[place] for row in ASKED.values() if row[place]}
            assert wanted <= shown(jobs[rule])
            others = {row[0] for row in ASKED.values() if not row[place]}
            assert not others & set(jobs[rule].values())
    for rule in GPU_RULES:
        assert jobs[rule]["gpu"] == "1"


def test_gres_takes_the_place_of_gpus(workflow):
    jobs = asked(workflow(DEMO), OTUS_SLURM_GRES="gpu:a100:1")
    for rule in GPU_RULES:
        assert shown(jobs[rule]) >= {"gres=gpu:a100:1", "gpu=0", "gpu_jobs=1"}
    assert not any("gres" in jobs[rule] for rule in CPU_RULES)


def test_a_constraint_of_cpu_jobs_is_none_of_gpu_jobs(workflow):
    jobs = asked(workflow(DEMO), OTUS_SLURM_CPU_CONSTRAINT="skylake")
    assert {jobs[rule]["constraint"] for rule in CPU_RULES} == {"skylake"}
    assert {jobs[rule]["constraint"] for rule in GPU_RULES} == {""}


def test_no_signal_before_the_time_limit(workflow):
    jobs = asked(workflow(DEMO), OTUS_SLURM_SIGNAL_S="0")
    for rule in GPU_RULES:
        assert not jobs[rule].get("slurm_extra")
        assert jobs[rule]["gpu"] == "1"


def test_resources_on_the_command_line_replace_all_of_the_profiles(workflow):
    runtime = ("--set-resources", "train_model:runtime=120")
    jobs = asked(workflow(DEMO), *runtime, OTUS_SLURM_GPU_PARTITION="gpu")
    assert jobs["train_model"]["runtime"] == "120"
    assert not {"slurm_partition", "slurm_extra"} & {*jobs["train_model"], *jobs["predict_shard"]}, "cluster.md says so"


def test_every_other_site_value_becomes_a_setting(tmp_path):
    code = f"import json, yte; print(json.dumps(yte.process_yaml(open({str(SLURM / 'config.yaml')!r}))))"
    given = variables({key: value for key, (value, _) in DRIVEN.items()})

    def settings(**environment):
        environment = {**os.environ, **environment}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True
        )
        found = json.loads(done.stdout)
        return {**found, **found["resources"]}

    without, with_all = settings(), settings(**given)
    for value, setting in DRIVEN.values():
        assert with_all[setting] == value
        assert without.get(setting) != value
    assert not {"slurm-qos", "slurm-reservation", "precommand"} & set(without)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("OTUS_SLURM_ACOUNT", "birds", "OTUS_SLURM_ACOUNT: unknown site key 'acount'; did you mean 'account'?"),
        ("OTUS_SLURM_GRES", "gpu:4", "gres: gpu:4 does not ask for one GPU"),
        ("OTUS_SITE", "nowhere.yaml", "nowhere.yaml: cannot read the config file"),
    ],
)
def test_a_wrong_site_value_is_one_sentence(workflow, variable, value, sentence):
    done = workflow(DEMO).run("--profile", str(SLURM), "-n", **{variable: value})
    assert done.returncode != 0
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr


def test_the_profile_dry_runs_where_there_is_no_slurm(workflow, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "bash", "which"):
        (tools / name).symlink_to(shutil.which(name))
    assert all(shutil.which(name, path=str(tools)) is None for name in SLURM_COMMANDS)
    assert asked(workflow(DEMO), PATH=str(tools))["train_model"]["gpu"] == "1"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a shell script on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}")

    def make(name, text):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def submitted(program, tmp_path):
    """Run until the first job, which must be `rule`'s; return the words that sbatch gets, and the script."""

    def run(flow, rule, target, **environment):
        for name in SLURM_COMMANDS:
            program(name, "exit 0")
        got, script = tmp_path / "words", tmp_path / "script"
        refusal = 'echo "sbatch: error: Batch job submission failed: nothing runs here" >&2; exit 1'
        program("sbatch", f"printf '%s\\n' \"$@\" >{got}; cat >{script}; {refusal}")
        environment["OTUS_SLURM_POLL_S"] = "1"
        done = flow.run("--profile", str(SLURM), "--retries", "0", target, **environment)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "nothing runs here" in done.stderr and "Traceback" not in done.stderr
        words = got.read_text().splitlines()
        assert words[words.index("--comment") + 1].startswith(f"rule_{rule}")
        return words, script.read_text() + "\n".join(words)

    return run


def test_sbatch_gets_the_values_of_every_job(workflow, submitted):
    values = {"account": "birds", "cpu_partition": "standard", "qos": "long", "reservation": "owls"}
    command = "module load cuda/12.4"
    flow = workflow(DEMO, SMALL)
    words, script = submitted(flow, "make_demo_corpus", "inventory", **variables({**values, "activate": command}))
    assert {"--qos=long", "--reservation=owls", "--requeue"} <= set(words)
    assert words[words.index("-A") + 1] == "birds"
    assert words[words.index("-p") + 1] == "standard"
    assert not [word for word in words if word.startswith(("--gpus", "--gres"))]
    assert command in script


@pytest.fixture
def before_training(workflow):
    """A folder in which a training is the next job: its inputs are there, and empty."""
    flow = workflow(DEMO, SMALL)
    inputs = ["corpus/corpus.json"]
    inputs += [
        f"results/inventory/{t}.{s}" for t in ("recordings", "annotations", "quarantine") for s in ("parquet", "csv")
    ]
    inputs += [f"results/datasets/grouped/{t}" for t in ("clips.parquet", "splits.parquet", "splits.csv")]
    for name in inputs:
        path = flow.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return flow, "results/models/grouped-default/fold1/card.json"


@pytest.mark.parametrize(
    ("values", "request_"),
    [({}, "--gpus=1"), ({"gpu_model": "a100"}, "--gpus=a100:1"), ({"gres": "gpu:1"}, "--gres=gpu:1")],
)
def test_sbatch_gets_one_gpu_for_a_training(before_training, submitted, values, request_):
    words, _ = submitted(
        before_training[0], "train_model", before_training[1], **variables({"gpu_partition": "gpu", **values})
    )
    assert [word for word in words if word.startswith(("--gpus", "--gres"))] == [request_]
    assert words[words.index("-p") + 1] == "gpu"
    assert "--signal=TERM@120" in words


@pytest.mark.slow
def test_the_generic_profile_runs_jobs_and_a_second_run_does_nothing(workflow):
    flow = workflow(DEMO, SMALL)
    arguments = ("--profile", str(GENERIC), "--seconds-between-status-checks", "1", "prepare", "chunk")
    done = flow.run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("datasets/grouped/clips.parquet", "chunks/chunks.parquet"):
        assert (flow.folder / "results" / name).exists()
    assert len(re.findall("Submitted job .* with external jobid", done.stderr)) == 4, "chunks are made by the driver"
    codes = list((flow.folder / ".snakemake" / "generic").glob("*.code"))
    assert [code.read_text().strip() for code in codes] == ["0"] * 4
    again = flow.run(*arguments)
    assert again.returncode == 0 and "Nothing to be done" in again.stderr


def test_a_refused_submission_ends_with_what_failed_and_how_to_go_on(before_training, program):
    flow, target = before_training
    words = flow.folder / "words"
    submit = program("refuse", f"printf '%s\\n' \"$@\" >{words}; echo 'qsub: no such queue'; exit 1")
    arguments = ("--profile", str(GENERIC), "--retries", "0", "--seconds-between-status-checks", "1", target)
    done = flow.run(*arguments, OTUS_GENERIC_SUBMIT=str(submit))
    text = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in text
    block = text[text.rindex("train_model  dataset grouped, training default, fold 1") :]
    assert "qsub: no such queue" in block.splitlines()[1], "the reason"
    assert re.search(rf"rerun +snakemake .*--profile {re.escape(str(GENERIC))} ", block)
    threads, memory, minutes, gpus, script = words.read_text().splitlines()
    assert (int(threads), int(gpus)) == (1, 1) and int(memory) >= 1000 and int(minutes) >= 10
    assert script.endswith(".sh")


#: Says that it is Apptainer, notes the words of a call and runs the command without any image.
APPTAINER = """\
if [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi
echo "$@" >>{calls}
while [ "$1" != {image} ]; do shift; done
shift
exec "$@"
"""


@pytest.mark.slow
def test_jobs_go_through_the_container_if_asked_to(workflow, program, tmp_path, monkeypatch):
    image, calls = "/some/image.sif", tmp_path / "calls"
    program("apptainer", APPTAINER.format(calls=calls, image=image))
    monkeypatch.setenv("OTUS_SLURM_CONTAINER", image)
    flow = workflow(DEMO, SMALL)
    done = flow.run("-j1", "inventory", "--sdm", "apptainer", "--apptainer-args=--nv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (flow.folder / "results" / "inventory" / "recordings.parquet").exists()
    lines = calls.read_text().splitlines()
    assert [re.search(r"(\w+)\.py$", line)[1] for line in lines] == [
        "make_demo_corpus",
        "take_inventory",
        "write_inventory_page",
    ]
    assert all(line.startswith("exec ") and " --nv " in line and f" {image} " in line for line in lines)
    assert flow.planned("inventory", "--sdm", "apptainer") == {}
    assert flow.planned("inventory")["take_inventory"] == 1, "docs/cluster.md: choose before the first run"


@pytest.mark.slow
def test_without_the_option_or_without_an_image_there_is_no_container(workflow, program, tmp_path):
    calls = tmp_path / "calls"
    program("apptainer", APPTAINER.format(calls=calls, image="/some/image.sif"))
    flow = workflow(DEMO, SMALL)
    assert flow.run("-j1", "inventory", OTUS_SLURM_CONTAINER="/some/image.sif").returncode == 0
    assert flow.planned("inventory") == {}
    assert flow.planned("inventory", "--sdm", "apptainer") == {}
    assert not calls.exists()
