import os
import time

import pytest
from doctor_fakes import PARTITIONS, SINFO, FakeSlurm, found
from hypothesis import given
from hypothesis import strategies as st

from otus.doctor import slurm
from otus.doctor.partitions import judge, parse_gres, parse_limit, parse_partitions, parse_sinfo
from otus.site import Site


@pytest.fixture(autouse=True)
def no_site(monkeypatch, tmp_path):
    """No site values of the machine that the tests run on."""
    for name in list(os.environ):
        if name.startswith(("OTUS_", "SLURM_", "SINFO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def working(monkeypatch, tmp_path):
    """An empty working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def cluster(tmp_path, working, monkeypatch):
    """Slurm commands that pretend; nothing else is on PATH."""
    folder = tmp_path / "slurm-bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return FakeSlurm(folder)


def look(wanted=None, timeout_s=5.0):
    return found(slurm.slurm_findings(wanted, timeout_s))


# Slurm: its words


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("(null)", {}),
        ("gpu:2", {"": 2}),
        ("gpu", {"": 1}),
        ("gpu:a100:2(S:0-1)", {"a100": 2}),
        ("gpu:a100:2(S:0,1),gpu:v100:4(S:0,2),tmp:100G", {"a100": 2, "v100": 4}),
        ("gpu:a100-sxm4-40gb:8", {"a100-sxm4-40gb": 8}),
        ("craynetwork:4,gpu:2(IDX:N/A)", {"": 2}),
    ],
)
def test_gres(text, gpus):
    assert parse_gres(text) == gpus


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("30:00", 30),
        ("4:00:00", 240),
        ("1-00:00:00", 1440),
        ("2-12", 3600),
        ("1-02:30", 1590),
        ("45", 45),
        ("0:30", 0.5),
        ("infinite", None),
        ("UNLIMITED", None),
        ("n/a", None),
        ("", None),
    ],
)  # fmt: skip
def test_time_limits(text, minutes):
    assert parse_limit(text) == minutes


@given(st.text())
def test_no_output_of_slurm_crashes_the_parsers(text):
    parse_sinfo(text)
    parse_gres(text)
    parse_limit(text)
    parse_partitions(text)


def judged(preempt="preempt/none", sinfo=SINFO, details=PARTITIONS, **site):
    return found(judge(Site(**site), parse_sinfo(sinfo), parse_partitions(details), preempt))


def test_a_site_that_fits():
    findings = judged(cpu_partition="cpu", gpu_partition="gpu", gpu_model="a100", gpu_constraint="fast&80g")
    assert {f.status for f in findings.values()} == {"ok"}
    assert findings["GPU partitions"].text == "gpu (a100, v100), short (a100)"
    assert findings["GPU request"].text == "--gpus=a100:1 can be met in gpu"


@pytest.mark.parametrize(
    ("site", "name", "status", "words"),
    [
        ({"gpu_partition": "gpus"}, "gpu_partition", "missing", "gpus is not a partition"),
        ({"cpu_partition": "gpu,nowhere"}, "cpu_partition", "missing", "nowhere is not"),
        ({"cpu_partition": "old"}, "cpu_partition", "warning", "old is down"),
        ({"gpu_partition": "hidden"}, "gpu_partition", "ok", "hidden"),
        ({"gpu_partition": "cpu"}, "GPU request", "missing", "cpu has no GPUs"),
        ({}, "GPU request", "warning", "cpu has no GPUs"),
        ({"cpu_partition": "gpu"}, "GPU request", "ok", "--gpus=1"),
        ({"gpu_partition": "gpu", "gpu_model": "A100"}, "GPU request", "missing", "no GPU called A100"),
        ({"gpu_partition": "gpu", "gres": "gpu:h100:1"}, "GPU request", "missing", "h100"),
        ({"gpu_partition": "gpu", "gres": "gpu:v100:1"}, "GPU request", "ok", "--gres=gpu:v100:1"),
        ({"gpu_partition": "gpu", "gres": "gpu:1"}, "GPU request", "ok", "--gres=gpu:1"),
        ({"gpu_partition": "gpu", "gpu_constraint": "quick"}, "gpu_constraint", "missing", "no node has quick"),
        (
            {"gpu_partition": "gpu", "gpu_model": "v100", "gpu_constraint": "80g"},
            "gpu_constraint",
            "missing",
            "no node has 80g",
        ),
        ({"gpu_partition": "gpu", "gpu_constraint": "slow&80g"}, "gpu_constraint", "missing", "all of these"),
        ({"gpu_partition": "gpu", "gpu_constraint": "slow|80g"}, "gpu_constraint", "ok", "known"),
        ({"gpu_partition": "gpu", "gpu_constraint": "[fast*2|quick]"}, "gpu_constraint", "warning", "quick"),
        ({"cpu_constraint": "avx512"}, "cpu_constraint", "missing", "avx512"),
        ({"gpu_partition": "gpu"}, "time of gpu", "ok", "1440 min"),
        ({"gpu_partition": "short"}, "time of gpu", "warning", "would never start"),
        ({"gpu_partition": "short", "longest_min": 10}, "time of gpu", "ok", "no job asks for more than 10 min"),
        ({"cpu_partition": "old"}, "time of cpu", "ok", "no limit"),
        ({"gpu_partition": "short,gpu"}, "time of gpu", "ok", "1440 min"),
    ],
)
def test_site_values_against_the_cluster(site, name, status, words):
    finding = judged(**site)[name]
    assert finding.status == status and words in finding.text
    assert bool(finding.remedy) == (status != "ok")


def test_a_limit_that_only_retries_break():
    finding = judged(gpu_partition="gpu", details=PARTITIONS.replace("1-00:00:00", "6:00:00"))["time of gpu"]
    assert finding.status == "warning" and "third attempt" in finding.text and "360 min" in finding.text


def test_limits_come_from_sinfo_if_scontrol_does_not_tell():
    assert judged(gpu_partition="short", details="")["time of gpu"].status == "warning"


def test_a_cluster_without_gpus_or_default():
    findings = judged(sinfo="a|(null)|infinite|(null)|up\n", details="")
    assert findings["GPU partitions"].status == "warning" and findings["cpu_partition"].status == "missing"
    assert "choose one of a" in findings["cpu_partition"].remedy


@pytest.mark.parametrize(
    ("preempt", "partition", "status"),
    [
        ("preempt/partition_prio", "short", "warning"),
        ("preempt/qos", "short", "warning"),
        ("preempt/none", "short", "ok"),
        ("preempt/partition_prio", "old", "ok"),  # requeued: goes on later
        ("preempt/partition_prio", "cpu", "ok"),
    ],
)
def test_preemption(preempt, partition, status):
    assert judged(preempt, cpu_partition=partition, gpu_partition=partition)["preemption"].status == status


def test_in_the_highest_partition_nobody_is_stopped():
    details = PARTITIONS.replace("PreemptMode=OFF", "PreemptMode=CANCEL")
    findings = list(
        judge(Site(gpu_partition="gpu"), parse_sinfo(SINFO), parse_partitions(details), "preempt/partition_prio")
    )
    assert [f.status for f in findings if f.name == "preemption"] == ["ok", "warning"]  # cpu has tier 10, gpu 1


# Slurm: its commands


def test_no_slurm_and_no_wish_for_it(cluster):
    (cluster.folder / "sbatch").unlink()
    findings = look()
    assert [*findings] == ["Slurm"] and findings["Slurm"].status == "skipped"
    assert look(wanted=True)["Slurm client"].status == "missing"


def test_site_values_on_a_laptop(cluster, monkeypatch):
    (cluster.folder / "sbatch").unlink()
    monkeypatch.setenv("OTUS_SLURM_ACCOUNT", "birds")
    findings = look()
    assert findings["site values"].text == "from OTUS_SLURM_ACCOUNT: account=birds"
    assert findings["Slurm client"].status == "skipped"


def test_slurm_can_be_left_out(cluster):
    assert [*look(wanted=False)] == ["Slurm"]


def test_a_cluster_that_works(cluster, working):
    (working / "site.yaml").write_text("account: birds\nqos: high\ngpu_partition: gpu\ngpu_model: a100\n")
    findings = look()
    del findings["profile"]  # depends on where Otus was loaded from
    assert {f.status for f in findings.values()} == {"ok"}
    assert findings["Slurm client"].text == f"slurm 23.11.4 in {cluster.folder}"
    assert findings["controller"].text == "Slurmctld(primary) at head is UP"
    assert "sacct" in findings["watching jobs"].text
    assert findings["site values"].text.startswith(f"from {working / 'site.yaml'}: account=birds, gpu_partition=gpu")
    assert findings["account"].text == "birds is one of yours"
    assert findings["quality of service"].status == "ok"


def test_a_site_file_with_a_mistake_is_missing_and_slurm_is_looked_at_all_the_same(cluster, working):
    (working / "site.yaml").write_text("acount: birds\n")
    findings = look()
    assert findings["site values"].status == "missing" and "did you mean 'account'?" in findings["site values"].text
    assert findings["controller"].status == "ok" and findings["Slurm"].status == "skipped"


def test_a_container_that_is_not_there(cluster, monkeypatch, tmp_path):
    monkeypatch.setenv("OTUS_SLURM_CONTAINER", str(tmp_path / "otus.sif"))
    assert look()["site values"].status == "missing"
    (tmp_path / "otus.sif").touch()
    assert look()["site values"].status == "ok"


@pytest.mark.parametrize(
    ("site", "wanted", "status"),
    [({}, None, "warning"), ({"OTUS_SLURM_QOS": "a"}, None, "missing"), ({}, True, "missing")],
)
def test_a_controller_that_does_not_answer(cluster, monkeypatch, site, wanted, status):
    for name, value in site.items():
        monkeypatch.setenv(name, value)
    cluster.scontrol(ping="Slurmctld(primary) at head is DOWN")
    findings = look(wanted)
    assert findings["controller"].status == status and "is DOWN" in findings["controller"].text
    assert findings["Slurm"].status == "skipped" and "watching jobs" not in findings


def test_commands_that_hang(cluster):
    cluster.hangs("scontrol")
    begin = time.monotonic()
    finding = look(timeout_s=0.3)["controller"]
    assert time.monotonic() - begin < 10
    assert finding.status == "warning" and "scontrol: no answer within 0.3 s" in finding.text


def test_a_client_without_configuration(cluster):
    cluster.fails("sbatch", "Could not establish a configuration source")
    findings = look(wanted=True)
    assert findings["Slurm client"].status == "missing" and "configuration source" in findings["Slurm client"].text
    assert "SLURM_CONF" in findings["Slurm client"].remedy


def test_half_a_client(cluster):
    (cluster.folder / "srun").unlink()
    (cluster.folder / "sinfo").unlink()
    assert look(wanted=True)["Slurm client"].text == "srun, sinfo not on PATH, though sbatch is"


@pytest.mark.parametrize(
    ("age", "poll", "status", "words"),
    [
        ("300 sec", "20", "ok", "remembers ended jobs for 300 s"),
        ("60 sec", "20", "ok", "60 s"),
        ("59 sec", "20", "warning", "never notices"),
        ("1h", "600", "ok", "3600 s"),
        ("2 sec", "20", "warning", "never notices"),
        ("45 sec", "15", "ok", "45 s"),
        ("?", "20", "warning", "unknown time"),
    ],
)
def test_watching_jobs_without_accounting(cluster, monkeypatch, age, poll, status, words):
    monkeypatch.setenv("OTUS_SLURM_POLL_S", poll)
    cluster.fails("sacct", "Slurm accounting storage is disabled")
    cluster.scontrol(age=age)
    finding = look()["watching jobs"]
    assert finding.status == status and words in finding.text
    assert "squeue" in finding.text and "storage is disabled" in finding.text
    if age == "59 sec":
        assert "OTUS_SLURM_POLL_S=19" in finding.remedy
    if age == "2 sec":
        assert "OTUS_SLURM_POLL_S" not in finding.remedy


def test_the_wish_for_a_status_command(cluster, monkeypatch):
    monkeypatch.setenv("OTUS_SLURM_STATUS_COMMAND", "squeue")
    cluster.scontrol(age="10 sec")
    finding = look()["watching jobs"]
    assert finding.status == "ok" and "takes sacct, which answers" in finding.text
    monkeypatch.setenv("OTUS_SLURM_STATUS_COMMAND", "sacct")
    cluster.fails("sacct")
    assert look()["watching jobs"].status == "missing"
    (cluster.folder / "sacct").unlink()
    assert look()["watching jobs"].status == "missing"


@pytest.mark.parametrize(("account", "status"), [("birds", "ok"), ("Birds", "ok"), ("whales", "missing")])
def test_accounts(cluster, monkeypatch, account, status):
    monkeypatch.setenv("OTUS_SLURM_ACCOUNT", account)
    finding = look()["account"]
    assert finding.status == status and (status == "ok" or "bats, birds" in finding.remedy)


def test_without_an_account_those_that_one_has_are_named(cluster):
    assert "bats, birds" in look()["account"].text


def test_a_wrong_quality_of_service(cluster, monkeypatch):
    monkeypatch.setenv("OTUS_SLURM_QOS", "express")
    finding = look()["quality of service"]
    assert finding.status == "missing" and "high, normal" in finding.remedy


def test_an_account_that_cannot_be_checked_is_not_said_to_be_wrong(cluster, monkeypatch):
    cluster.fails("sacctmgr", "no accounting")
    assert "account" not in look()
    monkeypatch.setenv("OTUS_SLURM_ACCOUNT", "birds")
    finding = look()["account"]
    assert finding.status == "skipped" and "no accounting" in finding.text


@pytest.mark.parametrize(
    ("reservation", "status"),
    [
        (None, "missing"),
        ("ReservationName=spring StartTime=x State=ACTIVE", "ok"),
        ("ReservationName=spring StartTime=x State=INACTIVE", "warning"),
    ],
)
def test_reservations(cluster, monkeypatch, reservation, status):
    monkeypatch.setenv("OTUS_SLURM_RESERVATION", "spring")
    cluster.scontrol(reservation=reservation)
    assert look()["reservation"].status == status


def test_sinfo_that_fails_or_lists_nothing(cluster):
    cluster.fails("sinfo")
    assert look()["partitions"].text == "sinfo: error: cannot connect"
    cluster.prints("sinfo", "")
    assert look(wanted=True)["partitions"].status == "missing"


def test_the_users_own_format_for_sinfo_does_not_count(cluster, monkeypatch):
    monkeypatch.setenv("SINFO_PARTITION", "cpu")
    cluster.script("sinfo", f'[ -z "$SINFO_PARTITION" ] && printf "%s" "{SINFO}"')
    assert "gpu (a100" in look()["GPU partitions"].text


def test_parts_of_the_slurm_check_may_crash(cluster, monkeypatch):
    def crash(*args, **kwargs):
        raise RuntimeError("broken check")

    monkeypatch.setattr(slurm, "_watching", crash)
    monkeypatch.setattr("getpass.getuser", crash)
    findings = look()
    assert "broken check" in findings["watching jobs"].text and "broken check" in findings["account"].text
    assert findings["GPU partitions"].status == "ok"
