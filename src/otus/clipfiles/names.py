"""File names of clips as ANIMAL-SPOT reads them, and the clips of a variant, each once and numbered."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import pandas as pd

from otus.errors import DataError

#: What makes two rows of the table clips the same clip, whatever the fold.
_IDENTITY = ["recording_id", "start_sample", "end_sample", "class", "label", "origin", "quality", "clip_id"]

#: ANIMAL-SPOT's class of noise, and its class of calls where there is one label; no other class may be called so.
_NOISE, _TARGET = "noise", "target"
_NO_LABEL = "bg"
_LONGEST = 40
_LONGEST_TAPE = 100


def numbered_clips(recordings: pd.DataFrame, clips: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return every clip once, and the sides that it stands on.

    The first table has the columns uid (1, 2, ... in the order of recording, start and end), those of the table clips
    that do not depend on the fold, path, sample_rate, start_s and end_s, and is sorted by uid. The second one has
    uid, fold and split. Neither depends on the order of the rows. Raises DataError if a clip names a recording
    that is not in `recordings` or cannot be read.
    """
    facts = recordings.set_index("recording_id")
    rates = clips["recording_id"].map(facts["sample_rate"])
    if rates.isna().any():
        first = clips[rates.isna()].iloc[0]
        raise DataError(
            f"clips: clip {first['clip_id']} names the recording {first['recording_id']}, which is not among the "
            "readable ones; run the inventory and prepare again."
        )
    text = {name: clips[name].fillna("") for name in ("label", "origin", "quality", "clip_id")}
    uid = clips.assign(**text).groupby(_IDENTITY, sort=True).ngroup() + 1
    rows = clips.assign(uid=uid)
    sides = rows[["uid", "fold", "split"]].drop_duplicates()
    sides = sides.sort_values(["uid", "fold", "split"], kind="stable", ignore_index=True)
    once = rows.drop_duplicates("uid").sort_values("uid", ignore_index=True)[["uid", *_IDENTITY]]
    rate = once["recording_id"].map(facts["sample_rate"]).astype("int64")
    own_group = once["recording_id"].map(facts["group"])
    once = once.assign(
        path=once["recording_id"].map(facts["path"]),
        group=own_group.where(own_group.notna(), once["recording_id"]),
        start_time=once["recording_id"].map(facts["start_time"]),
        sample_rate=rate,
        start_s=once["start_sample"] / rate,
        end_s=once["end_sample"] / rate,
    )
    return once, sides


def named_clips(clips: pd.DataFrame, *, groups: Iterable[str], targets: Sequence[str]) -> pd.DataFrame:
    """Return the target and noise clips of `clips` (see numbered_clips) with the columns name, info and folder.

    `name` is unique and at most 255 bytes long: `CLASS-INFO_UID_YEAR_TAPE_STARTMS_ENDMS`, to which .wav or .png is
    added. CLASS is noise or target, or with several target labels the label itself; INFO is the quality of a call
    (Q2), else its label, the label of a confuser, or bg; TAPE is the group. What ANIMAL-SPOT could misread in them is
    replaced. `groups` are those of all recordings, so that a tape keeps its name whichever of its clips are drawn.
    `folder` is a folder name for the label, noise for noise without a label.
    """
    named = clips[clips["class"].isin([_TARGET, _NOISE])].reset_index(drop=True)
    tapes = distinct(groups, replacement="-", longest=_LONGEST_TAPE)
    classes = distinct(targets, replacement="", longest=_LONGEST, taken=(_NOISE, _TARGET))
    labels = [None if pd.isna(label) else str(label) for label in named["label"]]
    folders = distinct(
        filter(None, labels), replacement="_", kept="A-Za-z0-9-", longest=_LONGEST, taken=(_NOISE,), joint="-"
    )
    names, infos = [], []
    for row, label in zip(named.to_dict("records"), labels, strict=True):
        is_target = row["class"] == _TARGET
        kind = _NOISE if not is_target else _TARGET if len(targets) == 1 else classes[str(label)]
        info = _info(label, row["quality"] if is_target else None)
        start_ms, end_ms = (milliseconds(row[edge], row["sample_rate"]) for edge in ("start_sample", "end_sample"))
        tape = f"{_year(row['start_time'])}_{tapes[row['group']]}"
        names.append(f"{kind}-{info}_{row['uid']:06d}_{tape}_{start_ms:07d}_{end_ms:07d}")
        infos.append(info)
    return named.assign(name=names, info=infos, folder=[folders[label] if label else _NOISE for label in labels])


def milliseconds(sample: int, sample_rate: int) -> int:
    """Return the time of a sample in whole milliseconds."""
    return round(int(sample) * 1000 / int(sample_rate))


def distinct(
    names: Iterable[str],
    *,
    replacement: str,
    longest: int,
    kept: str = "A-Za-z0-9",
    taken: Collection[str] = (),
    joint: str | None = None,
) -> dict[str, str]:
    """Return a safe form of each name: `replacement` for every character that is not `kept`.

    Where that leaves no letter or digit, is longer than `longest`, or is `taken` or another name's whatever the case,
    eight digits of the name's SHA-1 follow, after `joint` (the replacement if not given).
    """
    plain = {name: re.sub(rf"[^{kept}]", replacement, name) for name in sorted(set(names))}
    uses = Counter(safe.lower() for safe in plain.values())
    joint = replacement if joint is None else joint
    return {
        name: safe
        if re.search("[A-Za-z0-9]", safe)
        and len(safe) <= longest
        and safe.lower() not in taken
        and uses[safe.lower()] == 1
        else safe[: longest - 8 - len(joint)] + joint + _digest(name)
        for name, safe in plain.items()
    }


def quality_text(quality: object) -> str | None:
    """Return a quality without the letter Q and without decimals that say nothing: 'Q2' and '2.0' are '2'."""
    if not isinstance(quality, str) or not quality.strip():
        return None
    text = re.sub(r"^[Qq][ _-]?(?=\d)", "", quality.strip())
    return re.sub(r"^(\d+)[.,]0+$", r"\1", text)


def _info(label: str | None, quality: object) -> str:
    known = quality_text(quality)
    text = f"Q{known}" if known else label or _NO_LABEL
    return re.sub(r"[^A-Za-z0-9]", "-", text)[:_LONGEST]


def _year(start_time: object) -> str:
    """The year of an ISO time; 0000 if it is not known."""
    found = re.match(r"\d{4}", start_time) if isinstance(start_time, str) else None
    return found.group() if found else "0000"


def _digest(name: str) -> str:
    return hashlib.sha1(name.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()[:8]
