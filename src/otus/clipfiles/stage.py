"""Everything that is written beside the clips table of a dataset variant, into one folder that is whole or absent."""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from otus.atomic import storage_explained
from otus.clipfiles.cutting import Written, plan_cuts, write_cuts
from otus.clipfiles.lists import SPLITS, file_list, index_entries, sides_by_fold, variant_index
from otus.clipfiles.names import named_clips, numbered_clips
from otus.clipfiles.page import dataset_page
from otus.clipfiles.selection_tables import selection_tables
from otus.clipfiles.sheets import write_sheets
from otus.clipfiles.statistics import clip_statistics, group_sides, histogram, side_statistics
from otus.clipfiles.verdicts import leakage_verdicts
from otus.config import ClipFileSettings, ClipImageSettings, DatasetSettings
from otus.errors import DataError, MissingPartError

_MARK = "statistics.json"


@dataclass(frozen=True)
class DatasetTables:
    """The tables of `otus.tables` that a dataset variant consists of; recordings and annotations are the corpus's."""

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    clips: pd.DataFrame
    splits: pd.DataFrame
    leakage: pd.DataFrame


def describe_dataset(
    folder: Path,
    tables: DatasetTables,
    *,
    root: Path,
    dataset: str,
    settings: DatasetSettings,
    files: ClipFileSettings,
    noise_report: Mapping[str, Any],
    targets: Sequence[str],
    workers: int,
    progress: Callable[[str], None],
) -> None:
    """Write the lists, the indexes, the Raven tables, the statistics and the page of a variant to `folder`.

    Pictures, contact sheets and cut-out sounds come with them if `files` asks for them, made by `workers` threads; a
    recording below `root` that cannot be read any more is counted in the statistics, and the others go on. `folder`
    is replaced as a whole. The same tables give the same files but for `created_at` in the indexes. Raises DataError
    if `folder` holds anything else, a clip names an unknown recording, or the colour map does not exist.
    """
    recordings = tables.recordings
    clips, sides = numbered_clips(recordings, tables.clips)
    groups = recordings["group"].where(recordings["group"].notna(), recordings["recording_id"])
    named = named_clips(clips, groups=groups, targets=targets)
    folds = sorted({int(fold) for fold in (*tables.splits["fold"], *sides["fold"])})
    created_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with _replacing_folder(folder) as new:
        plans = plan_cuts(named, files.spectrograms, audio=files.audio)
        written = write_cuts(new, root, plans, files.spectrograms, workers=workers, progress=progress)
        sheets = _write_sheets(new, named, sides, written, files.spectrograms)
        pictures = {uid: f"../{path}" for uid, path in written.pictures.items()}
        entries = index_entries(named, several_targets=len(targets) > 1, pictures=pictures)
        made = _write_folds(new, entries, sides, folds, settings, created_at)
        n_tables = _write_selection_tables(new / "selection_tables", selection_tables(named, sides, tables.annotations))
        statistics = {
            "dataset": dataset,
            "settings": settings.model_dump(mode="json"),
            "targets": list(targets),
            **_statistics(tables, clips, sides, folds),
            "noise": dict(noise_report),
            "unread": [dataclasses.asdict(one) for one in written.unread],
            "files": {
                "folds": made,
                "selection_tables": n_tables,
                "contact_sheets": sheets,
                "spectrograms": len(written.pictures),
                "sounds": written.sounds,
            },
        }
        page = dataset_page(statistics, tables.leakage, settings)
        (new / "dataset.html").write_text(page, encoding="utf-8")
        text = json.dumps(statistics, indent=1, sort_keys=True, allow_nan=False)
        (new / _MARK).write_text(f"{text}\n", encoding="utf-8")
    for one in written.unread:
        progress(f"{one.path}: {one.reason}; {one.clips} clips of it have no picture or sound")
    progress(f"{len(named)} clips described in {folder}")


def _write_sheets(
    folder: Path, named: pd.DataFrame, sides: pd.DataFrame, written: Written, images: ClipImageSettings | None
) -> list[str]:
    """Write the contact sheets if pictures are wanted; return the names of the files."""
    if images is None:
        return []
    in_words = {uid: _in_words(own) for uid, own in sides_by_fold(sides).items()}
    return write_sheets(folder, named, written.pictures, in_words.__getitem__, tiles=images.sheet_tiles)


