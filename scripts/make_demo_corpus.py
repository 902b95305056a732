"""Make the embedded demo corpus."""

from pathlib import Path

from otus.config import DemoSettings
from otus.demo import make_demo_corpus
from otus.joblog import job_log

log = job_log(snakemake.log[0])
make_demo_corpus(Path(snakemake.output.done).parent, DemoSettings.model_validate(snakemake.params.settings))
log(f"demo corpus in {Path(snakemake.output.done).parent}")
