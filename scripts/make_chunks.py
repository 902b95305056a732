"""Chunk manifest and shards."""

from otus.chunks import make_chunks
from otus.config import ChunkSettings
from otus.joblog import job_log
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
settings = ChunkSettings.model_validate(snakemake.params.chunking)
chunks = make_chunks(read_table(snakemake.input.recordings, "recordings"), settings)
log(f"{len(chunks)} chunks of {chunks['recording_id'].nunique()} recordings in {settings.shards} shard(s)")
write_table(snakemake.output.chunks, "chunks", chunks, csv=snakemake.output.chunks_csv)
