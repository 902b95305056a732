"""Whether sound files can be read: a short tone is written in each format and read back; and the resampler."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from otus.doctor.report import Finding, Status

#: Format -> whether Otus cannot do without it. MP3 came to libsndfile with 1.1.
FORMATS = {"WAV": True, "FLAC": True, "OGG": False, "MP3": False}
_RATE = 22050
_REMEDY = "install soundfile again from requirements.lock (its wheels bring libsndfile 1.2)"


def decoder_findings() -> Iterator[Finding]:
    """Yield one finding on libsndfile and one on soxr."""
    yield _decoders()
    yield _resampler()


def _decoders() -> Finding:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there and libsndfile is not
        return Finding("decoders", "missing", f"soundfile cannot be imported: {error}", _REMEDY)
    version = soundfile.__libsndfile_version__
    good, bad = [], {}
    with tempfile.TemporaryDirectory(prefix="otus-doctor-") as folder:
        for name in FORMATS:
            if problem := _round_trip(soundfile, name, Path(folder, f"tone.{name.lower()}")):
                bad[name] = problem
            else:
                good.append(name)
    text = f"libsndfile {version} reads {', '.join(good) or 'nothing'}"
    if bad:
        status: Status = "missing" if any(FORMATS[name] for name in bad) else "warning"
        failures = "; ".join(f"{name}: {problem}" for name, problem in bad.items())
        return Finding("decoders", status, f"{text}, but not {failures}", _REMEDY)
    return Finding("decoders", "ok", text)


def _round_trip(soundfile: Any, name: str, path: Path) -> str:
    """Return what went wrong when a tone of one second was written and read back, or nothing."""
    import numpy as np

    if name not in soundfile.available_formats():
        return "this libsndfile was built without it"
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(_RATE) / _RATE)
    try:
        soundfile.write(path, tone, _RATE, format=name)
        heard, rate = soundfile.read(path)
    except (RuntimeError, OSError, ValueError) as error:
        return str(error)
    if rate != _RATE or abs(len(heard) - _RATE) > 0.2 * _RATE:  # MP3 may add silence at the ends
        return f"{len(heard)} samples at {rate} Hz were read where {_RATE} at {_RATE} Hz were written"
    level = float(np.sqrt(np.mean(heard**2)))
    return "" if 0.25 < level < 0.5 else f"the tone came back with a level of {level:.3f} where 0.354 was written"


def _resampler() -> Finding:
    try:
        import numpy as np
        import soxr

        n = len(soxr.resample(np.zeros(48000, dtype=np.float32), 48000, 24000))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return Finding("resampler", "missing", f"soxr does not work: {error}", "install soxr from requirements.lock")
    if n != 24000:
        text = f"soxr {soxr.__version__} makes {n} samples of 48000 where 24000 are right"
        return Finding("resampler", "missing", text, "install soxr from requirements.lock")
    return Finding("resampler", "ok", f"soxr {soxr.__version__}")
