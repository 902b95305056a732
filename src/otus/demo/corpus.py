"""The demo corpus on disk: which recordings there are, what is odd about some of them, and the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from otus.atomic import replacing, write_json, write_text
from otus.config import DemoSettings
from otus.demo.scene import CONFUSER, TARGET, Scene, compose
from otus.demo.selection_tables import add_late, add_slip, annotate, render
from otus.demo.sites import SITES, Site
from otus.errors import DataError
from otus.fingerprint import AUDIO_SUFFIXES
from otus.seeds import derive_seed

SHORTEST_S = 5.0

_TITLE = "The demo corpus of Otus"
_SAMPLE_RATE = 24_000
_STEREO_SAMPLE_RATE = 48_000
#: Samples between the channels: microphones 14 mm apart, so that their mean has no notch below 12 kHz.
_STEREO_DELAY = 2

#: Positions (in the order in which recordings are made) of the odd ones; all exist in the smallest corpus.
_SLIP, _STEREO, _SILENT = 3, 5, 10

_README = """{title}
{underline}

Made by a program: nobody recorded these {recordings} recordings of {duration_s:g} s, no animal was involved.
Made with: otus demo-corpus, seed {seed}. The same seed gives the same files.

Four sites (folders) differ in noise, wind, rain, insects, callers and confusers. The call to be found is
labelled '{target}': 0.15 to 1.5 s of harmonics over a fundamental of 250 to 700 Hz that rises, falls, arches
or wobbles. Confusers (whistles, chirps, barks, growls, moans) are labelled '{confuser}' about half of the
time and otherwise left alone, as people do. Engines are never labelled. About one call in eight is barely audible.

Beside each recording lies a Raven selection table. Quality runs from 1 (clear) to 4 (barely audible).
Odd on purpose:
{oddities}
"""


@dataclass(frozen=True)
class _Item:
    """One recording to be made: where it goes and what is odd about it ('' = nothing)."""

    path: Path
    site: Site
    oddity: str

    @property
    def table_path(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.Table.1.selections.txt")


def make_demo_corpus(folder: Path, settings: DemoSettings) -> None:
    """Write the demo corpus to `folder`: recordings, Raven tables, README.txt and, last, corpus.json.

    The same settings give the same bytes with the same versions of numpy, scipy and libsndfile. Files of an
    earlier demo corpus are replaced; nothing is deleted. Raises DataError if the folder holds anything that
    is not a demo corpus, or recordings that do not belong to this one, or if recordings would be too short.
    """
    if settings.duration_s < SHORTEST_S:
        raise DataError(
            f"demo.duration_s: {settings.duration_s:g} s is too short for calls; use {SHORTEST_S:g} or more."
        )
    items = _layout(settings.recordings)
    _check_folder(folder, items)
    mark = folder / "corpus.json"
    mark.unlink(missing_ok=True)
    write_text(folder / "README.txt", _readme(settings, items))
    made = [_make_recording(folder, item, settings) for item in items]
    good = [counts for item, (_, counts) in zip(items, made, strict=True) if item.oddity != "truncated"]
    totals = {"recordings": len(good), "truncated": len(made) - len(good), "sites": len(SITES)}
    totals |= {label: sum(counts[label] for counts in good) for label in (TARGET, CONFUSER)}
    files = [{**entry, **counts} for entry, counts in made]
    write_json(mark, {"title": _TITLE, "settings": settings.model_dump(), "counts": totals, "files": files})


def _layout(recordings: int) -> list[_Item]:
    """The recordings in the order in which they are made, sites in turn; names do not depend on the seed."""
    items = []
    for index in range(recordings + 1):
        site, turn = SITES[index % len(SITES)], index // len(SITES)
        oddity = {_SLIP: "slip", _STEREO: "stereo", _SILENT: "no calls", recordings: "truncated"}.get(index, "")
        start = site.first_start + turn * timedelta(days=1, minutes=17)
        stem = f"{site.name}_{start:%Y%m%d_%H%M%S}"
        suffix = ".flac" if oddity == "stereo" else ".wav"
        items.append(_Item(Path(site.name) / f"{stem}{suffix}", site, oddity))
    return items


def _check_folder(folder: Path, items: Sequence[_Item]) -> None:
    """Refuse a folder in which something could be overwritten, or mistaken for a part of the corpus."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a new or empty folder for the demo corpus.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "corpus.json").exists() and not _was_begun(folder):
        raise DataError(f"{folder}: holds files but no corpus.json; name a new or empty folder for the demo corpus.")
    expected = {item.path for item in items}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES and path.relative_to(folder) not in expected:
            raise DataError(
                f"{path}: is no part of the demo corpus that the settings ask for; delete the folder {folder} "
                f"or name another one."
            )


