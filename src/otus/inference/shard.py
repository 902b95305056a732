"""One prediction job: the chunks of a shard through several models, an item row for each, whatever happens."""

import contextlib
import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from otus.audio import AudioInfo
from otus.errors import DataError, MissingPartError, StageError
from otus.inference.parts import ChunkFrames, ShardParts
from otus.inference.reading import Answer, Request, read_ahead
from otus.inference.scorer import Scorer
from otus.inference.steps import Scoring, Step, Task, units
from otus.scores import Logits, ScoreWriter
from otus.stopping import StoppedError
from otus.tables import table
from otus.telemetry.events import NO_JOURNAL, Recorder

#: Failures of one recording in one model, which must not stop the others.
_ITEM_ERRORS = (DataError, OSError, FloatingPointError, RuntimeError)

_Sources = dict[str, tuple[Path, AudioInfo]]


@dataclass(frozen=True)
class ShardModel:
    """A model of a prediction job.

    `identity` tells its weights and the code that scores from others. Recordings in `skip` are those that it was
    trained on. What is finished lies in `resume_folder`, which the caller deletes once he has written the items.
    """

    name: str
    scorer: Scorer
    identity: str
    skip: Collection[str]
    scores_path: Path
    resume_folder: Path


@dataclass(frozen=True)
class ShardResult:
    """The items table of a model, and the audio time that it scored."""

    items: pd.DataFrame
    audio_s: float


def predict_shard(
    root: Path,
    chunks: pd.DataFrame,
    recordings: pd.DataFrame,
    models: Sequence[ShardModel],
    *,
    max_failed_fraction: float,
    readers: int,
    retries: int,
    stop: Callable[[], bool],
    progress: Callable[[str], None],
    journal: Recorder = NO_JOURNAL,
    pause: Callable[[float], object] | None = None,
) -> list[ShardResult]:
    """Score the chunks with every model into its `scores_path`; return for each model one item per chunk.

    Every chunk is decoded once for all models, by `readers` threads ahead of the networks. A recording that a model was
    trained on becomes items with status skipped; a chunk that cannot be read or scored becomes a failed item with its
    reason while the others go on. Reading errors that may pass are met by `retries` further attempts, with a `pause`
    before each. Raises StageError if more than `max_failed_fraction` of the chunks that a model had to score failed, or
    if items or frames do not add up to the chunks; nothing is left at any `scores_path` then.

    `stop` is asked after every chunk; if it says yes, StoppedError is raised. Another call with the same models,
    chunks, recordings and device scores only what is missing or failed, and ends with the same scores files. `attempt`
    in the items is 1 + the number of earlier attempts at this chunk that are known to have failed.
    """
    manifest = list(chunks.sort_values(["recording_id", "start_sample"]).itertuples(index=False))
    sources = _sources(root, recordings, {chunk.recording_id for chunk in manifest})
    with contextlib.ExitStack() as opened:
        every_parts = []
        for model in models:
            card = model.scorer.card
            digest = _digest(chunks, recordings, model)
            parts = ShardParts(model.resume_folder, digest, card.classes, card.frontend.hop_s)
            parts.take_over(progress)
            every_parts.append(opened.enter_context(parts))
        pinned = any(model.scorer.device.type == "cuda" for model in models)
        _Work(models, every_parts, sources, journal).do(
            manifest,
            read=lambda wanted: read_ahead(wanted, readers=readers, retries=retries, pinned=pinned, pause=pause),
            stop=stop,
            progress=progress,
        )
    results = []
    for model, parts in zip(models, every_parts, strict=True):
        items = _items(manifest, model, parts)
        _refuse_too_many_failures(items, max_failed_fraction, model.name)
        results.append(ShardResult(table("items", items), sum(item["audio_s"] for item in items)))
    for model, parts, result in zip(models, every_parts, results, strict=True):
        _publish(manifest, model, parts, set(result.items.loc[result.items["status"] == "ok", "chunk_id"]), sources)
    return results


def _sources(root: Path, recordings: pd.DataFrame, ids: Collection[str]) -> _Sources:
    """The path of each recording, and what the inventory says of it."""
    used = recordings[recordings["recording_id"].isin(list(ids))]
    columns = (used[name].tolist() for name in ("recording_id", "path", "n_samples", "sample_rate", "channels"))
    subtypes = used["subtype"].fillna("").tolist()
    return {
        str(recording_id): (root / path, AudioInfo(int(n_samples), int(rate), int(channels), str(subtype)))
        for recording_id, path, n_samples, rate, channels, subtype in zip(*columns, subtypes, strict=True)
    }


