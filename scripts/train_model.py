"""Train one model: dataset variant x training configuration x fold."""

from pathlib import Path

from otus.atomic import write_json, write_text
from otus.config import DecodingSettings, TrainingSettings
from otus.joblog import job_log
from otus.models.card import save_model
from otus.seeds import derive_seed
from otus.tables import read_table
from otus.training import TrainingTables, train_fold
from otus.training.loop import records_as_jsonl

log = job_log(snakemake.log[0])
params, out, wildcards = snakemake.params, snakemake.output, snakemake.wildcards
fold, model = int(wildcards.fold), f"{wildcards.dataset}-{wildcards.training}"
tables = {name: read_table(snakemake.input[name], name) for name in ("recordings", "annotations", "clips", "splits")}
for name in ("clips", "splits"):
    tables[name] = tables[name][tables[name]["fold"] == fold]
resume = Path(out.card).parent / "resume.pt"  # not an output: it must survive a killed job
trained, card = train_fold(
    Path(params.root),
    TrainingTables(**tables),
    model=model,
    fold=fold,
    targets=params.targets,
    settings=TrainingSettings.model_validate(params.training),
    decoding=DecodingSettings.model_validate(params.decoding),
    iou=params.iou,
    seed=derive_seed(params.seed, "train", model, fold),
    resume_path=resume,
    progress=log,
)
save_model(Path(out.weights), Path(out.card), trained.network, card)
write_text(out.metrics, records_as_jsonl(trained.epochs))
write_json(out.best, trained.epochs[trained.best_epoch - 1])
resume.unlink(missing_ok=True)
log(f"best epoch {trained.best_epoch}: validation F1 {trained.best.f1:.3f}, AP {trained.best.average_precision:.3f}")