def _write_selection_tables(folder: Path, texts: Mapping[str, str]) -> int:
    """Write the tables to a new folder; return how many they are."""
    folder.mkdir()
    for recording_id, text in texts.items():
        (folder / f"{recording_id}.selections.txt").write_text(text, encoding="utf-8")
    return len(texts)


def _write_folds(
    folder: Path,
    entries: Mapping[int, dict[str, Any]],
    sides: pd.DataFrame,
    folds: Sequence[int],
    settings: DatasetSettings,
    created_at: str,
) -> list[str]:
    """Write the lists and the index of every fold, and link its sounds; return the names of the folders."""
    pairs: dict[int, list[tuple[int, str]]] = {fold: [] for fold in folds}
    for uid, fold, split in zip(sides["uid"], sides["fold"], sides["split"], strict=True):
        if uid in entries:
            pairs[int(fold)].append((int(uid), str(split)))
    for fold, own in pairs.items():
        here = folder / f"fold{fold}"
        here.mkdir()
        for split in SPLITS:
            text = file_list(entries[uid]["fn"] for uid, side in own if side == split)
            (here / f"{split}.csv").write_bytes(text.encode())
        index = variant_index(entries, own, strategy=settings.strategy, leaky=settings.leaky, created_at=created_at)
        (here / "variant_index.json").write_text(index, encoding="utf-8")
        _link_sounds(folder / "audio", here, sorted({entries[uid]["fn"] for uid, _ in own}))
    return [f"fold{fold}" for fold in pairs]


def _link_sounds(sounds: Path, here: Path, names: Sequence[str]) -> None:
    """Link those of the sounds that there are into the folder `here`: ANIMAL-SPOT wants them beside its lists.

    A disk without hard links, or with too many of one file, gets relative symbolic links. Raises MissingPartError if
    it has neither.
    """
    for name in names:
        if not (sounds / name).is_file():
            continue
        try:
            os.link(sounds / name, here / name)
        except OSError:
            try:
                (here / name).symlink_to(Path("..", sounds.name, name))
            except OSError as error:
                raise MissingPartError(
                    f"{here.parent.parent}: clip_files.audio needs hard or symbolic links there, and none can be made "
                    f"({error.strerror}); set results_dir to a folder on another disk, or clip_files.audio to false."
                ) from error


def _statistics(
    tables: DatasetTables, clips: pd.DataFrame, sides: pd.DataFrame, folds: Sequence[int]
) -> dict[str, Any]:
    """The numbers of the variant, and the verdict on every fold."""
    verdicts = leakage_verdicts(tables.leakage, folds)
    return {
        "clips": clip_statistics(clips, sides),
        "sides": side_statistics(tables.recordings, tables.splits, clips, sides),
        "groups": group_sides(tables.splits),
        "histogram": histogram(clips),
        "verdicts": [{"fold": fold, "proved": proved, "text": text} for fold, (proved, text) in verdicts.items()],
    }


def _in_words(sides: Mapping[int, str]) -> str:
    """On which side a clip stands; with several folds, which of them tests on it."""
    if len(sides) == 1:
        return next(iter(sides.values()))
    tested = [str(fold) for fold, side in sorted(sides.items()) if "test" in side]
    return f"test in {', '.join(tested)}" if tested else "never test"


@contextlib.contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`, which takes its place if the block succeeds and is deleted if not.

    Raises DataError if what stands at `folder` was not written here. What an earlier run left over is deleted.
    """
    new, old = (folder.with_name(f".{folder.name}.tmp-{state}") for state in ("new", "old"))
    if folder.exists() and not (folder.is_dir() and ((folder / _MARK).exists() or not any(folder.iterdir()))):
        raise DataError(f"{folder}: holds other files than those of a dataset variant; move it away and start again.")
    with storage_explained(folder):
        for left_over in (new, old):
            shutil.rmtree(left_over, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            yield new
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)
            for left_over in (new, old):
                shutil.rmtree(left_over, ignore_errors=True)
