"""How much audio and how many calls a corpus holds: from its inventory, or guessed from file sizes before there is one.

Light and quick: it runs while Snakemake is parsed, also for 20,000 recordings. No audio is decoded.
"""

import contextlib
import csv
import math
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from otus.config import CorpusSettings, SoundscapeSettings
from otus.errors import DataError
from otus.fingerprint import CorpusFiles, FoundFile, seen_files

#: Without an inventory: bytes a second of files that do not say. PCM: 48 kHz, mono, 16 bit; flac saves nearly half of
#: that; the others have 128 kbit/s.
_PCM_BYTES_PER_S = 96_000.0
_BYTES_PER_S = {".flac": 53_000.0, ".mp3": 16_000.0, ".ogg": 16_000.0, ".oga": 16_000.0, ".opus": 16_000.0}
_SAMPLE_RATE = 48_000

#: Files whose headers are looked into.
_LOOKED_INTO = 5

#: Without an inventory: a row of an annotation file has about so many bytes, whatever its label.
_BYTES_PER_ROW = 80

#: The demo corpus holds about so many calls of its target an hour, of this many rows; see otus.demo.
_DEMO_CALLS_PER_H, _DEMO_ROWS_PER_H, _DEMO_SAMPLE_RATE, _DEMO_SHORT_CALL_S = 440.0, 700.0, 24_000, 0.3


@dataclass(frozen=True)
class CorpusSize:
    """What the time and the memory of jobs depend on.

    `recordings` and `hours` count what can be read, `labelled_hours` what is trained, scored and judged on; `rows`
    are all annotations, `calls` those of the target labels. `short_call_s` is the 10 % quantile of their durations
    (None = unknown). `counted` tells an inventory from a guess.
    """

    recordings: int
    hours: float
    labelled_hours: float
    longest_h: float
    sample_rate: int
    rows: int
    calls: int
    short_call_s: float | None
    counted: bool


#: The folds of ESC-10, as good a guess as any.
_PARTS = 5

#: A corpus of which nothing is known, because its folder is not there.
UNKNOWN = CorpusSize(0, 0.0, 0.0, 0.0, _SAMPLE_RATE, 0, 0, None, False)


def corpus_size(inventory: Path | None, settings: CorpusSettings) -> CorpusSize:
    """Return the size of the corpus: counted from the tables in the folder `inventory`, or guessed without any.

    The guess for a demo corpus comes from its settings, any other from the sizes of the files below the root.
    Never raises for what is on disk: without a root there is nothing to guess from, and the result is UNKNOWN.
    """
    if inventory is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, csv.Error):
            return _counted(inventory, settings.targets)
    if settings.demo is not None:
        hours = settings.demo.recordings * settings.demo.duration_s / 3600
        return CorpusSize(
            recordings=settings.demo.recordings,
            hours=hours,
            labelled_hours=hours,
            longest_h=settings.demo.duration_s / 3600,
            sample_rate=_DEMO_SAMPLE_RATE,
            rows=round(_DEMO_ROWS_PER_H * hours),
            calls=round(_DEMO_CALLS_PER_H * hours),
            short_call_s=_DEMO_SHORT_CALL_S,
            counted=False,
        )
    if settings.soundscapes is not None:
        return _of_soundscapes(settings.soundscapes, settings.targets)
    try:
        root = Path(settings.root)
        return _guessed(root, seen_files(root, settings), settings.unlabelled)
    except (DataError, OSError):
        return UNKNOWN


def _of_soundscapes(settings: SoundscapeSettings, targets: Collection[str]) -> CorpusSize:
    """What will be built, if the clips come in a usual number of parts."""
    recordings = settings.recordings_per_part * (_PARTS if settings.part else 1)
    hours = recordings * settings.duration_s / 3600
    rates = {event.label or name: event.rate_per_min for name, event in settings.events.items()}
    return CorpusSize(
        recordings=recordings,
        hours=hours,
        labelled_hours=hours,
        longest_h=settings.duration_s / 3600,
        sample_rate=settings.sample_rate,
        rows=round(60 * hours * sum(rates.values())),
        calls=round(60 * hours * sum(rate for label, rate in rates.items() if label in targets)),
        short_call_s=None,
        counted=False,
    )


