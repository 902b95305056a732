"""Dataset variants: group-wise splits and the clips that training starts from."""


rule prepare:
    input:
        expand(
            f"{RESULTS}/datasets/{{dataset}}/clips.parquet",
            dataset=CFG.datasets,
        ),


rule make_dataset:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
    output:
        clips=f"{RESULTS}/datasets/{{dataset}}/clips.parquet",
        splits=f"{RESULTS}/datasets/{{dataset}}/splits.parquet",
        splits_csv=f"{RESULTS}/datasets/{{dataset}}/splits.csv",
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
        dataset=lambda wc: CFG.datasets[wc.dataset].model_dump(mode="json"),
        seed=CFG.seed,
        code=code_digest("datasets"),
    script:
        "../scripts/make_dataset.py"
