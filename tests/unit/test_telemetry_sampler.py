"""What is read while a job runs: which GPU, what it does, and what the process takes."""

import multiprocessing
import os
import subprocess
import sys
import time

import pytest
from fake_nvml import Card, FakeNvml, NVMLError

from otus.telemetry import open_journal, sampler, sampling
from otus.telemetry.gpu import Gpu, find_gpu
from otus.telemetry.process import process_use
from otus.telemetry.sampler import p95
from otus.telemetry.summary import read_journal

FIRST, SECOND = Card("GPU-aaaa-1"), Card("GPU-bbbb-2")
MIG = Card("MIG-cccc-3", "NVIDIA H200 MIG 1g.18gb", NVMLError("Not Supported"), is_instance=True)


@pytest.fixture
def driver(monkeypatch):
    """Put a driver with these cards in the place of NVIDIA's."""

    def install(*cards, error=None):
        fake = FakeNvml(*cards, error=error)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


@pytest.mark.parametrize(
    ("visible", "uuid", "expected"),
    [
        (None, None, "GPU-aaaa-1"),
        ("1", None, "GPU-bbbb-2"),
        ("1,0", None, "GPU-bbbb-2"),
        (" 1 , 0 ", None, "GPU-bbbb-2"),
        ("GPU-bbbb-2", None, "GPU-bbbb-2"),
        ("GPU-bb", None, "GPU-bbbb-2"),
        (None, "bbbb-2", "GPU-bbbb-2"),
        ("0", "GPU-bbbb-2", "GPU-bbbb-2"),  # what computes knows best: CUDA counts in an order of its own
    ],
)
def test_the_gpu_is_the_one_that_cuda_uses(driver, visible, uuid, expected):
    driver(FIRST, SECOND)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    before = dict(environment)
    assert find_gpu(environment, uuid).uuid == expected
    assert environment == before, "it is obeyed, never rewritten"


@pytest.mark.parametrize(
    ("visible", "reason"),
    [
        ("", "no GPU: CUDA_VISIBLE_DEVICES is empty"),
        (" ", "no GPU: CUDA_VISIBLE_DEVICES is empty"),
        ("-1", "no GPU: CUDA_VISIBLE_DEVICES is '-1'"),
        ("NoDevFiles", "no GPU: CUDA_VISIBLE_DEVICES is 'NoDevFiles'"),
        ("2", "no GPU: CUDA_VISIBLE_DEVICES begins with '2', the driver has 2, counted from 0"),
        ("cuda", "no GPU: CUDA_VISIBLE_DEVICES begins with 'cuda', the driver has 2, counted from 0"),
        ("GPU-x", "no GPU: 0 of 2 have a UUID that begins GPU-x"),
        ("GPU-", "no GPU: 2 of 2 have a UUID that begins GPU-"),
        ("MIG-x", "the GPU cannot be read: Not Found"),
    ],
)
def test_without_a_gpu_the_reason_is_said(driver, visible, reason):
    driver(FIRST, SECOND)
    assert find_gpu({"CUDA_VISIBLE_DEVICES": visible}) == reason


def test_an_empty_setting_hides_the_gpu_even_if_a_uuid_is_known(driver):
    driver(FIRST)
    assert find_gpu({"CUDA_VISIBLE_DEVICES": ""}, "aaaa-1") == "no GPU: CUDA_VISIBLE_DEVICES is empty"


def test_a_driver_that_does_not_answer_is_a_reason(driver, monkeypatch):
    driver(error="Driver Not Loaded")
    assert find_gpu({}) == "the GPU cannot be read: Driver Not Loaded"
    driver()
    assert find_gpu({}).startswith("no GPU: ")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_gpu({}).startswith("the GPU cannot be read: nvidia-ml-py is not installed")


def test_the_number_of_a_gpu_says_nothing_where_they_are_of_several_kinds(driver):
    driver(Card("GPU-a", "NVIDIA T4"), Card("GPU-b", "NVIDIA A100"))
    assert find_gpu({"CUDA_VISIBLE_DEVICES": "0"}).endswith("is not known, because they are of several kinds")
    assert find_gpu({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}).uuid == "GPU-a"
    assert find_gpu({"CUDA_VISIBLE_DEVICES": "0"}, "b").uuid == "GPU-b"


