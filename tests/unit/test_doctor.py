import importlib.metadata
import importlib.util
import json
import os
import time
from pathlib import Path

import pytest
from doctor_fakes import FakeSlurm, found

import otus
from otus.cli import main
from otus.doctor import (
    Finding,
    as_json,
    decoders,
    examine,
    exit_code,
    files,
    gpu,
    line,
    machine,
    python,
    slurm,
    summary,
)
from otus.doctor.commands import ask
from otus.doctor.report import guarded


@pytest.fixture(autouse=True)
def no_site(monkeypatch, tmp_path):
    """No site values of the machine that the tests run on."""
    for name in list(os.environ):
        if name.startswith(("OTUS_", "SLURM_", "SINFO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def working(monkeypatch, tmp_path):
    """An empty working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def cluster(tmp_path, working, monkeypatch):
    """Slurm commands that pretend; nothing else is on PATH."""
    folder = tmp_path / "slurm-bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return FakeSlurm(folder)


# what a finding looks like


FINDINGS = [
    Finding("a", "ok", "well"),
    Finding("b", "warning", "two\nlines", "do this"),
    Finding("c", "skipped", "not asked"),
]


def test_a_finding_is_one_line():
    assert line(FINDINGS[1]) == f"warning  b{' ' * 15}two lines -> do this"
    assert line(FINDINGS[0]).split() == ["ok", "a", "well"]
    assert summary(FINDINGS) == "1 warning; nothing is missing"
    assert summary([*FINDINGS, Finding("d", "missing", "gone", "bring it")]) == "1 warning; missing: d"


def test_json_holds_the_same_findings_and_the_exit_code():
    value = json.loads(as_json(FINDINGS))
    assert [Finding(**f) for f in value["findings"]] == FINDINGS
    assert (value["otus"], value["exit_code"]) == (otus.__version__, 0)


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("skipped", 0), ("missing", 5)])
def test_only_what_is_missing_changes_the_exit_code(status, code):
    assert exit_code([Finding("a", "ok", ""), Finding("b", status, "")]) == code


def test_a_check_that_crashes_is_a_finding_and_what_it_had_found_is_kept():
    def check():
        yield FINDINGS[0]
        raise ZeroDivisionError("by nought")

    first, crash = guarded("sums", check)
    assert first == FINDINGS[0]
    assert (crash.name, crash.status) == ("sums", "warning")
    assert "ZeroDivisionError: by nought" in crash.text and "test_doctor.py:" in crash.text


def test_a_check_that_lacks_a_package_says_that_it_is_missing():
    def check():
        import no_such_package_of_otus  # noqa: F401

        yield FINDINGS[0]

    (crash,) = guarded("x", check)
    assert crash.status == "missing" and "no_such_package_of_otus" in crash.text and "install" in crash.remedy


def test_a_check_that_hangs_is_a_finding():
    def check():
        yield FINDINGS[0]
        time.sleep(20)

    begin = time.monotonic()
    first, hung = guarded("disk", check, limit_s=0.2)
    assert time.monotonic() - begin < 5
    assert first == FINDINGS[0] and hung.status == "missing" and "0.2 s" in hung.text


# other programs


def test_ask_gives_the_text_or_says_what_is_wrong(cluster):
    cluster.prints("sinfo", "partitions")
    cluster.fails("sacct")
    cluster.script("quiet", "exit 7")
    cluster.script("crash", "kill -SEGV $$")
    (cluster.folder / "plain").write_text("no program")
    assert ask(["sinfo"], 5).text == "partitions" and ask(["sinfo"], 5).problem == ""
    assert ask(["sacct"], 5).problem == "sacct: error: cannot connect"
    assert ask(["quiet"], 5).problem == "quiet: exit code 7"
    assert ask(["crash"], 5).problem == "crash: killed by SIGSEGV"
    assert "No such file" in ask(["nothing"], 5).problem
    assert "ermission" in ask([str(cluster.folder / "plain")], 5).problem


def test_ask_ends_a_program_that_hangs_with_its_children(cluster, tmp_path):
    mark = tmp_path / "mark"
    cluster.script("slow", f"(/bin/sleep 1; echo late > {mark})")
    begin = time.monotonic()
    assert ask(["slow"], 0.2).problem == "slow: no answer within 0.2 s"
    assert time.monotonic() - begin < 1
    time.sleep(1.2)
    assert not mark.exists()


def test_ask_survives_bytes_that_are_no_text(cluster):
    cluster.script("odd", r"printf '\377\376'")
    assert ask(["odd"], 5).problem == "" and len(ask(["odd"], 5).text) == 2


# Python and packages


def test_the_modules_of_all_dependencies_are_known():
    names = python.direct_dependencies(python.clone_in_use(Path(otus.__file__)))
    assert {"torch", "pyyaml", "snakemake"} <= set(names)
    for name in names:
        module = python._MODULES.get(name, name.replace("-", "_"))
        assert importlib.util.find_spec(module) is not None, f"{name} has no module {module}"


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder that looks like a clone with two dependencies and a lock."""
    folder = tmp_path / "clone"
    (folder / "src/otus").mkdir(parents=True)
    (folder / "src/otus/__init__.py").touch()
    (folder / "Snakefile").touch()
    (folder / "pyproject.toml").write_text('[project]\ndependencies = ["PyYAML>=6", "soundfile>=0.13"]\n')
    lock(folder, "pyyaml==6.0.2", "soundfile==0.13.1")
    versions = {"pyyaml": "6.0.2", "soundfile": "0.13.1"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return folder, versions


def lock(folder, *lines):
    text = "".join(f"{content} \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n" for content in lines)
    (folder / "requirements.lock").write_text(f"# comment\n{text}")


def test_packages_that_agree_with_the_lock(clone):
    (finding,) = python.packages(clone[0])
    assert finding.status == "ok" and "2 that Otus needs" in finding.text and "lock" in finding.text


def test_a_build_of_the_locked_version_is_that_version(clone):
    clone[1]["soundfile"] = "0.13.1+cpu"
    assert found(python.packages(clone[0]))["packages"].status == "ok"


def test_another_version_is_a_warning_and_an_absent_package_is_missing(clone):
    folder, versions = clone
    lock(folder, "pyyaml==6.0.2", "soundfile==0.13.1", "numpy==1.0", "never-installed==3")
    versions |= {"soundfile": "0.12.0", "numpy": "2.0"}
    del versions["pyyaml"]
    missing, warning = python.packages(folder)
    assert (missing.status, missing.text) == ("missing", "not installed: pyyaml")
    assert warning.status == "warning"
    assert "soundfile 0.12.0 (lock: 0.13.1), numpy 2.0 (lock: 1.0)" in warning.text
    assert "never-installed" not in warning.text  # nobody needs it directly
    assert "--require-hashes -r" in warning.remedy and str(folder / "requirements.lock") in warning.remedy


def test_a_package_whose_installation_is_damaged_is_missing(clone):
    clone[1]["pyyaml"] = None  # what importlib.metadata says of a folder without METADATA
    (finding,) = python.packages(clone[0])
    assert finding.status == "missing" and "pyyaml" in finding.text


def test_many_other_versions_are_counted(clone):
    folder, versions = clone
    lock(folder, "pyyaml==6.0.2", "soundfile==0.13.1", *(f"p{i}==1" for i in range(9)))
    versions |= {f"p{i}": "2" for i in range(9)}
    (finding,) = python.packages(folder)
    assert "p4" in finding.text and "p5" not in finding.text and "and 4 more" in finding.text


def test_without_a_lock_the_ranges_count(clone):
    folder, versions = clone
    (folder / "requirements.lock").unlink()
    assert found(python.packages(folder))["packages"].status == "ok"
    versions["soundfile"] = "0.12"
    assert "soundfile 0.12 (>=0.13)" in found(python.packages(folder))["packages"].text


def test_lines_of_the_lock_for_other_machines_do_not_count(tmp_path):
    lock(tmp_path, "here==1 ; python_version >= '3'", "there==2 ; sys_platform == 'nowhere'", "Big_Name==3.0")
    assert python.locked_versions(tmp_path / "requirements.lock") == {"here": "1", "big-name": "3.0"}


def test_every_line_of_the_real_lock_is_understood():
    clone = python.checkout_of(Path(otus.__file__).parent)
    if clone is None:
        pytest.skip("Otus was not loaded from a clone")
    locked = python.locked_versions(clone / "requirements.lock")
    assert {"torch", "packaging", "snakemake"} <= set(locked) and all(v[0].isdigit() for v in locked.values())


def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch, clone):
    packages = tmp_path / "site"
    packages.mkdir()
    (packages / "soundfile.py").write_text("print('{\"not\": JSON')\nraise OSError('libsndfile.so.1: no such file')")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    (finding,) = python.imports(clone[0])
    assert finding.status == "missing" and "soundfile (OSError: libsndfile.so.1: no such file)" in finding.text
    assert "yaml" not in finding.text
    (packages / "soundfile.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    (finding,) = python.imports(clone[0])
    assert finding.status == "missing" and "soundfile (" in finding.text and "killed by SIGILL" in finding.text
    (packages / "soundfile.py").write_text("import time\ntime.sleep(30)")
    (finding,) = python.imports(clone[0], timeout_s=1.0)
    assert finding.status == "missing" and "no answer within 1 s" in finding.text
    (packages / "soundfile.py").write_text("")
    (finding,) = python.imports(clone[0])
    assert (finding.status, finding.text) == ("ok", "2 packages can be imported")


def test_a_python_that_is_too_old_is_missing(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (finding,) = python.python_version()
    assert finding.status == "ok"
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    (finding,) = python.python_version()
    assert finding.status == "missing" and "3.9.1" in finding.text and ">=3.11" in finding.text


def test_pythonpath_is_a_warning(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/modules/lib")
    assert found(python.python_version())["PYTHONPATH"].status == "warning"


def test_otus_of_another_clone_is_a_warning(clone):
    (finding,) = python.otus_in_use(clone[0] / "src")  # below the clone is in the clone
    assert finding.status == "warning" and str(clone[0]) in finding.text and f"-e {clone[0]}" in finding.remedy
    (finding,) = python.otus_in_use(Path(otus.__file__).parent)
    assert finding.status == "ok"


def test_commands_of_another_environment_are_a_warning(cluster):
    assert found(python.programs())["commands"].status == "ok"  # none is on PATH
    cluster.script("snakemake", "")
    finding = found(python.programs())["commands"]
    assert finding.status == "warning" and f"snakemake on PATH is {cluster.folder}/snakemake" in finding.text
    assert found(python.programs())["Snakemake"].status == "ok"


def test_no_executor_is_missing(monkeypatch):
    monkeypatch.setattr(python, "installed_version", lambda name: None if "slurm" in name else "9.0")
    finding = found(python.programs())["Snakemake"]
    assert finding.status == "missing" and "snakemake-executor-plugin-slurm" in finding.text


def test_the_link_to_the_profile(clone, tmp_path):
    folder = clone[0]
    (folder / "profiles/slurm").mkdir(parents=True)
    assert slurm.profile(folder).status == "skipped"  # no profile in it
    (folder / "profiles/slurm/config.yaml").touch()
    finding = slurm.profile(folder)
    assert finding.status == "warning" and "no link" in finding.text
    link = folder / "slurm"
    link.write_text("profiles/slurm")
    finding = slurm.profile(folder)
    assert finding.status == "warning" and "plain file" in finding.text and "ln -s" in finding.remedy
    link.unlink()
    link.mkdir()
    assert "would take" in slurm.profile(folder).text
    link.rmdir()
    link.symlink_to("profiles/slurm")
    assert slurm.profile(folder).status == "ok"


# the command


@pytest.fixture
def quick(monkeypatch):
    """Checks that take time are left out."""
    monkeypatch.setattr(gpu, "gpu_findings", lambda: [Finding("GPU", "ok", "none")])
    monkeypatch.setattr(python, "imports", lambda folder: [Finding("imports", "ok", "all")])


def test_the_command_prints_a_line_per_finding(quick, cluster, capsys):
    (cluster.folder / "sbatch").unlink()
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("nothing is missing")
    assert {row.split()[0] for row in lines[:-1]} <= {"ok", "warning", "skipped"}
    assert main(["doctor", "--slurm"]) == 5
    out = capsys.readouterr().out
    assert out.splitlines()[-1].endswith("missing: Slurm client")
    assert "missing  Slurm client    sbatch is not on PATH -> run this on a login node" in out


def test_the_command_as_json_says_the_same(quick, cluster, capsys):
    assert main(["doctor", "--json", "--no-slurm"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert main(["doctor", "--no-slurm"]) == 0
    names = [row[9:24].strip() for row in capsys.readouterr().out.splitlines()[:-1]]
    assert [f["name"] for f in value["findings"]] == names
    assert all(set(f) == {"name", "status", "text", "remedy"} for f in value["findings"])


def test_json_has_the_exit_code(quick, cluster, capsys):
    cluster.scontrol(ping="DOWN")
    assert main(["doctor", "--json", "--slurm"]) == 5
    assert json.loads(capsys.readouterr().out)["exit_code"] == 5


def test_every_check_may_crash(monkeypatch, capsys, cluster):
    def crash(*args, **kwargs):
        raise RuntimeError("broken check")

    for module, names in {
        python: ("python_version", "otus_in_use", "packages", "imports", "programs"),
        gpu: ("gpu_findings",),
        machine: ("machine_findings",),
        decoders: ("decoder_findings",),
        files: ("file_findings",),
        slurm: ("slurm_findings",),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, crash)
    assert main(["doctor"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("the check itself failed: RuntimeError: broken check") == 10
    assert "Traceback" not in captured.out + captured.err


def test_a_working_directory_that_is_gone(quick, tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["doctor", "--no-slurm"]) in (0, 5)
    assert "Traceback" not in capsys.readouterr().err


def test_a_file_name_that_is_no_text_is_printed(quick, cluster, tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    assert main(["doctor", "--no-slurm", "--folder", str(folder)]) == 0
    assert "caf\\udce9" in capsys.readouterr().out


def test_examine_gives_the_findings_one_by_one(quick, cluster, tmp_path):
    findings = examine(slurm=False, folder=tmp_path)
    assert next(findings).name == "Python"
    assert [f.name for f in findings][-1] == "Slurm"
