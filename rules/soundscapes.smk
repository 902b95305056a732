"""A corpus of soundscapes, built from labelled clips and backgrounds."""

if CFG.corpus.soundscapes is not None:

    rule build_soundscapes:
        output:
            done=f"{ROOT}/corpus.json",
        log:
            f"{RESULTS}/logs/build_soundscapes.log",
        benchmark:
            f"{RESULTS}/benchmarks/build_soundscapes.tsv"
        conda:
            "../envs/cpu.yaml"
        threads: 2
        resources:
            mem_mb=memory("build_soundscapes"),
            runtime=minutes("build_soundscapes"),
        params:
            settings=CFG.corpus.soundscapes.model_dump(mode="json"),
            clips=lambda wildcards: fingerprint(),
            code=code_digest("soundscapes"),
        script:
            "../scripts/build_soundscapes.py"
