"""One dataset variant: group-wise splits and clips."""

from otus.config import DatasetSettings, SplitSettings
from otus.datasets import make_clips, make_splits
from otus.joblog import job_log
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
out, params = snakemake.output, snakemake.params
recordings = read_table(snakemake.input.recordings, "recordings")
annotations = read_table(snakemake.input.annotations, "annotations")
splits = make_splits(
    recordings,
    annotations,
    targets=params.targets,
    settings=SplitSettings.model_validate(params.split),
    seed=params.seed,
)
clips = make_clips(
    recordings,
    annotations,
    splits,
    targets=params.targets,
    settings=DatasetSettings.model_validate(params.dataset),
    seed=params.seed,
)
for (fold, split), part in splits.groupby(["fold", "split"]):
    own = clips[(clips["fold"] == fold) & (clips["split"] == split)]
    counts = own.groupby(["class", "origin"]).size().to_dict()
    log(f"fold {fold} {split}: {len(part)} recordings of {part['group'].nunique()} groups, clips {counts}")
write_table(out.clips, "clips", clips)
write_table(out.splits, "splits", splits, csv=out.splits_csv)
