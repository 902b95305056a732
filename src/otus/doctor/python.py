"""Python, the packages against the lock, which Otus is in use, and whether everything can be imported."""

import contextlib
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import otus
from otus.doctor.commands import ask
from otus.doctor.report import Finding

#: Modules that are not called like their package.
_MODULES = {"nvidia-ml-py": "pynvml", "pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
#: Looked at with the GPU (otus.doctor.gpu), because their import is slow and fails in ways of its own.
_WITH_GPU = ("torch", "torchaudio")
_SET_UP = "install Otus as README.md says (Set up)"


def checkout_of(folder: Path) -> Path | None:
    """Return the clone of Otus that `folder` is in, or None."""
    places = (folder.resolve(), *folder.resolve().parents)
    return next((p for p in places if (p / "Snakefile").is_file() and (p / "src/otus/__init__.py").is_file()), None)


def clone_in_use(folder: Path) -> Path | None:
    """Return the clone that `folder` is in, else the one that Otus was loaded from, else None."""
    return checkout_of(folder) or checkout_of(Path(otus.__file__).parent)


def python_version() -> Iterator[Finding]:
    """Python against what Otus asks for, and PYTHONPATH."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    text = f"{version} on {platform.system()} {platform.machine()}, environment {sys.prefix}"
    try:
        wanted = importlib.metadata.metadata("otus")["Requires-Python"] or ""
    except importlib.metadata.PackageNotFoundError:
        wanted = ""
    if version not in SpecifierSet(wanted, prereleases=True):
        yield Finding("Python", "missing", f"{text}; Otus needs {wanted}", "make .venv again with Python 3.11 or 3.12")
    else:
        yield Finding("Python", "ok", text)
    if path := os.environ.get("PYTHONPATH"):
        text = f"PYTHONPATH is {path}: what lies there is taken instead of this environment's packages"
        yield Finding("PYTHONPATH", "warning", text, "unset PYTHONPATH (often a loaded module sets it)")


def otus_in_use(folder: Path) -> Iterator[Finding]:
    """Which Otus runs, and whether it is the one of the clone in `folder`."""
    loaded = Path(otus.__file__).resolve().parent
    clone = checkout_of(folder)
    text = f"{otus.__version__} from {loaded}"
    if clone and loaded != (clone / "src/otus").resolve():
        remedy = f"{_pip()} install --no-build-isolation --no-deps -e {shlex.quote(str(clone))}"
        yield Finding("Otus", "warning", f"{text}, not from the clone {clone} that you are in", remedy)
    else:
        yield Finding("Otus", "ok", text)


def packages(folder: Path) -> Iterator[Finding]:
    """Installed versions against requirements.lock; a direct dependency that is not there is missing."""
    clone = clone_in_use(folder)
    lock = clone / "requirements.lock" if clone else None
    locked = locked_versions(lock) if lock and lock.is_file() else {}
    absent, others = [], []
    direct = direct_dependencies(clone)
    for name, specifier in direct.items():
        version = installed_version(name)
        if version is None:
            absent.append(name)
        elif name not in locked and not _satisfies(version, specifier):
            others.append(f"{name} {version} ({specifier})")
    for name, wanted in locked.items():
        version = installed_version(name)
        if version is not None and _public(version) != _public(wanted):
            others.append(f"{name} {version} (lock: {wanted})")
    install = f"{_pip()} install --require-hashes -r {shlex.quote(str(lock))}" if locked else _SET_UP
    if absent:
        yield Finding("packages", "missing", f"not installed: {', '.join(absent)}", install)
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        yield Finding("packages", "warning", f"other versions than asked for: {', '.join(others[:5])}{more}", install)
    if not absent and not others:
        against = "are those of requirements.lock" if locked else "are recent enough (no requirements.lock here)"
        yield Finding("packages", "ok", f"{len(direct)} that Otus needs are there; all versions {against}")


def imports(folder: Path, timeout_s: float = 120.0) -> Iterator[Finding]:
    """Whether the installed packages that Otus needs can be imported (torch apart)."""
    names = [n for n in direct_dependencies(clone_in_use(folder)) if n not in _WITH_GPU and installed_version(n)]
    modules = [_MODULES.get(name, name.replace("-", "_")) for name in names]
    answer = ask([sys.executable, "-P", "-m", "otus.doctor.probe", "imports", *modules], timeout_s)
    begun, failed, done = "", [], 0
    for row in json_lines(answer.text):
        begun = row.get("begins", "")
        done += "name" in row
        if row.get("error"):
            failed.append(f"{row['name']} ({row['error']})")
    if answer.problem:
        failed.append(f"{begun or 'unknown'} ({answer.problem})")
    if failed:
        remedy = f"install again: {_pip()} install --force-reinstall --no-deps NAME==VERSION-IN-LOCK"
        yield Finding("imports", "missing", f"cannot be imported: {'; '.join(failed)}", remedy)
    else:
        yield Finding("imports", "ok", f"{done} packages can be imported")


def programs() -> Iterator[Finding]:
    """Versions of Snakemake and its executor, and whether the commands on PATH are of this environment."""
    plugin = "snakemake-executor-plugin-slurm"
    versions = {name: installed_version(name) for name in ("snakemake", plugin, f"{plugin}-jobstep")}
    absent = [name for name, version in versions.items() if version is None]
    text = ", ".join(f"{name.removeprefix('snakemake-')} {version}" for name, version in versions.items() if version)
    if absent:
        yield Finding("Snakemake", "missing", f"not installed: {', '.join(absent)}", _SET_UP)
    else:
        yield Finding("Snakemake", "ok", text)
    scripts = Path(sysconfig.get_path("scripts"))
    foreign = []
    for name in ("otus", "snakemake"):
        found = shutil.which(name)
        if found and Path(found).resolve().parent != scripts.resolve():
            foreign.append(f"{name} on PATH is {found}")
    if foreign:
        remedy = f". {shlex.quote(str(scripts / 'activate'))}, or call {scripts}/snakemake by its full name"
        yield Finding("commands", "warning", f"{'; '.join(foreign)}: not of this environment", remedy)
    elif shutil.which("otus") is None:
        yield Finding("commands", "ok", f"not on PATH; call {scripts}/otus and {scripts}/snakemake")
    else:
        yield Finding("commands", "ok", f"otus and snakemake on PATH are those of {scripts}")


def direct_dependencies(clone: Path | None) -> dict[str, str]:
    """Return package -> version specifier; from pyproject.toml of the clone, whose installed metadata may be older."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    if clone and (clone / "pyproject.toml").is_file():
        lines = tomllib.loads((clone / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        lines = importlib.metadata.requires("otus") or []
    wanted = [Requirement(text) for text in lines]
    return {
        canonicalize_name(r.name): str(r.specifier)
        for r in wanted
        if r.marker is None or r.marker.evaluate({"extra": ""})
    }


def locked_versions(lock: Path) -> dict[str, str]:
    """Return package -> version of the lines of the lock that hold on this machine."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    versions: dict[str, str] = {}
    for text in lock.read_text(encoding="utf-8").splitlines():
        content = text.split("#")[0].rstrip("\\ ")
        if not content or content.startswith((" ", "-")):
            continue
        wanted = Requirement(content)
        if wanted.marker is None or wanted.marker.evaluate():
            versions[canonicalize_name(wanted.name)] = str(wanted.specifier).removeprefix("==")
    return versions


def installed_version(name: str) -> str | None:
    """Return the installed version, or None if the package is not there or its installation is damaged."""
    try:
        version: str | None = importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return None
    return version


def json_lines(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects in a probe's output; packages may print things of their own between them."""
    rows = []
    for row in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            value = json.loads(row)
            if isinstance(value, dict):
                rows.append(value)
    return rows


def _public(version: str) -> str:
    """The version without its build: 2.11.0+cpu is 2.11.0."""
    return version.partition("+")[0]


def _satisfies(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(_public(version), prereleases=True)


def _pip() -> str:
    return f"{shlex.quote(sys.executable)} -m pip"
