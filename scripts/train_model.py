"""Train one model: dataset variant x training configuration x fold."""

import shutil
from dataclasses import asdict
from pathlib import Path

from otus.atomic import write_json, write_text
from otus.config import DecodingSettings, TrainingSettings
from otus.joblog import job_log
from otus.models.card import save_model
from otus.seeds import derive_seed
from otus.stopping import stop_on_signals
from otus.tables import read_table
from otus.training import TrainingTables, train_fold
from otus.training.loop import records_as_jsonl

log, stop = job_log(snakemake.log[0]), stop_on_signals()
params, out, wildcards = snakemake.params, snakemake.output, snakemake.wildcards
fold, model = int(wildcards.fold), f"{wildcards.dataset}-{wildcards.training}"
tables = {name: read_table(snakemake.input[name], name) for name in ("recordings", "annotations", "clips", "splits")}
for name in ("clips", "splits"):
    tables[name] = tables[name][tables[name]["fold"] == fold]
resume = Path(out.card).parent / "resume"  # not an output: it must survive a killed job
trained = train_fold(
    Path(params.root),
    TrainingTables(**tables),
    model=model,
    fold=fold,
    targets=params.targets,
    settings=TrainingSettings.model_validate(params.training),
    decoding=DecodingSettings.model_validate(params.decoding),
    iou=params.iou,
    seed=derive_seed(params.seed, "train", model, fold),
    resume_folder=resume,
    stop=stop,
    progress=log,
)
save_model(Path(out.weights), Path(out.card), trained.network, trained.card)
write_text(out.metrics, records_as_jsonl(trained.records))
write_json(out.best, asdict(trained.validation) | {"best_epochs": trained.card.best_epochs})
shutil.rmtree(resume, ignore_errors=True)
log(f"validation F1 {trained.validation.f1:.3f}, average precision {trained.validation.average_precision:.3f}")
