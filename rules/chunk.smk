"""Chunk manifest and balanced shards. No audio is copied."""


rule chunk:
    input:
        chunks=f"{RESULTS}/chunks/chunks.parquet",


rule make_chunks:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
    output:
        chunks=f"{RESULTS}/chunks/chunks.parquet",
        chunks_csv=f"{RESULTS}/chunks/chunks.csv",
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
        chunking=CFG.chunking.model_dump(mode="json"),
        code=code_digest("chunks"),
    script:
        "../scripts/make_chunks.py"
