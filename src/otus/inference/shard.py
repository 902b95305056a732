"""One prediction job: the chunks of a shard, one item row each, whatever happens."""

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save

from otus.audio import AudioInfo, inspect
from otus.dense import FrameRange
from otus.errors import DataError, StageError
from otus.frontend import Frontend, band_medians
from otus.inference.dense import frames_of_chunk, score_frames
from otus.inference.parts import ShardParts
from otus.inference.windowed import score_windows
from otus.models import FrameNetwork, WindowEnsemble, learnt_state
from otus.models.card import ModelCard
from otus.provenance import code_digest
from otus.scores import Logits, ScoreWriter
from otus.stopping import StoppedError
from otus.tables import table
from otus.windows import WindowFrontend

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
    network: FrameNetwork | WindowEnsemble,
    card: ModelCard,
    *,
    skip: Collection[str],
    scores_path: Path,
    resume_folder: Path,
    device: torch.device,
    max_failed_fraction: float,
    stop: Callable[[], bool],
    progress: Callable[[str], None],
) -> ShardResult:
    """Score the chunks into `scores_path` and return one item per chunk.

    Recordings in `skip` (those that the model was trained on) become items with status skipped; a chunk that
    cannot be read or scored becomes a failed item with its reason while the others go on. Raises StageError if
    more than `max_failed_fraction` of the chunks failed; nothing is left at `scores_path` then.

    What is finished lies in `resume_folder`, which the caller deletes once he has written the items. `stop` is asked
    after every chunk; if it says yes, StoppedError is raised. Another call with the same network, chunks, recordings
    and device scores only what is missing or failed, and ends with the same scores file. `attempt` in the items is
    1 + the number of earlier attempts at this chunk that were recorded as failed; one that was cut short is not.
    """
    todo = chunks.sort_values(["recording_id", "start_sample"])
    paths = recordings.set_index("recording_id")["path"]
    job = _Job(root, network, card, device)
    digest = _digest(todo, recordings, job, skip)
    parts = ShardParts(resume_folder, digest, card.classes, card.frontend.hop_s)
    parts.take_over(progress)
    with parts:
        _score_missing(job, todo[~todo["recording_id"].isin(list(skip))], paths, parts, stop, progress)
    items = [
        _skipped(chunk) if chunk.recording_id in skip else parts.outcomes[chunk.chunk_id].item
        for chunk in todo.itertuples(index=False)
    ]
    _refuse_too_many_failures(items, max_failed_fraction)
    with ScoreWriter(scores_path, card.classes, card.frontend.hop_s) as writer:
        parts.copy_into(writer, todo["chunk_id"])
    return ShardResult(table("items", items), sum(item["audio_s"] for item in items))


