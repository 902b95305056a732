"""The clips that soundscapes are made of: which there are, to which part they belong, and what in them is used."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from otus import audio
from otus.audio import AudioInfo, Samples
from otus.config import CorpusSettings, SoundscapeSettings
from otus.errors import DataError
from otus.fingerprint import select_files, walk
from otus.soundscapes.gating import FRAME_S, SILENCE, Loudness, frame_length, loud_stretches, measure

#: Background clips are used in pieces of at most this length, so that none has to be in memory as a whole.
LONGEST_PIECE_S = 20.0

#: A background has no pause longer than this, such as the end of a clip that is faded out: what lies so far (dB) below
#: the median level of its sound.
_LONGEST_PAUSE_S, _PAUSE_DB = 0.05, 30.0

_BLOCK_FRAMES = 4000
_REPORT_EVERY_S = 10.0


@dataclass(frozen=True)
class Cut:
    """Samples [start, end) of a clip, counted at the soundscapes' rate; `mean` is that of the whole clip."""

    path: str
    start: int
    end: int
    mean: float
    info: AudioInfo

    @property
    def n_samples(self) -> int:
        """Length at the soundscapes' rate."""
        return self.end - self.start

    def source_samples(self, sample_rate: int) -> tuple[int, int]:
        """Return [start, end) counted at the clip's own rate; the cut counts at `sample_rate`."""
        rate = self.info.sample_rate
        return self.start * rate // sample_rate, min(-(-self.end * rate // sample_rate), self.info.n_samples)


@dataclass(frozen=True)
class Sound:
    """One kind of event: how often it is heard, and the events found in each of its clips (one or more)."""

    label: str
    rate_per_min: float
    clips: tuple[tuple[Cut, ...], ...]


@dataclass(frozen=True)
class Part:
    """What the soundscapes of one part are made of; the name is empty where there is only one part."""

    name: str
    sounds: tuple[Sound, ...]
    backgrounds: tuple[Cut, ...]


@dataclass(frozen=True)
class Clip:
    """A file that is used: as background (`label` is None) or for its `cuts`, events of `label`."""

    path: str
    part: str
    sound: str | None
    label: str | None
    sha256: str
    info: AudioInfo
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class Catalogue:
    """All parts in order of name, the clips in use, and what is not used: (path or part, reason)."""

    parts: tuple[Part, ...]
    clips: tuple[Clip, ...]
    skipped: tuple[tuple[str, str], ...]
    skipped_parts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Named:
    """A file that a glob matches: as a sound of events, or as background (None)."""

    path: str
    part: str
    sound: str | None


def catalogue_of(settings: SoundscapeSettings, *, workers: int, progress: Callable[[str], None]) -> Catalogue:
    """Return what can be used of the clips that the settings name; every file is decoded once, by `workers` threads.

    Raises DataError if the folder or the files of a glob are missing, if one file is matched for two purposes, or if
    no part has events and background.
    """
    named, skipped = _named_clips(settings)
    progress(f"{len(named)} clips in {settings.clips}")
    clips: list[Clip] = []
    first_of: dict[str, str] = {}
    reported = time.monotonic()
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for item, found in zip(named, pool.map(lambda n: _look_into(n, settings), named), strict=True):
            if isinstance(found, str):
                skipped.append((item.path, found))
            elif found.sha256 in first_of:
                skipped.append((item.path, f"is a copy of {first_of[found.sha256]}, which is used"))
            else:
                first_of[found.sha256] = item.path
                clips.append(found)
            if time.monotonic() - reported >= _REPORT_EVERY_S:
                reported = time.monotonic()
                progress(f"looked into {len(clips) + len(skipped)} of {len(named)} clips")
    skipped.sort()
    parts, skipped_parts, notes = _assemble(clips, sorted({item.part for item in named}), settings)
    if not parts:
        why = "; ".join(f"{_called(part)} {reason}" for part, reason in skipped_parts) or "no clip belongs to a part"
        example = (
            f"; {len(skipped)} clips cannot be used, the first: {skipped[0][0]} {skipped[0][1]}" if skipped else ""
        )
        raise DataError(f"{settings.clips}: no soundscape can be built: {why}{example}.")
    return Catalogue(parts, tuple(clips), tuple(skipped), skipped_parts, notes)


