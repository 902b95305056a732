"""The summary page of the inventory."""

from pathlib import Path

from otus.atomic import write_text
from otus.inventory.page import inventory_page, other_files
from otus.joblog import job_log
from otus.tables import read_table

log = job_log(snakemake.log[0])
files, root = snakemake.input, Path(snakemake.params.root)
recordings = read_table(files.recordings, "recordings")
annotation_files = read_table(files.annotation_files, "annotation_files")
quarantine = read_table(files.quarantine, "quarantine")
page = inventory_page(
    root.name,
    recordings,
    read_table(files.annotations, "annotations"),
    annotation_files,
    quarantine,
    other_files(root, recordings, annotation_files, quarantine),
)
write_text(snakemake.output.page, page)
log(f"inventory page in {snakemake.output.page}")
