"""Chunk manifest and balanced shards. No audio is copied unless chunking.files asks for it."""


rule chunk:
    input:
        chunks=f"{RESULTS}/chunks/chunks.parquet",
        files=expand(
            f"{RESULTS}/chunks/files/shard{{shard}}.parquet",
            shard=SHARDS if CFG.chunking.files else [],
        ),


rule make_chunks:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
    output:
        chunks=f"{RESULTS}/chunks/chunks.parquet",
        chunks_csv=f"{RESULTS}/chunks/chunks.csv",
        shards=f"{RESULTS}/chunks/shards.json",
    log:
        f"{RESULTS}/logs/make_chunks.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_chunks.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("make_chunks"),
        runtime=minutes("make_chunks"),
    params:
        chunk_s=CFG.chunking.chunk_s,
        context_s=CFG.chunking.context_s,
        sharding=asdict(SHARDING),
        code=code_digest("chunks"),
    script:
        "../scripts/make_chunks.py"


rule write_chunk_files:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        chunks=file_of(rules.make_chunks.output.chunks),
    output:
        files=directory(f"{RESULTS}/chunks/files/shard{{shard}}"),
        rows=f"{RESULTS}/chunks/files/shard{{shard}}.parquet",
        rows_csv=f"{RESULTS}/chunks/files/shard{{shard}}.csv",
    log:
        f"{RESULTS}/logs/write_chunk_files/shard{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_chunk_files/shard{{shard}}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("write_chunk_files"),
        runtime=minutes("write_chunk_files"),
    params:
        root=ROOT,
        code=code_digest("chunkfiles"),
    script:
        "../scripts/write_chunk_files.py"
