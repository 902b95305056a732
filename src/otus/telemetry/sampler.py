"""What processor, memory and GPU do while a job runs: a thread in the background that reads and tells."""

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from otus.telemetry.gpu import Gpu, Reading, find_gpu
from otus.telemetry.journal import Journal
from otus.telemetry.process import ProcessUse, process_use

#: Readings to a sample, and to a heartbeat: a day of them is a few MB.
_PER_SAMPLE, _PER_HEARTBEAT = 5, 15

#: A driver that does not answer holds the end of a job up for no longer.
_PATIENCE_S = 5.0


@dataclass
class _Figures:
    """What was read since some moment."""

    util: list[float] = field(default_factory=list)
    power_w: list[float] = field(default_factory=list)
    vram_peak_mb: float | None = None
    temperature_c: float | None = None
    rss_mb: float | None = None

    def add(self, process: ProcessUse, gpu: Reading | None) -> None:
        self.rss_mb = max(self.rss_mb or 0.0, process.rss_mb)
        if gpu is None:
            return
        self.util += [gpu.util] if gpu.util is not None else []
        self.power_w += [gpu.power_w] if gpu.power_w is not None else []
        self.vram_peak_mb = _larger(self.vram_peak_mb, gpu.memory_mb)
        self.temperature_c = _larger(self.temperature_c, gpu.temperature_c)

    def record(self) -> dict[str, float | None]:
        """The fields of a record."""
        return {
            "gpu_util_mean": statistics.fmean(self.util) if self.util else None,
            "gpu_util_p95": p95(self.util),
            "power_w": statistics.fmean(self.power_w) if self.power_w else None,
            "vram_peak_mb": self.vram_peak_mb,
            "temperature_c": self.temperature_c,
            "rss_mb": self.rss_mb,
        }


class Sampler:
    """Reads every `every_s` seconds, writes a sample after some readings and a heartbeat after some more."""

    def __init__(self, journal: Journal, find: Callable[[], Gpu | str], every_s: float) -> None:
        self._journal, self._find, self._every_s = journal, find, every_s
        self._recent, self._all = _Figures(), _Figures()
        self._energy_j: float | None = None
        self._power: tuple[float, float] | None = None  # when, W
        self._process: ProcessUse | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Begin to read; the GPU is looked for in the background too."""
        self._thread.start()

    def stop(self) -> None:
        """Read once more, write the last sample, and leave the figures of the whole run to the journal's run_end."""
        self._over.set()
        self._thread.join(_PATIENCE_S)
        totals = self._all.record() | {"energy_j": self._energy_j}
        self._journal.keep(**totals, cpu_s=self._process.cpu_s if self._process else None)

    def _run(self) -> None:
        gpu = self._find()
        if isinstance(gpu, Gpu):
            self._journal.uses_gpu(gpu.uuid, gpu.name)
        remark = gpu if isinstance(gpu, str) else gpu.remark
        self._journal.keep(no_gpu=remark)
        device = gpu if isinstance(gpu, Gpu) else None
        self._read(device)
        self._tell(remark)
        readings = 0
        while not self._over.wait(self._every_s):
            self._read(device)
            readings += 1
            if readings % _PER_SAMPLE == 0:
                self._tell()
            if readings % _PER_HEARTBEAT == 0:
                self._journal.write("heartbeat")
        self._read(device)
        self._tell()

    def _read(self, gpu: Gpu | None) -> None:
        self._process = process_use()
        reading = gpu.read() if gpu else None
        self._recent.add(self._process, reading)
        self._all.add(self._process, reading)
        if reading and reading.power_w is not None:
            now = time.monotonic()
            before, watt = self._power or (now, reading.power_w)
            self._energy_j = (self._energy_j or 0.0) + (now - before) * (watt + reading.power_w) / 2
            self._power = now, reading.power_w

    def _tell(self, remark: str | None = None) -> None:
        cpu_s = self._process.cpu_s if self._process else None
        self._journal.write("sample", **self._recent.record(), energy_j=self._energy_j, cpu_s=cpu_s, no_gpu=remark)
        self._recent = _Figures()


@contextlib.contextmanager
def sampling(journal: Journal, *, device: str, uuid: str | None = None, every_s: float = 2.0) -> Iterator[None]:
    """Write samples and heartbeats to the journal while the block runs, and add the figures of all to its run_end.

    `device` is what computes: cpu or cuda. `uuid` is that of the GPU, as torch knows it
    (`str(torch.cuda.get_device_properties(device).uuid)`), else CUDA_VISIBLE_DEVICES decides. Where no GPU can be read
    the first sample says why (no_gpu), and processor and memory are read all the same.
    """

    def find() -> Gpu | str:
        return find_gpu(os.environ, uuid) if device == "cuda" else f"no GPU: the job computes on {device}"

    sampler = Sampler(journal, find, every_s)
    sampler.start()
    try:
        yield
    finally:
        sampler.stop()


def p95(values: list[float]) -> float | None:
    """Return the 95th percentile (the nearest rank), None of nothing."""
    return sorted(values)[max(0, -(-95 * len(values) // 100) - 1)] if values else None


def _larger(a: float | None, b: float | None) -> float | None:
    return max((value for value in (a, b) if value is not None), default=None)
