"""What is written about soundscapes: selection tables, events.csv, corpus.json and the README."""

import csv
import importlib.metadata
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from otus import __version__
from otus.annotations import TableRow, raven_table
from otus.config import SoundscapeSettings
from otus.soundscapes.rendering import Heard
from otus.soundscapes.sources import Catalogue, Part

TITLE = "Soundscapes built by Otus"

_README = """{title}
{underline}

Made by a program from short clips: nobody recorded these {recordings} recordings of {duration_s:g} s.
Made with: otus build-soundscapes, seed {seed}. The same settings and clips give the same files.

Beside each recording lies a Raven selection table with every event, exact to the sample. events.csv lists all events
with the clip that each was cut from and its level; corpus.json holds the settings, the clips with their digests, and
what was left out. The sounds remain under the licences of their clips.
"""

_COLUMNS = (
    "recording", "start_sample", "end_sample", "start_s", "end_s", "low_hz", "high_hz", "label", "snr_db", "gain_db",
    "clip", "source_start_sample", "source_end_sample", "part",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One recording to be made; `path` lies below the folder of the corpus."""

    part: Part
    number: int
    path: Path

    @property
    def table_path(self) -> Path:
        """Its selection table, beside it."""
        return self.path.with_name(f"{self.path.stem}.selections.txt")


@dataclass(frozen=True)
class Made:
    """One recording on disk: the events in it, counts of others by label, and how far everything was lowered."""

    item: Item
    heard: tuple[Heard, ...]
    drawn: Counter[str]
    crowded_out: Counter[str]
    faint: Counter[str]
    lowered_db: float


def selection_table(heard: Sequence[Heard], sample_rate: int) -> str:
    """Return the Raven table of one recording; without events it has a header only."""
    return raven_table(
        TableRow(
            h.event.start / sample_rate,
            h.event.end / sample_rate,
            h.event.label,
            low_hz=round(h.low_hz, 1),
            high_hz=round(h.high_hz, 1),
            extra={"SNR (dB)": f"{h.snr_db:.2f}"},
        )
        for h in heard
    )


def events_csv(made: Sequence[Made], sample_rate: int) -> str:
    """Return the events of all recordings as CSV, by recording and time; positions count samples, times seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in made:
        for h in one.heard:
            event = h.event
            writer.writerow(
                (
                    one.item.path.as_posix(), event.start, event.end,
                    event.start / sample_rate, event.end / sample_rate,
                    round(h.low_hz, 1), round(h.high_hz, 1), event.label, round(h.snr_db, 3), round(h.gain_db, 3),
                    event.cut.path, *event.cut.source_samples(sample_rate), one.item.part.name,
                )
            )  # fmt: skip
    return text.getvalue()


def index_of(made: Sequence[Made], catalogue: Catalogue, settings: SoundscapeSettings) -> dict[str, Any]:
    """Return what corpus.json holds. The folder of the clips is left out: it differs from machine to machine."""
    recordings = [
        {
            "path": one.item.path.as_posix(),
            "table": one.item.table_path.as_posix(),
            "part": one.item.part.name,
            "events": dict(sorted(Counter(h.event.label for h in one.heard).items())),
            "lowered_db": one.lowered_db,
        }
        for one in made
    ]
    sources = [
        {
            "path": clip.path,
            "sha256": clip.sha256,
            "part": clip.part,
            "use": "background" if clip.label is None else "event",
            "label": clip.label,
            "cuts": len(clip.cuts),
            "sample_rate": clip.info.sample_rate,
        }
        for clip in catalogue.clips
    ]
    return {
        "title": TITLE,
        "settings": settings.model_dump(mode="json", exclude={"clips"}),
        "versions": _versions(),
        "counts": {
            "recordings": len(made),
            "hours": round(len(made) * settings.duration_s / 3600, 4),
            "events": sum(len(one.heard) for one in made),
            "clips": len(sources),
            "skipped": len(catalogue.skipped),
        },
        "labels": _rates(made, settings.duration_s / 60.0),
        "recordings": recordings,
        "sources": sources,
        "skipped": [{"path": path, "reason": reason} for path, reason in catalogue.skipped],
        "skipped_parts": [{"part": part, "reason": reason} for part, reason in catalogue.skipped_parts],
        "notes": list(catalogue.notes),
    }


def _rates(made: Sequence[Made], minutes: float) -> dict[str, Mapping[str, float]]:
    """By label: events asked for, drawn, without a place, too faint, written; rates over the parts that have it."""
    labels = sorted({sound.label for one in made for sound in one.item.part.sounds})
    rates: dict[str, Mapping[str, float]] = {}
    for label in labels:
        with_it = [one for one in made if any(sound.label == label for sound in one.item.part.sounds)]
        wanted = sum(s.rate_per_min for one in with_it for s in one.item.part.sounds if s.label == label)
        written = sum(h.event.label == label for one in with_it for h in one.heard)
        rates[label] = {
            "rate_per_min": round(wanted / len(with_it), 4),
            "achieved_per_min": round(written / minutes / len(with_it), 4),
            "drawn": sum(one.drawn[label] for one in with_it),
            "crowded_out": sum(one.crowded_out[label] for one in with_it),
            "too_faint": sum(one.faint[label] for one in with_it),
            "written": written,
        }
    return rates


def readme(settings: SoundscapeSettings, recordings: int) -> str:
    """Return the text of README.txt, which begins with TITLE."""
    return _README.format(
        title=TITLE,
        underline="=" * len(TITLE),
        recordings=recordings,
        duration_s=settings.duration_s,
        seed=settings.seed,
    )


def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "soundfile", "soxr")}
    return {"otus": __version__, "libsndfile": soundfile.__libsndfile_version__, **found}


def counted(counts: Counter[str]) -> str:
    """Return counts by label as a person reads them."""
    return ", ".join(f"{count} {label}" for label, count in sorted(counts.items())) or "no event"
