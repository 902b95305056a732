"""What animals say: each function returns float samples of unit RMS from an rng and a rate; and what distance does."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft, rfftfreq
from scipy.signal import butter, fftconvolve, sosfilt

Samples = NDArray[np.float64]

_MAX_HARMONICS = 14


@dataclass(frozen=True)
class Voice:
    """How the callers of one site, or one of them, hum.

    `spread` is the standard deviation of the logarithm of the fundamental, and half of that of the duration;
    `rolloff_db` is the fall of the harmonics per octave; `contours` weighs rise, fall, arch and wobble.
    """

    fundamental_hz: float
    duration_s: float
    spread: float
    rolloff_db: float
    contours: tuple[float, float, float, float]


def individual(rng: np.random.Generator, voice: Voice) -> Voice:
    """Return one caller of a site: its own pitch, length and timbre, and less spread than the site has."""
    return replace(
        voice,
        fundamental_hz=float(np.clip(voice.fundamental_hz * rng.lognormal(0.0, voice.spread), 265.0, 660.0)),
        duration_s=float(np.clip(voice.duration_s * rng.lognormal(0.0, 2.0 * voice.spread), 0.17, 1.3)),
        rolloff_db=voice.rolloff_db + rng.uniform(-3.0, 3.0),
        spread=0.4 * voice.spread,
    )


def hum(rng: np.random.Generator, sample_rate: int, voice: Voice) -> Samples:
    """Return the target call: 0.15 to 1.5 s of smooth harmonics over 250 to 700 Hz with a moving pitch."""
    duration_s = float(np.clip(voice.duration_s * rng.lognormal(0.0, 2.0 * voice.spread), 0.15, 1.5))
    centre_hz = voice.fundamental_hz * rng.lognormal(0.0, 0.3 * voice.spread)
    kind = int(rng.choice(4, p=np.array(voice.contours) / sum(voice.contours)))
    moved = contour(rng, kind, round(duration_s * sample_rate)) * rng.uniform(0.08, 0.45)
    pitch_hz = np.clip(centre_hz * 2.0**moved, 250.0, 700.0)
    tone = harmonics(rng, sample_rate, pitch_hz, voice.rolloff_db)
    return unit_rms(tone * envelope(rng, len(tone)))


def growl(rng: np.random.Generator, sample_rate: int) -> Samples:
    """Return a confuser: a level hum in the target's band that comes in pulses, 6 to 12 a second."""
    n_samples = round(rng.uniform(0.35, 1.2) * sample_rate)
    moved = contour(rng, 1, n_samples) * rng.uniform(0.0, 0.1)
    tone = harmonics(rng, sample_rate, rng.uniform(260.0, 600.0) * 2.0**moved, rng.uniform(5.0, 11.0))
    beat = np.sin(2.0 * np.pi * rng.uniform(6.0, 12.0) * np.arange(n_samples) / sample_rate)
    return unit_rms(tone * (1.0 + rng.uniform(0.75, 0.97) * beat) * envelope(rng, n_samples))


def moan(rng: np.random.Generator, sample_rate: int) -> Samples:
    """Return a confuser: a hum an octave lower (120 to 200 Hz) that sags or stays, 0.3 to 1.4 s long."""
    n_samples = round(rng.uniform(0.3, 1.4) * sample_rate)
    moved = contour(rng, 1, n_samples) * rng.uniform(0.0, 0.25)
    tone = harmonics(rng, sample_rate, rng.uniform(125.0, 200.0) * 2.0**moved, rng.uniform(3.0, 8.0))
    return unit_rms(tone * envelope(rng, n_samples))


def whistle(rng: np.random.Generator, sample_rate: int) -> Samples:
    """Return a confuser: a whistle without harmonics between 300 and 1500 Hz, 0.15 to 1.0 s long."""
    n_samples = round(rng.uniform(0.15, 1.0) * sample_rate)
    centre_hz = np.exp(rng.uniform(np.log(320.0), np.log(1400.0)))
    moved = contour(rng, int(rng.integers(4)), n_samples) * rng.uniform(0.0, 0.3)
    phase = 2.0 * np.pi * np.cumsum(centre_hz * 2.0**moved) / sample_rate
    return unit_rms(np.sin(phase) * envelope(rng, n_samples))


def chirp(rng: np.random.Generator, sample_rate: int) -> Samples:
    """Return a confuser: one to four sweeps of 40 to 120 ms between 600 and 4000 Hz."""
    n_samples = round(rng.uniform(0.04, 0.12) * sample_rate)
    ends_hz = np.exp(rng.uniform(np.log(600.0), np.log(4000.0), 2))
    sweep_hz = np.geomspace(ends_hz[0], ends_hz[1], n_samples)
    note = np.sin(2.0 * np.pi * np.cumsum(sweep_hz) / sample_rate) * np.hanning(n_samples)
    pause = np.zeros(round(rng.uniform(0.03, 0.12) * sample_rate))
    return unit_rms(np.concatenate([note, *[pause, note] * int(rng.integers(4))]))


