"""The embedded demo corpus."""

if CFG.corpus.demo is not None:

    rule make_demo_corpus:
        output:
            done=f"{ROOT}/corpus.json",
        log:
            f"{RESULTS}/logs/make_demo_corpus.log",
        benchmark:
            f"{RESULTS}/benchmarks/make_demo_corpus.tsv"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        resources:
            mem_mb=memory("make_demo_corpus"),
            runtime=minutes("make_demo_corpus"),
        params:
            settings=CFG.corpus.demo.model_dump(mode="json"),
            code=code_digest("demo"),
        script:
            "../scripts/make_demo_corpus.py"
