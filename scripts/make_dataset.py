"""One dataset variant: splits, clips, and the proof of what its sides share."""

from dataclasses import asdict
from pathlib import Path

from otus.atomic import write_json
from otus.config import DatasetSettings, SplitSettings
from otus.datasets import make_variant, read_selections, verdict
from otus.joblog import job_log
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
out, params = snakemake.output, snakemake.params
dataset, settings = snakemake.wildcards.dataset, DatasetSettings.model_validate(params.settings)
recordings = read_table(snakemake.input.recordings, "recordings")
annotations = read_table(snakemake.input.annotations, "annotations")
alarms = settings.hard_negatives and read_selections(Path(settings.hard_negatives.selections), recordings)
variant = make_variant(
    recordings,
    annotations,
    alarms,
    dataset=dataset,
    targets=params.targets,
    split=SplitSettings.model_validate(params.split),
    settings=settings,
    seed=params.seed,
)
for (fold, split), part in variant.splits.groupby(["fold", "split"]):
    own = variant.clips[(variant.clips["fold"] == fold) & (variant.clips["split"] == split)]
    counts = own.groupby(["class", "origin"]).size().to_dict()
    size = f"{part['recording_id'].nunique()} recordings of {part['group'].nunique()} groups"
    log(f"fold {fold} {split}: {size}, {counts}")
log(f"{dataset}: {verdict(variant.leakage)}")
log(f"noise: {asdict(variant.noise)}")
write_table(out.clips, "clips", variant.clips)
write_table(out.splits, "splits", variant.splits, csv=out.splits_csv)
write_table(out.leakage, "leakage", variant.leakage, csv=out.leakage_csv)
write_json(out.noise, asdict(variant.noise))
