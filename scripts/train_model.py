"""Train one model: dataset variant x training configuration x fold."""

import shutil
from pathlib import Path

from otus.atomic import write_json, write_text
from otus.config import TrainingSettings
from otus.devices import choose_device, gpu_uuid
from otus.joblog import job_log
from otus.models.card import save_model
from otus.report.learning import fold_svg, histories_by_member
from otus.seeds import derive_seed
from otus.stopping import stop_on_signals
from otus.tables import read_table
from otus.telemetry import open_journal, sampling
from otus.training import TrainingTables, train_fold
from otus.training.loop import records_as_jsonl
from otus.training.tensorboard import require_tensorboard, write_events

log, stop = job_log(snakemake.log[0]), stop_on_signals()
params, out, wildcards = snakemake.params, snakemake.output, snakemake.wildcards
fold, model = int(wildcards.fold), f"{wildcards.dataset}-{wildcards.training}"
resume = Path(out.card).parent / "resume"  # not an output: it must survive a killed job
events = Path(out.card).parent / "tensorboard"  # not an output either: there only if it is asked for
with open_journal(
    params.telemetry,
    stage="train",
    rule=snakemake.rule,
    log=log,
    asked_mem_mb=snakemake.resources.get("mem_mb"),
    asked_min=snakemake.resources.get("runtime"),
    threads=snakemake.threads,
) as journal:
    files = snakemake.input
    tables = {name: read_table(files[name], name) for name in ("recordings", "annotations", "clips", "splits")}
    for name in ("clips", "splits"):
        tables[name] = tables[name][tables[name]["fold"] == fold]
    settings = TrainingSettings.model_validate(params.training)
    if settings.tensorboard:
        require_tensorboard()
    device = choose_device(settings.device)
    with sampling(journal, device=device.type, uuid=gpu_uuid(device)):
        trained = train_fold(
            Path(params.root),
            TrainingTables(**tables),
            model=model,
            fold=fold,
            targets=params.targets,
            settings=settings,
            iou=params.iou,
            seed=derive_seed(params.seed, "train", model, fold),
            resume_folder=resume,
            stop=stop,
            progress=log,
            journal=journal,
        )
    save_model(Path(out.weights), Path(out.card), trained.network, trained.card)
    write_text(out.metrics, records_as_jsonl(trained.records))
    write_json(out.best, trained.validation | {"best_epochs": trained.card.best_epochs})
    write_text(out.curves, fold_svg(histories_by_member(trained.records, trained.card.best_epochs)))
    if settings.tensorboard:
        write_events(events, trained.records)
    else:
        shutil.rmtree(events, ignore_errors=True)  # of an earlier training
    shutil.rmtree(resume, ignore_errors=True)
log("validation of all networks together: " + ", ".join(f"{k} {v:.3f}" for k, v in trained.validation.items()))
