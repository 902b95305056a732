"""What one fold's network gave, read from the score and item tables of its shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from otus.atomic import read_json
from otus.config import DecodingSettings
from otus.errors import StageError
from otus.scores import Logits, read_scores
from otus.selections import DecodingPoint, check_windows, decoding_grid
from otus.sides import Spans, recordings_by_side, side_spans
from otus.tables import read_table


@dataclass(frozen=True)
class FoldScores:
    """Logits (2 * classes, frames) of the val and test recordings of one fold.

    `recordings` has recording_id, group, split (val | test), duration_s (the time on that side) and part (what the
    fold tests, null if that is a share of the groups), one row per recording and split; `spans` tells for each split
    which time of its recordings that is. `leaky`: clips of one recording may stand on several sides.
    """

    fold: int
    classes: list[str]
    recordings: pd.DataFrame
    logits: Mapping[str, Logits]
    frame_hop_s: float
    grid: Sequence[DecodingPoint]
    spans: Mapping[str, Mapping[str, Spans]]
    leaky: bool

    @property
    def by_part(self) -> bool:
        """Whether the fold tests all of a site, a recorder or a part of the day."""
        return "part" in self.recordings and bool(self.recordings["part"].notna().any())


def read_fold(
    fold: int,
    *,
    card_path: str | Path,
    scores_paths: Sequence[str | Path],
    items_paths: Sequence[str | Path],
    recordings: pd.DataFrame,
    splits: pd.DataFrame,
    decoding: DecodingSettings,
) -> FoldScores:
    """Return the scores of one fold, whose rows `splits` holds; a recording with a failed chunk is left out.

    Raises StageError if the items do not account for every val and test recording, DataError if windows of the grid
    cannot be made of the scores.
    """
    card = read_json(card_path)
    window_frames = card.get("window_frames", 1)
    items = pd.concat([read_table(path, "items") for path in items_paths], ignore_index=True)
    whole = items.groupby("recording_id")["status"].agg(lambda s: bool((s == "ok").all()))
    sample_rates = recordings.set_index("recording_id")["sample_rate"]
    sides = recordings_by_side(splits, sample_rates)
    wanted = sides[sides["split"] != "train"]
    lost = sorted(set(wanted["recording_id"]) - set(whole.index))
    if lost:
        raise StageError(
            f"evaluate: the scores of fold {fold} do not mention {lost[0]} ({len(lost)} recordings); rerun predict."
        )
    scored = wanted[wanted["recording_id"].map(whole)].assign(part=splits["part"].iloc[0]).reset_index(drop=True)
    logits, classes, frame_hop_s = read_scores(scores_paths, only=set(scored["recording_id"]))
    check_windows(decoding, frame_hop_s, window_frames)
    return FoldScores(
        fold=fold,
        classes=classes,
        recordings=scored,
        logits=logits,
        frame_hop_s=frame_hop_s,
        grid=decoding_grid(
            decoding,
            median_call_s=card["median_call_s"],
            short_call_s=card["short_call_s"],
            window_frames=window_frames,
        ),
        spans={split: side_spans(splits, sample_rates, split) for split in ("val", "test")},
        leaky=bool(splits["leaky"].any()),
    )
