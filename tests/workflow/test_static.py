"""House rules that can be read off the files: directives of every rule, profile, environments, imports."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from otus.site import Site
from tests.workflow.conftest import REPOSITORY

RULES = {}
for page in sorted((REPOSITORY / "rules").glob("*.smk")):
    for name, body in re.findall(r"^ *rule (\w+):\n(.*?)(?=^ *rule |\Z)", page.read_text(), re.MULTILINE | re.DOTALL):
        RULES[name] = body
WORKING = {name: body for name, body in RULES.items() if "script:" in body}
LOCK = (REPOSITORY / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", LOCK, re.MULTILINE)[::-1])


def test_there_are_nineteen_rules_that_work():
    assert len(WORKING) == 19


@pytest.mark.parametrize("name", WORKING)
def test_every_rule_has_what_a_rule_needs(name):
    body = WORKING[name]
    for directive in ("log:", "benchmark:", "conda:", "threads:", "mem_mb=", "runtime=", "code=code_digest("):
        assert directive in body, f"{name} lacks {directive}"
    assert f'"../scripts/{name}.py"' in body
    assert (REPOSITORY / "scripts" / f"{name}.py").exists()
    assert not re.search(r"^\s*(retries|run|shell):", body, re.MULTILINE)


def test_rules_in_the_profile_exist():
    text = (REPOSITORY / "profiles" / "slurm" / "config.yaml").read_text()
    named = re.findall(r'"(\w+)"', re.search(r"\?for rule in \((.*)\):", text)[1])
    assert named and set(named) <= set(WORKING)
    assert (REPOSITORY / "slurm").resolve() == REPOSITORY / "profiles" / "slurm"


def test_every_site_value_is_used_and_every_one_that_is_used_exists():
    profile = (REPOSITORY / "profiles" / "slurm" / "config.yaml").read_text()
    in_profile = set(re.findall(r"\bsite\.(\w+)", profile.replace("otus.site", "").replace("site.yaml", "")))
    pages = [REPOSITORY / "Snakefile", *(REPOSITORY / "rules").glob("*.smk")]
    in_rules = {key for page in pages for key in re.findall(r"\bSITE\.(\w+)", page.read_text())}
    assert in_profile <= set(Site.model_fields)
    assert in_profile | in_rules == set(Site.model_fields)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_conda_environments_agree_with_the_lock(name):
    environment = yaml.safe_load((REPOSITORY / "envs" / f"{name}.yaml").read_text())
    pins = dict(pin.split("==") for pin in environment["dependencies"][-1]["pip"])
    assert pins == {package: LOCKED[package] for package in pins}


def test_the_gpu_environment_holds_every_dependency():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[<>=!~]", d)[0] for d in project["dependencies"]}
    environment = yaml.safe_load((REPOSITORY / "envs" / "gpu.yaml").read_text())
    assert {pin.split("==")[0] for pin in environment["dependencies"][-1]["pip"]} == wanted


def test_the_container_holds_the_lock_and_the_python_of_the_environments():
    recipe = (REPOSITORY / "envs" / "otus.def").read_text()
    assert "\n    requirements.lock /opt/requirements.lock\n" in recipe
    assert re.search(r"^    pip install .*--require-hashes -r /opt/requirements\.lock$", recipe, re.MULTILINE)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pythons = {re.search(r"^From: python:(\d+\.\d+)-", recipe, re.MULTILINE)[1]}
    pythons.add(re.match(r">=(\d+\.\d+),", project["requires-python"])[1])
    for name in ("cpu", "gpu"):
        environment = yaml.safe_load((REPOSITORY / "envs" / f"{name}.yaml").read_text())
        pythons.update(d.removeprefix("python=") for d in environment["dependencies"] if str(d).startswith("python="))
    assert len(pythons) == 1


def test_the_lock_names_no_address_and_hashes_everything():
    assert "://" not in LOCK
    assert LOCK.count("==") <= LOCK.count("--hash=sha256:")
    assert (LOCKED["torch"], LOCKED["torchaudio"]) == ("2.11.0", "2.11.0")


@pytest.mark.parametrize(
    "room",
    [
        "evaluation",
        "forest",
        "measures.model",
        "merge",
        "inventory",
        "datasets",
        "chunks",
        "report",
        "cli",
        "telemetry",
        "external",
    ],
)
def test_rooms_without_a_network_do_not_import_torch(room):
    code = f"import sys, otus.{room}; sys.exit('torch' in sys.modules or 'librosa' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_library_never_imports_snakemake():
    for path in (REPOSITORY / "src").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) snakemake", path.read_text(), re.MULTILINE), path