def _named_clips(settings: SoundscapeSettings) -> tuple[list[_Named], list[tuple[str, str]]]:
    """The files that the globs match, in order of path, and those whose name is of no use."""
    root = Path(settings.clips)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"corpus.soundscapes.clips: {root} {what}; set it to the folder of the clips.")
    files = walk(root)
    purposes: dict[str, tuple[str | None, str]] = {
        f"events.{name}.files": (name, source.files) for name, source in settings.events.items()
    }
    purposes |= {f"backgrounds[{i}]": (None, glob) for i, glob in enumerate(settings.backgrounds)}
    owners: dict[str, tuple[str, str | None]] = {}
    for key, (sound, glob) in purposes.items():
        matched = select_files(files, CorpusSettings(root=settings.clips, recordings=[glob])).audio
        if not matched:
            raise DataError(f"corpus.soundscapes.{key}: no audio file below {root} matches '{glob}'; correct the glob.")
        for file in matched:
            owner = owners.setdefault(file.path, (key, sound))
            if owner[1] != sound:
                raise DataError(
                    f"corpus.soundscapes: {file.path} is matched by {owner[0]} and by {key}; "
                    "make the globs exclude each other."
                )
    named, skipped = [], []
    for path, (_, sound) in sorted(owners.items()):
        part, reason = _part_of(path, settings.part)
        if reason:
            skipped.append((path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), reason))
        else:
            named.append(_Named(path, part, sound))
    return named, skipped


def _part_of(path: str, pattern: str | None) -> tuple[str, str]:
    """The part that a path names, or the reason why the clip cannot be used."""
    if any("\ud800" <= character <= "\udfff" for character in path):
        return "", "has a name that is not valid UTF-8; rename the file"
    if pattern is None:
        return "", ""
    match = re.search(pattern, path)
    part = match["part"] if match else None
    if not part:
        return "", "names no part (corpus.soundscapes.part)"
    if not re.fullmatch(r"\w[\w-]{0,59}", part):
        return "", f"names the part '{part}', which cannot be the name of a folder (use letters, digits, - and _)"
    return part, ""


def _look_into(named: _Named, settings: SoundscapeSettings) -> Clip | str:
    """What can be used of one file, or the reason why nothing can."""
    full = Path(settings.clips, named.path)
    try:
        info = audio.inspect(full)
        digest = audio.sha256(full)
        loudness = measure(_blocks(full, info, settings.sample_rate), settings.sample_rate)
    except DataError as problem:
        return str(problem).removeprefix(f"{full}: ").rstrip(".")
    except OSError as problem:
        return f"cannot be read ({problem.strerror})"
    if not np.isfinite(loudness.levels).all():
        return "holds samples that are no numbers"
    if loudness.levels.max(initial=0.0) < SILENCE:
        return f"is silent at {settings.sample_rate} Hz"
    spans = (_pieces if named.sound is None else _events)(loudness, settings)
    if isinstance(spans, str):
        return spans
    cuts = tuple(Cut(named.path, start, end, loudness.mean, info) for start, end in spans)
    source = settings.events.get(named.sound) if named.sound else None
    label = (source.label or named.sound) if source else None
    return Clip(named.path, named.part, named.sound, label, digest, info, cuts)


def _blocks(path: Path, info: AudioInfo, sample_rate: int) -> Iterator[Samples]:
    """The whole clip at `sample_rate`, in blocks of whole frames."""
    total = audio.resampled_length(info.n_samples, info.sample_rate, sample_rate)
    step = _BLOCK_FRAMES * frame_length(sample_rate)
    for start in range(0, total, step):
        yield audio.read_at_rate(path, start, start + step, sample_rate, info)


