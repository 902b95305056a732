"""Detectors of others: one job per detector and shard, then one per dataset variant that judges it on its splits."""


rule external:
    input:
        expand(
            f"{RESULTS}/external/{{external}}/shard{{shard}}.items.parquet",
            external=CFG.external,
            shard=SHARDS,
        ),


rule run_external:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        chunks=file_of(rules.make_chunks.output.chunks),
    output:
        selections=f"{RESULTS}/external/{{external}}/shard{{shard}}.selections.parquet",
        item_rows=f"{RESULTS}/external/{{external}}/shard{{shard}}.items.parquet",
    log:
        f"{RESULTS}/logs/run_external/{{external}}.shard{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/run_external/{{external}}.shard{{shard}}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: external_threads
    resources:
        mem_mb=memory("run_external"),
        runtime=minutes("run_external"),
        gpu=external_gpu,
        gpu_jobs=external_gpu,
    params:
        root=ROOT,
        targets=TARGETS,
        settings=external_settings,
        programs=external_programs,
        # No output: it goes on over all attempts, and a job that fails leaves it too.
        telemetry=f"{RESULTS}/telemetry/run_external/{{external}}.shard{{shard}}.jsonl",
        code=code_digest("external"),
    script:
        "../scripts/run_external.py"


rule evaluate_external:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        splits=file_of(rules.make_dataset.output.splits),
        chunks=file_of(rules.make_chunks.output.chunks),
        selections=expand(
            rules.run_external.output.selections, shard=SHARDS, allow_missing=True
        ),
        item_rows=expand(
            rules.run_external.output.item_rows, shard=SHARDS, allow_missing=True
        ),
    output:
        selections=f"{RESULTS}/evaluation/{{dataset}}-{{external}}/selections.parquet",
        matches=f"{RESULTS}/evaluation/{{dataset}}-{{external}}/matches.parquet",
        counts=f"{RESULTS}/evaluation/{{dataset}}-{{external}}/counts.parquet",
        points=f"{RESULTS}/evaluation/{{dataset}}-{{external}}/points.parquet",
        shapes=f"{RESULTS}/evaluation/{{dataset}}-{{external}}/shapes.parquet",
        thresholds=f"{RESULTS}/evaluation/{{dataset}}-{{external}}/thresholds.yaml",
    log:
        f"{RESULTS}/logs/evaluate_external/{{dataset}}-{{external}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_external/{{dataset}}-{{external}}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("evaluate_external"),
        runtime=minutes("evaluate_external"),
    params:
        targets=TARGETS,
        gap_s=external_gap_s,
        evaluation=CFG.evaluation.model_dump(
            mode="json",
            include={"iou", "thresholds", "calibration", "choice", "choice_of"},
        ),
        code=code_digest("evaluation.external", "external.joining"),
    script:
        "../scripts/evaluate_external.py"
