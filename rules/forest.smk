"""The random-forest post-filter of a model: features, cross-fitting by group, filtered selections (cnn+rf, external+rf)."""


rule forest:
    input:
        expand(
            f"{RESULTS}/forest/{{model}}/counts.parquet",
            model=JUDGED,
        ),


rule filter_selections:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        splits=file_of(rules.make_dataset.output.splits),
        card=card_of_judged,
        selections=file_of(rules.evaluate_model.output.selections),
        counts=file_of(rules.evaluate_model.output.counts),
        shapes=file_of(rules.evaluate_model.output.shapes),
        thresholds=file_of(rules.evaluate_model.output.thresholds),
    output:
        selections=f"{RESULTS}/forest/{{dataset}}-{{training}}/selections.parquet",
        matches=f"{RESULTS}/forest/{{dataset}}-{{training}}/matches.parquet",
        counts=f"{RESULTS}/forest/{{dataset}}-{{training}}/counts.parquet",
        points=f"{RESULTS}/forest/{{dataset}}-{{training}}/points.parquet",
        features=f"{RESULTS}/forest/{{dataset}}-{{training}}/features.parquet",
        importances=f"{RESULTS}/forest/{{dataset}}-{{training}}/importances.parquet",
        dependence=f"{RESULTS}/forest/{{dataset}}-{{training}}/dependence.parquet",
        summary=f"{RESULTS}/forest/{{dataset}}-{{training}}/forests.json",
        forests=directory(f"{RESULTS}/forest/{{dataset}}-{{training}}/forests"),
    log:
        f"{RESULTS}/logs/filter_selections/{{dataset}}-{{training}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/filter_selections/{{dataset}}-{{training}}.tsv"
    wildcard_constraints:
        training="|".join([*CFG.training, *CFG.external]),
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("filter_selections"),
        runtime=minutes("filter_selections"),
    params:
        root=ROOT,
        targets=TARGETS,
        band=band_of_judged,
        forest=CFG.forest.model_dump(mode="json"),
        evaluation=CFG.evaluation.model_dump(
            mode="json",
            include={"iou", "thresholds", "choice", "choice_of", "calibration"},
        ),
        seed=CFG.seed,
        code=code_digest("forest.stage", "forest.feature_table", "hearing"),
    script:
        "../scripts/filter_selections.py"