def test_a_mig_instance_is_read_for_itself_and_never_with_the_load_of_the_card(driver):
    card = Card("GPU-aaaa-1", divided=True, instances=[Card("MIG-other", is_instance=True), MIG])
    fake = driver(card)
    found = find_gpu({"CUDA_VISIBLE_DEVICES": "MIG-cccc-3"}, "aaaa-1")
    assert (found.uuid, found.name) == ("MIG-cccc-3", "NVIDIA H200 MIG 1g.18gb")
    reading = found.read()
    assert (reading.util, reading.memory_mb, reading.power_w, reading.temperature_c) == (None, 1000, None, None)
    assert "MIG" in found.remark and fake.asked == [("MIG-cccc-3", "memory")]
    assert find_gpu({}, "cccc-3").uuid == "MIG-cccc-3", "torch names the instance"


def test_the_only_instance_of_a_divided_card_is_the_one_and_of_several_none(driver):
    driver(Card("GPU-aaaa-1", divided=True, instances=[MIG]))
    assert find_gpu({"CUDA_VISIBLE_DEVICES": "0"}).uuid == "MIG-cccc-3"
    assert find_gpu({}, "aaaa-1").uuid == "MIG-cccc-3"
    driver(Card("GPU-aaaa-1", divided=True, instances=[MIG, MIG]))
    assert find_gpu({}).endswith("(MIG) and which of 2 instances is used is not known")


def test_what_the_driver_does_not_tell_is_unknown(driver):
    broken = NVMLError("GPU is lost")
    fake = driver(Card("GPU-a", util=broken, memory_mb=broken, power_w=100))
    reading = Gpu("GPU-a", "x", "", fake, fake.cards[0]).read()
    assert (reading.util, reading.memory_mb, reading.power_w, reading.temperature_c) == (None, None, 100, 50)


def sampled(path, device, work=lambda: time.sleep(0.2), **more):
    with open_journal(path, stage="predict", rule="r", log=print) as journal, sampling(journal, device=device, **more):
        work()
    return read_journal(path)


