"""The random-forest post-filter of a model: features, cross-fitting by group, filtered selections (cnn+rf)."""


rule forest:
    input:
        expand(
            f"{RESULTS}/forest/{{model}}/counts.parquet",
            model=MODELS,
        ),


rule filter_selections:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        splits=file_of(rules.make_dataset.output.splits),
        card=expand(rules.train_model.output.card, fold=FOLDS[0], allow_missing=True),
        selections=file_of(rules.evaluate_model.output.selections),
        counts=file_of(rules.evaluate_model.output.counts),
        thresholds=file_of(rules.evaluate_model.output.thresholds),
    output:
        selections=f"{RESULTS}/forest/{{dataset}}-{{training}}/selections.parquet",
        matches=f"{RESULTS}/forest/{{dataset}}-{{training}}/matches.parquet",
        counts=f"{RESULTS}/forest/{{dataset}}-{{training}}/counts.parquet",
        summary=f"{RESULTS}/forest/{{dataset}}-{{training}}/forests.json",
        forests=directory(f"{RESULTS}/forest/{{dataset}}-{{training}}/forests"),
    log:
        f"{RESULTS}/logs/filter_selections/{{dataset}}-{{training}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/filter_selections/{{dataset}}-{{training}}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("filter_selections"),
        runtime=minutes("filter_selections"),
    params:
        root=ROOT,
        targets=TARGETS,
        forest=CFG.forest.model_dump(mode="json"),
        evaluation=CFG.evaluation.model_dump(mode="json", include={"iou", "thresholds"}),
        seed=CFG.seed,
        code=code_digest("forest"),
    script:
        "../scripts/filter_selections.py"
