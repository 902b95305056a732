"""Score the chunks of one shard with one model."""

import shutil
from pathlib import Path

import torch

from otus.config import PredictionSettings
from otus.inference import predict_shard
from otus.joblog import job_log
from otus.models.card import load_model
from otus.stopping import stop_on_signals
from otus.tables import read_table, write_table
from otus.training.stage import choose_device

log, stop = job_log(snakemake.log[0]), stop_on_signals()
files, out, wildcards = snakemake.input, snakemake.output, snakemake.wildcards
settings = PredictionSettings.model_validate(snakemake.params.prediction)
torch.set_num_threads(settings.threads)
device = choose_device(settings.device)
network, card = load_model(Path(files.weights), Path(files.card), device)
chunks, splits = read_table(files.chunks, "chunks"), read_table(files.splits, "splits")
own = splits[splits["fold"] == int(wildcards.fold)]
resume = Path(out.scores).parent / "resume" / f"shard{wildcards.shard}"  # not an output: it must survive a killed job
result = predict_shard(
    Path(snakemake.params.root),
    chunks[chunks["shard"] == int(wildcards.shard)],
    read_table(files.recordings, "recordings"),
    network,
    card,
    skip=set(own["recording_id"]) - set(own.loc[own["split"] != "train", "recording_id"]),
    scores_path=Path(out.scores),
    resume_folder=resume,
    device=device,
    max_failed_fraction=settings.max_failed_fraction,
    stop=stop,
    progress=log,
)
write_table(out.item_rows, "items", result.items)
shutil.rmtree(resume, ignore_errors=True)
log(f"{result.audio_s / 3600:.3f} h scored on {device}; items {result.items['status'].value_counts().to_dict()}")
