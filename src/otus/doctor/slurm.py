"""The Slurm client, its controller, accounting, and the site settings against what the cluster has."""

import getpass
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from otus.doctor.commands import Answer, ask
from otus.doctor.python import clone_in_use
from otus.doctor.report import Finding, Status, guarded
from otus.errors import DataError

if TYPE_CHECKING:
    from otus.site import Site

#: What the executor and its job steps call.
PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
#: The executor watches with squeue only if Slurm remembers ended jobs for so many status intervals; else with sacct.
_INTERVALS = 3


@dataclass(frozen=True)
class Cluster:
    """How long a Slurm command may take, and how bad it is if the cluster does not answer."""

    timeout_s: float
    bad: Status

    def ask(self, *words: str) -> Answer:
        """Run a Slurm command; the user's own formats and filters for it do not count."""
        own = ("SINFO_", "SCONTROL_", "SACCT_", "SQUEUE_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        return ask(words, self.timeout_s, environment)


def slurm_findings(wanted: bool | None, timeout_s: float = 10.0) -> Iterator[Finding]:
    """Look at Slurm if it is wanted (True), if it is there or site values are set (None), or not at all (False)."""
    from otus.site import PREFIX, load_site, site_file

    if wanted is False:
        yield Finding("Slurm", "skipped", "left out (--no-slurm)")
        return
    file = site_file(os.environ, Path.cwd())
    variables = sorted(name for name in os.environ if name.startswith(PREFIX) and os.environ[name])
    given = file is not None or bool(variables)
    client = shutil.which("sbatch") is not None
    if not (wanted or given or client):
        yield Finding("Slurm", "skipped", "no sbatch on PATH and no site values: everything runs on this machine")
        return
    site = None
    try:
        site = load_site()
        yield _site_values(site, file, variables)
    except DataError as error:
        yield Finding("site values", "missing", str(error), "correct the file or the variable")
    yield from guarded("profile", lambda: [profile(Path.cwd())])
    if not client:
        status: Status = "missing" if wanted else "skipped"
        remedy = "run this on a login node of the cluster, or load its slurm module" if wanted else ""
        yield Finding("Slurm client", status, "sbatch is not on PATH", remedy)
        return
    yield from _cluster_findings(Cluster(timeout_s, "missing" if wanted or given else "warning"), site)


def _cluster_findings(cluster: Cluster, site: "Site | None") -> Iterator[Finding]:
    for need in (_client, _controller):
        finding = need(cluster)
        yield finding
        if finding.status != "ok":
            yield Finding("Slurm", "skipped", "accounting, partitions, account: these cannot be asked for")
            return
    if site is None:
        yield Finding("Slurm", "skipped", "accounting, partitions, account: the site values cannot be read")
        return
    config = _config(cluster)
    yield from guarded("watching jobs", lambda: [_watching(site, cluster, config)])
    yield from guarded("partitions", lambda: _partitions(site, cluster, config.get("PreemptType", "")))
    yield from guarded("account", lambda: _account(site, cluster))
    if site.reservation:
        yield from guarded("reservation", lambda: [_reservation(site.reservation or "", cluster)])


def _site_values(site: "Site", file: Path | None, variables: Sequence[str]) -> Finding:
    sources = [*([str(file)] if file else []), *variables]
    if not sources:
        return Finding("site values", "ok", "no site.yaml and no OTUS_SLURM_ variable: the cluster's defaults hold")
    values = ", ".join(f"{key}={value}" for key, value in site.model_dump(exclude_defaults=True).items())
    text = f"from {', '.join(sources)}: {values or 'all as by default'}"
    if site.container and "://" not in site.container and not Path(site.container).expanduser().exists():
        return Finding("site values", "missing", f"{text}; the container is not there", "build it, or correct the path")
    return Finding("site values", "ok", text)


def profile(folder: Path) -> Finding:
    """Say whether `--profile slurm` in `folder` finds the profile; Snakemake looks in the working directory first."""
    link = folder / "slurm"
    clone = clone_in_use(folder)
    wanted = clone / "profiles" / "slurm" if clone else None
    if wanted is None or not (wanted / "config.yaml").is_file():
        return Finding("profile", "skipped", "no clone of Otus here; --profile slurm works from a clone")
    if link.is_dir() and link.resolve() == wanted.resolve():
        return Finding("profile", "ok", f"--profile slurm is {wanted}")
    remedy = f"use --profile {wanted}"
    if link.is_file():
        text = f"{link} is a plain file instead of a link (a zip file or Windows made it)"
        return Finding("profile", "warning", text, f"{remedy}, or: rm slurm && ln -s profiles/slurm slurm")
    if link.exists():
        return Finding("profile", "warning", f"--profile slurm would take {link}, not the one of Otus", remedy)
    return Finding("profile", "warning", f"{folder} has no link slurm, so --profile slurm is not found here", remedy)


def _client(cluster: Cluster) -> Finding:
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        text = f"{', '.join(absent)} not on PATH, though sbatch is"
        return Finding("Slurm client", cluster.bad, text, "load the slurm module again, or ask the administrator")
    version = cluster.ask("sbatch", "--version")
    folder = Path(shutil.which("sbatch") or "").parent
    if version.problem:
        remedy = "use a login node of the cluster; elsewhere SLURM_CONF must name its slurm.conf"
        return Finding("Slurm client", cluster.bad, f"{version.problem} (in {folder})", remedy)
    return Finding("Slurm client", "ok", f"{version.text.strip()} in {folder}")


def _controller(cluster: Cluster) -> Finding:
    answer = cluster.ask("scontrol", "ping")
    if " UP" in answer.text:
        return Finding("controller", "ok", next(row for row in answer.text.splitlines() if " UP" in row))
    why = answer.text.strip() or answer.problem or "scontrol ping says nothing"
    remedy = "wait, or ask the administrator; a run that is under way waits too"
    return Finding("controller", cluster.bad, why, remedy)


def _config(cluster: Cluster) -> dict[str, str]:
    rows = (row.partition("=") for row in cluster.ask("scontrol", "show", "config").text.splitlines())
    return {key.strip(): value.strip() for key, _, value in rows}


def _watching(site: "Site", cluster: Cluster, config: Mapping[str, str]) -> Finding:
    """Which command the executor will watch jobs with, and whether it would notice that they end."""
    accounting = cluster.ask("sacct", "-X", "-n")
    if not accounting.problem and site.status_command != "squeue":
        return Finding("watching jobs", "ok", "with sacct: the accounting database answers")
    if site.status_command == "sacct":
        remedy = "set status_command to auto or squeue"
        text = f"status_command is sacct, but {accounting.problem}: no job would ever be seen to end"
        return Finding("watching jobs", "missing", text, remedy)
    text = "with squeue, as status_command says"
    if accounting.problem:
        text = f"with squeue, since sacct does not answer ({accounting.problem})"
    age_s, needed_s = _seconds(config.get("MinJobAge", "")), _INTERVALS * site.poll_s
    if age_s is not None and age_s >= needed_s:
        return Finding("watching jobs", "ok", f"{text}; Slurm remembers ended jobs for {age_s} s (MinJobAge)")
    remembers = f"{age_s} s" if age_s is not None else "an unknown time"
    text = f"{text}; Slurm remembers ended jobs for {remembers} (MinJobAge), fewer than {needed_s} s"
    if not accounting.problem:
        return Finding("watching jobs", "ok", f"{text}, so the executor takes sacct, which answers")
    remedy = "ask for MinJobAge=300 or for accounting"
    if age_s is not None and age_s >= _INTERVALS:
        remedy += f", or set OTUS_SLURM_POLL_S={age_s // _INTERVALS}"
    text += ", so the executor takes sacct and never notices that jobs end"
    return Finding("watching jobs", "warning", text, remedy)


def _seconds(value: str) -> int | None:
    match = re.match(r"(\d+)\s*(h?)", value)
    return int(match.group(1)) * (3600 if match.group(2) else 1) if match else None


def _partitions(site: "Site", cluster: Cluster, preempt_type: str) -> Iterator[Finding]:
    from otus.doctor.partitions import judge, parse_partitions, parse_sinfo

    groups = cluster.ask("sinfo", "-h", "-o", "%P|%G|%l|%f|%a")
    nodes = parse_sinfo(groups.text)
    if not nodes:
        why = groups.problem or "sinfo lists none"
        yield Finding("partitions", cluster.bad, why, "ask the administrator whether you may use this cluster")
        return
    # -a also shows what is hidden, where one may submit all the same
    details = parse_partitions(cluster.ask("scontrol", "-a", "-o", "show", "partition").text)
    yield from judge(site, nodes, details, preempt_type)


def _account(site: "Site", cluster: Cluster) -> Iterator[Finding]:
    user = getpass.getuser()
    answer = cluster.ask("sacctmgr", "-nP", "show", "assoc", f"user={user}", "format=account,qos")
    rows = [row.split("|") for row in answer.text.splitlines() if row]
    accounts = sorted({row[0] for row in rows if row[0]})
    if answer.problem or not accounts:
        if site.account or site.qos:
            why = answer.problem or f"sacctmgr knows no account of {user}"
            asked = " and ".join(name for name in (site.account, site.qos) if name)
            yield Finding("account", "skipped", f"{asked} cannot be checked: {why}")
        return
    if site.account is None:
        yield Finding("account", "ok", f"none is set, so Slurm's default is charged; yours: {', '.join(accounts)}")
    elif site.account.lower() in (name.lower() for name in accounts):
        yield Finding("account", "ok", f"{site.account} is one of yours")
    else:
        text = f"{site.account} is not an account of {user}"
        yield Finding("account", "missing", text, f"set OTUS_SLURM_ACCOUNT to one of: {', '.join(accounts)}")
    classes = sorted({name for row in rows for name in (row[1] if len(row) > 1 else "").split(",") if name})
    if site.qos and classes:
        known = site.qos in classes
        text = f"{site.qos} is {'' if known else 'not '}one of yours"
        remedy = "" if known else f"set OTUS_SLURM_QOS to one of: {', '.join(classes)}"
        yield Finding("quality of service", "ok" if known else "missing", text, remedy)


def _reservation(name: str, cluster: Cluster) -> Finding:
    answer = cluster.ask("scontrol", "-o", "show", "reservation", name)
    if answer.problem or f"ReservationName={name}" not in answer.text:
        why = answer.problem or answer.text.strip() or "not found"
        return Finding("reservation", "missing", f"{name}: {why}", "correct or remove `reservation` in the site values")
    state = re.search(r"State=(\w+)", answer.text)
    if state and state.group(1) != "ACTIVE":
        text = f"{name} is {state.group(1)}: jobs wait until it begins, or for ever if it is over"
        return Finding("reservation", "warning", text, f"scontrol show reservation {name} tells its times")
    return Finding("reservation", "ok", f"{name} is there")
