"""The HTML report."""

import hashlib
import json
import time
from pathlib import Path

import pandas as pd

from otus.atomic import read_json
from otus.config import EvaluationSettings, ReportSettings
from otus.hearing import read_hearing
from otus.joblog import job_log
from otus.report.content import ReportContent
from otus.report.learning import read_histories
from otus.report.page import write_report
from otus.tables import read_table

log = job_log(snakemake.log[0])
files, params = snakemake.input, snakemake.params
hearing = read_hearing(files.cards[0])
content = ReportContent(
    corpus=Path(params.root).name,
    corpus_root=Path(params.root),
    date=time.strftime("%Y-%m-%d"),
    seed=params.seed,
    config_digest=hashlib.sha256(json.dumps(params.config, sort_keys=True).encode()).hexdigest()[:12],
    targets=tuple(params.targets),
    recordings=read_table(files.recordings, "recordings"),
    annotations=read_table(files.annotations, "annotations"),
    quarantine=read_table(files.quarantine, "quarantine"),
    metrics=read_table(files.metrics, "metrics"),
    metrics_per_recording=read_table(files.metrics_per_recording, "metrics_per_recording"),
    metrics_per_class=read_table(files.metrics_per_class, "metrics_per_class"),
    recall_at_rates=read_table(files.recall_at_rates, "recall_at_rates"),
    strata=read_table(files.strata, "strata"),
    differences=read_table(files.differences, "differences"),
    confusion=read_table(files.confusion, "confusion"),
    densities=read_table(files.densities, "densities"),
    importances=pd.concat([read_table(path, "importances") for path in files.importances], ignore_index=True),
    dependence=pd.concat([read_table(path, "dependence") for path in files.dependence], ignore_index=True),
    curves=read_table(files.curves, "curves"),
    reliability=read_table(files.reliability, "reliability"),
    matches=read_table(files.matches, "matches"),
    items=pd.concat([read_table(path, "items") for path in files.item_rows], ignore_index=True),
    leakage=pd.concat([read_table(path, "leakage") for path in files.leakage], ignore_index=True),
    noise={Path(path).parent.name: read_json(path) for path in files.noise},
    evaluation=EvaluationSettings.model_validate(params.config["evaluation"]),
    by=params.config["split"]["by"],
    forests={Path(path).parent.name: read_json(path) for path in files.forests},
    learning=read_histories(zip(files.epochs, files.best, strict=True)),
    model_cards=params.model_cards,
    settings=ReportSettings.model_validate(params.report),
    window_s=hearing.spectrum_s,
    low_hz=hearing.low_hz,
    high_hz=hearing.high_hz,
)
write_report(snakemake.output.page, content)
log(f"report in {snakemake.output.page}")
