"""The corpus of soundscapes on disk: recordings, their tables, events.csv and, last, corpus.json."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from otus.atomic import write_json, write_text
from otus.config import SoundscapeSettings
from otus.errors import DataError
from otus.fingerprint import AUDIO_SUFFIXES
from otus.seeds import derive_seed
from otus.soundscapes.background import lay_bed
from otus.soundscapes.listing import TITLE, Item, Made, counted, events_csv, index_of, readme, selection_table
from otus.soundscapes.pace import Pace
from otus.soundscapes.placement import place_events
from otus.soundscapes.rendering import Sounds, compose, write_recording
from otus.soundscapes.sounds import Shelf, background_piece, event_sound
from otus.soundscapes.sources import Catalogue, catalogue_of

#: Memory for decoded background pieces and for decoded events.
_PIECES_BYTES, _EVENTS_BYTES = 96 * 2**20, 48 * 2**20

#: So many clips that cannot be used are said aloud.
_LISTED = 20


def build_soundscapes(
    settings: SoundscapeSettings, folder: Path, *, workers: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Write the soundscapes to `folder` and return what its corpus.json holds.

    Recordings are made by `workers` threads; neither their number nor the order of directories changes a byte. Files
    of an earlier build are replaced; nothing is deleted. Raises DataError if no soundscape can be built, or if the
    folder holds anything that is no part of this corpus.
    """
    _check_folder(folder, Path(settings.clips))
    catalogue = catalogue_of(settings, workers=workers, progress=progress)
    for line in _shortcomings(catalogue):
        progress(line)
    items = _layout(catalogue, settings)
    _check_strangers(folder, items)
    mark = folder / "corpus.json"
    mark.unlink(missing_ok=True)
    write_text(folder / "README.txt", readme(settings, len(items)))
    made = _make_all(items, settings, folder, workers, progress)
    write_text(folder / "events.csv", events_csv(made, settings.sample_rate))
    index = index_of(made, catalogue, settings)
    write_json(mark, index)
    return index


def _shortcomings(catalogue: Catalogue) -> list[str]:
    """What a person should know about the clips."""
    lines = [f"not used: {path} {reason}" for path, reason in catalogue.skipped[:_LISTED]]
    if len(catalogue.skipped) > _LISTED:
        lines.append(f"not used: {len(catalogue.skipped) - _LISTED} more clips, listed in corpus.json")
    lines += [f"not built: part {part} {reason}" for part, reason in catalogue.skipped_parts]
    return lines + [f"note: {note}" for note in catalogue.notes]


def _layout(catalogue: Catalogue, settings: SoundscapeSettings) -> list[Item]:
    """The recordings in order; names do not depend on the seed."""
    digits = max(3, len(str(settings.recordings_per_part)))
    items = []
    for part in catalogue.parts:
        folder = Path(f"part_{part.name}" if part.name else "")
        for number in range(1, settings.recordings_per_part + 1):
            stem = f"{folder.name or 'soundscape'}_{number:0{digits}d}"
            items.append(Item(part, number, folder / f"{stem}.{settings.format}"))
    return items


def _check_folder(folder: Path, clips: Path) -> None:
    """Refuse a folder with files that are not of an earlier build, and one whose files may be taken for clips."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a new or empty folder for the soundscapes.")
    if folder.resolve().is_relative_to(clips.resolve()):
        raise DataError(f"{folder}: lies in the folder of the clips ({clips}); name a folder outside of it.")
    if folder.exists() and any(folder.iterdir()) and not _was_begun(folder):
        raise DataError(f"{folder}: holds files that are no soundscapes of Otus; name a new or empty folder.")


def _was_begun(folder: Path) -> bool:
    """Whether soundscapes were built here, be it in part: the README is the first file to be written."""
    first = folder / "README.txt"
    return first.is_file() and first.read_bytes().startswith(TITLE.encode())


def _check_strangers(folder: Path, items: Sequence[Item]) -> None:
    """Refuse recordings in the folder that would be mistaken for a part of this corpus."""
    expected = {item.path for item in items}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES and path.relative_to(folder) not in expected:
            raise DataError(
                f"{path}: is no part of the soundscapes that the settings ask for; delete the folder {folder} "
                "or name another one."
            )


def _make_all(
    items: Sequence[Item], settings: SoundscapeSettings, folder: Path, workers: int, progress: Callable[[str], None]
) -> list[Made]:
    """Make the recordings in threads (nearly all of the work leaves Python's lock) that share the decoded clips."""
    clips, rate = Path(settings.clips), settings.sample_rate
    crossfade = _crossfade(settings)
    sounds = Sounds(
        Shelf(lambda cut: event_sound(clips, cut, rate, settings.fade_s), lambda e: e.samples.nbytes, _EVENTS_BYTES),
        Shelf(
            lambda cut: background_piece(clips, cut, rate, settings.background_dbfs, crossfade),
            lambda samples: samples.nbytes,
            _PIECES_BYTES,
        ),
    )
    pace = Pace(len(items) * settings.duration_s, progress)
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        futures = [pool.submit(_make_recording, item, settings, folder, sounds, pace) for item in items]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            pace.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _make_recording(item: Item, settings: SoundscapeSettings, folder: Path, sounds: Sounds, pace: Pace) -> Made:
    """Write one recording and its table."""
    rate = settings.sample_rate
    n_samples = max(1, round(settings.duration_s * rate))
    bed_seed, event_seed = (
        derive_seed(settings.seed, "soundscapes", item.part.name, item.number, what) for what in ("bed", "events")
    )
    bed = lay_bed(np.random.default_rng(bed_seed), item.part.backgrounds, n_samples, _crossfade(settings))
    placement = place_events(
        np.random.default_rng(event_seed),
        item.part.sounds,
        n_samples,
        rate,
        overlap=settings.overlap,
        gap_s=settings.gap_s,
        snr=settings.snr,
    )
    scene, heard, faint = compose(n_samples, rate, bed, placement.places, sounds)
    write_recording(folder / item.path, scene, sounds, advance=pace.advance)
    write_text(folder / item.table_path, selection_table(heard, rate))
    lowered_db = round(-20.0 * float(np.log10(scene.gain)), 2)
    pace.say(f"{item.path.as_posix()}: {counted(Counter(h.event.label for h in heard))}" + _lowered(lowered_db))
    return Made(item, heard, placement.drawn, placement.crowded_out, faint, lowered_db)


def _crossfade(settings: SoundscapeSettings) -> int:
    return max(1, round(settings.crossfade_s * settings.sample_rate))


def _lowered(lowered_db: float) -> str:
    return f", lowered by {lowered_db:.1f} dB lest it clips" if lowered_db else ""
