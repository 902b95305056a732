"""Forests of one model, fitted and judged by group; the layers cnn+rf and external+rf."""

import math
from pathlib import Path

from otus.atomic import write_json
from otus.config import EvaluationSettings, ForestSettings
from otus.evaluation.thresholds import read_thresholds
from otus.forest.feature_table import write_features
from otus.forest.stage import filter_model, save_forests
from otus.hearing import read_hearing
from otus.joblog import job_log
from otus.seeds import derive_seed
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
files, out, params = snakemake.input, snakemake.output, snakemake.params
if files.card:
    hearing = read_hearing(files.card[0])
    window_s, low_hz, high_hz = hearing.spectrum_s, hearing.low_hz, hearing.high_hz
else:  # of a detector of others nobody knows how it sees sound
    window_s, low_hz, high_hz = 0.02, params.band["low_hz"], params.band["high_hz"] or math.inf
filtered = filter_model(
    Path(params.root),
    read_table(files.selections, "selections"),
    read_table(files.counts, "counts"),
    read_table(files.shapes, "score_shapes"),
    read_table(files.recordings, "recordings"),
    read_table(files.annotations, "annotations"),
    read_table(files.splits, "splits"),
    read_thresholds(files.thresholds),
    targets=params.targets,
    settings=ForestSettings.model_validate(params.forest),
    evaluation=EvaluationSettings.model_validate(params.evaluation),
    window_s=window_s,
    low_hz=low_hz,
    high_hz=high_hz,
    seed=derive_seed(params.seed, "forest", snakemake.wildcards.dataset, snakemake.wildcards.training),
    progress=log,
)
write_table(out.selections, "selections", filtered.selections)
write_table(out.matches, "matches", filtered.matches)
write_table(out.counts, "counts", filtered.counts)
write_table(out.points, "points", filtered.points)
write_features(out.features, filtered.features)
write_table(out.importances, "importances", filtered.importances)
write_table(out.dependence, "dependence", filtered.dependence)
write_json(out.summary, save_forests(Path(out.forests), filtered.forests, filtered.feature_names))