def _counted(inventory: Path, targets: Collection[str]) -> CorpusSize:
    """Count the CSV tables of an inventory; raises OSError, KeyError or ValueError if they are not as expected."""
    hours = labelled_hours = longest_h = 0.0
    rates: list[int] = []
    for readable, labelled, duration_s, rate in _columns(
        inventory / "recordings.csv", ("readable", "labelled", "duration_s", "sample_rate")
    ):
        if readable != "True":
            continue
        this_h = _quantity(duration_s) / 3600
        hours, longest_h = hours + this_h, max(longest_h, this_h)
        labelled_hours += this_h if labelled == "True" else 0.0
        rates.append(int(rate))
    rows, durations_s = 0, []
    for label, start_s, end_s in _columns(inventory / "annotations.csv", ("label", "start_s", "end_s")):
        rows += 1
        if label in targets:
            durations_s.append(_quantity(end_s) - _quantity(start_s))
    durations_s.sort()
    return CorpusSize(
        recordings=len(rates),
        hours=hours,
        labelled_hours=labelled_hours,
        longest_h=longest_h,
        sample_rate=max(rates),
        rows=rows,
        calls=len(durations_s),
        short_call_s=durations_s[len(durations_s) // 10] if durations_s else None,
        counted=True,
    )


def _quantity(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(f"{text} is no length")
    return value


def _columns(path: Path, names: Sequence[str]) -> Iterator[list[str]]:
    """The cells of some columns, row by row."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        try:
            places = [header.index(name) for name in names]
            for row in rows:
                yield [row[place] for place in places]
        except IndexError as error:
            raise ValueError(f"{path}: a row is too short") from error


def _guessed(root: Path, files: CorpusFiles, unlabelled: str) -> CorpusSize:
    """Guess from file sizes; a handful of WAV headers, that of the largest file among them, give the bytes a second."""
    if not files.audio:
        return UNKNOWN
    by_size = sorted(files.audio, key=lambda file: file.size)
    last = len(by_size) - 1
    sample = [by_size[round(i * last / (_LOOKED_INTO - 1))] for i in range(_LOOKED_INTO)]
    formats = [found for found in (_wav_format(root / file.path) for file in sample) if found]
    bytes_per_s = sorted(b for b, _ in formats)[len(formats) // 2] if formats else _PCM_BYTES_PER_S
    hours = [file.size / 3600 / _BYTES_PER_S.get(_suffix(file), bytes_per_s) for file in files.audio]
    tables = [file for source in files.annotations for file in source]
    one_for_all = any(len(source) == 1 for source in files.annotations)
    all_used = one_for_all or unlabelled == "negative" or not tables
    share = 1.0 if all_used else min(1.0, len(tables) / len(files.audio))
    rows = sum(file.size for file in tables) // _BYTES_PER_ROW
    return CorpusSize(
        recordings=len(files.audio),
        hours=sum(hours),
        labelled_hours=share * sum(hours),
        longest_h=max(hours),
        sample_rate=max((rate for _, rate in formats), default=_SAMPLE_RATE),
        rows=rows,
        calls=rows,
        short_call_s=None,
        counted=False,
    )


def _suffix(file: FoundFile) -> str:
    return "." + file.path.rpartition(".")[2].lower()


def _wav_format(path: Path) -> tuple[float, int] | None:
    """Bytes a second and sample rate of a WAV file whose header begins as usual, else None."""
    try:
        with path.open("rb") as file:
            head = file.read(36)
    except OSError:
        return None
    if len(head) < 36 or head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
        return None
    rate, bytes_per_s = struct.unpack("<II", head[24:32])
    return (float(bytes_per_s), rate) if bytes_per_s and rate else None
