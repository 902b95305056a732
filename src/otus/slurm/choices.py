"""What the profile decides when it is read: which command watches jobs, and that the patient commands come first."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from otus.runs.driver import this_process

#: Where the patient sbatch, squeue, sacct and srun are.
COMMANDS = Path(__file__).resolve().parent / "bin"


def status_command(wanted: str = "auto") -> str:
    """Return `sacct` if the accounting database answers, else `squeue`; or what is wanted.

    The binary alone proves nothing: without slurmdbd sacct exits with an error.
    """
    if wanted != "auto":
        return wanted
    try:
        done = subprocess.run(["sacct", "-X", "-n"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "squeue"
    return "sacct" if done.returncode == 0 else "squeue"


def use_patient_commands() -> bool:
    """Put the patient commands first on the PATH of this process and its jobs, if Slurm is here; say whether it is.

    SLURM_CONF is kept under a second name: a job step loses all variables that begin with SLURM_, and on a site that
    chooses its cluster by SLURM_CONF would ask the wrong controller.
    """
    folders = [p for p in os.environ.get("PATH", "").split(os.pathsep) if p != str(COMMANDS)]
    if shutil.which("sbatch", path=os.pathsep.join(folders)) is None:
        return False
    os.environ["PATH"] = os.pathsep.join([str(COMMANDS), *folders])
    os.environ["OTUS_PYTHON"] = sys.executable
    os.environ["OTUS_DRIVER"] = this_process()
    if "SLURM_CONF" in os.environ:
        os.environ["OTUS_KEPT_SLURM_CONF"] = os.environ["SLURM_CONF"]
    return True
