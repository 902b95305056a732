"""One job per model and shard: frame scores, once; no threshold is involved."""


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
        weights=file_of(rules.train_model.output.weights),
        card=file_of(rules.train_model.output.card),
    output:
        scores=f"{RESULTS}/scores/{{dataset}}-{{training}}/fold{{fold}}/shard{{shard}}.scores.parquet",
        item_rows=f"{RESULTS}/scores/{{dataset}}-{{training}}/fold{{fold}}/shard{{shard}}.items.parquet",
    log:
        f"{RESULTS}/logs/predict_shard/{{dataset}}-{{training}}.fold{{fold}}.shard{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict_shard/{{dataset}}-{{training}}.fold{{fold}}.shard{{shard}}.tsv"
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
        prediction=CFG.prediction.model_dump(mode="json"),
        code=code_digest("inference", "models"),
    script:
        "../scripts/predict_shard.py"
