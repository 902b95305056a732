"""The clips of a variant as Raven selection tables, one per recording, to be looked at beside the sound."""

from typing import Any

import numpy as np
import pandas as pd

from otus.annotations import TableRow, raven_table
from otus.clipfiles.lists import sides_by_fold

#: What noise is called that has no label of its own.
_NOISE = "noise"

#: Recording, label, start and end (samples).
_Place = tuple[str, str, int, int]


def selection_tables(clips: pd.DataFrame, sides: pd.DataFrame, annotations: pd.DataFrame) -> dict[str, str]:
    """Return the text of a Raven table for every recording with clips, by its id, the rows sorted by start.

    `clips` has the columns of named_clips, `sides` those of the table of sides. Times are exact to the sample. A call
    has the frequencies of its annotation. The extra columns are Sound_type, Origin and Split, or with several folds
    `Split fold 1` and so on. Clips with the same times stay rows of their own.
    """
    bands = _bands(annotations, clips)
    found = sides_by_fold(sides)
    folds = sorted({fold for own in found.values() for fold in own})
    texts = {}
    for recording_id, rows in clips.sort_values("uid").groupby("recording_id", sort=True):
        listed = [_row(row, found[row["uid"]], folds, bands) for row in rows.to_dict("records")]
        texts[str(recording_id)] = raven_table(listed)
    return texts


def _row(
    row: dict[Any, Any], sides: dict[int, str], folds: list[int], bands: dict[_Place, tuple[float | None, float | None]]
) -> TableRow:
    label = row["label"] if isinstance(row["label"], str) else None
    splits = {f"Split fold {fold}": sides.get(fold, "") for fold in folds}
    if len(folds) == 1:
        splits = {"Split": sides[folds[0]]}
    low, high = _band(bands, row) if label and row["origin"] == "annotation" else (None, None)
    return TableRow(
        start_s=row["start_s"],
        end_s=row["end_s"],
        label=label or _NOISE,
        low_hz=low,
        high_hz=high,
        quality=row["quality"] if isinstance(row["quality"], str) else None,
        extra={"Sound_type": row["class"], "Origin": row["origin"], **splits},
    )


def _bands(annotations: pd.DataFrame, clips: pd.DataFrame) -> dict[_Place, tuple[float | None, float | None]]:
    """The frequencies of annotations by their place, in whole samples; above half the sample rate there are none."""
    rates = dict(zip(clips["recording_id"], clips["sample_rate"], strict=True))
    known = annotations[
        annotations["recording_id"].isin(rates) & annotations[["low_hz", "high_hz"]].notna().any(axis=1)
    ]
    bands = {}
    columns = ("recording_id", "label", "start_s", "end_s", "low_hz", "high_hz")
    for recording_id, label, start_s, end_s, low, high in zip(*(known[name] for name in columns), strict=True):
        rate = int(rates[recording_id])
        place = (str(recording_id), str(label), round(start_s * rate), round(end_s * rate))
        if np.isnan(low) or low < rate / 2:
            bands[place] = (None if np.isnan(low) else low, None if np.isnan(high) else min(high, rate / 2))
    return bands


def _band(
    bands: dict[_Place, tuple[float | None, float | None]], row: dict[Any, Any]
) -> tuple[float | None, float | None]:
    """The frequencies of the annotation that a clip was cut from, at whole samples and so up to one sample off."""
    for start in (row["start_sample"], row["start_sample"] + 1, row["start_sample"] - 1):
        for end in (row["end_sample"], row["end_sample"] - 1, row["end_sample"] + 1):
            if (place := (row["recording_id"], row["label"], start, end)) in bands:
                return bands[place]
    return None, None
