"""Thresholds, matches and counts of a detector of others on the splits of one dataset variant."""

import pandas as pd

from otus.config import EvaluationSettings
from otus.evaluation import points_in_words, write_thresholds
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
for line in points_in_words(evaluation.operating_points):
    log(line)
write_table(out.selections, "selections", evaluation.selections)
write_table(out.matches, "matches", evaluation.matches)
write_table(out.counts, "counts", evaluation.counts)
write_table(out.points, "points", evaluation.points)
write_table(out.shapes, "score_shapes", evaluation.shapes)
write_thresholds(out.thresholds, model, evaluation.operating_points)
