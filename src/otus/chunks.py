"""Chunks and shards: which stretch of which recording one step reads, and which job takes it. No audio is copied."""

import heapq
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from otus.config import ChunkSettings
from otus.tables import table

#: Durations that differ by less are the same; rounding would move an item back and forth.
_SAME_S = 1e-6

#: A part of a recording that goes to a shard as a whole is at most this share of what the shard should hold.
_LARGEST_PART = 0.25


def make_chunks(recordings: pd.DataFrame, settings: ChunkSettings) -> pd.DataFrame:
    """Return the `chunks` table of the readable, labelled recordings; positions are samples of the recording.

    A recording is cut into equal stretches of at most `chunk_s`. No two shards differ by more audio time than that of
    a chunk, and most recordings lie in one shard, because every job that scores a part of a recording has to get to
    know its levels. There may be more shards than chunks: then some are empty.
    """
    rows: list[dict[str, Any]] = []
    durations_s: list[list[float]] = []
    used = recordings[recordings["readable"] & recordings["labelled"]].sort_values("recording_id")
    for r in used.itertuples():
        pieces = max(1, math.ceil(r.n_samples / (settings.chunk_s * r.sample_rate)))
        borders = [i * r.n_samples // pieces for i in range(pieces + 1)]
        context = math.ceil(settings.context_s * r.sample_rate)
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
                }
            )
        durations_s.append([(end - start) / r.sample_rate for start, end in itertools.pairwise(borders)])
    shards = _shards(durations_s, settings.shards_for(math.fsum(itertools.chain.from_iterable(durations_s))))
    return table("chunks", [{**row, "shard": shard} for row, shard in zip(rows, shards, strict=True)])


def _shards(durations_s: Sequence[Sequence[float]], shards: int) -> list[int]:
    """The shard (from 1) of every chunk, given the durations of the chunks of every recording.

    Large parts of recordings are dealt out, and then single chunks make up for what the shards differ by.
    """
    largest_s = _LARGEST_PART * math.fsum(itertools.chain.from_iterable(durations_s)) / shards
    parts_s: list[float] = []
    part_of: list[int] = []
    for chunks_s in durations_s:
        at_once = max(1, int(largest_s / max(chunks_s))) if shards > 1 else len(chunks_s)
        n_parts = math.ceil(len(chunks_s) / at_once)
        borders = [i * len(chunks_s) // n_parts for i in range(n_parts + 1)]
        for first, last in itertools.pairwise(borders):
            part_of += [len(parts_s)] * (last - first)
            parts_s.append(math.fsum(chunks_s[first:last]))
    balanced = _balance(parts_s, shards)
    of_chunk = [balanced[part] for part in part_of]
    _even_out(of_chunk, list(itertools.chain.from_iterable(durations_s)), shards)
    return of_chunk


def _balance(durations_s: Sequence[float], shards: int) -> list[int]:
    """Longest-processing-time-first: the shard (from 1) of each item, each in turn to the shard with the least."""
    least = [(0.0, shard) for shard in range(1, shards + 1)]
    of_item = [0] * len(durations_s)
    for item in sorted(range(len(durations_s)), key=lambda i: (-durations_s[i], i)):
        load_s, shard = heapq.heappop(least)
        of_item[item] = shard
        heapq.heappush(least, (load_s + durations_s[item], shard))
    return of_item


def _even_out(of_item: list[int], durations_s: Sequence[float], shards: int) -> None:
    """Move items from the shard with the most to the one with the least, until they differ by no more than an item."""
    loads_s = np.bincount(of_item, weights=durations_s, minlength=shards + 1)[1:]
    own: list[list[int]] = [[] for _ in range(shards)]
    for item, shard in enumerate(of_item):
        own[shard - 1].append(item)
    while own[most := int(loads_s.argmax())]:
        least, item = int(loads_s.argmin()), own[most][-1]
        if loads_s[most] - loads_s[least] <= durations_s[item] + _SAME_S:
            break
        own[least].append(own[most].pop())
        loads_s[most] -= durations_s[item]
        loads_s[least] += durations_s[item]
        of_item[item] = least + 1
