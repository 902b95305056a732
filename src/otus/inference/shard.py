"""One prediction job: the chunks of a shard, one item row each, whatever happens."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from otus.audio import AudioInfo, inspect
from otus.errors import DataError, StageError
from otus.frontend import band_medians
from otus.inference.dense import frames_of_chunk, score_frames
from otus.models.card import ModelCard
from otus.scores import ScoreWriter
from otus.tables import table

#: Failures of one recording, which must not stop the others.
_ITEM_ERRORS = (DataError, OSError, FloatingPointError, RuntimeError)


@dataclass(frozen=True)
class ShardResult:
    """The items table and the audio time that was scored."""

    items: pd.DataFrame
    audio_s: float


def predict_shard(
    root: Path,
    chunks: pd.DataFrame,
    recordings: pd.DataFrame,
    network: nn.Module,
    card: ModelCard,
    *,
    skip: Collection[str],
    scores_path: Path,
    device: torch.device,
    max_failed_fraction: float,
    progress: Callable[[str], None],
) -> ShardResult:
    """Score the chunks into `scores_path` and return one item per chunk.

    Recordings in `skip` (those that the model was trained on) become items with status skipped; a chunk that
    cannot be read or scored becomes a failed item with its reason while the others go on. Raises StageError if
    more than `max_failed_fraction` of the chunks failed; nothing is left at `scores_path` then.
    """
    paths = recordings.set_index("recording_id")["path"]
    todo = chunks.sort_values(["recording_id", "start_sample"])
    job = _Job(root, network, card, device)
    items: list[dict[str, Any]] = []
    began, audio_s = time.monotonic(), 0.0
    with ScoreWriter(scores_path, card.classes, card.frontend.hop_s) as writer:
        for number, chunk in enumerate(todo.itertuples(index=False), start=1):
            item = _item(chunk, "skipped" if chunk.recording_id in skip else "ok")
            if item["status"] == "skipped":
                item["error"] = "a training recording of this fold"
            else:
                item |= _score_chunk(job, writer, str(paths[chunk.recording_id]), chunk)
                audio_s += item["audio_s"]
            items.append(item)
            if number % max(1, len(todo) // 10) == 0 or number == len(todo):
                pace = audio_s / max(time.monotonic() - began, 1e-9)
                progress(f"{number} of {len(todo)} chunks, {audio_s / 3600:.2f} h scored at {pace:.0f} x real time")
        _refuse_too_many_failures(items, max_failed_fraction)
    return ShardResult(table("items", items), audio_s)


class _Job:
    """The network and what it knows of the recording at hand."""

    def __init__(self, root: Path, network: nn.Module, card: ModelCard, device: torch.device) -> None:
        self.root, self.network, self.card, self.device = root, network, card, device
        self._of: str = ""
        self._info = AudioInfo(0, 1, 1, "")
        self._medians = torch.zeros(0)

    def recording(self, path: str) -> tuple[AudioInfo, torch.Tensor]:
        """Header and band medians of a recording; kept until the next one is asked for."""
        if path != self._of:
            self._info = inspect(self.root / path)
            self._medians = band_medians(self.root / path, self._info, self.card.frontend)
            self._of = path
        return self._info, self._medians


def _item(chunk: Any, status: str) -> dict[str, Any]:
    return {
        "chunk_id": chunk.chunk_id,
        "recording_id": chunk.recording_id,
        "shard": chunk.shard,
        "status": status,
        "error_class": None,
        "error": None,
        "wall_s": 0.0,
        "audio_s": 0.0,
        "attempt": 1,
    }


def _score_chunk(job: _Job, writer: ScoreWriter, path: str, chunk: Any) -> dict[str, Any]:
    """Score one chunk and write it; return what its item says about that."""
    began = time.monotonic()
    try:
        info, medians = job.recording(path)
        frames = frames_of_chunk(chunk.start_sample, chunk.end_sample, info, job.card.frontend)
        _check_context(chunk, info, job.card)
        logits = score_frames(
            job.network,
            job.root / path,
            info,
            job.card.frontend,
            medians,
            frames,
            context_frames=job.card.context_frames,
            device=job.device,
        )
    except _ITEM_ERRORS as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = {"status": "failed", "error_class": type(error).__name__, "error": str(error)}
        return reason | {"wall_s": time.monotonic() - began}
    if len(frames):
        writer.write(chunk.recording_id, frames.start, logits)
    return {"wall_s": time.monotonic() - began, "audio_s": (chunk.end_sample - chunk.start_sample) / info.sample_rate}


def _check_context(chunk: Any, info: AudioInfo, card: ModelCard) -> None:
    """The chunk must bring the context that the network sees, or its scores would depend on where it is cut."""
    need_s = card.context_frames * card.frontend.hop_s
    short_left = chunk.context_left < min(chunk.start_sample, need_s * info.sample_rate)
    short_right = chunk.context_right < min(info.n_samples - chunk.end_sample, need_s * info.sample_rate)
    if short_left or short_right:
        raise StageError(
            f"predict: the network sees {need_s:.2f} s on either side of a frame, more than the chunks bring; "
            f"set chunking.context_s to {need_s:.2f} or more."
        )


def _refuse_too_many_failures(items: list[dict[str, Any]], allowed: float) -> None:
    failed = [i for i in items if i["status"] == "failed"]
    if len(failed) > allowed * len(items):
        raise StageError(
            f"predict: {len(failed)} of {len(items)} chunks failed, more than prediction.max_failed_fraction "
            f"{allowed:g} allows; the first: {failed[0]['error']}"
        )
