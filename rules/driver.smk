"""What the driver does before and after the jobs: no second run beside the jobs of a first, and an account of failures."""

import hashlib

from otus.runs.driver import (
    forget_driver,
    guard_text,
    orphans,
    read_driver,
    record_driver,
)
from otus.runs.failures import failure_text, failures_of
from otus.runs.log import read_run
from otus.resources.usage import update_usage


localrules:
    make_chunks,
    merge_metrics,
    write_report,


def run_digest():
    """What the outputs of two runs must share to be of one piece: the config and all code."""
    code = code_digest(
        "demo",
        "inventory",
        "datasets",
        "chunks",
        "training",
        "inference",
        "evaluation",
        "forest",
        "merge",
        "report",
    )
    scripts = sorted(Path(workflow.basedir, "scripts").glob("*.py"))
    parts = [
        CFG.model_dump_json().encode(),
        code.encode(),
        *(s.read_bytes() for s in scripts),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def adopt_outputs(last, digest):
    """Record the settings of outputs that jobs finished after their driver had died; Snakemake's driver does that.

    Without a record a later change of settings would not be noticed. Refuses if config or code have changed meanwhile.
    """
    if last is None or last.ended:
        return
    unrecorded = [
        job
        for job in workflow.dag.jobs
        if job.output
        and not workflow.dag.needrun(job)
        and not workflow.persistence.has_metadata(job)
    ]
    if unrecorded and last.digest != digest:
        files = "\n  ".join(str(f) for job in unrecorded for f in job.output)
        raise WorkflowError(
            "Config or code have changed since a run that was killed; these files of its jobs have no record of their "
            f"settings, so they cannot be trusted. Delete them and start again:\n  {files}"
        )
    for job in unrecorded:
        workflow.async_run(workflow.persistence.finished(job))


def begin_run():
    """Refuse a second run beside the jobs of a first one; leave a record of this one."""
    folder, slurm = Path.cwd(), workflow.executor_plugin.name == "slurm"
    last, digest = read_driver(folder), run_digest()
    left = orphans(folder) if slurm or (last and last.slurm) else []
    if left:
        raise WorkflowError(guard_text(left, sys.argv))
    adopt_outputs(last, digest)
    record_driver(
        folder, sys.argv, list(workflow.dag_settings.targets), digest, slurm=slurm
    )


def end_run(logs):
    """Tell what failed and how to run it again, and learn what the jobs took."""
    run = read_run(Path(logs[0]))
    try:
        update_usage(Path(SITE.usage), run, WORKLOAD)
    except (OSError, OtusError) as error:
        print(
            f"{SITE.usage}: what the jobs took could not be noted ({error}).",
            file=sys.stderr,
        )
    if text := failure_text(failures_of(run, Path.cwd(), sys.argv), run):
        print(f"\n{text}", file=sys.stderr)
    forget_driver(Path.cwd())


onstart:
    begin_run()


onsuccess:
    end_run(log)
    if Path(RESULTS, "metrics.csv").exists():
        shell("{sys.executable:q} -m otus metrics {RESULTS:q}")


onerror:
    end_run(log)
