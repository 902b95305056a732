"""Inventory of the corpus: recordings, annotations, the account of their files, quarantine."""

from pathlib import Path

from otus.config import CorpusSettings
from otus.inventory import summary_lines, take_inventory
from otus.joblog import job_log
from otus.tables import write_table

log = job_log(snakemake.log[0])
settings, out = CorpusSettings.model_validate(snakemake.params.corpus), snakemake.output
# Snakemake deletes what is declared before a rule runs again; what is known of unchanged files has to outlive that.
cache = Path(out.recordings).parent.parent / "cache" / "inventory.parquet"
inventory = take_inventory(Path(settings.root), settings, workers=snakemake.threads, cache=cache, progress=log)
for line in summary_lines(inventory):
    log(line)
write_table(out.recordings, "recordings", inventory.recordings, csv=out.recordings_csv)
write_table(out.annotations, "annotations", inventory.annotations, csv=out.annotations_csv)
write_table(out.annotation_files, "annotation_files", inventory.annotation_files, csv=out.annotation_files_csv)
write_table(out.quarantine, "quarantine", inventory.quarantine, csv=out.quarantine_csv)
