"""The files of one dataset variant: lists, Raven tables, statistics, the page, pictures and sounds."""

from pathlib import Path

from otus.atomic import read_json
from otus.clipfiles import DatasetTables, describe_dataset
from otus.config import ClipFileSettings, DatasetSettings
from otus.joblog import job_log
from otus.tables import read_table

log = job_log(snakemake.log[0])
params = snakemake.params
names = ("recordings", "annotations", "clips", "splits", "leakage")
describe_dataset(
    Path(snakemake.output.files),
    DatasetTables(**{name: read_table(snakemake.input[name], name) for name in names}),
    root=Path(params.root),
    dataset=snakemake.wildcards.dataset,
    settings=DatasetSettings.model_validate(params.settings),
    files=ClipFileSettings.model_validate(params.clip_files),
    noise_report=read_json(snakemake.input.noise),
    targets=params.targets,
    workers=snakemake.threads,
    progress=log,
)
