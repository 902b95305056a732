"""Splits of single clips, as older pipelines made them: leaky, for comparison only.

One recording stands on several sides then. Its time is divided where two neighbouring clips of different sides meet
(half-way between them), so that calls, selections and hours can still be counted on one side only.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.config import DatasetSettings, SplitSettings
from otus.datasets.clips import labelled_recordings
from otus.datasets.dealing import deal_in_strata
from otus.datasets.splits import check_calls, shares_of, side_of_part
from otus.errors import DataError
from otus.seeds import derive_seed
from otus.tables import table

#: What makes a stratum; one stratum for all clips if there is nothing.
_STRATA = {
    "random": [],
    "random_more_noise": [],
    "quality_balanced": ["class", "quality"],
    "clipwise_balanced": ["recording_id"],
    "quality_and_clipwise_balanced": ["recording_id", "class", "quality"],
}


def split_clips(
    recordings: pd.DataFrame, clips: pd.DataFrame, *, settings: SplitSettings, dataset: DatasetSettings, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the clips of all folds with their fold and split, and the `splits` table with a row per span.

    Within each stratum of the strategy the shares of train, val and test are met to within one clip. A clip that is
    neither target nor noise goes with the time around it. Raises DataError if the recordings sheet gives a split, or
    if a side would hold no target call.
    """
    usable = labelled_recordings(recordings)
    if (usable["given_split"].notna() & (usable["given_split"] != "")).any():
        raise DataError(
            f"config: the recordings sheet gives a split, which strategy {dataset.strategy} cannot follow; "
            "drop the sheet's column split or the variant."
        )
    shares = shares_of(settings, dataset)
    counted = (clips["class"] != "unknown").to_numpy()
    strata = _codes(clips[counted], _STRATA[dataset.strategy])
    part = np.full(len(clips), -1, dtype=np.int64)
    part[counted] = deal_in_strata(strata, shares, derive_seed(seed, "clips"))
    bare = usable[~usable["recording_id"].isin(clips.loc[counted, "recording_id"])]
    bare_part = deal_in_strata(np.zeros(len(bare), dtype=np.int64), shares, derive_seed(seed, "bare recordings"))
    spans = _spans(usable, clips, part, dict(zip(bare["recording_id"], bare_part.tolist(), strict=True)))
    part[~counted] = _part_around(spans, clips[~counted])
    dealt, splits = [], []
    for fold in range(settings.folds or 1):
        dealt.append(clips.assign(fold=fold + 1, split=_in_words(part, fold, settings), leaky=True))
        splits.append(
            spans.assign(fold=fold + 1, split=_in_words(spans["part"].to_numpy(dtype=np.int64), fold, settings))
        )
        check_calls(fold + 1, dealt[-1].loc[dealt[-1]["class"] == "target", "split"])
    merged = _joined(pd.concat(splits, ignore_index=True).drop(columns="part"))
    return pd.concat(dealt, ignore_index=True), table("splits", merged.assign(leaky=True))


def _codes(clips: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """A number per clip, equal for clips of one stratum, in the order of the values."""
    if not columns or clips.empty:
        return np.zeros(len(clips), dtype=np.int64)
    keys = clips[list(columns)].fillna("").astype(str)
    codes: NDArray[np.int64] = keys.groupby(list(columns), sort=True).ngroup().to_numpy(dtype=np.int64)
    return codes


def _in_words(part: NDArray[np.int64], fold: int, settings: SplitSettings) -> NDArray[np.object_]:
    words = [side_of_part(p, fold, settings) for p in range(settings.folds or 3)]
    return np.array(words, dtype=object)[part]


def _spans(usable: pd.DataFrame, clips: pd.DataFrame, part: NDArray[np.int64], bare: dict[str, int]) -> pd.DataFrame:
    """The time of every recording, divided among the parts of its clips; that of a bare one undivided."""
    number_of = pd.Series(np.arange(len(usable)), index=usable["recording_id"])
    number = clips["recording_id"].map(number_of).fillna(-1).to_numpy(dtype=np.int64)
    start, end = clips["start_sample"].to_numpy(dtype=np.int64), clips["end_sample"].to_numpy(dtype=np.int64)
    own = np.flatnonzero((part >= 0) & (number >= 0))  # raw recordings, which nobody has labelled, have no spans
    own = own[np.lexsort((start[own] + end[own], number[own]))]
    number, start, end, part = number[own], start[own], end[own], part[own]
    border = _borders(start, end)
    opens = np.r_[True, np.diff(number) > 0][: len(own)]
    closes = np.r_[opens[1:], True][: len(own)]
    lengths = usable["n_samples"].to_numpy(dtype=np.int64)
    first = np.where(opens, 0, np.r_[0, border][: len(own)])
    last = np.where(closes, lengths[number], np.r_[border, 0][: len(own)])
    spans = pd.DataFrame({"number": number, "part": part, "start_sample": first, "end_sample": last})
    alone = number_of[list(bare)].to_numpy(dtype=np.int64)
    whole = pd.DataFrame(
        {"number": alone, "part": list(bare.values()), "start_sample": 0, "end_sample": lengths[alone]}
    )
    spans = pd.concat([spans[spans["end_sample"] > spans["start_sample"]], whole], ignore_index=True)
    spans["recording_id"] = usable["recording_id"].to_numpy()[spans["number"]]
    spans["group"] = usable["group"].to_numpy()[spans["number"]]
    return spans.sort_values(["number", "start_sample"], ignore_index=True).drop(columns="number")


def _borders(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the time of each clip ends and that of the next begins: half-way, but past the middle of neither."""
    middle = (start + end) // 2
    half_way = (end[:-1] + start[1:]) // 2
    borders: NDArray[np.int64] = np.minimum(np.maximum(half_way, middle[:-1] + 1), middle[1:])
    return borders


def _part_around(spans: pd.DataFrame, clips: pd.DataFrame) -> NDArray[np.int64]:
    """The part in whose time the middle of each clip lies."""
    firsts = spans.drop_duplicates("recording_id")
    number_of = pd.Series(np.arange(len(firsts)), index=firsts["recording_id"])
    apart = int(spans["end_sample"].max()) + 1  # puts all recordings one after another
    middle = ((clips["start_sample"] + clips["end_sample"]) // 2).to_numpy(dtype=np.int64)
    begins = spans["recording_id"].map(number_of).to_numpy(dtype=np.int64) * apart
    begins = begins + spans["start_sample"].to_numpy(dtype=np.int64)
    at = clips["recording_id"].map(number_of).to_numpy(dtype=np.int64) * apart + middle
    parts = spans["part"].to_numpy(dtype=np.int64)
    return np.asarray(parts[np.searchsorted(begins, at, side="right") - 1])


def _joined(spans: pd.DataFrame) -> pd.DataFrame:
    """Spans in their order, neighbours of one side as one."""
    ordered = spans.sort_values(["fold", "recording_id", "start_sample"], kind="stable", ignore_index=True)
    keys = ordered[["fold", "recording_id", "split"]]
    number = keys.ne(keys.shift()).any(axis=1).cumsum()
    first = ordered.groupby(number).first()
    return first.assign(end_sample=ordered.groupby(number)["end_sample"].max()).reset_index(drop=True)
