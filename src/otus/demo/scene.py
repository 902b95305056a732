"""One recording: the background of a site, calls and confusers at known times, and how loud each came out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from otus.demo import background, voices
from otus.demo.sites import Site

Samples = NDArray[np.float64]

TARGET = "hum"
CONFUSER = "other"

_FAINT_SHARE = 0.13
_BOUT_SHARE = 0.35
_EDGE_S = 0.3
_CALL_GAP_S = 0.5


@dataclass(frozen=True)
class Event:
    """A call in a recording: its true extent and its SNR in its own band against the background at that place."""

    label: str
    kind: str
    start_s: float
    end_s: float
    low_hz: float
    high_hz: float
    snr_db: float


@dataclass(frozen=True)
class Scene:
    """A finished recording: mono samples within [-1, 1] and the events in it, by start."""

    samples: Samples
    events: tuple[Event, ...]


@dataclass(frozen=True)
class _Planned:
    kind: str
    start_s: float
    dry: Samples


def compose(rng: np.random.Generator, sample_rate: int, duration_s: float, site: Site, *, calls: bool) -> Scene:
    """Return a recording of a site, with about eight target calls a minute, or none of them (20 kHz or more)."""
    n_samples = round(duration_s * sample_rate)
    noise = ambience(rng, sample_rate, n_samples, site)
    planned = _plan_calls(rng, sample_rate, duration_s, site) if calls else []
    planned += _plan_confusers(rng, sample_rate, duration_s, site)
    frequencies, density = welch(noise, sample_rate, nperseg=min(4096, n_samples), average="median")
    mix, events = noise.copy(), []
    for plan in planned:
        wanted_db = _wanted_snr_db(rng)
        remoteness = float(np.clip((13.0 - wanted_db) / 24.0 + rng.normal(0.0, 0.12), 0.0, 1.0))
        heard = voices.from_afar(rng, sample_rate, plan.dry, remoteness)
        low_hz, high_hz = voices.occupied_band(heard[: len(plan.dry)], sample_rate)
        usual_power = density[(frequencies >= low_hz - 6.0) & (frequencies <= high_hz + 6.0)].sum() * frequencies[1]
        call_power = voices.band_power(heard[: len(plan.dry)], sample_rate, low_hz, high_hz)
        heard *= np.sqrt(usual_power * 10.0 ** (wanted_db / 10.0) / call_power)
        start = round(plan.start_s * sample_rate)
        stop = min(n_samples, start + len(heard))
        mix[start:stop] += heard[: stop - start]
        there = noise[start : start + len(plan.dry)]
        here_db = 10.0 * np.log10(usual_power / voices.band_power(there, sample_rate, low_hz, high_hz))
        label = TARGET if plan.kind == TARGET else CONFUSER
        end_s = plan.start_s + len(plan.dry) / sample_rate
        events.append(Event(label, plan.kind, plan.start_s, end_s, low_hz, high_hz, wanted_db + float(here_db)))
    return Scene(np.clip(mix, -1.0, 1.0), tuple(sorted(events, key=lambda event: event.start_s)))


def ambience(rng: np.random.Generator, sample_rate: int, n_samples: int, site: Site) -> Samples:
    """Return the background of a site: noise, wind, insects, clicks and, by chance, rain or an engine."""
    level_db = rng.normal(0.0, 1.5, 4)
    slope_db = site.noise_slope_db + rng.normal(0.0, 0.4)
    out = background.coloured_noise(rng, sample_rate, n_samples, slope_db) * _amplitude(level_db[0])
    out += background.wind(rng, sample_rate, n_samples) * _amplitude(site.wind_db + 2.0 * level_db[1])
    out += background.insects(rng, sample_rate, n_samples, site.insects_hz) * _amplitude(site.insects_db + level_db[2])
    out += background.clicks(rng, sample_rate, n_samples, site.clicks_per_minute) * _amplitude(-8.0)
    if rng.random() < site.rain_share:
        drops_per_s = rng.uniform(20.0, 120.0)
        out += background.rain(rng, sample_rate, n_samples, drops_per_s) * _amplitude(site.rain_db + level_db[3])
    if rng.random() < site.drone_share:
        passing = rng.integers([0, n_samples // 2], [n_samples // 2, n_samples + 1])
        engine = background.drone(rng, sample_rate, int(passing[1] - passing[0]))
        out[passing[0] : passing[1]] += engine * _amplitude(rng.uniform(-9.0, -2.0))
    return out * _amplitude(site.noise_dbfs)


def _plan_calls(rng: np.random.Generator, sample_rate: int, duration_s: float, site: Site) -> list[_Planned]:
    """Target calls in bouts of one caller each; bouts never overlap, the silence is dealt out at random."""
    wanted = max(1, round(int(rng.integers(4, 13)) * duration_s / 60.0))
    bouts: list[list[tuple[float, Samples]]] = []  # offset within the bout, call
    spans: list[float] = []
    for _ in range(wanted):
        if bouts and rng.random() < _BOUT_SHARE and len(bouts[-1]) < 4:
            offset_s = spans[-1] + rng.uniform(0.1, 0.3)
        else:
            caller, offset_s = voices.individual(rng, site.voice), 0.0
            bouts.append([])
            spans.append(0.0)
        call = voices.hum(rng, sample_rate, caller)
        bouts[-1].append((offset_s, call))
        spans[-1] = offset_s + len(call) / sample_rate
    while sum(spans) + _CALL_GAP_S * len(spans) + 2.0 * _EDGE_S > duration_s:
        bouts.pop()
        spans.pop()
    slack_s = duration_s - sum(spans) - _CALL_GAP_S * len(spans) - 2.0 * _EDGE_S
    pauses_s = np.sort(rng.uniform(0.0, slack_s, len(bouts)))
    busy_s = np.concatenate([[0.0], np.cumsum(np.array(spans) + _CALL_GAP_S)])
    return [
        _Planned(TARGET, float(_EDGE_S + pauses_s[index] + busy_s[index] + offset_s), call)
        for index, bout in enumerate(bouts)
        for offset_s, call in bout
    ]


def _plan_confusers(rng: np.random.Generator, sample_rate: int, duration_s: float, site: Site) -> list[_Planned]:
    """Confusers at any time, also over calls and over each other."""
    kinds = list(site.confusers)
    weights = np.array(list(site.confusers.values()))
    plans = []
    for _ in range(rng.poisson(site.confusers_per_minute * duration_s / 60.0)):
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        dry = voices.CONFUSERS[kind](rng, sample_rate)
        latest_s = duration_s - len(dry) / sample_rate - _EDGE_S
        plans.append(_Planned(kind, float(rng.uniform(_EDGE_S, latest_s)), dry))
    return plans


def _wanted_snr_db(rng: np.random.Generator) -> float:
    """SNR against the usual background: mostly clear, some only just there."""
    if rng.random() < _FAINT_SHARE:
        return float(rng.uniform(-9.0, -4.5))
    return float(np.clip(rng.normal(5.5, 4.0), -3.0, 14.0))


def _amplitude(level_db: float) -> float:
    return float(10.0 ** (level_db / 20.0))
