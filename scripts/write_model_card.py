"""The model cards of all models as pages for people."""

from pathlib import Path

from otus.atomic import write_text
from otus.config import DatasetSettings
from otus.joblog import job_log
from otus.report.model_card import model_card
from otus.report.model_facts import ModelFacts, read_folds
from otus.tables import read_table

log = job_log(snakemake.log[0])
files, params = snakemake.input, snakemake.params
metrics = read_table(files.metrics, "metrics")
recordings = read_table(files.recordings, "recordings")
annotations = read_table(files.annotations, "annotations")
splits = {Path(path).parent.name: read_table(path, "splits") for path in files.splits}
for page, thresholds in zip(snakemake.output.pages, files.thresholds, strict=True):
    folder = Path(page).parent
    model, dataset = folder.name, params.datasets[folder.name]
    trainings = [Path(card).parent for card in files.cards if Path(card).parents[1] == folder]
    facts = ModelFacts(
        model=model,
        folds=read_folds(trainings, Path(thresholds), Path(params.benchmarks)),
        dataset=dataset,
        settings=DatasetSettings.model_validate(params.settings[dataset]),
        by=params.by,
        metrics=metrics[metrics["model"] == model],
        recordings=recordings,
        annotations=annotations,
        splits=splits[dataset],
    )
    write_text(page, model_card(facts))
    log(f"model card in {page}")
