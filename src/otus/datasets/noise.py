"""Noise: time that nobody has labelled, drawn evenly from all the room there is, and false alarms."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.config import DatasetSettings
from otus.datasets.hard_negatives import Selections, false_alarm_clips
from otus.datasets.overlaps import annotations_heard
from otus.datasets.room import Room, Slot, free_slots
from otus.errors import StageError
from otus.seeds import derive_seed

#: Pairs of noise clips that a report names.
_EXAMPLES = 5


@dataclass(frozen=True)
class NoiseReport:
    """How much noise was asked for, where it came from, and what the check of the clips found.

    `recordings_without_room` counts recordings that had no room for a clip of their own calls (noise_from: own), or
    is 0 or 1 for the corpus as a whole. `overlapping_noise` and `duplicate_noise` count noise clips that overlap or
    equal an earlier one of their recording. `confusers_left_out` were drawn over a call or something unknown;
    `unrated_calls` have a quality without a number, so that min_quality cannot tell; `selections` says what became of
    every row of a table of false alarms.
    """

    wanted: int
    mined: int
    mined_raw: int
    false_alarms: int
    unmet: int
    recordings_without_room: int
    overlapping_noise: int = 0
    duplicate_noise: int = 0
    confusers_left_out: int = 0
    unrated_calls: int = 0
    selections: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()


def mine_noise(
    recordings: pd.DataFrame,
    annotations: pd.DataFrame,
    calls: pd.DataFrame,
    selections: Selections | None,
    *,
    settings: DatasetSettings,
    seed: int,
) -> tuple[pd.DataFrame, NoiseReport]:
    """Return the noise clips (columns of the table clips without side) and their report.

    `annotations` are all rows of the labelled recordings: no noise comes nearer to any of them than the margin.
    `calls` are the target clips, each of which is owed its share of noise clips as long as itself (at least
    min_noise_s). Mined clips never overlap one another; every position where one fits is equally likely.
    """
    facts = recordings.set_index("recording_id")
    heard = annotations_heard(recordings, annotations)
    alarms, became = false_alarm_clips(selections, recordings, heard, calls, settings)
    rates = calls["recording_id"].map(facts["sample_rate"]).to_numpy(dtype=float)
    lasting_s = (calls["end_sample"] - calls["start_sample"]).to_numpy(dtype=float) / rates
    generator = np.random.default_rng(derive_seed(seed, "noise"))
    owed = _owed(len(calls), settings.noise_share, generator)
    order = np.argsort(-lasting_s[owed], kind="stable")  # long clips first, while there is room for them
    homes = calls["recording_id"].tolist()
    wanted = [(homes[call], max(float(lasting_s[call]), settings.min_noise_s)) for call in owed[order]]
    labelled = facts[facts["labelled"].astype(bool) & facts["readable"].astype(bool)].sort_index()
    free = free_slots(labelled, heard, alarms, settings.margin_s)
    raw = _raw_slots(recordings, heard, settings) if settings.fallback_raw else []
    mined, spare, lacking = _draw_all(wanted, free, raw, facts["parent"], settings, generator)
    noise = pd.concat([_clips(mined, "mined"), _clips(spare, "mined_raw"), alarms], ignore_index=True)
    report = NoiseReport(
        wanted=len(wanted),
        mined=len(mined),
        mined_raw=len(spare),
        false_alarms=len(alarms),
        unmet=len(wanted) - len(mined) - len(spare),
        recordings_without_room=len(lacking),
        selections=became,
    )
    return noise, report


def checked(report: NoiseReport, clips: pd.DataFrame) -> NoiseReport:
    """Return `report` with the noise clips that overlap or equal another one of their recording.

    Labelled confusers may overlap, as a person drew them; mined noise overlaps nothing (StageError if it did).
    """
    ordered = clips[clips["class"] == "noise"]
    ordered = ordered.sort_values(["recording_id", "start_sample", "end_sample"], kind="stable", ignore_index=True)
    last_end = ordered.groupby("recording_id")["end_sample"].cummax().shift()
    same_recording = ordered["recording_id"].eq(ordered["recording_id"].shift())
    overlaps = same_recording & (ordered["start_sample"] < last_end)
    equal = overlaps & ordered["start_sample"].eq(ordered["start_sample"].shift())
    equal &= ordered["end_sample"].eq(ordered["end_sample"].shift())
    examples = [
        f"{row.recording_id}: samples {row.start_sample} to {row.end_sample} ({row.origin})"
        for row in ordered[overlaps].head(_EXAMPLES).itertuples(index=False)
    ]
    touching = overlaps | overlaps.shift(-1, fill_value=False)
    if (touching & ordered["origin"].isin(["mined", "mined_raw"])).any():
        raise StageError(f"prepare: mined noise overlaps another noise clip ({examples[0]}); please report this.")
    return replace(
        report, overlapping_noise=int(overlaps.sum()), duplicate_noise=int(equal.sum()), examples=tuple(examples)
    )


def _owed(n_calls: int, share: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """Index of the call of every noise clip that is owed: round(share * n_calls) of them, spread evenly."""
    total = round(share * n_calls)
    each = total // max(n_calls, 1)
    more = generator.permutation(n_calls)[: total - each * n_calls]
    return np.sort(np.concatenate([np.repeat(np.arange(n_calls), each), more])).astype(np.int64)


def _draw_all(
    wanted: list[tuple[str, float]],
    free: list[Slot],
    raw: list[Slot],
    parents: "pd.Series[str]",
    settings: DatasetSettings,
    generator: np.random.Generator,
) -> tuple[list[Slot], list[Slot], set[str]]:
    """Places for the clips wanted: in labelled time, in raw recordings, and the recordings that had no room."""
    own = settings.noise_from == "own"
    rooms = _rooms(free, own)
    spare_rooms = _rooms(raw, own=True)
    mined: list[Slot] = []
    spare: list[Slot] = []
    lacking: set[str] = set()
    for recording, duration_s in wanted:
        key = recording if own else ""
        place = rooms[key].draw(duration_s, generator) if key in rooms else None
        if place is not None:
            mined.append(place)
            continue
        lacking.add(key)
        parent = parents[recording]
        if parent in spare_rooms and (place := spare_rooms[str(parent)].draw(duration_s, generator)) is not None:
            spare.append(place)
    return mined, spare, lacking


def _rooms(slots: Iterable[Slot], own: bool) -> dict[str, Room]:
    """The room in each recording, or under '' that in all of them."""
    by_key: dict[str, list[Slot]] = {}
    for slot in slots:
        by_key.setdefault(slot.recording_id if own else "", []).append(slot)
    return {key: Room(members) for key, members in by_key.items()}


def _raw_slots(recordings: pd.DataFrame, annotations: pd.DataFrame, settings: DatasetSettings) -> list[Slot]:
    """Free time of raw recordings that nobody has labelled, outside the extracts that were cut from them.

    A raw recording of which an extract has no known place is left out: the extract's calls could be anywhere in it.
    """
    facts = recordings.set_index("recording_id")
    extracts = facts[facts["parent"].notna()]
    labelled = facts["labelled"].astype(bool)
    usable = facts["readable"].astype(bool) & ~labelled & facts.index.isin(extracts.loc[labelled, "parent"])
    usable &= ~facts.index.isin(extracts.loc[extracts["parent_start_s"].isna(), "parent"])
    placed = extracts[extracts["parent_start_s"].notna()]
    taken = pd.DataFrame(
        {
            "recording_id": placed["parent"].to_numpy(),
            "start_s": placed["parent_start_s"].to_numpy(dtype=float),
            "end_s": (placed["parent_start_s"] + placed["duration_s"]).to_numpy(dtype=float),
        }
    )
    rows = annotations[["recording_id", "start_s", "end_s"]]
    return free_slots(facts[usable].sort_index(), pd.concat([rows, taken]), None, settings.margin_s)


def _clips(slots: list[Slot], origin: str) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "recording_id": [slot.recording_id for slot in slots],
        "start_sample": np.array([slot.start_sample for slot in slots], dtype=np.int64),
        "end_sample": np.array([slot.end_sample for slot in slots], dtype=np.int64),
    }
    return pd.DataFrame(columns | {"class": "noise", "label": None, "quality": None, "origin": origin})
