"""The command `otus plan`."""

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

_DESCRIPTION = """Print what a run would take before it starts: jobs, GPU hours, CPU hours, memory, disk and time of
every stage that has something left to do. Give the targets, config files and profile of the run.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `otus`."""
    plan = commands.add_parser("plan", help="print what a run will take, before it starts", description=_DESCRIPTION)
    plan.add_argument("targets", nargs="*", help="as for snakemake (default: everything)")
    plan.add_argument("--configfile", type=Path, nargs="+", action="extend", default=[], help="as for snakemake")
    plan.add_argument("--profile", help="as for snakemake; with a profile the jobs are taken to run on a cluster")
    plan.add_argument(
        "-j",
        "--jobs",
        type=_at_least_one,
        help="jobs at a time on the cluster, or cores here (default: those of the site settings, or all)",
    )
    plan.add_argument("-s", "--snakefile", type=Path, help="Snakefile (default: that of the installed Otus, or ./)")
    plan.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    plan.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the plan."""
    from otus.config import load_config
    from otus.resources.plan import Machines, as_json, as_text, make_plan, remaining_jobs
    from otus.resources.shards import sharding_of
    from otus.resources.usage import read_usage
    from otus.resources.workload import Workload
    from otus.site import load_site

    site = load_site()
    snakefile = options.snakefile or _snakefile()
    config = load_config(_layers(snakefile, options.configfile))
    jobs = remaining_jobs(
        snakefile,
        Path(config.results_dir),
        configfiles=options.configfile,
        profile=options.profile,
        targets=options.targets,
    )
    if options.profile:
        machines = Machines(True, options.jobs or site.jobs, site.max_gpus, has_gpu=True, longest_min=site.longest_min)
    else:
        cores = options.jobs or len(os.sched_getaffinity(0))
        machines = Machines(cluster=False, slots=cores, gpus=1, has_gpu=shutil.which("nvidia-smi") is not None)
    workload = Workload(config, sharding_of(config, asks_driver=False).shards)
    plan = make_plan(jobs, workload, read_usage(Path(site.usage)), machines)
    print(as_json(plan) if options.json else as_text(plan, site.usage))
    return 0


def _snakefile() -> Path:
    """The Snakefile of the checkout that this Otus is installed from, else that of the working directory."""
    from otus.errors import DataError

    candidates = (Path(__file__).parents[3] / "Snakefile", Path("Snakefile"))
    for path in candidates:
        if path.is_file():
            return path
    raise DataError("there is no Snakefile here; run this in a clone of Otus, or name the file with -s.")


def _layers(snakefile: Path, named: Sequence[Path]) -> list[Path]:
    """All config files of a run: those that name no corpus are layers over the demo (see Snakefile)."""
    from otus.config import use_config_file

    if any("root" in (use_config_file(path).get("corpus") or {}) for path in named):
        return list(named)
    return [snakefile.parent / "config" / "config.yaml", *named]


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of jobs")
    return int(text)
