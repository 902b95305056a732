"""Chunks and shards: which stretch of which recording one step reads, and which job takes it. No audio is copied."""

import heapq
import itertools

import numpy as np
import pandas as pd

from otus.config import ChunkSettings
from otus.tables import table


def make_chunks(recordings: pd.DataFrame, settings: ChunkSettings) -> pd.DataFrame:
    """Return the `chunks` table of the readable, labelled recordings; positions are samples of the recording.

    A recording is cut into equal stretches of at most `chunk_s`. Shards hold about the same audio time: the
    longest chunk goes first, always to the emptiest shard.
    """
    rows = []
    used = recordings[recordings["readable"] & recordings["labelled"]].sort_values("recording_id")
    for r in used.itertuples():
        pieces = max(1, int(np.ceil(r.n_samples / (settings.chunk_s * r.sample_rate))))
        borders = [i * r.n_samples // pieces for i in range(pieces + 1)]
        context = int(np.ceil(settings.context_s * r.sample_rate))
        for i, (start, end) in enumerate(itertools.pairwise(borders)):
            rows.append(
                {
                    "chunk_id": f"{r.recording_id}_k{i:05d}",
                    "recording_id": r.recording_id,
                    "start_sample": start,
                    "end_sample": end,
                    "context_left": min(context, start),
                    "context_right": min(context, r.n_samples - end),
                    "sha256": r.sha256,
                    "duration_s": (end - start) / r.sample_rate,
                }
            )
    durations = [float(row.pop("duration_s")) for row in rows]
    shards = _balance(durations, settings.shards)
    return table("chunks", [{**row, "shard": shard} for row, shard in zip(rows, shards, strict=True)])


def _balance(durations: list[float], shards: int) -> list[int]:
    """Longest-processing-time-first: the shard (from 1) of each item."""
    emptiest = [(0.0, shard) for shard in range(1, shards + 1)]
    of_item = [0] * len(durations)
    for item in sorted(range(len(durations)), key=lambda i: (-durations[i], i)):
        load, shard = heapq.heappop(emptiest)
        of_item[item] = shard
        heapq.heappush(emptiest, (load + durations[item], shard))
    return of_item
