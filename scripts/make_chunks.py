"""Chunk manifest and shards."""

from otus.atomic import write_json
from otus.chunks import make_chunks
from otus.config import ChunkSettings
from otus.joblog import job_log
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
params, out = snakemake.params, snakemake.output
shards = params.sharding["shards"]
settings = ChunkSettings(chunk_s=params.chunk_s, context_s=params.context_s, shards=shards)
chunks = make_chunks(read_table(snakemake.input.recordings, "recordings"), settings)
log(f"{len(chunks)} chunks of {chunks['recording_id'].nunique()} recordings in {shards} shard(s)")
write_table(out.chunks, "chunks", chunks, csv=out.chunks_csv)
write_json(out.shards, params.sharding)
