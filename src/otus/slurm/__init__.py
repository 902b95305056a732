"""What stands between Snakemake's Slurm executor and Slurm: choices of the profile, and patient Slurm commands.

The executor (2.8) forgets every running job, and then waits for ever, when the controller does not answer a status
query; it takes PREEMPTED, `CANCELLED by 1000` and a job that Slurm no longer knows for running; and it takes a busy
controller's refusal of sbatch for a failed job. The commands in `bin/` stand first on the PATH of the driver and
answer for Slurm in these cases; everything else goes to the real commands unchanged.
"""

from otus.slurm.choices import status_command, use_patient_commands

__all__ = ["status_command", "use_patient_commands"]
