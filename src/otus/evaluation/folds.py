"""What one fold's network gave, read from the score and item tables of its shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from otus.atomic import read_json
from otus.config import DecodingSettings
from otus.errors import StageError
from otus.scores import Logits, read_scores
from otus.selections import DecodingPoint, decoding_grid
from otus.tables import read_table


@dataclass(frozen=True)
class FoldScores:
    """Logits (2 * classes, frames) of the val and test recordings of one fold.

    `recordings` has recording_id, group, duration_s and split (val | test).
    """

    fold: int
    classes: list[str]
    recordings: pd.DataFrame
    logits: Mapping[str, Logits]
    frame_hop_s: float
    grid: Sequence[DecodingPoint]


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
    """Return the scores of one fold; a recording with a failed chunk is left out.

    Raises StageError if the items do not account for every val and test recording.
    """
    card = read_json(card_path)
    items = pd.concat([read_table(path, "items") for path in items_paths], ignore_index=True)
    whole = items.groupby("recording_id")["status"].agg(lambda s: bool((s == "ok").all()))
    wanted = splits[splits["split"] != "train"]
    lost = sorted(set(wanted["recording_id"]) - set(whole.index))
    if lost:
        raise StageError(
            f"evaluate: the scores of fold {fold} do not mention {lost[0]} ({len(lost)} recordings); rerun predict."
        )
    scored = wanted[wanted["recording_id"].map(whole)]
    logits, classes, frame_hop_s = read_scores(scores_paths, only=set(scored["recording_id"]))
    return FoldScores(
        fold=fold,
        classes=classes,
        recordings=scored.merge(recordings[["recording_id", "duration_s"]], on="recording_id"),
        logits=logits,
        frame_hop_s=frame_hop_s,
        grid=decoding_grid(decoding, median_call_s=card["median_call_s"], short_call_s=card["short_call_s"]),
    )
