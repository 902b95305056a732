"""Dataset variants: splits, clips, the proof that nothing stands on two sides, and files to look at."""


rule prepare:
    input:
        clips=expand(
            f"{RESULTS}/datasets/{{dataset}}/clips.parquet", dataset=CFG.datasets
        ),
        files=expand(f"{RESULTS}/datasets/{{dataset}}/files", dataset=CFG.datasets),


rule make_dataset:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        hard_negatives=hard_negatives_of,
    output:
        clips=f"{RESULTS}/datasets/{{dataset}}/clips.parquet",
        splits=f"{RESULTS}/datasets/{{dataset}}/splits.parquet",
        splits_csv=f"{RESULTS}/datasets/{{dataset}}/splits.csv",
        leakage=f"{RESULTS}/datasets/{{dataset}}/leakage.parquet",
        leakage_csv=f"{RESULTS}/datasets/{{dataset}}/leakage.csv",
        noise=f"{RESULTS}/datasets/{{dataset}}/noise.json",
    log:
        f"{RESULTS}/logs/make_dataset/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_dataset/{{dataset}}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("make_dataset"),
        runtime=minutes("make_dataset"),
    params:
        targets=TARGETS,
        split=CFG.split.model_dump(mode="json"),
        settings=dataset_of,
        seed=CFG.seed,
        code=code_digest("datasets"),
    script:
        "../scripts/make_dataset.py"


rule describe_dataset:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        clips=file_of(rules.make_dataset.output.clips),
        splits=file_of(rules.make_dataset.output.splits),
        leakage=file_of(rules.make_dataset.output.leakage),
        noise=file_of(rules.make_dataset.output.noise),
    output:
        files=directory(f"{RESULTS}/datasets/{{dataset}}/files"),
    log:
        f"{RESULTS}/logs/describe_dataset/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/describe_dataset/{{dataset}}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=memory("describe_dataset"),
        runtime=minutes("describe_dataset"),
    params:
        root=ROOT,
        targets=TARGETS,
        settings=dataset_of,
        clip_files=CFG.clip_files.model_dump(mode="json"),
        code=code_digest("clipfiles"),
    script:
        "../scripts/describe_dataset.py"