def _was_begun(folder: Path) -> bool:
    """Whether an earlier run was cut off here, or its corpus.json was deleted so that it is made again."""
    readme = folder / "README.txt"
    return readme.is_file() and readme.read_bytes().startswith(_TITLE.encode())


def _make_recording(folder: Path, item: _Item, settings: DemoSettings) -> tuple[dict[str, str], dict[str, int]]:
    """Write one recording and its table; return its entry in corpus.json and its count of selections by label."""
    rng = np.random.default_rng(derive_seed(settings.seed, "demo", item.path.stem))
    sample_rate = _STEREO_SAMPLE_RATE if item.oddity == "stereo" else _SAMPLE_RATE
    scene = compose(rng, sample_rate, settings.duration_s, item.site, calls=item.oddity != "no calls")
    table, counts = _selection_table(rng, scene, settings.duration_s, item.oddity)
    _write_sound(folder / item.path, _channels(rng, scene, item.oddity), sample_rate, item.oddity)
    write_text(folder / item.table_path, table)
    entry = {"path": item.path.as_posix(), "table": item.table_path.as_posix(), "site": item.site.name}
    return {**entry, "oddity": item.oddity}, counts


def _selection_table(
    rng: np.random.Generator, scene: Scene, duration_s: float, oddity: str
) -> tuple[str, dict[str, int]]:
    """The table's text, and how many selections of each label with a length it holds."""
    both_views, late = rng.random(2) < (0.3, 0.4)
    views = ("Waveform 1", "Spectrogram 1") if both_views else ("Spectrogram 1",)
    selected = [] if oddity == "no calls" else annotate(rng, scene.events, duration_s, _SAMPLE_RATE / 2.0)
    counts = {label: sum(row.label == label for row in selected) for label in (TARGET, CONFUSER)}
    if late and len(selected) > 2:
        selected = add_late(rng, selected)
    if oddity == "slip":
        selected = add_slip(rng, selected)
    return render(selected, views=views), counts


def _channels(rng: np.random.Generator, scene: Scene, oddity: str) -> NDArray[np.int16]:
    """The samples as 16-bit integers; in stereo the second channel hears the same, later and softer."""
    heard = scene.samples
    if oddity == "stereo":
        second = np.concatenate([np.zeros(_STEREO_DELAY), heard[:-_STEREO_DELAY]]) * 10.0 ** (-1.5 / 20.0)
        heard = np.stack([heard, second], axis=1) + rng.normal(0.0, 3e-4, (len(heard), 2))
    return np.clip(np.rint(heard * 32767.0), -32768, 32767).astype(np.int16)


def _write_sound(path: Path, samples: NDArray[np.int16], sample_rate: int, oddity: str) -> None:
    with replacing(path) as temporary:
        soundfile.write(temporary, samples, sample_rate, subtype="PCM_16", format=path.suffix[1:].upper())
        if oddity == "truncated":
            with temporary.open("r+b") as file:
                file.truncate(temporary.stat().st_size * 6 // 10)


def _readme(settings: DemoSettings, items: Sequence[_Item]) -> str:
    meanings = {
        "slip": "its table has one selection of zero length",
        "stereo": "stereo, 48 kHz, FLAC (the others: mono, 24 kHz, WAV)",
        "no calls": "listened to, no calls: its table has a header only",
        "truncated": "cut off: its header promises more samples than there are (one recording too many, on purpose)",
    }
    oddities = "\n".join(f"- {item.path.as_posix()}: {meanings[item.oddity]}" for item in items if item.oddity)
    return _README.format(
        title=_TITLE,
        underline="=" * len(_TITLE),
        target=TARGET,
        confuser=CONFUSER,
        oddities=oddities + "\n- some tables list both views, some are not in order of time",
        **settings.model_dump(),
    )
