"""The chunks of one shard as WAV files."""

from pathlib import Path

from otus.chunkfiles import write_chunk_files
from otus.joblog import job_log
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
files, out = snakemake.input, snakemake.output
chunks = read_table(files.chunks, "chunks")
rows = write_chunk_files(
    Path(snakemake.params.root),
    chunks[chunks["shard"] == int(snakemake.wildcards.shard)],
    read_table(files.recordings, "recordings"),
    Path(out.files),
    progress=log,
)
write_table(out.rows, "chunk_files", rows, csv=out.rows_csv)
