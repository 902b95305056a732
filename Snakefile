"""Otus: from hand-labelled field recordings to a benchmarked detector of animal calls."""

from snakemake.utils import min_version

min_version("9.27")


# A --configfile that names no corpus is a layer over the embedded demo.
if "root" not in (config.get("corpus") or {}):

    configfile: f"{workflow.basedir}/config/config.yaml"


include: "rules/common.smk"


if SITE.container:  # for --sdm apptainer; without that option it means nothing

    container: SITE.container


include: "rules/driver.smk"
include: "rules/demo.smk"
include: "rules/soundscapes.smk"
include: "rules/inventory.smk"
include: "rules/prepare.smk"
include: "rules/chunk.smk"
include: "rules/train.smk"
include: "rules/predict.smk"
include: "rules/external.smk"
include: "rules/evaluate.smk"
include: "rules/forest.smk"
include: "rules/measure.smk"
include: "rules/merge.smk"
include: "rules/export.smk"


rule all:
    default_target: True
    input:
        rules.merge.input,
        rules.inventory.input,
        rules.prepare.input,
