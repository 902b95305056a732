"""Thresholds, matches and counts of a detector of others on the splits of one dataset variant."""

import pandas as pd

from otus.config import EvaluationSettings
from otus.evaluation import write_thresholds
from otus.evaluation.external import evaluate_external, fold_sides
from otus.external.joining import join_chunks
from otus.joblog import job_log
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
files, out, params = snakemake.input, snakemake.output, snakemake.params
model = f"{snakemake.wildcards.dataset}-{snakemake.wildcards.external}"
found = pd.concat([read_table(path, "selections") for path in files.selections], ignore_index=True)
folds = fold_sides(
    pd.concat([read_table(path, "items") for path in files.item_rows], ignore_index=True),
    read_table(files.chunks, "chunks"),
    read_table(files.recordings, "recordings"),
    read_table(files.splits, "splits"),
)
evaluation = evaluate_external(
    join_chunks(found, params.gap_s),
    folds,
    read_table(files.annotations, "annotations"),
    classes=params.targets,
    settings=EvaluationSettings.model_validate(params.evaluation),
    gap_s=params.gap_s,
    model=model,
)
for fold, points in evaluation.operating_points.items():
    for label, point in points.items():
        got = point.reached
        log(
            f"fold {fold} {label}: threshold {point.threshold:.3g} by {got.criterion}; on validation F1 {got.f1:.3f}, "
            f"recall {got.recall:.3f}, {got.false_alarms_per_hour:.3g} false alarms per hour"
        )
        for note in (got.note, point.calibration.reason):
            if note:
                log(f"fold {fold} {label}: {note}")
write_table(out.selections, "selections", evaluation.selections)
write_table(out.matches, "matches", evaluation.matches)
write_table(out.counts, "counts", evaluation.counts)
write_table(out.points, "points", evaluation.points)
write_table(out.shapes, "score_shapes", evaluation.shapes)
write_thresholds(out.thresholds, model, evaluation.operating_points)