def _score_missing(
    job: "_Job",
    wanted: pd.DataFrame,
    paths: pd.Series,
    parts: ShardParts,
    stop: Callable[[], bool],
    progress: Callable[[str], None],
) -> None:
    """Score the chunks of `wanted` that no finished part holds, or holds as failed."""
    earlier = {chunk_id: outcome.item for chunk_id, outcome in parts.outcomes.items()}
    missing = wanted[[earlier.get(c, {}).get("status") != "ok" for c in wanted["chunk_id"]]]
    done = len(wanted) - len(missing)
    if earlier:
        progress(f"resuming after {done} of {len(wanted)} chunks")
    began, audio_s = time.monotonic(), 0.0
    for number, chunk in enumerate(missing.itertuples(index=False), start=1):
        attempt = 1 + int(earlier.get(chunk.chunk_id, {}).get("attempt", 0))
        outcome, first_frame, logits = _score_chunk(job, str(paths[chunk.recording_id]), chunk)
        item = _item(chunk, "ok", attempt) | outcome
        parts.add(item, first_frame, logits)
        audio_s += item["audio_s"]
        if number % max(1, len(missing) // 10) == 0 or number == len(missing):
            pace = audio_s / max(time.monotonic() - began, 1e-9)
            progress(
                f"{done + number} of {len(wanted)} chunks, {audio_s / 3600:.2f} h scored at {pace:.0f} x real time"
            )
        if number < len(missing) and stop():
            parts.commit()
            raise StoppedError(f"{done + number} of {len(wanted)} chunks", parts.folder)


def _digest(todo: pd.DataFrame, recordings: pd.DataFrame, job: "_Job", skip: Collection[str]) -> str:
    """Return a SHA-256 over all that the scores of a shard depend on."""
    weights = save({name: value.detach().cpu().contiguous() for name, value in learnt_state(job.network).items()})
    ids = set(todo["recording_id"])
    facts = (
        code_digest("inference", "models"),
        (torch.__version__, job.device.type, torch.get_num_threads()),
        hashlib.sha256(weights).hexdigest(),
        job.card,
        todo.to_csv(index=False),
        recordings.loc[recordings["recording_id"].isin(ids), ["recording_id", "sha256"]].to_csv(index=False),
        sorted(ids & set(skip)),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


class _Job:
    """The network and what it knows of the recording at hand."""

    def __init__(
        self, root: Path, network: FrameNetwork | WindowEnsemble, card: ModelCard, device: torch.device
    ) -> None:
        self.root, self.network, self.card, self.device = root, network, card, device
        self._of: str = ""
        self._info = AudioInfo(0, 1, 1, "")
        self._medians = torch.zeros(0)

    def recording(self, path: str) -> tuple[AudioInfo, torch.Tensor]:
        """Header and band medians of a recording; kept until the next one is asked for. Windows need no medians."""
        if path != self._of:
            self._info = inspect(self.root / path)
            if isinstance(self.card.frontend, Frontend):
                self._medians = band_medians(self.root / path, self._info, self.card.frontend)
            self._of = path
        return self._info, self._medians


def _item(chunk: Any, status: str, attempt: int) -> dict[str, Any]:
    return {
        "chunk_id": chunk.chunk_id,
        "recording_id": chunk.recording_id,
        "shard": chunk.shard,
        "status": status,
        "error_class": None,
        "error": None,
        "wall_s": 0.0,
        "audio_s": 0.0,
        "attempt": attempt,
    }


def _skipped(chunk: Any) -> dict[str, Any]:
    return _item(chunk, "skipped", attempt=1) | {"error": "a training recording of this fold"}


def _score_chunk(job: _Job, path: str, chunk: Any) -> tuple[dict[str, Any], int, Logits | None]:
    """Score one chunk; return what its item says about that, its first frame, and its logits if there are any."""
    began = time.monotonic()
    try:
        info, medians = job.recording(path)
        frames = frames_of_chunk(chunk.start_sample, chunk.end_sample, info, job.card.frontend)
        logits = _logits(job, job.root / path, info, medians, frames)
    except _ITEM_ERRORS as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = {"status": "failed", "error_class": type(error).__name__, "error": str(error)}
        return reason | {"wall_s": time.monotonic() - began}, 0, None
    seconds = {
        "wall_s": time.monotonic() - began,
        "audio_s": (chunk.end_sample - chunk.start_sample) / info.sample_rate,
    }
    return seconds, frames.start, logits if len(frames) else None


def _logits(job: _Job, path: Path, info: AudioInfo, medians: torch.Tensor, frames: FrameRange) -> Logits:
    """The logits of a stretch of a recording, by the inference that the card names."""
    network, frontend = job.network, job.card.frontend
    if job.card.inference == "windowed":
        assert isinstance(network, WindowEnsemble)
        assert isinstance(frontend, WindowFrontend)
        return score_windows(network, path, info, frontend, frames, n_classes=len(job.card.classes))
    assert not isinstance(network, WindowEnsemble)
    assert isinstance(frontend, Frontend)
    return score_frames(network, path, info, frontend, medians, frames)


def _refuse_too_many_failures(items: list[dict[str, Any]], allowed: float) -> None:
    failed = [i for i in items if i["status"] == "failed"]
    if len(failed) > allowed * len(items):
        raise StageError(
            f"predict: {len(failed)} of {len(items)} chunks failed, more than prediction.max_failed_fraction "
            f"{allowed:g} allows; the first: {failed[0]['error']}"
        )
