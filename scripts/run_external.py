"""Run a detector of others on the chunks of one shard."""

from pathlib import Path

from otus.config import ExternalSettings
from otus.external.shard import run_shard
from otus.joblog import job_log
from otus.stopping import stop_on_signals
from otus.tables import read_table, write_table
from otus.telemetry import open_journal, sampling

log, stop = job_log(snakemake.log[0]), stop_on_signals()
files, out, params, wildcards = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards
settings = ExternalSettings.model_validate(params.settings)
device = "cuda" if settings.gpu else "cpu"  # what was asked for; the program decides
resume = Path(out.selections).parent / "resume" / f"shard{wildcards.shard}.jsonl"  # not an output: it must survive
with open_journal(
    params.telemetry,
    stage="external",
    rule=snakemake.rule,
    log=log,
    asked_mem_mb=snakemake.resources.get("mem_mb"),
    asked_min=snakemake.resources.get("runtime"),
    threads=snakemake.threads,
) as journal:
    chunks = read_table(files.chunks, "chunks")
    with sampling(journal, device=device):
        result = run_shard(
            Path(params.root),
            chunks[chunks["shard"] == int(wildcards.shard)],
            read_table(files.recordings, "recordings"),
            wildcards.external,
            settings,
            targets=params.targets,
            programs=params.programs,
            journal=resume,
            stop=stop,
            progress=log,
            telemetry=journal,
        )
    write_table(out.selections, "selections", result.selections)
    write_table(out.item_rows, "items", result.items)
    resume.unlink(missing_ok=True)
    if result.dropped:
        log(f"rows of labels that stand for no target, dropped: {result.dropped}")
        if result.selections.empty:
            log(f"warning: no row has a label that stands for a target; see external.{wildcards.external}.labels")
    counts = result.items["status"].value_counts().to_dict()
    log(f"{result.audio_s / 3600:.3f} h searched on {device}; items {counts}")
