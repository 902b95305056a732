"""What others read: review tables for Raven and Audacity, the files of alpaca pipelines; made only when asked for."""


rule export:
    input:
        expand(f"{RESULTS}/exports/{{model}}", model=JUDGED),


rule export_model:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        splits=file_of(rules.make_dataset.output.splits),
        card=card_of_judged,
        selections=file_of(rules.evaluate_model.output.selections),
        matches=file_of(rules.evaluate_model.output.matches),
        counts=file_of(rules.evaluate_model.output.counts),
        thresholds=file_of(rules.evaluate_model.output.thresholds),
        forest_selections=file_of(rules.filter_selections.output.selections),
        forest_matches=file_of(rules.filter_selections.output.matches),
        forest_counts=file_of(rules.filter_selections.output.counts),
        features=file_of(rules.filter_selections.output.features),
    output:
        files=directory(f"{RESULTS}/exports/{{dataset}}-{{training}}"),
    log:
        f"{RESULTS}/logs/export_model/{{dataset}}-{{training}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/export_model/{{dataset}}-{{training}}.tsv"
    wildcard_constraints:
        training="|".join([*CFG.training, *CFG.external]),
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("export_model"),
        runtime=minutes("export_model"),
    params:
        root=ROOT,
        targets=TARGETS,
        band=band_of_judged,
        spectrum_s=CFG.forest.window_s,
        code=code_digest("exports", "evaluation.thresholds", "forest.feature_table"),
    script:
        "../scripts/export_model.py"
