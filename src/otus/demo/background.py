"""What is heard when no animal calls: each function returns float samples from an rng, a rate and a length."""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfftfreq

Samples = NDArray[np.float64]

#: Below this frequency (Hz) coloured noise stays flat: microphones roll off where 1/f noise would explode.
_SHELF_HZ = 60.0


def coloured_noise(rng: np.random.Generator, sample_rate: int, n_samples: int, slope_db: float) -> Samples:
    """Return Gaussian noise of unit RMS whose density changes by `slope_db` per octave above 60 Hz."""
    frequencies = np.maximum(_frequencies(sample_rate, n_samples), _SHELF_HZ)
    return _shaped_noise(rng, n_samples, frequencies ** (slope_db / (20.0 * np.log10(2.0))))


def wind(rng: np.random.Generator, sample_rate: int, n_samples: int) -> Samples:
    """Return gusts: noise below a few hundred hertz (RMS near 1) under a slowly moving lognormal envelope."""
    corner_hz = rng.uniform(70.0, 180.0)
    frequencies = _frequencies(sample_rate, n_samples)
    rumble = _shaped_noise(rng, n_samples, 1.0 / (1.0 + (frequencies / corner_hz) ** 2) ** 1.25)
    return rumble * np.exp(0.9 * slow_curve(rng, sample_rate, n_samples, period_s=4.0) - 0.8)


def rain(rng: np.random.Generator, sample_rate: int, n_samples: int, drops_per_s: float) -> Samples:
    """Return rain: a broadband hiss (RMS near 0.5) and ringing drops, heavier and lighter by turns."""
    density = np.exp(0.5 * slow_curve(rng, sample_rate, n_samples, period_s=8.0))
    hiss = 0.5 * coloured_noise(rng, sample_rate, n_samples, 0.0) * np.sqrt(density)
    passed = np.cumsum(density)
    starts = np.searchsorted(passed, passed[-1] * rng.random(rng.poisson(drops_per_s * n_samples / sample_rate)))
    return _strew(rng, sample_rate, hiss, starts, (500.0, 9000.0), (0.0004, 0.004), loudness=1.0)


def clicks(rng: np.random.Generator, sample_rate: int, n_samples: int, per_minute: float) -> Samples:
    """Return sparse clicks (twigs, insects, handling) with peaks between about 1 and 20."""
    starts = rng.integers(0, n_samples, rng.poisson(per_minute * n_samples / sample_rate / 60.0))
    return _strew(rng, sample_rate, np.zeros(n_samples), starts, (250.0, 8000.0), (0.002, 0.02), loudness=1.5)


def insects(rng: np.random.Generator, sample_rate: int, n_samples: int, centre_hz: float) -> Samples:
    """Return a chorus: narrow-band noise of unit RMS around `centre_hz`, trilled at 8 to 20 Hz."""
    frequencies = _frequencies(sample_rate, n_samples)
    carrier = _shaped_noise(rng, n_samples, np.exp(-0.5 * ((frequencies - centre_hz) / (0.05 * centre_hz)) ** 2))
    phase = 2.0 * np.pi * rng.uniform(8.0, 20.0) * np.arange(n_samples) / sample_rate
    return carrier * (0.75 + 0.5 * np.sin(phase))


def drone(rng: np.random.Generator, sample_rate: int, n_samples: int) -> Samples:
    """Return an engine that passes: steady harmonics of 55 to 110 Hz (RMS below 1), fading in and out."""
    drift = 1.0 + 0.01 * slow_curve(rng, sample_rate, n_samples, period_s=6.0)
    phase = 2.0 * np.pi * np.cumsum(rng.uniform(55.0, 110.0) * drift) / sample_rate
    out = np.zeros(n_samples)
    for harmonic in range(1, 17):
        level = harmonic ** rng.uniform(-1.1, -0.5)
        out += level * np.sin(harmonic * phase + rng.uniform(0.0, 2.0 * np.pi))
    return out * np.hanning(n_samples) / 1.5


def slow_curve(rng: np.random.Generator, sample_rate: int, n_samples: int, period_s: float) -> Samples:
    """Return a smooth random curve with mean 0 and variance near 1 that turns about every `period_s` seconds."""
    knots = int(np.ceil(n_samples / sample_rate / period_s)) + 3
    positions = (np.arange(knots) - rng.random()) * period_s * sample_rate
    values = rng.standard_normal(knots)
    at = np.arange(n_samples)
    left = np.clip(np.searchsorted(positions, at, side="right") - 1, 0, knots - 2)
    share = (at - positions[left]) / (period_s * sample_rate)
    blend = 0.5 - 0.5 * np.cos(np.pi * share)
    return np.asarray(values[left] * (1.0 - blend) + values[left + 1] * blend)


def _strew(
    rng: np.random.Generator,
    sample_rate: int,
    bed: Samples,
    starts: NDArray[np.int64],
    band_hz: tuple[float, float],
    decay_s: tuple[float, float],
    loudness: float,
) -> Samples:
    """Return `bed` with a knock at every start: a damped, noisy sinusoid; the median peak is exp(loudness)."""
    out = bed.copy()
    for start in starts:
        frequency_hz, decay = np.exp(rng.uniform(*np.log([band_hz, decay_s]).T))
        times = np.arange(int(6.0 * decay * sample_rate) + 1) / sample_rate
        knock = np.sin(2.0 * np.pi * frequency_hz * times) + 0.4 * rng.standard_normal(len(times))
        knock *= np.exp(-times / decay) * rng.lognormal(loudness, 0.6)
        out[start : start + len(knock)] += knock[: len(out) - start]
    return out


def _frequencies(sample_rate: int, n_samples: int) -> Samples:
    return np.asarray(rfftfreq(next_fast_len(n_samples, real=True), 1.0 / sample_rate))


def _shaped_noise(rng: np.random.Generator, n_samples: int, response: Samples) -> Samples:
    """White noise drawn in the frequency domain times an amplitude response, scaled to unit RMS."""
    spectrum = rng.standard_normal(len(response)) + 1j * rng.standard_normal(len(response))
    noise: Samples = irfft(spectrum * response, next_fast_len(n_samples, real=True))[:n_samples]
    return np.asarray(noise / np.sqrt(np.mean(noise**2)))
