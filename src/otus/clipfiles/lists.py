"""Lists of the clips of one fold: file names per side as ANIMAL-SPOT reads them, and the alpaca variant index."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from otus.clipfiles.names import milliseconds, quality_text

SPLITS = ("train", "val", "test")

#: Where a clip comes from, in the words of the alpaca index.
_SOURCES = {"annotation": "labelled", "mined": "clip", "false_alarm": "clip", "mined_raw": "raw"}


def sides_by_fold(sides: pd.DataFrame) -> dict[int, dict[int, str]]:
    """Return, by uid and fold, the side on which a clip stands (the table of sides of numbered_clips)."""
    found: dict[int, dict[int, str]] = {}
    for uid, fold, split in zip(sides["uid"], sides["fold"], sides["split"], strict=True):
        own = found.setdefault(int(uid), {})
        own[int(fold)] = f"{own[int(fold)]} and {split}" if int(fold) in own else str(split)
    return found


def file_list(files: Iterable[str]) -> str:
    """Return a list of file names as ANIMAL-SPOT reads it: one column, no header, CRLF."""
    return "".join(f"{name}\r\n" for name in files)


def index_entries(
    clips: pd.DataFrame, *, several_targets: bool, pictures: Mapping[int, str]
) -> dict[int, dict[str, Any]]:
    """Return the entry of every clip (see named_clips) in the alpaca index, without its side, by uid.

    Times count from the beginning of the recording, whose path below the corpus root is the `tape_key`. With several
    target labels, `label` is the clip's own, not its quality. `pictures` leads from the uid to the path of an image.
    """
    entries = {}
    for row in clips.sort_values("uid").to_dict("records"):
        labelled = several_targets and isinstance(row["label"], str)
        entry = {
            "uid": row["uid"],
            "fn": f"{row['name']}.wav",
            "class": row["class"],
            "label": row["label"] if labelled else row["info"],
            "tape_key": row["path"],
            "quality": _number(quality_text(row["quality"])),
            "source": _SOURCES[row["origin"]],
            "start_ms": milliseconds(row["start_sample"], row["sample_rate"]),
            "end_ms": milliseconds(row["end_sample"], row["sample_rate"]),
            "start_s": row["start_s"],
            "end_s": row["end_s"],
        }
        if row["uid"] in pictures:
            entry["spectrogram_path"] = pictures[row["uid"]]
        entries[row["uid"]] = entry
    return entries


def variant_index(
    entries: Mapping[int, dict[str, Any]],
    sides: Iterable[tuple[int, str]],
    *,
    strategy: str,
    leaky: bool,
    created_at: str,
) -> str:
    """Return the alpaca `variant_index.json` of one fold: `meta`, and the entries of the clips in `sides`, one a line.

    `entries` are those of index_entries, `sides` pairs of a uid and the clip's split. `leaky` says that one recording
    may stand on several sides.
    """
    listed = [{**entries[uid], "split": split} for uid, split in sides]
    classes, splits = Counter(entry["class"] for entry in listed), Counter(entry["split"] for entry in listed)
    meta = {
        "created_at": created_at,
        "split_strategy": strategy,
        "leaky": leaky,
        "n_total": len(listed),
        "n_target": classes["target"],
        "n_noise": classes["noise"],
        "split_counts": {split: splits[split] for split in SPLITS},
    }
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in listed)
    return f'{{"meta": {json.dumps(meta)},\n"entries": [\n{lines}\n]}}\n'


def _number(quality: str | None) -> int | str | None:
    """A quality that is a whole number as such, any other as it is written."""
    return int(quality) if quality is not None and quality.isascii() and quality.isdecimal() else quality
