"""Review tables and alpaca files of one model, before and behind the forest."""

import math
import time
from dataclasses import replace
from pathlib import Path

from otus.evaluation import read_thresholds
from otus.exports import ExportedLayer, Hearing, export_model, read_hearing, write_files
from otus.forest.feature_table import read_features
from otus.joblog import job_log
from otus.tables import read_table

log = job_log(snakemake.log[0])
files, params = snakemake.input, snakemake.params
if files.card:
    hearing = read_hearing(files.card[0])
else:  # of a detector of others nobody knows how it sees sound
    hearing = Hearing(params.band["low_hz"], params.band["high_hz"] or math.inf, 0.0, 0.0, 0.02)
names = ("selections", "matches", "counts")
texts = export_model(
    ExportedLayer(*(read_table(files[name], name) for name in names)),
    ExportedLayer(*(read_table(files[f"forest_{name}"], name) for name in names)),
    read_features(files.features),
    read_table(files.recordings, "recordings"),
    read_table(files.annotations, "annotations"),
    read_table(files.splits, "splits"),
    [point.decoding for points in read_thresholds(files.thresholds).values() for point in points.values()],
    root=Path(params.root).absolute(),
    labels=params.targets,
    hearing=replace(hearing, spectrum_s=params.spectrum_s or hearing.spectrum_s),
    forests=f"forest/{snakemake.wildcards.dataset}-{snakemake.wildcards.training}/forests",
    generated_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
)
write_files(Path(snakemake.output.files), texts)
log(f"{len(texts)} files in {snakemake.output.files}")
