"""Slurm commands that are small shell scripts, for the tests of `otus doctor`."""

import stat

from otus.doctor import slurm

SINFO = """\
cpu*|(null)|1-00:00:00|(null)|up
gpu|gpu:a100:2(S:0-1)|1-00:00:00|fast,80g|up
gpu|gpu:v100:4(S:0,2)|1-00:00:00|slow|up
short|gpu:a100:1|30:00|fast|up
old|(null)|infinite|(null)|down
"""
PARTITIONS = "\n".join(
    f"PartitionName={name} AllowGroups=ALL MaxTime={limit} PriorityTier={tier} PreemptMode={mode} State=UP"
    for name, limit, tier, mode in [
        ("cpu", "1-00:00:00", 10, "OFF"),
        ("gpu", "1-00:00:00", 1, "OFF"),
        ("short", "00:30:00", 1, "CANCEL"),
        ("old", "UNLIMITED", 1, "REQUEUE"),
        ("hidden", "1-00:00:00", 1, "OFF"),
    ]
)
CONFIG = "Configuration data as of now\nMinJobAge               = {age}\nPreemptType             = preempt/none"


class FakeSlurm:
    """Slurm commands that are small shell scripts; nothing else is on PATH."""

    def __init__(self, folder):
        self.folder = folder
        for name in slurm.PROGRAMS:
            self.prints(name, "")
        self.prints("sbatch", "slurm 23.11.4")
        self.prints("sacct", "")
        self.prints("sinfo", SINFO)
        self.prints("sacctmgr", "birds|normal,high\nbats|normal\n")
        self.scontrol()

    def scontrol(self, ping="Slurmctld(primary) at head is UP", age="300 sec", reservation=None):
        shown = {"ping": ping, "config": CONFIG.format(age=age), "partition": PARTITIONS}
        cases = "".join(f"*{key}*) printf '%s\\n' '{text}';;\n" for key, text in shown.items())
        said = f"printf '%s\\n' '{reservation}'" if reservation else "echo 'Reservation not found' >&2; exit 1"
        self.script("scontrol", f'case "$*" in\n*reservation*) {said};;\n{cases}esac')

    def script(self, name, body):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def prints(self, name, text):
        self.script(name, f"printf '%s' '{text}'")

    def fails(self, name, text="cannot connect"):
        self.script(name, f"echo '{name}: error: first' >&2; echo '{name}: error: {text}' >&2; exit 1")

    def hangs(self, name):
        self.script(name, "/bin/sleep 30\necho late")  # a child of the shell holds the pipe open


def found(findings):
    """Findings by name."""
    return {f.name: f for f in findings}
