"""Writing WAV files: the same samples always give the same bytes, and a failure of the disk is told in one sentence."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from otus.errors import MissingPartError


@contextlib.contextmanager
def writing_wav(
    path: Path, *, sample_rate: int, channels: int, subtype: str, called: Path | None = None
) -> Iterator[soundfile.SoundFile]:
    """Yield a WAV file to write blocks to, whole once the context has ended.

    Raises MissingPartError, which names `called` (the file that `path` will become; `path` itself if not given), if the
    samples cannot be written.
    """
    form: dict[str, Any] = {"samplerate": sample_rate, "channels": channels, "subtype": subtype, "format": "WAV"}
    try:
        with soundfile.SoundFile(path, "w", **form) as out:
            yield out
    except soundfile.LibsndfileError as error:
        said = error.error_string.rstrip(". ")
        raise MissingPartError(
            f"{called or path}: the sound cannot be written ({said}); make room on the disk and start again."
        ) from error
    if subtype in ("FLOAT", "DOUBLE"):
        _without_date(path)


def _without_date(path: Path) -> None:
    """Set the time of writing, which libsndfile puts into the PEAK chunk of float files, to zero: the same bytes."""
    with path.open("r+b") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            if head[:4] == b"PEAK":
                file.seek(4, 1)
                file.write(bytes(4))
                return
            size = int.from_bytes(head[4:], "little")
            file.seek(size + size % 2, 1)
