"""All measures of one model, before and behind the forest."""

from otus.atomic import read_json
from otus.config import EvaluationSettings
from otus.joblog import job_log
from otus.measures.model import LayerTables, ModelMeasures, forest_notes, measure_model, table_names
from otus.seeds import derive_seed
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
files, params = snakemake.input, snakemake.params
tables = {name: [read_table(path, name) for path in files[name]] for name in table_names(LayerTables)}
measures = measure_model(
    [LayerTables(*of_layer) for of_layer in zip(*tables.values(), strict=True)],
    read_table(files.annotations, "annotations"),
    read_table(files.recordings, "recordings"),
    read_table(files.splits, "splits"),
    labels=params.targets,
    notes=forest_notes(read_json(files.forests)),
    settings=EvaluationSettings.model_validate(params.evaluation),
    seed=derive_seed(params.seed, "measures", snakemake.wildcards.dataset, snakemake.wildcards.training),
)
for name in table_names(ModelMeasures):
    write_table(snakemake.output[name], name, getattr(measures, name))
log(f"{len(measures.metrics)} rows of metrics")
