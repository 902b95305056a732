"""What the driver does before and after the jobs: no second run beside the jobs of a first, and an account of failures."""

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
    write_inventory_page,
    write_model_card,
    write_report,


if not workflow.is_main_process:
    # Only the driver writes down with which settings an output was made. A job that outlives its driver would leave
    # outputs without such a record, and a later change of settings would go unnoticed: so each job does it as well.
    from snakemake.persistence import PersistenceBase
    from snakemake.settings.types import ExecMode

    record_as_driver = PersistenceBase.finished

    async def record_as_job(persistence, job):
        """Record the settings of a finished job as the driver does."""
        settings = workflow.workflow_settings
        mode, settings.exec_mode = settings.exec_mode, ExecMode.DEFAULT
        try:
            await record_as_driver(persistence, job)
        finally:
            settings.exec_mode = mode

    PersistenceBase.finished = record_as_job


def begin_run():
    """Refuse a second run beside the jobs of a first one; leave a record of this one."""
    folder, slurm = Path.cwd(), workflow.executor_plugin.name == "slurm"
    try:
        last = read_driver(folder)
        killed = last is not None and last.slurm and not last.ended
        left = orphans(folder) if slurm or killed else []
    except OtusError as error:
        raise WorkflowError(str(error))
    if left:
        raise WorkflowError(guard_text(left, sys.argv))
    record_driver(folder, sys.argv, list(workflow.dag_settings.targets), slurm=slurm)


def write_job_table():
    """Bring what the jobs took into one table, also after a run that failed."""
    from datetime import datetime, timezone

    from otus.telemetry.jobs import write_jobs  # not light

    write_jobs(Path(RESULTS), datetime.now(timezone.utc))


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
    try:
        write_job_table()
    except (OSError, OtusError) as error:
        print(f"The table of the jobs could not be written ({error}).", file=sys.stderr)
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
