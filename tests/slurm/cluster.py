"""A Slurm cluster on one machine, as root, without systemd: two GPU nodes with two pretended GPUs each, two CPU nodes.

Everything lies in one folder, with ports of its own, so that it can run beside a real Slurm. The GPUs are character
devices: with plain files Slurm would schedule them and not set CUDA_VISIBLE_DEVICES.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
NODES = ("gpu1", "gpu2", "cpu1", "cpu2")

_CONF = """\
ClusterName=otustest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
GresTypes=gpu
ReturnToService=0
MinJobAge=300
KillWait=10
InactiveLimit=0
SlurmdTimeout=30
MessageTimeout=20
{accounting}
NodeName=gpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={p0} CPUs=8 RealMemory=24000 Gres=gpu:fake:2 Feature=fast
NodeName=gpu2 NodeHostname={host} NodeAddr=127.0.0.1 Port={p1} CPUs=8 RealMemory=24000 Gres=gpu:fake:2 Feature=fast
NodeName=cpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={p2} CPUs=8 RealMemory=24000
NodeName=cpu2 NodeHostname={host} NodeAddr=127.0.0.1 Port={p3} CPUs=8 RealMemory=24000
PartitionName=cpu Nodes=cpu1,cpu2 MaxTime=1-0 Default=YES PriorityTier=1
PartitionName=gpu Nodes=gpu1,gpu2 MaxTime=1-0 PriorityTier=1 PreemptMode={preempted}
PartitionName=urgent Nodes=gpu1,gpu2 MaxTime=1-0 PriorityTier=10
"""

_DATABASE_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=otustest
"""


class Cluster:
    """A running cluster; `environment` is what a user's shell needs to reach it."""

    def __init__(self, folder: Path, *, accounting: bool) -> None:
        self.folder, self.accounting = folder, accounting
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "OMP_NUM_THREADS": "1",
            "OTUS_SLURM_CPU_PARTITION": "cpu",
            "OTUS_SLURM_GPU_PARTITION": "gpu",
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons and wait until every node is idle."""
        self._munge()
        ports = _free_ports(6)
        settings = {"folder": self.folder, "host": socket.gethostname(), "port": ports[0]}
        settings["preempted"] = "CANCEL" if self.accounting else "REQUEUE"  # one of the two ways of sites on each
        accounting = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            self._database(ports[5])
            accounting = (
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost\n"
                f"AccountingStoragePort={ports[5]}\nAccountingStoragePass={self.folder}/munge.socket\n"
                "AccountingStorageTRES=gres/gpu"
            )
        nodes = {f"p{i}": ports[1 + i] for i in range(4)}
        (self.folder / "slurm.conf").write_text(_CONF.format(**settings, **nodes, accounting=accounting))
        (self.folder / "gres.conf").write_text("".join(self._devices(node) for node in NODES[:2]))
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir()
        self.start_controller()
        for node in NODES:
            self._spawn(f"slurmd.{node}", "slurmd", "-D", "-N", node)
        self.wait_for(lambda: self.command("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * 6, "idle nodes")
        if self.accounting:
            self.command("sacctmgr", "-i", "add", "account", "birds")
            self.command("sacctmgr", "-i", "add", "user", "root", "account=birds")
            self.environment["OTUS_SLURM_ACCOUNT"] = "birds"

    def _devices(self, node: str) -> str:
        for i in range(2):
            subprocess.run(["mknod", self.folder / f"{node}.nvidia{i}", "c", "195", str(i)], check=True)
        return f"NodeName={node} Name=gpu Type=fake File={self.folder}/{node}.nvidia[0-1] Flags=nvidia_gpu_env\n"

    def _munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"key-file": key, "socket": self.folder / "munge.socket", "pid-file": self.folder / "munge.pid"}
        files |= {"log-file": self.folder / "munge.log", "seed-file": self.folder / "munge.seed"}
        options = [f"--{name}={path}" for name, path in files.items()]
        self._spawn("munged", "munged", "--foreground", "--force", *options)
        self.wait_for(files["socket"].exists, "munge")

    def _database(self, port: int) -> None:
        data, run = self.folder / "mysql", self.folder / "mysql.socket"
        make = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
        subprocess.run([*make, "--user=root", "--skip-test-db"], check=True, capture_output=True)
        server = ["--no-defaults", f"--datadir={data}", f"--socket={run}", "--skip-networking", "--user=root"]
        self._spawn(
            "mariadbd", "mariadbd", *server, "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=2"
        )
        self.wait_for(run.exists, "the database")
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(_DATABASE_CONF.format(folder=self.folder, port=port))
        conf.chmod(0o600)
        self._spawn("slurmdbd", "slurmdbd", "-D", SLURM_CONF=str(self.folder / "slurm.conf"), MYSQL_UNIX_PORT=str(run))
        self.wait_for(lambda: _listens(port), "slurmdbd")

    def start_controller(self) -> None:
        """Start the controller and wait until it answers."""
        self._spawn("slurmctld", "slurmctld", "-D")
        self.wait_for(lambda: "UP" in self.command("scontrol", "ping"), "the controller")

    def stop_controller(self) -> None:
        """Stop the controller; jobs go on."""
        self._end("slurmctld")

    def command(self, *words: str) -> str:
        """The output of a Slurm command, whatever its exit code."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout

    def wait_for(self, condition, what: str, timeout_s: float = 60.0) -> None:
        """Wait until `condition()` is true; fail with the controller's last words if it never is."""
        until = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > until:
                logs = "".join(f"\n{p}:\n{p.read_text()[-1500:]}" for p in self.folder.glob("*.log"))
                raise TimeoutError(f"waited {timeout_s} s for {what}{logs}")
            time.sleep(0.2)

    def hurry(self, job: str) -> None:
        """Let a requeued job start at once; Slurm has it wait for two minutes."""
        if self.command("squeue", "-h", "-t", "PD", "-j", job, "-o", "%r").strip() == "BeginTime":
            self.command("scontrol", "update", f"JobId={job}", "StartTime=now")

    def stop(self) -> None:
        """End the daemons in the reverse order of their start."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.command("scancel", "--user=root", "--full")
        for name in reversed(list(self._processes)):
            self._end(name)

    def _spawn(self, name: str, *words: str, **environment: str) -> None:
        out = (self.folder / f"{name}.out").open("ab")
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        self._processes[name] = subprocess.Popen(
            words, env={**self.environment, "PATH": path, **environment}, stdout=out, stderr=out, start_new_session=True
        )

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def missing_programs(*, accounting: bool) -> list[str]:
    """What of Slurm is not installed."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    wanted = (*PROGRAMS, *(("slurmdbd", "mariadbd") if accounting else ()))
    return [program for program in wanted if shutil.which(program, path=path) is None]


@contextlib.contextmanager
def running(folder: Path, *, accounting: bool) -> Iterator[Cluster]:
    """A cluster that is stopped at the end, whatever happens."""
    cluster = Cluster(folder, accounting=accounting)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()
