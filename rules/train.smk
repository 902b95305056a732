"""One job per model: dataset variant x training configuration x fold."""


rule train:
    input:
        expand(
            f"{RESULTS}/models/{{model}}/fold{{fold}}/card.json",
            model=MODELS,
            fold=FOLDS,
        ),


rule train_model:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        clips=file_of(rules.make_dataset.output.clips),
        splits=file_of(rules.make_dataset.output.splits),
    output:
        weights=f"{RESULTS}/models/{{dataset}}-{{training}}/fold{{fold}}/model.safetensors",
        card=f"{RESULTS}/models/{{dataset}}-{{training}}/fold{{fold}}/card.json",
        metrics=f"{RESULTS}/models/{{dataset}}-{{training}}/fold{{fold}}/metrics.jsonl",
        best=f"{RESULTS}/models/{{dataset}}-{{training}}/fold{{fold}}/best_metrics.json",
        curves=f"{RESULTS}/models/{{dataset}}-{{training}}/fold{{fold}}/learning_curves.svg",
    log:
        f"{RESULTS}/logs/train_model/{{dataset}}-{{training}}.fold{{fold}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_model/{{dataset}}-{{training}}.fold{{fold}}.tsv"
    conda:
        "../envs/gpu.yaml"
    threads: training_threads
    resources:
        mem_mb=memory("train_model"),
        runtime=minutes("train_model"),
        gpu=training_gpu,
        gpu_jobs=training_gpu,
    params:
        root=ROOT,
        targets=TARGETS,
        training=training_of,
        iou=CFG.evaluation.iou[0],
        seed=CFG.seed,
        # No output: it goes on over all attempts, and a job that fails leaves it too.
        telemetry=f"{RESULTS}/telemetry/train_model/{{dataset}}-{{training}}.fold{{fold}}.jsonl",
        code=code_digest("training", "models"),  # a new drawing of the curves is no reason to train again
    script:
        "../scripts/train_model.py"
