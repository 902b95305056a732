"""Measure what long soundscapes take: memory, CPU time, multiple of real time.

    python benchmarks/soundscapes.py                                       24 h from made-up clips, FLAC and WAV
    python benchmarks/soundscapes.py --hours 48 --rate 96000 --format wav  one file of more than 4 GB
    python benchmarks/soundscapes.py --config config/soundscapes.yaml      from the clips of a config

Each file is built by `otus build-soundscapes` in a process of its own, looking through the clips included. CPU seconds
and memory are the system's own count at the end of that process. The made-up backgrounds are 100 minutes of noise,
which is more than a build keeps in memory. 24 h of FLAC need 2 GB of disk, of WAV 4 GB. Linux; about 6 minutes.
"""

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import yaml

CLIP_RATE = 44_100


def make_clips(folder: Path) -> None:
    """Write 60 clips of two chirps in digital silence, and 200 of noise, 30 s each."""
    rng = np.random.default_rng(1)
    for name in ("events", "noise"):
        (folder / name).mkdir()
    for n in range(60):
        clip = np.zeros(5 * CLIP_RATE)
        for start_s in (0.5, 2.5):
            times = np.arange(round(rng.uniform(0.1, 1.5) * CLIP_RATE)) / CLIP_RATE
            chirp = np.sin(2.0 * np.pi * (rng.uniform(500.0, 4000.0) + 300.0 * times) * times)
            clip[round(start_s * CLIP_RATE) :][: len(times)] = 0.5 * chirp
        soundfile.write(folder / "events" / f"{n:02d}.wav", clip, CLIP_RATE, subtype="PCM_16")
    for n in range(200):
        noise = rng.standard_normal(30 * CLIP_RATE) * 0.02
        soundfile.write(folder / "noise" / f"{n:03d}.wav", noise, CLIP_RATE, subtype="PCM_16")


def config_of(folder: Path, clips: Path) -> Path:
    """Write a config that builds soundscapes of the made-up clips; return its path."""
    soundscapes = {
        "clips": str(clips),
        "events": {"chirp": {"files": "events/*.wav", "rate_per_min": 10}},
        "backgrounds": ["noise/*.wav"],
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"corpus": {"root": "unused", "targets": ["chirp"], "soundscapes": soundscapes}}))
    return path


def build(configs: list[Path], folder: Path) -> tuple[float, float, float]:
    """Build soundscapes; return wall seconds, CPU seconds and peak memory (MB) of the process."""
    command = [sys.executable, "-m", "otus", "build-soundscapes", *map(str, configs), "-o", str(folder / "built")]
    with (folder / "output.txt").open("w") as file:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit((folder / "output.txt").read_text())
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Print one row per format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="config with corpus.soundscapes; its parts are put together")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--rate", type=int, default=22_050)
    parser.add_argument("--format", nargs="+", default=["flac", "wav"])
    options = parser.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("otus", "numpy", "soundfile"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    print("| file | hours | GB | events | wall s | CPU s | x real time | peak MB |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        clips = Path(name, "clips")
        clips.mkdir()
        if options.config is None:
            make_clips(clips)
        config = options.config or config_of(Path(name), clips)
        for suffix in options.format:
            folder = Path(name, suffix)
            folder.mkdir()
            long = {"part": None, "recordings_per_part": 1, "duration_s": options.hours * 3600}
            layer = {"corpus": {"soundscapes": long | {"sample_rate": options.rate, "format": suffix}}}
            (folder / "layer.yaml").write_text(yaml.safe_dump(layer))
            wall_s, cpu_s, peak_mb = build([config, folder / "layer.yaml"], folder)
            (file,) = folder.glob(f"built/*.{suffix}")
            events = len((folder / "built" / "events.csv").read_text().splitlines()) - 1
            size_gb, pace, kind = file.stat().st_size / 1e9, options.hours * 3600 / wall_s, soundfile.info(file).format
            print(
                f"| {kind} | {options.hours:g} | {size_gb:.2f} | {events} | {wall_s:.0f} | {cpu_s:.0f} | {pace:.0f} "
                f"| {peak_mb:.0f} |",
                flush=True,
            )
            file.unlink()


if __name__ == "__main__":
    main()