def _digest(chunks: pd.DataFrame, recordings: pd.DataFrame, model: ShardModel) -> str:
    """Return a SHA-256 over all that the scores of a shard depend on."""
    ids = set(chunks["recording_id"])
    used = recordings[recordings["recording_id"].isin(ids)].sort_values("recording_id")
    facts = (
        model.identity,
        model.scorer.numerics,
        (torch.__version__, torch.get_num_threads()),
        model.scorer.card,
        chunks.sort_values(["recording_id", "start_sample"]).to_csv(index=False),
        used[["recording_id", "sha256"]].to_csv(index=False),
        sorted(ids & set(model.skip)),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


@dataclass
class _Outcome:
    """What a model makes of the chunk at hand, piece by piece. `earlier` attempts at it have failed."""

    earlier: int
    tries: int = 1
    pieces: list[Logits] = field(default_factory=list)
    first_frame: int = 0
    wall_s: float = 0.0
    error: Exception | None = None
    error_class: str | None = None

    def item(self, chunk: Any, duration_s: float) -> dict[str, Any]:
        """The chunk's row of the items."""
        item = _item(chunk, "failed" if self.error else "ok", self.earlier + self.tries)
        reason = {"error_class": self.error_class, "error": str(self.error)} if self.error else {"audio_s": duration_s}
        return item | reason | {"wall_s": self.wall_s}


class _Work:
    """The models of a job, what of them is finished, and what is under way."""

    def __init__(
        self,
        models: Sequence[ShardModel],
        parts: Sequence[ShardParts],
        sources: _Sources,
        journal: Recorder,
    ) -> None:
        self._models, self._parts, self._sources, self._journal = models, parts, sources, journal
        self._earlier = [{name: o.item for name, o in p.outcomes.items()} for p in parts]
        self._scoring = Scoring([model.scorer for model in models], journal)
        self._under_way: dict[int, _Outcome] = {}
        self._data_wait_s = 0.0

    def do(
        self,
        manifest: Sequence[Any],
        *,
        read: Callable[[Iterator[list[Request]]], Generator[list[Answer]]],
        stop: Callable[[], bool],
        progress: Callable[[str], None],
    ) -> None:
        """Score the chunks that no finished part holds, or holds as failed."""
        wanted = [chunk for chunk in manifest if any(chunk.recording_id not in m.skip for m in self._models)]
        tasks = [Task(chunk, missing) for chunk in wanted if (missing := self._missing(chunk))]
        before, total = len(wanted) - len(tasks), len(wanted)
        if any(self._earlier):
            progress(f"resuming after {before} of {total} chunks")
        planned_s = sum(self._duration_s(chunk) for chunk in wanted)
        self._journal.write("plan", items_total=total, audio_s=planned_s, items_done=before)
        began, audio_s, done = time.monotonic(), 0.0, before
        with contextlib.closing(self._read_steps(tasks, read)) as steps:
            for step, answers in steps:
                if not self._take(step, answers):
                    continue
                done, audio_s = done + 1, audio_s + self._duration_s(step.task.chunk)
                if (done - before) % max(1, len(tasks) // 10) == 0 or done == total:
                    pace = audio_s / max(time.monotonic() - began, 1e-9)
                    progress(f"{done} of {total} chunks, {audio_s / 3600:.2f} h scored at {pace:.0f} x real time")
                if done < total and stop():
                    for parts in self._parts:
                        parts.commit()
                    raise StoppedError(f"{done} of {total} chunks", self._parts[0].folder)

    def _missing(self, chunk: Any) -> tuple[int, ...]:
        """The models that have still to score a chunk."""
        return tuple(
            number
            for number, model in enumerate(self._models)
            if chunk.recording_id not in model.skip
            and self._earlier[number].get(chunk.chunk_id, {}).get("status") != "ok"
        )

    def _duration_s(self, chunk: Any) -> float:
        return float((chunk.end_sample - chunk.start_sample) / self._sources[chunk.recording_id][1].sample_rate)

    def _read_steps(
        self, tasks: Sequence[Task], read: Callable[[Iterator[list[Request]]], Generator[list[Answer]]]
    ) -> Generator[tuple[Step, list[Answer]]]:
        """The steps, each with what was read for it."""
        ahead: deque[list[Step]] = deque()

        def wanted() -> Iterator[list[Request]]:
            for unit in units(tasks, [model.scorer for model in self._models], self._sources):
                ahead.append(unit)
                yield [request for step in unit for request in step.requests]

        with contextlib.closing(read(wanted())) as found:
            asked = time.monotonic()
            for answers in found:
                self._data_wait_s += time.monotonic() - asked
                own = iter(answers)
                for step in ahead.popleft():
                    yield step, [next(own) for _ in step.requests]
                asked = time.monotonic()

    def _take(self, step: Step, answers: list[Answer]) -> bool:
        """Score a piece with all models that want it; return whether the chunk has ended with it."""
        chunk, heard = step.task.chunk, step.heard
        if not self._under_way:
            self._journal.write("item_start", item_id=chunk.chunk_id)
            self._under_way = {n: self._begun(n, chunk) for n in step.task.models}
        if step.begins:
            heard.stretches, heard.failed = answers[0].stretches, answers[0] if answers[0].error else None
        failed = heard.failed or (answers[-1] if answers[-1].error else None)
        for number, outcome in self._under_way.items():
            began = time.monotonic()
            outcome.tries = max(outcome.tries, *(a.attempts for a in [*answers, *filter(None, [failed])]))
            if failed:
                outcome.error, outcome.error_class = failed.error, failed.error_class
            if outcome.error is None:
                self._score(number, step, answers[-1], outcome)
            outcome.wall_s += time.monotonic() - began
        if step.is_last:
            self._finish(chunk)
        return step.is_last

    def _begun(self, number: int, chunk: Any) -> _Outcome:
        return _Outcome(int(self._earlier[number].get(chunk.chunk_id, {}).get("attempt", 0)))

    def _score(self, number: int, step: Step, answer: Answer, outcome: _Outcome) -> None:
        try:
            logits = self._scoring.logits(number, step, answer.stretches)
        except _ITEM_ERRORS as error:
            if isinstance(error, torch.AcceleratorError):
                raise MissingPartError(
                    f"the GPU failed ({str(error).splitlines()[0]}); start again, and on another node if it fails "
                    "again. Nothing that was finished is lost."
                ) from error
            outcome.error, outcome.error_class = error, type(error).__name__
            return
        if not outcome.pieces:
            outcome.first_frame = step.frames[number].start
        outcome.pieces.append(logits)

    def _finish(self, chunk: Any) -> None:
        """Hand the chunk at hand over to the parts, and tell of it."""
        duration_s = self._duration_s(chunk)
        for number, outcome in self._under_way.items():
            logits = None
            if outcome.error is None:
                whole = outcome.pieces[0] if len(outcome.pieces) == 1 else np.concatenate(outcome.pieces, axis=1)
                logits = whole if whole.shape[1] else None
            self._parts[number].add(outcome.item(chunk, duration_s), outcome.first_frame, logits)
        outcomes = list(self._under_way.values())
        worst = next((outcome for outcome in outcomes if outcome.error), outcomes[0])
        wall_s = self._data_wait_s + sum(outcome.wall_s for outcome in outcomes)
        self._journal.write(
            "item_end",
            item_id=chunk.chunk_id,
            status="failed" if worst.error else "ok",
            attempt=max(outcome.earlier + outcome.tries for outcome in outcomes),
            wall_s=wall_s,
            audio_s=0.0 if worst.error else duration_s,
            data_wait_s=self._data_wait_s,
            rtf=None if worst.error else duration_s / max(wall_s, 1e-9),
            error_class=worst.error_class,
            error_tail=str(worst.error) if worst.error else None,
        )
        self._under_way, self._data_wait_s = {}, 0.0


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


def _items(manifest: Sequence[Any], model: ShardModel, parts: ShardParts) -> list[dict[str, Any]]:
    """The items of a model in the order of the manifest: one for every chunk, or StageError."""
    skipped = {"error": "a training recording of this fold"}
    items = [
        _item(chunk, "skipped", attempt=1) | skipped
        if chunk.recording_id in model.skip
        else parts.outcomes[chunk.chunk_id].item
        for chunk in manifest
        if chunk.recording_id in model.skip or chunk.chunk_id in parts.outcomes
    ]
    found = Counter(item["chunk_id"] for item in items)
    if wrong := sorted({str(chunk.chunk_id) for chunk in manifest if found[chunk.chunk_id] != 1}):
        raise StageError(
            f"predict: {model.name} has no item, or more than one, for {len(wrong)} of {len(manifest)} chunks, the "
            f"first of them {wrong[0]}; delete {model.resume_folder} and start again."
        )
    return items


def _refuse_too_many_failures(items: list[dict[str, Any]], allowed: float, name: str) -> None:
    tried = [i for i in items if i["status"] != "skipped"]
    failed = [i for i in tried if i["status"] == "failed"]
    if len(failed) > allowed * len(tried):
        raise StageError(
            f"predict: {len(failed)} of {len(tried)} chunks failed with {name}, more than "
            f"prediction.max_failed_fraction {allowed:g} allows; the first: {failed[0]['error']}"
        )


def _publish(
    manifest: Sequence[Any], model: ShardModel, parts: ShardParts, scored: Collection[str], sources: _Sources
) -> None:
    """Write the scores of the chunks that were scored, each with all its frames, in the order of the manifest."""
    scorer, card = model.scorer, model.scorer.card
    chunks = []
    for chunk in manifest:
        if chunk.chunk_id in scored:
            frames = scorer.frames(int(chunk.start_sample), int(chunk.end_sample), sources[chunk.recording_id][1])
            chunks.append(ChunkFrames(chunk.chunk_id, str(chunk.recording_id), frames.start, len(frames)))
    with ScoreWriter(model.scores_path, card.classes, card.frontend.hop_s) as writer:
        parts.copy_into(writer, chunks)