def test_a_run_on_a_gpu_tells_load_memory_power_and_temperature(driver, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver(Card("GPU-a", util=[0] + [90] * 10_000, memory_mb=[10, 5000, 10], power_w=100, temperature_c=[40, 71, 40]))
    path = tmp_path / "j.jsonl"

    def until_it_beats():
        for _ in range(2000):
            if "heartbeat" in path.read_text():
                return
            time.sleep(0.01)

    events = sampled(path, "cuda", work=until_it_beats, uuid="a", every_s=0.005)
    samples = [e for e in events if e["event"] == "sample"]
    end = events[-1]
    assert samples[0]["gpu_util_mean"] == 0 and samples[-1]["gpu_util_mean"] == 90
    assert all((s["gpu_uuid"], s["gpu_name"]) == ("GPU-a", "NVIDIA H200") for s in [*samples, end])
    assert 45 < end["gpu_util_mean"] < 90 and end["gpu_util_p95"] == 90
    assert (end["vram_peak_mb"], end["temperature_c"], end["power_w"]) == (5000, 71, 100)
    assert "no_gpu" not in end and "gpu_uuid" not in events[0]
    beats = [e for e in events if e["event"] == "heartbeat"]
    assert beats and len(samples) >= 3 * (len(beats) - 1), "a sample for five readings, a heartbeat for fifteen"


def test_energy_is_the_integral_of_power(driver, tmp_path, monkeypatch):
    driver(Card("GPU-a", power_w=[100, 200, 300, 300, 300]))
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(sampler.time, "monotonic", lambda: next(clock))
    kept = {}

    class Journal:
        def keep(self, **fields):
            kept.update(fields)

        def __getattr__(self, name):
            return lambda *_, **__: None

    class Over:
        left = 3

        def wait(self, seconds):
            self.left -= 1
            return self.left < 0

        def set(self):
            pass

    reader = sampler.Sampler(Journal(), lambda: find_gpu({}), 2.0)
    reader._over = Over()
    reader.start()
    reader.stop()
    monkeypatch.undo()
    assert kept["energy_j"] == 2 * (150 + 250 + 300 + 300), "trapezoids over five readings 2 s apart"


def test_without_a_gpu_the_process_is_read_all_the_same_and_why_is_said_once(driver, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    driver(FIRST)
    events = sampled(tmp_path / "j.jsonl", "cuda", every_s=0.01)
    samples = [e for e in events if e["event"] == "sample"]
    assert [s.get("no_gpu") for s in samples[:2]] == ["no GPU: CUDA_VISIBLE_DEVICES is empty", None]
    assert events[-1]["no_gpu"] == "no GPU: CUDA_VISIBLE_DEVICES is empty"
    assert all(s["rss_mb"] > 10 and s["cpu_s"] > 0 and "gpu_util_mean" not in s for s in samples)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_job_on_the_cpu_does_not_ask_the_driver(driver, tmp_path):
    fake = driver(FIRST)
    events = sampled(tmp_path / "j.jsonl", "cpu", every_s=0.01)
    assert events[-1]["no_gpu"] == "no GPU: the job computes on cpu" and fake.asked == []


def test_a_gpu_that_goes_away_stops_nothing(driver, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gone = NVMLError("GPU is lost")
    driver(Card("GPU-a", util=[50, gone], memory_mb=[100, gone], power_w=[100, gone], temperature_c=[40, gone]))
    end = sampled(tmp_path / "j.jsonl", "cuda", every_s=0.01)[-1]
    assert (end["gpu_util_mean"], end["vram_peak_mb"], end["status"]) == (50, 100, "ok")


def test_a_driver_that_hangs_holds_up_neither_the_job_nor_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sampler, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(sampler, "find_gpu", lambda *_: time.sleep(1) or "late")
    begin = time.monotonic()
    events = sampled(tmp_path / "j.jsonl", "cuda", work=lambda: None)
    assert time.monotonic() - begin < 0.9
    assert [e["event"] for e in events] == ["run_start", "run_end"]
    time.sleep(1.1)
    assert len(read_journal(tmp_path / "j.jsonl")) == 2, "what comes after the end is dropped"


def test_an_error_of_the_job_goes_on_through_the_sampler(tmp_path):
    def fail():
        raise RuntimeError("the job")

    with pytest.raises(RuntimeError, match="the job"):
        sampled(tmp_path / "j.jsonl", "cpu", work=fail)
    end = read_journal(tmp_path / "j.jsonl")[-1]
    assert end["status"] == "failed" and end["rss_mb"] > 0


def _busy(ready, over):
    block = bytearray(60 * 2**20)
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    ready.set()
    over.wait(20)
    del block


@pytest.mark.skipif(sys.platform != "linux", reason="children are read from /proc")
def test_memory_and_time_of_children_count_while_they_live_and_their_time_after():
    context = multiprocessing.get_context("fork")
    ready, over = context.Event(), context.Event()
    before = process_use()
    child = context.Process(target=_busy, args=(ready, over))
    child.start()
    assert ready.wait(20)
    during = process_use()
    over.set()
    child.join()
    after = process_use()
    assert during.rss_mb > before.rss_mb + 55 and during.cpu_s >= before.cpu_s + 0.25
    assert after.rss_mb < during.rss_mb - 55 and after.cpu_s >= before.cpu_s + 0.25


def test_the_telemetry_imports_neither_torch_nor_the_driver():
    code = "import sys, otus.telemetry; print(sorted({'torch', 'pynvml', 'pandas', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_95th_percentile_is_the_nearest_rank():
    assert p95([]) is None and p95([7]) == 7
    assert p95(list(range(1, 101))) == 95 and p95([0] * 19 + [100]) == 0 and p95([0] * 18 + [100] * 2) == 100
