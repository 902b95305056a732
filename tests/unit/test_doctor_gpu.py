import errno
import os
import sys

import pytest
from doctor_fakes import FakeSlurm, found

from otus.doctor import gpu
from otus.doctor.gpu import Nvml, Surroundings, Torch, judge_gpu, judge_nvml, judge_torch

CUDA = Torch(version="2.11.0+cu130", cuda="13.0", problem="Found no NVIDIA driver")
CPU = Torch(version="2.11.0+cpu")
DRIVER = Nvml(driver="580.82", cuda="13.0", count=2, devices=({"name": "A100"}, {"name": "A100"}))
NO_DRIVER = Nvml(error_code=12, error="NVML Shared Library Not Found")
OLD = Nvml(driver="535.104", cuda="12.2", count=1, devices=({"name": "A100"},))
MIG = Nvml(driver="580.82", cuda="13.0", count=1, devices=({"name": "A100", "mig": True},))


@pytest.mark.parametrize(
    ("torch", "nvml", "around", "status", "words"),
    [
        (CUDA, NO_DRIVER, Surroundings(), "ok", "no NVIDIA card"),
        (CPU, NO_DRIVER, Surroundings(), "ok", "built for the CPU"),
        (CUDA, NO_DRIVER, Surroundings(card=True), "warning", "card but no driver"),
        (CUDA, NO_DRIVER, Surroundings(login_node=True), "ok", "login node"),
        (CPU, NO_DRIVER, Surroundings(login_node=True), "warning", "CPU only, also in jobs"),
        (CPU, DRIVER, Surroundings(), "warning", "built for the CPU only"),
        (CUDA, DRIVER, Surroundings(visible=""), "warning", "CUDA_VISIBLE_DEVICES is ''"),
        (CUDA, DRIVER, Surroundings(visible="-1"), "warning", "hides all"),
        (CUDA, DRIVER, Surroundings(visible="7"), "warning", "the driver has 2"),
        (CUDA, DRIVER, Surroundings(visible="0", job_without_gpu=True), "warning", "this Slurm job was given none"),
        (CUDA, OLD, Surroundings(), "warning", "for CUDA up to 12.2, torch needs CUDA 13.0"),
        (CUDA, DRIVER, Surroundings(barred="/dev/nvidia0 may not be opened"), "warning", "/dev/nvidia0"),
        (CUDA, Nvml(error_code=18, error="mismatch"), Surroundings(), "warning", "driver was updated"),
        (CUDA, Nvml(error_code=999, error="Unknown Error"), Surroundings(), "warning", "Unknown Error"),
        (CUDA, Nvml(error="killed by SIGSEGV"), Surroundings(), "warning", "SIGSEGV"),
        (CUDA, Nvml(error_code=9, error="Driver Not Loaded"), Surroundings(card=True), "warning", "Not Loaded"),
        (CUDA, MIG, Surroundings(), "warning", "no instance"),
        (CUDA, MIG, Surroundings(visible="MIG-1"), "warning", "no instance"),
        (CUDA, DRIVER, Surroundings(), "warning", "Found no NVIDIA driver"),
    ],
)
def test_why_no_gpu_is_seen(torch, nvml, around, status, words, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    finding = judge_gpu(torch, nvml, around)
    assert (finding.name, finding.status) == ("GPU", status)
    assert words in finding.text
    assert bool(finding.remedy) == (status == "warning")


def test_a_driver_of_the_same_cuda_generation_is_new_enough(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    torch = Torch(version="2.11.0", cuda="12.8", problem="other")
    assert "other" in judge_gpu(torch, OLD, Surroundings()).text
    newer = Nvml(driver="580", cuda="13.0", count=1, devices=({"name": "A"},))
    assert "other" in judge_gpu(torch, newer, Surroundings()).text


def test_the_oldest_driver_is_named(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert "580 or newer" in judge_gpu(CUDA, OLD, Surroundings()).remedy


def test_a_gpu_that_computes_and_one_that_does_not():
    good = Torch(version="2", cuda="13.0", devices=("H100 (78 GiB)",), computes=True)
    finding = judge_gpu(good, DRIVER, Surroundings())
    assert finding.status == "ok" and "H100 (78 GiB), driver 580.82 for CUDA up to 13.0" in finding.text
    bad = Torch(version="2", cuda="13.0", devices=("K80 (11 GiB)",), problem="no kernel image is available")
    finding = judge_gpu(bad, DRIVER, Surroundings())
    assert finding.status == "missing" and "no kernel image" in finding.text and "device: cpu" in finding.remedy


def test_on_macos_there_is_nothing_to_explain(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert judge_gpu(CPU, NO_DRIVER, Surroundings()).status == "ok"


def test_what_nvml_may_read():
    assert judge_nvml(NO_DRIVER).status == "skipped"
    assert judge_nvml(DRIVER).status == "ok"
    assert "A100 (MIG)" in judge_nvml(MIG).text
    barred = Nvml(driver="580", count=1, devices=({"error_code": 4, "error": "Insufficient Permissions"},))
    finding = judge_nvml(barred)
    assert finding.status == "warning" and "not permitted (Insufficient Permissions)" in finding.text
    assert "no answer (hung)" in judge_nvml(Nvml(error="hung")).text


def test_torch_that_is_slow_is_a_warning():
    assert judge_torch(Torch(version="2", cuda="13.0", import_s=2)).status == "ok"
    assert judge_torch(Torch(version="2", cuda="13.0", import_s=90)).status == "warning"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise OSError('libcudart.so.13: cannot open shared object file')", "OSError: libcudart.so.13"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "killed by SIGILL"),
        ("import time; time.sleep(30)", "no answer within"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_torch_that_cannot_be_imported_is_missing(tmp_path, monkeypatch, code, words):
    (tmp_path / "torch.py").write_text(code)
    (tmp_path / "pynvml.py").write_text("raise ImportError('no pynvml')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (finding,) = gpu.gpu_findings(timeout_s=2.0)
    assert (finding.name, finding.status) == ("torch", "missing") and words in finding.text and finding.remedy


FAKE_TORCH = """
__version__ = "2.11.0+cu130"
class version: cuda, hip = "13.0", None
class cuda:
    is_available = staticmethod(lambda: {available})
    device_count = staticmethod(lambda: 1)
    class get_device_properties:
        name, total_memory = "H100", 80 * 2**30
        def __init__(self, i): pass
def ones(n, device): {ones}
def zeros(n, device): raise RuntimeError("the driver is too old\\nsecond line")
"""
FAKE_NVML = """
class NVMLError(Exception):
    def __init__(self, value): self.value = value
    def __str__(self): return f"code {{self.value}}"
def nvmlInit(): {init}
def nvmlSystemGetDriverVersion(): return b"580.82"
def nvmlSystemGetCudaDriverVersion_v2(): return 13020
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(i): return i
def nvmlDeviceGetName(h): return "H100"
def nvmlDeviceGetMigMode(h): raise NVMLError(3)
def nvmlDeviceGetMemoryInfo(h): pass
def nvmlDeviceGetUtilizationRates(h): {load}
"""


def fake_gpu(folder, monkeypatch, *, available=True, ones="return [1.0] * n", init="pass", load="pass"):
    (folder / "torch.py").write_text(FAKE_TORCH.format(available=available, ones=f"import builtins; {ones}"))
    (folder / "torchaudio.py").write_text("")
    (folder / "pynvml.py").write_text(FAKE_NVML.format(init=init, load=load))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(gpu, "surroundings", lambda environment: Surroundings())
    monkeypatch.setattr(sys, "platform", "linux")
    return found(gpu.gpu_findings(timeout_s=20.0))


SUM = "return type('Tensor', (), {'sum': lambda self: float(n)})()"


def test_the_probe_of_a_gpu(tmp_path, monkeypatch):
    findings = fake_gpu(tmp_path, monkeypatch, ones=SUM)
    assert findings["GPU"].status == "ok"
    assert findings["GPU"].text == "H100 (80 GiB), driver 580.82 for CUDA up to 13.2"
    assert findings["torch"].text.startswith("2.11.0+cu130, built for CUDA 13.0, imported in ")
    assert findings["NVML"].status == "ok" and "H100" in findings["NVML"].text


def test_the_probe_of_a_gpu_that_is_seen_and_does_not_compute(tmp_path, monkeypatch):
    findings = fake_gpu(tmp_path, monkeypatch, ones="raise RuntimeError('CUDA error: no kernel image\\nmore')")
    assert findings["GPU"].status == "missing" and "CUDA error: no kernel image" in findings["GPU"].text
    assert "more" not in findings["GPU"].text


def test_the_probe_without_a_usable_driver(tmp_path, monkeypatch):
    findings = fake_gpu(tmp_path, monkeypatch, available=False, init="raise NVMLError(999)")
    assert findings["GPU"].status == "warning" and "code 999" in findings["GPU"].text
    assert findings["NVML"].status == "warning"


def test_the_probe_where_the_load_may_not_be_read(tmp_path, monkeypatch):
    findings = fake_gpu(tmp_path, monkeypatch, ones=SUM, load="raise NVMLError(4)")
    assert findings["GPU"].status == "ok"
    assert findings["NVML"].status == "warning" and "not permitted" in findings["NVML"].text


def test_a_driver_that_hangs_does_not_hang_the_doctor(tmp_path, monkeypatch):
    (tmp_path / "pynvml.py").write_text("import time\ntime.sleep(30)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert gpu._nvml(gpu._probe("nvml", 1.0)).error.endswith("no answer within 1 s")


def test_surroundings(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    card = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x040300\n")  # the sound part of a card
    around = gpu.surroundings({"CUDA_VISIBLE_DEVICES": ""}, tmp_path)
    assert around == Surroundings(visible="", login_node=True)
    (card / "class").write_text("0x030200\n")
    around = gpu.surroundings({"SLURM_JOB_ID": "1"}, tmp_path)
    assert around == Surroundings(card=True, job_without_gpu=True)
    assert not gpu.surroundings({"SLURM_JOB_ID": "1", "SLURM_JOB_GPUS": "0"}, tmp_path).job_without_gpu


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EPERM, "control group"), (errno.EACCES, "permissions"), (errno.ENXIO, "cannot be opened")],
)
def test_a_device_file_that_cannot_be_opened(tmp_path, monkeypatch, code, words):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert "nvidia-uvm is not there" in gpu.surroundings({}, tmp_path).barred
    (tmp_path / "dev/nvidia-uvm").touch()
    assert gpu.surroundings({}, tmp_path).barred == ""

    def refuse(path, flags):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    assert words in gpu.surroundings({}, tmp_path).barred
