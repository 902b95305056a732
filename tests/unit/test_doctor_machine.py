import errno
import os
import sys
import time
from pathlib import Path

import pytest
from doctor_fakes import found

from otus.doctor import decoders as sound
from otus.doctor import files, machine

# cores and memory


def test_limits_of_control_groups(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    (proc / "self/cgroup").write_text("0::/user/job\n")
    (groups / "user/job").mkdir(parents=True)
    (groups / "user/job/memory.max").write_text("max\n")
    assert machine.memory_limit_mb(proc, groups) is None and machine.cpu_quota(proc, groups) is None
    memory = found(machine.machine_findings({}, proc, groups))["memory"]
    assert (memory.status, memory.text) == ("ok", "16.0 GiB")
    (groups / "user/memory.max").write_text(f"{2 * 2**30}\n")  # that of a group around ours holds too
    (groups / "user/job/cpu.max").write_text("50000 100000\n")
    findings = found(machine.machine_findings({"OMP_NUM_THREADS": "64"}, proc, groups))
    assert findings["memory"].status == "warning" and "may use 2.0 GiB" in findings["memory"].text
    assert findings["cores"].status == "warning" and "0.5" in findings["cores"].text


def test_limits_of_the_old_control_groups(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("4:memory:/slurm/job_1\n3:cpu,cpuacct:/slurm\n2:freezer:/\n")
    (groups / "memory/slurm/job_1").mkdir(parents=True)
    (groups / "memory/slurm/job_1/memory.limit_in_bytes").write_text(str(8 * 2**30))
    (groups / "memory/memory.limit_in_bytes").write_text("9223372036854771712")
    (groups / "cpu,cpuacct/slurm").mkdir(parents=True)
    (groups / "cpu,cpuacct/slurm/cpu.cfs_quota_us").write_text("200000")
    (groups / "cpu,cpuacct/slurm/cpu.cfs_period_us").write_text("100000")
    assert machine.memory_limit_mb(proc, groups) == 8192
    assert machine.cpu_quota(proc, groups) == 2


def test_the_machine_itself_has_cores_and_memory():
    findings = found(machine.machine_findings())
    assert {"cores", "memory"} == set(findings) and machine.total_memory_mb(Path("/proc")) > 100
    assert machine.total_memory_mb(Path("/nowhere")) > 100  # as on macOS


# files


def test_a_good_folder(tmp_path):
    findings = found(files.file_findings(tmp_path))
    assert [*findings] == ["space", "file system", "latency", "clock", "temporary"]
    assert findings["latency"].status == findings["clock"].status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_yet(tmp_path):
    finding = found(files.file_findings(tmp_path / "new" / "results"))["space"]
    assert "is not there yet" in finding.text and str(tmp_path) in finding.text


@pytest.mark.parametrize(
    ("free_gb", "status"), [(100, "ok"), (10.1, "ok"), (9.9, "warning"), (1.1, "warning"), (0.9, "missing")]
)
def test_free_space(tmp_path, monkeypatch, free_gb, status):
    usage = type("Usage", (), {"free": free_gb * 1e9})()
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert found(files.file_findings(tmp_path))["space"].status == status


def test_no_room_for_more_files(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1e12})())
    for total, left, status in ((10**6, 5, "warning"), (10**6, 10**5, "ok"), (0, 0, "ok")):
        state = type("State", (), {"f_files": total, "f_favail": left})()
        monkeypatch.setattr(os, "statvfs", lambda path, state=state: state)
        assert found(files.file_findings(tmp_path))["space"].status == status


@pytest.mark.parametrize(("code", "remedy"), [(errno.EACCES, "may write to"), (errno.EROFS, "full, over quota")])
def test_a_folder_that_cannot_be_written_to_is_missing(tmp_path, monkeypatch, code, remedy):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "mkdir", refuse)
    findings = found(files.file_findings(tmp_path))
    assert findings["writing"].status == "missing" and remedy in findings["writing"].remedy
    assert "latency" not in findings and findings["space"].status != "missing"


def test_a_slow_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_write_one", lambda path: 0.25)
    finding = found(files.file_findings(tmp_path))["latency"]
    assert finding.status == "warning" and "250.0 ms" in finding.text


@pytest.mark.parametrize(("skew_s", "word"), [(30, "behind"), (-30, "ahead"), (1, "")])
def test_clocks_that_differ(tmp_path, monkeypatch, skew_s, word):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew_s)
    finding = found(files.file_findings(tmp_path))["clock"]
    assert finding.status == ("warning" if word else "ok") and word in finding.text


def test_a_file_system_that_does_not_replace_in_one_step(tmp_path, monkeypatch):
    def copy(source, target):
        Path(target).write_bytes(Path(source).read_bytes())
        Path(source).unlink()

    monkeypatch.setattr(os, "replace", copy)
    assert found(files.file_findings(tmp_path))["file system"].status == "warning"


def test_no_place_for_temporary_files(tmp_path, monkeypatch):
    def refuse():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", refuse)
    finding = files._temporary()
    assert finding.status == "missing" and "TMPDIR" in finding.remedy


def test_the_kind_of_file_system(tmp_path):
    deep = tmp_path / "a b" / "c"
    deep.mkdir(parents=True)
    mounts = tmp_path / "mounts"
    space = str(tmp_path / "a b").replace(" ", "\\040")
    rows = ["x / ext4 rw", f"x {tmp_path} lustre rw", f"auto {space} autofs rw", f"server:/x {space} nfs4 rw", "odd"]
    mounts.write_text("\n".join(rows))
    assert files.file_system(deep, mounts) == "nfs4"
    assert files.file_system(tmp_path / "a", mounts) == "lustre"
    assert files.file_system(Path("/"), mounts) == "ext4"
    assert files.file_system(deep, tmp_path / "nowhere") == ""


@pytest.mark.parametrize(("kind", "status", "word"), [("nfs4", "ok", "shared"), ("cifs", "warning", "links")])
def test_file_systems_are_named(tmp_path, monkeypatch, kind, status, word):
    monkeypatch.setattr(files, "file_system", lambda place: kind)
    finding = found(files.file_findings(tmp_path))["file system"]
    assert finding.status == status and kind in finding.text and word in finding.text


# sound


def test_decoders_of_this_machine():
    findings = found(sound.decoder_findings())
    assert findings["decoders"].status == "ok" and "WAV, FLAC, OGG, MP3" in findings["decoders"].text
    assert findings["resampler"].status == "ok"


@pytest.mark.parametrize(("absent", "status"), [("MP3", "warning"), ("FLAC", "missing")])
def test_a_format_that_libsndfile_lacks(monkeypatch, absent, status):
    import soundfile

    formats = {name: "" for name in sound.FORMATS if name != absent}
    monkeypatch.setattr(soundfile, "available_formats", lambda: formats)
    finding = found(sound.decoder_findings())["decoders"]
    assert finding.status == status and f"not {absent}: this libsndfile was built without it" in finding.text


def test_a_decoder_that_gives_silence(monkeypatch):
    import soundfile

    real = soundfile.read
    monkeypatch.setattr(soundfile, "read", lambda path: (real(path)[0] * 0, 22050))
    finding = found(sound.decoder_findings())["decoders"]
    assert finding.status == "missing" and "level of 0.000" in finding.text


def test_sound_packages_that_are_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setitem(sys.modules, "soxr", None)
    assert [f.status for f in sound.decoder_findings()] == ["missing", "missing"]
