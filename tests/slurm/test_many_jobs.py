"""More ready jobs than may be in the queue: the driver must hand them on as places become free."""

import re

from tests.slurm.conftest import REPOSITORY, Copy

JOBS = 200
#: Each job's work is done before its own Snakemake starts, which takes two CPU seconds and is not what is tested here.
WORK = 'touch "$(squeue -h -j "$SLURM_JOB_ID" -o %k | sed "s/.*_wildcards_//").done"\n'
SNAKEFILE = f"""
rule all:
    input: expand("{{n}}.done", n=range({JOBS}))

rule one:
    output: "{{n}}.done"
    log: "{{n}}.log"
    resources: mem_mb=1000, runtime=5
    shell: "false"
"""


def test_200_ready_jobs_and_20_places(plain, tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "slurm").symlink_to(REPOSITORY / "profiles" / "slurm")
    (tmp_path / "work.sh").write_text(WORK)
    copy = Copy(tmp_path, plain.environment)
    activate = {"OTUS_SLURM_ACTIVATE": "sh work.sh && exit 0", "OTUS_SLURM_JOBS": "20"}
    printed = copy.run("snakemake", "--profile", "slurm", **activate)
    copy.end()
    assert copy.code == 0, printed[-4000:]
    assert len(set(re.findall(r"submitted with SLURM jobid (\d+)", printed))) == JOBS
    assert len(list(tmp_path.glob("*.done"))) == JOBS
