"""How fast recordings are scored: as multiples of real time, stage by stage and end to end.

    python benchmarks/throughput.py --seconds 600 --repeats 3 --json throughput.json --markdown throughput.md
    python benchmarks/throughput.py --rows "tcn, 50 ms" --day --many
    python benchmarks/throughput.py --rows "resnet18, max pooling" --opensoundscape PYTHON

Makes its recordings itself and takes random weights, which cost as much as learnt ones. "End to end" is what a
prediction job does: read, decode, spectrogram, network, scores to Parquet (otus.inference.predict_shard); the shares of
the stages are taken while it does it. Each stage is also measured alone. Figures are medians of the repeats, of CPU
seconds of this process (all its threads) unless it says wall: other work on the machine changes those less. With
several threads or a GPU shares are of the wall time, decoding goes on beside the others, and "rest" holds the waiting
for it. A row whose first run takes longer than --long seconds is run once. PYTHON is the interpreter of an environment
with OpenSoundscape (see opensoundscape_predict.py).
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import soundfile
import torch
from throughput_clock import StageClock
from throughput_material import (
    Row,
    full_name,
    make_recordings,
    make_short_files,
    make_silent_day,
    recordings_of,
    rows,
)
from throughput_tables import STAGES, as_markdown

from otus.audio import AudioFile, AudioInfo
from otus.chunks import make_chunks
from otus.config import ChunkSettings
from otus.dense import FrameRange
from otus.inference import ShardModel, predict_shard
from otus.inference.parts import ChunkFrames, ShardParts
from otus.inference.scorer import Scorer, Stretch
from otus.scores import Logits, ScoreWriter
from otus.windows import WindowFrontend, window_inputs

_CHUNK_S = 120.0


@dataclass(frozen=True)
class Took:
    """CPU and wall seconds."""

    cpu_s: float
    wall_s: float


def timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, Took]:
    """Return what `work` returns, and what it took."""
    began = time.process_time(), time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return found, Took(time.process_time() - began[0], time.perf_counter() - began[1])


def medians(takes: list[Took]) -> Took:
    """Return the median CPU and wall seconds."""
    return Took(statistics.median(t.cpu_s for t in takes), statistics.median(t.wall_s for t in takes))


class Job:
    """A prediction job over all recordings of a folder with one model, and its stages one by one."""

    def __init__(self, row: Row, root: Path, recordings: pd.DataFrame, device: torch.device, *, readers: int) -> None:
        self.row, self.root, self.recordings, self.device, self.readers = row, root, recordings, device, readers
        self.chunks = make_chunks(recordings, ChunkSettings(chunk_s=_CHUNK_S))
        self.scorer = Scorer(row.network.to(device), row.card, device, precision=row.precision, batch=None)
        self.audio_s = float(recordings["duration_s"].sum())

    @property
    def counts_cpu(self) -> bool:
        """Whether CPU seconds tell what binds: one thread that computes. Else it is wall seconds."""
        return self.device.type == "cpu" and torch.get_num_threads() == 1

    def end_to_end(self) -> tuple[Took, dict[str, float]]:
        """Do the whole job; return what it took and the share of each stage in that."""
        with tempfile.TemporaryDirectory() as name:
            model = ShardModel("m", self.scorer, "0", set(), Path(name, "scores.parquet"), Path(name, "resume"))
            with StageClock(time.thread_time if self.counts_cpu else time.perf_counter) as clock:
                _, took = timed(lambda: self._predict(model), self.device)
        total = took.cpu_s if self.counts_cpu else took.wall_s
        return took, {stage: clock.seconds[stage] / total for stage in STAGES}

    def _predict(self, model: ShardModel) -> None:
        predict_shard(
            self.root,
            self.chunks,
            self.recordings,
            [model],
            max_failed_fraction=0.0,
            readers=self.readers,
            retries=0,
            stop=lambda: False,
            progress=lambda text: None,
        )

    def stages(self) -> dict[str, Took]:
        """Do one stage after the other, recording by recording, each with what the one before made."""
        takes: dict[str, list[Took]] = {stage: [] for stage in STAGES}
        scored: list[tuple[ChunkFrames, Logits]] = []
        for recording_id, own in self.chunks.groupby("recording_id", sort=True):
            for chunk in own.itertuples(index=False):
                self._stages_of(str(recording_id), chunk, takes, scored)
        _, took = timed(lambda: self._write(scored), self.device)
        takes["write"].append(took)
        return {stage: Took(sum(t.cpu_s for t in own), sum(t.wall_s for t in own)) for stage, own in takes.items()}

    def _stages_of(
        self, path: str, chunk: Any, takes: dict[str, list[Took]], scored: list[tuple[ChunkFrames, Logits]]
    ) -> None:
        """Decode, spectrogram and network of one chunk; the first of a recording comes with its band medians."""
        scorer, rate, begins = self.scorer, self.scorer.sample_rate, chunk.start_sample == 0

        def decode() -> tuple[AudioInfo, Stretch]:
            with AudioFile(self.root / path) as file:
                if begins:
                    wanted = scorer.profile_reads(file.info)
                    self._near = [Stretch(file.read_at_rate(a, b, rate), a, rate) for a, b in wanted]
                start, end = scorer.reads(scorer.frames(chunk.start_sample, chunk.end_sample, file.info), file.info)
                held = [s for s in self._near if s.start <= start and end <= s.start + len(s.samples)]
                return file.info, held[0] if held else Stretch(file.read_at_rate(start, end, rate), start, rate)

        (info, stretch), took = timed(decode, self.device)
        takes["decode"].append(took)
        frames = scorer.frames(chunk.start_sample, chunk.end_sample, info)
        if begins:
            self._profile, took = timed(lambda: self._medians(info), self.device)
            takes["spectrogram"].append(took)
        features, spectra = timed(lambda: self._spectra(stretch, frames, info), self.device)
        known = None if isinstance(scorer.frontend, WindowFrontend) else features
        logits, scoring = timed(lambda: scorer.score(stretch, frames, info, self._profile, known), self.device)
        again = Took(0.0, 0.0) if known is not None else spectra  # which the scoring of windows makes itself
        takes["spectrogram"].append(spectra)
        takes["network"].append(Took(scoring.cpu_s - again.cpu_s, scoring.wall_s - again.wall_s))
        scored.append((ChunkFrames(chunk.chunk_id, chunk.recording_id, frames.start, len(frames)), logits))

    def _medians(self, info: AudioInfo) -> torch.Tensor:
        return self.scorer.profile(self._near, info) if self._near else torch.zeros(0)

    def _spectra(self, stretch: Stretch, frames: FrameRange, info: AudioInfo) -> torch.Tensor:
        """What the network sees of a chunk; of windows the last batch, after all others."""
        scorer, frontend = self.scorer, self.scorer.frontend
        features = scorer.features(stretch, frames, info, self._profile)
        if isinstance(frontend, WindowFrontend):
            samples = torch.as_tensor(stretch.samples).to(self.device)
            step, more = scorer.batch * frontend.hop_samples, frontend.window_samples - frontend.hop_samples
            with torch.inference_mode():
                for start in range(0, len(samples) - more, step):
                    features = window_inputs(samples[start : start + step + more], frontend)
        return features

    def _write(self, scored: list[tuple[ChunkFrames, Logits]]) -> None:
        card = self.row.card
        with tempfile.TemporaryDirectory() as name:
            with ShardParts(Path(name), "0", card.classes, card.frontend.hop_s) as parts:
                for chunk, logits in scored:
                    item = {"chunk_id": chunk.chunk_id, "recording_id": chunk.recording_id}
                    parts.add(item, chunk.first_frame, logits)
            with ScoreWriter(Path(name, "scores.parquet"), card.classes, card.frontend.hop_s) as writer:
                parts.copy_into(writer, [chunk for chunk, _ in scored])


def measured(job: Job, *, repeats: int, long_s: float) -> dict[str, Any]:
    """Return what a job takes, whole and by stages, as multiples of real time and shares."""
    runs = [job.stages()]  # first, for what is only done once then counts for no stage that is measured again
    again = 1 if sum(took.cpu_s for took in runs[0].values()) > long_s else repeats
    runs += [job.stages() for _ in range(again - 1)]
    whole = [job.end_to_end() for _ in range(again)]
    end = medians([took for took, _ in whole])
    shares = {stage: statistics.median(own[stage] for _, own in whole) for stage in STAGES}
    shares["rest"] = 1 - sum(shares[s] for s in STAGES if job.counts_cpu or s != "decode")  # which others wait for
    stages = {stage: medians([run[stage] for run in runs]) for stage in STAGES}
    seconds = {s: (t.cpu_s if job.counts_cpu else t.wall_s) for s, t in stages.items()}
    busy_s = max(seconds["network"], 1e-9)
    return {
        "about": str(getattr(job.scorer, "about", "")),
        "repeats": again,
        "audio_s": job.audio_s,
        "cpu_s": end.cpu_s,
        "wall_s": end.wall_s,
        "x_real_time_per_core": job.audio_s / end.cpu_s,
        "x_real_time_wall": job.audio_s / end.wall_s,
        "stage_cpu_s": {s: t.cpu_s for s, t in stages.items()},
        "stage_wall_s": {s: t.wall_s for s, t in stages.items()},
        "x_real_time_of_stage": {s: job.audio_s / max(v, 1e-9) for s, v in seconds.items()},
        "shares": shares,
        "bound": max(shares, key=lambda stage: shares[stage]),
        "network_gflop_per_s": 2 * job.row.multiplications_per_s * job.audio_s / busy_s / 1e9,
    }


def window_loop(row: Row, wav: Path, seconds: float) -> dict[str, Any]:
    """Return what a plain loop takes: read a window, its spectrogram, the network, and a row of CSV; one at a time."""
    frontend = row.card.frontend
    assert isinstance(frontend, WindowFrontend)
    network, lines = row.network.to("cpu"), ["start_s,logit\n"]

    def loop() -> None:
        with soundfile.SoundFile(wav) as file, torch.inference_mode():
            last = min(file.frames, round(seconds * file.samplerate)) - frontend.window_samples
            for start in range(0, last + 1, frontend.hop_samples):
                file.seek(start)
                samples = torch.from_numpy(file.read(frontend.window_samples, dtype="float32"))
                outputs = network(window_inputs(samples, frontend))[0]
                lines.append(f"{start / file.samplerate:.3f},{float(outputs[1] - outputs[0]):.6f}\n")

    _, took = timed(loop, torch.device("cpu"))
    return _plain(seconds, took) | {"windows": len(lines) - 1}


def opensoundscape(python: str, wav: Path, *, threads: int, repeats: int, device: str) -> dict[str, Any]:
    """Return what OpenSoundscape takes for the same windows, with and without the max pooling of its network."""
    found = {}
    for pooled in (1, 0):
        command = [python, str(Path(__file__).with_name("opensoundscape_predict.py")), str(wav)]
        command += ["--threads", str(threads), "--repeats", str(repeats), "--max-pool", str(pooled)]
        command += ["--device", device]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        run = json.loads(done.stdout.splitlines()[-1])
        name = f"OpenSoundscape {run['opensoundscape']}, resnet18{', max pooling' if pooled else ''}, float32"
        found[name] = run | _plain(run["audio_s"], Took(run["cpu_s"], run["wall_s"]))
    return found


def _plain(audio_s: float, took: Took) -> dict[str, Any]:
    return {
        "audio_s": audio_s,
        "cpu_s": took.cpu_s,
        "wall_s": took.wall_s,
        "x_real_time_per_core": audio_s / took.cpu_s,
        "x_real_time_wall": audio_s / took.wall_s,
    }


def many_files(name: str, folder: Path, files: int, device: torch.device, *, repeats: int) -> dict[str, Any]:
    """Return what so many files of one second take in one job."""
    folder.mkdir()
    job = Job(rows()[name](), folder, make_short_files(folder, files), device, readers=1)
    found = measured(job, repeats=repeats, long_s=float("inf"))
    outside = 1 - sum(found["shares"][stage] for stage in ("decode", "spectrogram", "network"))
    return found | {"model": name, "files": files, "share_outside": outside}


def long_recording(name: str, folder: Path, hours: float, device: str, threads: int) -> dict[str, Any]:
    """Return what a recording of so many hours takes in a process of its own, and the memory at its peak."""
    folder.mkdir()
    make_silent_day(folder / "day.wav", hours)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_score_long, (name, folder, device, threads)) | {"model": name, "hours": hours}


def _score_long(name: str, folder: Path, device: str, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    job = Job(rows()[name](), folder, recordings_of([folder / "day.wav"]), torch.device(device), readers=1)
    before = _peak_mb()
    took, _ = job.end_to_end()
    return _plain(job.audio_s, took) | {"peak_mb": _peak_mb(), "peak_mb_before": before}


def _peak_mb() -> float:
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def surroundings(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return on what and with what it is measured."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    packages = ("otus", "torch", "numpy", "soundfile", "pyarrow", "soxr")
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "threads": options.threads,
        "readers": options.readers,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def measure(options: argparse.Namespace, folder: Path, device: torch.device) -> dict[str, Any]:
    """Return everything that was asked for."""
    found: dict[str, Any] = {"surroundings": surroundings(options, device), "rows": [], "others": {}}
    wav, flac = make_recordings(folder, options.seconds)
    wanted = [name for name in rows() if any(name.startswith(start) for start in options.rows or [""])]
    files = {"WAV": recordings_of([wav]), "FLAC": recordings_of([flac])}
    for name in wanted:
        for kind in ("WAV", "FLAC") if name.startswith(("tcn, 50 ms, 1", "no network")) else ("WAV",):
            job = Job(rows()[name](), folder, files[kind], device, readers=options.readers)
            took = measured(job, repeats=options.repeats, long_s=options.long)
            found["rows"].append({"model": name, "file": kind} | took)
            print(f"{name}, {kind}: {took['x_real_time_per_core']:.1f} x real time per core", file=sys.stderr)
    if any(name.startswith("resnet18") for name in wanted):
        first = rows()[full_name("resnet18, spectra every 1024, float32")]()
        name = "plain loop over the windows, " + first.name
        found["others"][name] = window_loop(first, wav, min(options.seconds, options.excerpt))
    if options.opensoundscape:
        excerpt = folder / "excerpt.wav"
        samples, rate = soundfile.read(wav, stop=options.excerpt * 48_000, dtype="int16")
        soundfile.write(excerpt, samples, rate, subtype="PCM_16")
        again = {"threads": options.threads, "repeats": options.repeats, "device": device.type}
        found["others"] |= opensoundscape(options.opensoundscape, excerpt, **again)
    if options.many:
        found["many"] = many_files(
            full_name("tcn, 10 ms, 2"), folder / "many", options.many, device, repeats=options.repeats
        )
    if options.day:
        model = full_name("tcn, 50 ms, 1")
        found["day"] = long_recording(model, folder / "day", options.day, device.type, options.threads)
    return found


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="length of the recording")
    parser.add_argument("--excerpt", type=int, default=60, help="seconds for the plain loop and for OpenSoundscape")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", type=float, default=60.0, help="CPU seconds from which a row is run only once")
    parser.add_argument("--rows", nargs="+", help="beginnings of the names of the models (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the network")
    parser.add_argument("--readers", type=int, default=1, help="threads that read ahead of it")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--opensoundscape", metavar="PYTHON", help="interpreter that has OpenSoundscape")
    parser.add_argument("--many", type=int, nargs="?", const=2000, help="also so many files of 1 s (2000)")
    parser.add_argument("--day", type=float, nargs="?", const=24.0, help="also a recording of so many hours (24)")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--markdown", type=Path, help="write the tables there instead of printing them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        found = measure(options, Path(name), torch.device(options.device))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    text = as_markdown(found)
    if options.markdown:
        options.markdown.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
