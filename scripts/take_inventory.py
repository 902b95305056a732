"""Inventory of the corpus: recordings, annotations, quarantine."""

from pathlib import Path

from otus.config import CorpusSettings
from otus.inventory import summary_lines, take_inventory
from otus.joblog import job_log
from otus.tables import write_table

log = job_log(snakemake.log[0])
settings, out = CorpusSettings.model_validate(snakemake.params.corpus), snakemake.output
inventory = take_inventory(Path(settings.root), settings, workers=snakemake.threads, progress=log)
for line in summary_lines(inventory):
    log(line)
write_table(out.recordings, "recordings", inventory.recordings, csv=out.recordings_csv)
write_table(out.annotations, "annotations", inventory.annotations, csv=out.annotations_csv)
write_table(out.quarantine, "quarantine", inventory.quarantine, csv=out.quarantine_csv)
