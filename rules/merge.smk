"""metrics.csv, metrics_per_recording.csv, the leader board and the report."""


rule merge:
    input:
        metrics=f"{RESULTS}/metrics.csv",
        report=f"{RESULTS}/report.html",
        cards=expand(f"{RESULTS}/models/{{model}}/model_card.md", model=MODELS),


rule merge_metrics:
    input:
        counts=expand(
            f"{RESULTS}/{{stage}}/{{model}}/counts.parquet",
            stage=["evaluation", "forest"],
            model=JUDGED,
        ),
        matches=expand(
            f"{RESULTS}/{{stage}}/{{model}}/matches.parquet",
            stage=["evaluation", "forest"],
            model=JUDGED,
        ),
        metrics=measured("metrics"),
        metrics_per_class=measured("metrics_per_class"),
        recall_at_rates=measured("recall_at_rates"),
        strata=measured("strata"),
        differences=measured("differences"),
        confusion=measured("confusion"),
        densities=measured("densities"),
        curves=measured("curves"),
        reliability=measured("reliability"),
    output:
        metrics=f"{RESULTS}/metrics.parquet",
        metrics_csv=report(
            f"{RESULTS}/metrics.csv",
            caption="../report/metrics.rst",
            category="Metrics",
        ),
        metrics_per_recording=f"{RESULTS}/metrics_per_recording.parquet",
        metrics_per_recording_csv=report(
            f"{RESULTS}/metrics_per_recording.csv",
            caption="../report/metrics_per_recording.rst",
            category="Metrics",
        ),
        metrics_per_class=f"{RESULTS}/metrics_per_class.parquet",
        metrics_per_class_csv=f"{RESULTS}/metrics_per_class.csv",
        recall_at_rates=f"{RESULTS}/recall_at_rates.parquet",
        recall_at_rates_csv=f"{RESULTS}/recall_at_rates.csv",
        strata=f"{RESULTS}/strata.parquet",
        strata_csv=f"{RESULTS}/strata.csv",
        differences=f"{RESULTS}/differences.parquet",
        differences_csv=f"{RESULTS}/differences.csv",
        confusion=f"{RESULTS}/confusion.parquet",
        confusion_csv=f"{RESULTS}/confusion.csv",
        densities=f"{RESULTS}/densities.parquet",
        densities_csv=f"{RESULTS}/densities.csv",
        reliability=f"{RESULTS}/reliability.parquet",
        reliability_csv=f"{RESULTS}/reliability.csv",
        curves=f"{RESULTS}/curves.parquet",
        matches=f"{RESULTS}/matches.parquet",
        matches_csv=f"{RESULTS}/matches.csv",
    log:
        f"{RESULTS}/logs/merge_metrics.log",
    benchmark:
        f"{RESULTS}/benchmarks/merge_metrics.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("merge_metrics"),
        runtime=minutes("merge_metrics"),
    params:
        targets=TARGETS,
        bootstrap=CFG.evaluation.bootstrap,
        seed=CFG.seed,
        code=code_digest("merge"),
    script:
        "../scripts/merge_metrics.py"


rule write_model_card:
    input:
        metrics=file_of(rules.merge_metrics.output.metrics),
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        splits=expand(
            f"{RESULTS}/datasets/{{dataset}}/splits.parquet", dataset=CFG.datasets
        ),
        thresholds=expand(
            f"{RESULTS}/evaluation/{{model}}/thresholds.yaml", model=MODELS
        ),
        cards=training_files("card.json"),
        weights=training_files("model.safetensors"),
    output:
        pages=expand(f"{RESULTS}/models/{{model}}/model_card.md", model=MODELS),
    log:
        f"{RESULTS}/logs/write_model_card.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_model_card.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("write_model_card"),
        runtime=minutes("write_model_card"),
    params:
        datasets={
            model: name
            for name in CFG.datasets
            for model in (f"{name}-{training}" for training in CFG.training)
        },
        settings={d: s.model_dump(mode="json") for d, s in CFG.datasets.items()},
        by=CFG.split.by,
        benchmarks=f"{RESULTS}/benchmarks/train_model",  # may be missing
        code=code_digest("report.model_card"),
    script:
        "../scripts/write_model_card.py"


rule write_report:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        quarantine=file_of(rules.take_inventory.output.quarantine),
        metrics=file_of(rules.merge_metrics.output.metrics),
        metrics_per_recording=file_of(rules.merge_metrics.output.metrics_per_recording),
        metrics_per_class=file_of(rules.merge_metrics.output.metrics_per_class),
        recall_at_rates=file_of(rules.merge_metrics.output.recall_at_rates),
        strata=file_of(rules.merge_metrics.output.strata),
        differences=file_of(rules.merge_metrics.output.differences),
        confusion=file_of(rules.merge_metrics.output.confusion),
        densities=file_of(rules.merge_metrics.output.densities),
        curves=file_of(rules.merge_metrics.output.curves),
        reliability=file_of(rules.merge_metrics.output.reliability),
        matches=file_of(rules.merge_metrics.output.matches),
        importances=expand(
            f"{RESULTS}/forest/{{model}}/importances.parquet", model=JUDGED
        ),
        dependence=expand(
            f"{RESULTS}/forest/{{model}}/dependence.parquet", model=JUDGED
        ),
        forests=expand(f"{RESULTS}/forest/{{model}}/forests.json", model=JUDGED),
        cards=expand(
            f"{RESULTS}/models/{{model}}/fold{{fold}}/card.json",
            model=MODELS,
            fold=FOLDS[0],
        ),
        epochs=training_files("metrics.jsonl"),
        best=training_files("best_metrics.json"),
        item_rows=[*rules.predict.input, *rules.external.input],
        leakage=expand(
            f"{RESULTS}/datasets/{{dataset}}/leakage.parquet", dataset=CFG.datasets
        ),
        noise=expand(f"{RESULTS}/datasets/{{dataset}}/noise.json", dataset=CFG.datasets),
    output:
        page=report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        f"{RESULTS}/logs/write_report.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_report.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("write_report"),
        runtime=minutes("write_report"),
    params:
        root=ROOT,
        targets=TARGETS,
        report=CFG.report.model_dump(mode="json"),
        model_cards={model: f"models/{model}/model_card.md" for model in MODELS},
        config=CFG.model_dump(mode="json"),
        seed=CFG.seed,
        code=code_digest("report.page", "hearing"),
    script:
        "../scripts/write_report.py"