def bark(rng: np.random.Generator, sample_rate: int) -> Samples:
    """Return a confuser: a hoarse burst of 80 to 250 ms, noise over a falling fundamental."""
    n_samples = round(rng.uniform(0.08, 0.25) * sample_rate)
    pitch_hz = rng.uniform(180.0, 500.0) * 2.0 ** (0.4 * contour(rng, 1, n_samples))
    voiced = unit_rms(harmonics(rng, sample_rate, pitch_hz, rng.uniform(2.0, 6.0)))
    band = butter(2, np.sort(rng.uniform([300.0, 1200.0], [700.0, 3000.0])), "bandpass", fs=sample_rate, output="sos")
    hoarse = unit_rms(sosfilt(band, rng.standard_normal(n_samples)))
    return unit_rms((voiced + rng.uniform(1.0, 2.5) * hoarse) * envelope(rng, n_samples))


#: The confusers by name; a site weighs them.
CONFUSERS: dict[str, Callable[[np.random.Generator, int], Samples]] = {
    "growl": growl,
    "moan": moan,
    "whistle": whistle,
    "chirp": chirp,
    "bark": bark,
}


def contour(rng: np.random.Generator, kind: int, n_samples: int) -> Samples:
    """Return a pitch movement of about one unit: 0 rises, 1 falls, 2 arches, 3 wobbles."""
    x = np.linspace(0.0, 1.0, n_samples)
    bent = x ** rng.uniform(0.6, 1.7)
    if kind in (0, 1):
        return np.asarray((bent - 0.5) * (1.0 if kind == 0 else -1.0))
    if kind == 2:
        return np.asarray(4.0 * bent * (1.0 - bent) - 0.5)
    return np.asarray(0.5 * np.sin(2.0 * np.pi * (rng.uniform(1.2, 3.0) * bent + rng.random())))


def harmonics(rng: np.random.Generator, sample_rate: int, pitch_hz: Samples, rolloff_db: float) -> Samples:
    """Return a harmonic tone along `pitch_hz`, each partial `rolloff_db` per octave weaker, give or take 3 dB."""
    phase = 2.0 * np.pi * np.cumsum(pitch_hz) / sample_rate
    count = min(_MAX_HARMONICS, int(0.45 * sample_rate / pitch_hz.max()))
    orders = np.arange(1, count + 1)
    level_db = -rolloff_db * np.log2(orders) + rng.normal(0.0, 3.0, count)
    offsets = rng.uniform(0.0, 2.0 * np.pi, count)
    partials = np.sin(orders[:, None] * phase[None, :] + offsets[:, None])
    return np.asarray(10.0 ** (level_db / 20.0) @ partials)


def envelope(rng: np.random.Generator, n_samples: int) -> Samples:
    """Return a smooth loudness curve: a sine attack and release around a slightly swelling middle."""
    x = np.linspace(0.0, 1.0, n_samples)
    attack, release = rng.uniform(0.06, 0.25), rng.uniform(0.1, 0.35)
    ramps = np.sin(0.5 * np.pi * np.clip(x / attack, 0.0, 1.0)) * np.sin(0.5 * np.pi * np.clip((1 - x) / release, 0, 1))
    return np.asarray(ramps * (1.0 + 0.3 * np.sin(np.pi * (x * rng.uniform(0.5, 2.0) + rng.random()))))


def from_afar(rng: np.random.Generator, sample_rate: int, dry: Samples, remoteness: float) -> Samples:
    """Return a call as heard from `remoteness` 0 (beside the microphone) to 1 (barely): dull and smeared.

    The result keeps the RMS of the call over the call's own length and is longer than it by the echo.
    """
    muffle = butter(1, 9000.0 * 0.12**remoteness, fs=sample_rate, output="sos")
    decay_s = rng.uniform(0.05, 0.15)
    times = np.arange(round(4.0 * decay_s * sample_rate)) / sample_rate
    echo = rng.standard_normal(len(times)) * np.exp(-times / decay_s)
    echo *= 0.55 * remoteness / np.sqrt(np.sum(echo**2))
    echo[0] = 1.0
    wet: Samples = sosfilt(muffle, fftconvolve(dry, echo))
    return np.asarray(wet * np.sqrt(np.mean(dry**2) / np.mean(wet[: len(dry)] ** 2)))


def occupied_band(samples: Samples, sample_rate: int) -> tuple[float, float]:
    """Return the frequencies (Hz) below which 1 % and 99 % of the energy lie."""
    energy = np.cumsum(np.abs(rfft(samples)) ** 2)
    frequencies = rfftfreq(len(samples), 1.0 / sample_rate)
    low, high = np.searchsorted(energy, [0.01 * energy[-1], 0.99 * energy[-1]])
    return float(frequencies[low]), float(frequencies[high])


def band_power(samples: Samples, sample_rate: int, low_hz: float, high_hz: float) -> float:
    """Return the mean square of the part of `samples` between two frequencies (Parseval, without a taper)."""
    energy = np.abs(rfft(samples)) ** 2
    frequencies = rfftfreq(len(samples), 1.0 / sample_rate)
    inside = (frequencies >= low_hz) & (frequencies <= high_hz)
    return float(2.0 * energy[inside].sum() / len(samples) ** 2)


def unit_rms(samples: Samples) -> Samples:
    """Return the samples scaled to a root mean square of 1."""
    return np.asarray(samples / np.sqrt(np.mean(samples**2)))
