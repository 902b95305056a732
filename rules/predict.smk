"""One job per model and shard, all folds together: frame scores, once; no threshold is involved."""


rule predict:
    input:
        expand(
            f"{RESULTS}/scores/{{model}}/fold{{fold}}/shard{{shard}}.items.parquet",
            model=MODELS,
            fold=FOLDS,
            shard=SHARDS,
        ),


rule predict_shard:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        chunks=file_of(rules.make_chunks.output.chunks),
        splits=file_of(rules.make_dataset.output.splits),
        weights=expand(
            file_of(rules.train_model.output.weights), fold=FOLDS, allow_missing=True
        ),
        cards=expand(
            file_of(rules.train_model.output.card), fold=FOLDS, allow_missing=True
        ),
    output:
        scores=[
            f"{RESULTS}/scores/{{dataset}}-{{training}}/fold{fold}/shard{{shard}}.scores.parquet"
            for fold in FOLDS
        ],
        item_rows=[
            f"{RESULTS}/scores/{{dataset}}-{{training}}/fold{fold}/shard{{shard}}.items.parquet"
            for fold in FOLDS
        ],
    log:
        f"{RESULTS}/logs/predict_shard/{{dataset}}-{{training}}.shard{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict_shard/{{dataset}}-{{training}}.shard{{shard}}.tsv"
    conda:
        "../envs/gpu.yaml"
    threads: CFG.prediction.threads
    resources:
        mem_mb=memory("predict_shard"),
        runtime=minutes("predict_shard"),
        gpu=gpu_of(CFG.prediction.device),
        gpu_jobs=gpu_of(CFG.prediction.device),
    params:
        root=ROOT,
        folds=FOLDS,
        prediction=CFG.prediction.model_dump(mode="json"),
        batch_cache=f"{RESULTS}/cache/batch.json",  # what every GPU was found to score at once
        # No output: it goes on over all attempts, and a job that fails leaves it too.
        telemetry=f"{RESULTS}/telemetry/predict_shard/{{dataset}}-{{training}}.shard{{shard}}.jsonl",
        code=code_digest("inference", "models"),
    script:
        "../scripts/predict_shard.py"