def _events(loudness: Loudness, settings: SoundscapeSettings) -> list[tuple[int, int]] | str:
    """The samples of the events of a clip, or the reason why it has none."""
    threshold = max(loudness.levels.max() * 10.0 ** (-settings.gate_db / 20.0), SILENCE)
    found = [
        loudness.span(*frames)
        for frames in loud_stretches(loudness.levels, threshold, round(settings.gate_gap_s / FRAME_S))
    ]
    rate = settings.sample_rate
    spans = [span for span in found if settings.min_event_s <= (span[1] - span[0]) / rate <= settings.max_event_s]
    if spans:
        return spans
    lengths = ", ".join(f"{(end - start) / rate:.2f}" for start, end in found[:3]) + (", ..." if found[3:] else "")
    return (
        f"holds no event of {settings.min_event_s:g} to {settings.max_event_s:g} s: what lies within "
        f"{settings.gate_db:g} dB of its loudest moment lasts {lengths} s"
    )


def _pieces(loudness: Loudness, settings: SoundscapeSettings) -> list[tuple[int, int]] | str:
    """The samples of the pieces of a background clip, without pauses and none too short for its crossfades."""
    rate = settings.sample_rate
    shortest = 2 * max(1, round(settings.crossfade_s * rate))
    longest = max(round(LONGEST_PIECE_S * rate), 2 * shortest)
    usual = float(np.median(loudness.levels[loudness.levels >= SILENCE]))
    threshold = max(usual * 10.0 ** (-_PAUSE_DB / 20.0), SILENCE)
    pieces = []
    for frames in loud_stretches(loudness.levels, threshold, round(_LONGEST_PAUSE_S / FRAME_S)):
        start, end = loudness.span(*frames)
        count = -(-(end - start) // longest)
        edges = [start + (end - start) * i // count for i in range(count + 1)]
        pieces += [(a, b) for a, b in pairwise(edges) if b - a >= shortest]
    return pieces or f"holds no background of {shortest / rate:g} s (two crossfades) without a pause"


def _assemble(
    clips: Sequence[Clip], names: Sequence[str], settings: SoundscapeSettings
) -> tuple[tuple[Part, ...], tuple[tuple[str, str], ...], tuple[str, ...]]:
    """The parts that can be built, those that cannot with the reason, and what a person should know."""
    parts, skipped, notes = [], [], []
    for name in names:
        own = [clip for clip in clips if clip.part == name]
        sounds = []
        for key, source in sorted(settings.events.items()):
            of_sound = tuple(clip.cuts for clip in own if clip.sound == key)
            if of_sound:
                sounds.append(Sound(source.label or key, source.rate_per_min, of_sound))
            else:
                notes.append(f"{_called(name)} has no usable clip of '{key}'")
        backgrounds = tuple(cut for clip in own if clip.sound is None for cut in clip.cuts)
        if sounds and backgrounds:
            parts.append(Part(name, tuple(sounds), backgrounds))
        else:
            skipped.append((name, f"has no usable {'clip of any event' if not sounds else 'background clip'}"))
    low = Counter(clip.info.sample_rate for clip in clips if clip.info.sample_rate < settings.sample_rate)
    for rate, count in sorted(low.items()):
        notes.append(f"{count} clips have {rate} Hz only: above {rate / 2:g} Hz they add nothing to the soundscapes")
    _check_distinct([part.name for part in parts])
    return tuple(parts), tuple(skipped), tuple(notes)


def _check_distinct(names: Sequence[str]) -> None:
    """Raise DataError if two parts would share a folder on a disk that does not tell case apart."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(
                f"corpus.soundscapes.part: the parts '{other}' and '{name}' differ only in case; rename the clips "
                "of one of them."
            )


def _called(part: str) -> str:
    """How a part is named to a person."""
    return f"part {part}" if part else "the set of clips"
