"""The measures of all models as one set of tables."""

from otus.joblog import job_log
from otus.measures.model import ModelMeasures, table_names
from otus.merge import merge_metrics
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
files, out, params = snakemake.input, snakemake.output, snakemake.params
names = table_names(ModelMeasures)
of_models = [
    ModelMeasures(**{name: read_table(path, name) for name, path in zip(names, paths, strict=True)})
    for paths in zip(*(files[name] for name in names), strict=True)
]
merged = merge_metrics(
    of_models,
    [read_table(path, "counts") for path in files.counts],
    [read_table(path, "matches") for path in files.matches],
    labels=params.targets,
    bootstrap=params.bootstrap,
    seed=params.seed,
)
tables = {name: getattr(merged.measures, name) for name in names}
tables |= {"metrics_per_recording": merged.per_recording, "matches": merged.matches}
for name, frame in tables.items():
    write_table(out[name], name, frame, csv=out.get(f"{name}_csv"))
log(f"{len(merged.measures.metrics)} rows of metrics of {len(of_models)} models")
