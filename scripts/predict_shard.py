"""Score the chunks of one shard with the networks of all folds of one model."""

import shutil
from pathlib import Path

import torch

from otus.config import PredictionSettings
from otus.devices import choose_device, gpu_uuid
from otus.inference import ShardModel, predict_shard
from otus.inference.scorer import Scorer
from otus.joblog import job_log
from otus.models.card import load_card, load_model
from otus.stopping import stop_on_signals
from otus.tables import read_table, write_table
from otus.telemetry import open_journal, sampling

log, stop = job_log(snakemake.log[0]), stop_on_signals()
files, out, params, wildcards = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards
settings = PredictionSettings.model_validate(params.prediction)
torch.set_num_threads(settings.threads)
with open_journal(
    params.telemetry,
    stage="predict",
    rule=snakemake.rule,
    log=log,
    asked_mem_mb=snakemake.resources.get("mem_mb"),
    asked_min=snakemake.resources.get("runtime"),
    threads=snakemake.threads,
) as journal:
    device = choose_device(settings.device)
    chunks, splits = read_table(files.chunks, "chunks"), read_table(files.splits, "splits")
    models = []
    for i, fold in enumerate(params.folds):
        network, card = load_model(Path(files.weights[i]), Path(files.cards[i]), device)
        scorer = Scorer(
            network,
            card,
            device,
            precision=settings.precision,
            batch=settings.batch,
            batch_cache=Path(params.batch_cache),
        )
        log(f"fold {fold}: {scorer.about}")
        own, scores = splits[splits["fold"] == fold], Path(out.scores[i])
        models.append(
            ShardModel(
                name=f"{wildcards.dataset}-{wildcards.training} fold {fold}",
                scorer=scorer,
                identity=f"{load_card(Path(files.cards[i]))[1]} {params.code}",
                skip=set(own["recording_id"]) - set(own.loc[own["split"] != "train", "recording_id"]),
                scores_path=scores,
                resume_folder=scores.parent / "resume" / f"shard{wildcards.shard}",  # no output: survives a killed job
            )
        )
    with sampling(journal, device=device.type, uuid=gpu_uuid(device)):
        results = predict_shard(
            Path(params.root),
            chunks[chunks["shard"] == int(wildcards.shard)],
            read_table(files.recordings, "recordings"),
            models,
            max_failed_fraction=settings.max_failed_fraction,
            readers=settings.readers,
            retries=settings.retries,
            stop=stop,
            progress=log,
            journal=journal,
        )
    for path, result in zip(out.item_rows, results, strict=True):
        write_table(path, "items", result.items)
    for model in models:
        shutil.rmtree(model.resume_folder, ignore_errors=True)
    for fold, result in zip(params.folds, results, strict=True):
        counts = result.items["status"].value_counts().to_dict()
        log(f"fold {fold}: {result.audio_s / 3600:.3f} h scored on {device}; items {counts}")
