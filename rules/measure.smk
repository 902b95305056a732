"""One job per model: its measures with intervals, before and behind the forest, and what the forest gains."""


rule measure:
    input:
        measured("metrics"),


rule measure_model:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        splits=file_of(rules.make_dataset.output.splits),
        selections=of_both_layers("selections"),
        matches=of_both_layers("matches"),
        counts=of_both_layers("counts"),
        points=of_both_layers("points"),
        forests=file_of(rules.filter_selections.output.summary),
    output:
        metrics=f"{RESULTS}/measures/{{dataset}}-{{training}}/metrics.parquet",
        metrics_per_class=f"{RESULTS}/measures/{{dataset}}-{{training}}/metrics_per_class.parquet",
        recall_at_rates=f"{RESULTS}/measures/{{dataset}}-{{training}}/recall_at_rates.parquet",
        strata=f"{RESULTS}/measures/{{dataset}}-{{training}}/strata.parquet",
        differences=f"{RESULTS}/measures/{{dataset}}-{{training}}/differences.parquet",
        confusion=f"{RESULTS}/measures/{{dataset}}-{{training}}/confusion.parquet",
        densities=f"{RESULTS}/measures/{{dataset}}-{{training}}/densities.parquet",
        curves=f"{RESULTS}/measures/{{dataset}}-{{training}}/curves.parquet",
        reliability=f"{RESULTS}/measures/{{dataset}}-{{training}}/reliability.parquet",
    log:
        f"{RESULTS}/logs/measure_model/{{dataset}}-{{training}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_model/{{dataset}}-{{training}}.tsv"
    wildcard_constraints:
        training="|".join([*CFG.training, *CFG.external]),
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("measure_model"),
        runtime=minutes("measure_model"),
    params:
        targets=TARGETS,
        evaluation=CFG.evaluation.model_dump(
            mode="json",
            exclude={
                "decoding",
                "decoding_of",
                "thresholds",
                "choice",
                "choice_of",
                "calibration",
            },
        ),
        seed=CFG.seed,
        code=code_digest("measures.model"),
    script:
        "../scripts/measure_model.py"
