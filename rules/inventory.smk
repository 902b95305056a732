"""What is there, what is readable, what is labelled; quarantine for the rest."""


rule inventory:
    input:
        recordings=f"{RESULTS}/inventory/recordings.parquet",
        annotations=f"{RESULTS}/inventory/annotations.parquet",


rule take_inventory:
    input:
        demo=[] if CFG.corpus.demo is None else f"{ROOT}/corpus.json",
    output:
        recordings=f"{RESULTS}/inventory/recordings.parquet",
        recordings_csv=f"{RESULTS}/inventory/recordings.csv",
        annotations=f"{RESULTS}/inventory/annotations.parquet",
        annotations_csv=f"{RESULTS}/inventory/annotations.csv",
        quarantine=f"{RESULTS}/inventory/quarantine.parquet",
        quarantine_csv=f"{RESULTS}/inventory/quarantine.csv",
    log:
        f"{RESULTS}/logs/take_inventory.log",
    benchmark:
        f"{RESULTS}/benchmarks/take_inventory.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=memory("take_inventory"),
        runtime=minutes("take_inventory"),
    params:
        corpus=CFG.corpus.model_dump(mode="json", exclude={"demo"}),
        state=corpus_state,
        code=code_digest("inventory"),
    script:
        "../scripts/take_inventory.py"
