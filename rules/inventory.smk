"""What is there, what is readable, what is labelled; quarantine for the rest."""


rule inventory:
    input:
        recordings=f"{RESULTS}/inventory/recordings.parquet",
        annotations=f"{RESULTS}/inventory/annotations.parquet",
        page=f"{RESULTS}/inventory/inventory.html",


rule take_inventory:
    input:
        made=f"{ROOT}/corpus.json" if CFG.corpus.is_made else [],
    output:
        recordings=f"{RESULTS}/inventory/recordings.parquet",
        recordings_csv=f"{RESULTS}/inventory/recordings.csv",
        annotations=f"{RESULTS}/inventory/annotations.parquet",
        annotations_csv=f"{RESULTS}/inventory/annotations.csv",
        annotation_files=f"{RESULTS}/inventory/annotation_files.parquet",
        annotation_files_csv=f"{RESULTS}/inventory/annotation_files.csv",
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
        corpus=CFG.corpus.model_dump(mode="json", exclude={"demo", "soundscapes"}),
        state=corpus_state,
        code=code_digest("inventory"),
    script:
        "../scripts/take_inventory.py"


rule write_inventory_page:
    input:
        recordings=file_of(rules.take_inventory.output.recordings),
        annotations=file_of(rules.take_inventory.output.annotations),
        annotation_files=file_of(rules.take_inventory.output.annotation_files),
        quarantine=file_of(rules.take_inventory.output.quarantine),
    output:
        page=report(
            f"{RESULTS}/inventory/inventory.html",
            caption="../report/inventory.rst",
            category="Inventory",
        ),
    log:
        f"{RESULTS}/logs/write_inventory_page.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_inventory_page.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("write_inventory_page"),
        runtime=minutes("write_inventory_page"),
    params:
        root=ROOT,
        code=code_digest("inventory.page"),
    script:
        "../scripts/write_inventory_page.py"
