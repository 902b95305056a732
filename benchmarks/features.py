"""CPU time of the features of the forest: all selections of a recording at once, and librosa one by one.

    OMP_NUM_THREADS=1 python benchmarks/features.py

One recording of noise at 48 kHz, as WAV, FLAC, MP3 and Ogg Vorbis; selections of 0.2 to 2 s at random places; frames
of 2048 samples that overlap by half. `alpaca` and `all` are what settings `forest.features` offers, with reading.
`librosa` computes what `alpaca` does (the same measures from librosa.stft, MFCC and deltas from librosa.feature.mfcc
and librosa.feature.delta), selection by selection, each read from the file by soundfile. Medians of CPU seconds.
"""

import argparse
import importlib.metadata
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import soundfile

from otus import audio
from otus.forest.candidates import SHAPE_NAMES, candidate_features
from otus.forest.features import density_quantiles

RATE, N_FFT, HOP = 48_000, 2048, 1024
LOW_HZ, HIGH_HZ, N_MFCC = 500.0, 12_000.0, 13


def written(folder: Path, name: str, duration_s: int) -> pd.DataFrame:
    """Write a recording of noise and return its row of table recordings."""
    random = np.random.default_rng(0)
    with soundfile.SoundFile(folder / name, "w", RATE, 1) as file:
        for _ in range(duration_s):
            file.write(0.1 * random.normal(size=RATE))
    info = audio.inspect(folder / name)
    facts = {"n_samples": info.n_samples, "sample_rate": RATE, "channels": 1, "subtype": info.subtype}
    return pd.DataFrame([{"recording_id": "r", "path": name, **facts}])


def selections(number: int, duration_s: int) -> pd.DataFrame:
    """Return candidates at random places."""
    random = np.random.default_rng(1)
    start_s = np.sort(random.uniform(0, duration_s - 3, number))
    keys = {"recording_id": "r", "label": "call", "fold": 1, "split": "test", "score": 1.0}
    columns = {"start_s": start_s, "end_s": start_s + random.uniform(0.2, 2.0, number)}
    names = [f"s{n}" for n in range(number)]
    return pd.DataFrame({"selection_id": names, **columns, "peak_score": random.normal(size=number)}).assign(**keys)


def one_by_one(path: Path, candidates: pd.DataFrame) -> np.ndarray:
    """Return 11 robust measures and the statistics of MFCC of every selection, as the alpaca post-filter does."""
    frequencies = librosa.fft_frequencies(sr=RATE, n_fft=N_FFT)
    band = (frequencies >= LOW_HZ) & (frequencies <= HIGH_HZ)
    rows = []
    for start_s, end_s in zip(candidates["start_s"], candidates["end_s"], strict=True):
        samples, _ = soundfile.read(path, start=int(start_s * RATE), stop=int(end_s * RATE), dtype="float32")
        power = np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP))[band] ** 2
        times_s = librosa.frames_to_time(np.arange(power.shape[1]), sr=RATE, hop_length=HOP)
        spectrum = power.mean(axis=1)
        t5, t25, t75, t95 = density_quantiles(times_s, power.sum(axis=0), (0.05, 0.25, 0.75, 0.95))
        f5, f25, f50, f75, f95 = density_quantiles(frequencies[band], spectrum, (0.05, 0.25, 0.5, 0.75, 0.95))
        shares = np.column_stack([power / power.sum(axis=0), spectrum / spectrum.sum()])
        bits = -(shares * np.log2(np.maximum(shares, 1e-12))).sum(axis=0)
        robust = [t95 - t5, t75 - t25, f50, f5, f25, f75, f95, f75 - f25, f95 - f5, bits[:-1].mean(), bits[-1]]
        mfcc = librosa.feature.mfcc(y=samples, sr=RATE, n_mfcc=N_MFCC, n_fft=N_FFT, hop_length=HOP)
        deltas = [librosa.feature.delta(mfcc, order=order, mode="nearest") for order in (1, 2)]
        table = np.vstack([mfcc, *deltas])
        rows.append(np.concatenate([robust, table.mean(axis=1), table.std(axis=1, ddof=1)]))
    return np.array(rows)


def cpu_s(compute: Callable[[], object], repeats: int) -> float:
    """Return the median CPU time of a call after one to warm up."""
    compute()
    times_s = []
    for _ in range(repeats):
        began = time.process_time()
        compute()
        times_s.append(time.process_time() - began)
    return statistics.median(times_s)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--selections", type=int, default=200)
    parser.add_argument("--duration", type=int, default=300, help="of the recording in s")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    candidates = selections(arguments.selections, arguments.duration)
    shapes = pd.DataFrame({"selection_id": candidates["selection_id"], **dict.fromkeys(SHAPE_NAMES, 0.0)})
    band = {"n_mfcc": N_MFCC, "window_s": N_FFT / RATE, "low_hz": LOW_HZ, "high_hz": HIGH_HZ}
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy", "librosa", "soundfile")]
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {', '.join(versions)}")
    print(f"{arguments.selections} selections in {arguments.duration} s, median of {arguments.repeats}\n")
    print("| file | features | CPU seconds | selections per CPU second | times as fast as librosa |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in ("r.wav", "r.flac", "r.mp3", "r.ogg"):
            recordings = written(folder, path, arguments.duration)
            ways: dict[str, Callable[[], object]] = {
                "librosa": lambda path=path: one_by_one(folder / path, candidates),
                **{
                    kind: lambda kind=kind, recordings=recordings: candidate_features(
                        folder, candidates, shapes, recordings, features=kind, **band
                    )
                    for kind in ("alpaca", "all")
                },
            }
            taken = {way: cpu_s(compute, arguments.repeats) for way, compute in ways.items()}
            for way, seconds in taken.items():
                rate, ratio = arguments.selections / seconds, taken["librosa"] / seconds
                print(f"| {path[2:]} | {way} | {seconds:.3f} | {rate:.0f} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
