"""Run a detector of others on the chunks of one shard."""

from pathlib import Path

from otus.config import ExternalSettings
from otus.external.shard import run_shard
from otus.joblog import job_log
from otus.stopping import stop_on_signals
from otus.tables import read_table, write_table

log, stop = job_log(snakemake.log[0]), stop_on_signals()
files, out, params, wildcards = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards
chunks = read_table(files.chunks, "chunks")
journal = Path(out.selections).parent / "resume" / f"shard{wildcards.shard}.jsonl"  # not an output: it must survive
result = run_shard(
    Path(params.root),
    chunks[chunks["shard"] == int(wildcards.shard)],
    read_table(files.recordings, "recordings"),
    wildcards.external,
    ExternalSettings.model_validate(params.settings),
    targets=params.targets,
    programs=params.programs,
    journal=journal,
    stop=stop,
    progress=log,
)
write_table(out.selections, "selections", result.selections)
write_table(out.item_rows, "items", result.items)
journal.unlink(missing_ok=True)
if result.dropped:
    log(f"rows of labels that stand for no target, dropped: {result.dropped}")
device = "cuda" if params.settings["gpu"] else "cpu"  # what was asked for; the program decides
log(f"{result.audio_s / 3600:.3f} h searched on {device}; items {result.items['status'].value_counts().to_dict()}")
