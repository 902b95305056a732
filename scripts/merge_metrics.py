"""The metrics of all models, per fold and pooled."""

from otus.atomic import read_json
from otus.joblog import job_log
from otus.merge import forest_notes, merge_metrics
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
files, out, params = snakemake.input, snakemake.output, snakemake.params
matches = [read_table(path, "matches") for path in files.matches]
merged = merge_metrics(
    [read_table(path, "counts") for path in files.counts],
    [read_table(path, "selections") for path in files.selections],
    matches,
    labels=params.targets,
    notes=forest_notes([read_json(path) for path in files.forests]),
    bootstrap=params.bootstrap,
    seed=params.seed,
)
write_table(out.metrics, "metrics", merged.metrics, csv=out.metrics_csv)
write_table(out.per_recording, "metrics_per_recording", merged.per_recording, csv=out.per_recording_csv)
write_table(out.curves, "curves", merged.curves)
write_table(out.reliability, "reliability", merged.reliability, csv=out.reliability_csv)
write_table(out.matches, "matches", merged.matches, csv=out.matches_csv)
log(f"{len(merged.metrics)} rows of metrics")
