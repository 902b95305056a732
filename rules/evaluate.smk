"""One job per model: operating points from validation groups, selections, matching, counts."""


rule evaluate:
    input:
        expand(
            f"{RESULTS}/evaluation/{{model}}/counts.parquet",
            model=JUDGED,
        ),


rule evaluate_model:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        splits=file_of(rules.make_dataset.output.splits),
        cards=expand(rules.train_model.output.card, fold=FOLDS, allow_missing=True),
        scores=expand(
            rules.predict_shard.output.scores,
            fold=FOLDS,
            shard=SHARDS,
            allow_missing=True,
        ),
        item_rows=expand(
            rules.predict_shard.output.item_rows,
            fold=FOLDS,
            shard=SHARDS,
            allow_missing=True,
        ),
    output:
        selections=f"{RESULTS}/evaluation/{{dataset}}-{{training}}/selections.parquet",
        matches=f"{RESULTS}/evaluation/{{dataset}}-{{training}}/matches.parquet",
        counts=f"{RESULTS}/evaluation/{{dataset}}-{{training}}/counts.parquet",
        points=f"{RESULTS}/evaluation/{{dataset}}-{{training}}/points.parquet",
        shapes=f"{RESULTS}/evaluation/{{dataset}}-{{training}}/shapes.parquet",
        thresholds=f"{RESULTS}/evaluation/{{dataset}}-{{training}}/thresholds.yaml",
    log:
        f"{RESULTS}/logs/evaluate_model/{{dataset}}-{{training}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_model/{{dataset}}-{{training}}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("evaluate_model"),
        runtime=minutes("evaluate_model"),
    params:
        folds=FOLDS,
        shards=len(SHARDS),
        evaluation=evaluation_of,
        code=code_digest("evaluation", "scores"),
    script:
        "../scripts/evaluate_model.py"
