"""One job of an external detector: the chunks of a shard as sound files, one item each, whatever happens."""

import hashlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from otus.chunkfiles import cut_chunk, info_of
from otus.config import ExternalSettings
from otus.errors import DataError, StageError
from otus.external.command import CommandRunner
from otus.external.hawkears import HawkEarsRunner
from otus.external.journal import Entry, Journal
from otus.external.programs import InterruptedProgramError, ProgramError
from otus.external.results import Found
from otus.external.rows import ChunkTimes, Kept, numbered, selections_of_chunk
from otus.provenance import code_digest
from otus.stopping import StoppedError
from otus.tables import table
from otus.telemetry.events import NO_JOURNAL, Recorder

#: Failures of one chunk, which must not stop the others.
_ITEM_ERRORS = (DataError, ProgramError, OSError)

#: Failures that are told in the log; the items have them all.
_TOLD = 5

#: A detector that fails on so many chunks and works on none is given up: it may take its time limit for each.
_HOPELESS = 5

_REPORT_EVERY_S = 60.0


@dataclass(frozen=True)
class ExternalResult:
    """Tables selections (of chunks, not joined yet) and items, the audio time, and rows dropped by label."""

    selections: pd.DataFrame
    items: pd.DataFrame
    audio_s: float
    dropped: dict[str, int]


class Runner(Protocol):
    """How a detector is run on one sound file."""

    def find(self, sound: Path, folder: Path) -> list[Found]:
        """Return what it finds in `sound`; `folder` is empty, and its own."""

    def close(self) -> None:
        """End what still runs."""


def run_shard(
    root: Path,
    chunks: pd.DataFrame,
    recordings: pd.DataFrame,
    name: str,
    settings: ExternalSettings,
    *,
    targets: Sequence[str],
    programs: Mapping[str, Any],
    journal: Path,
    stop: Callable[[], bool],
    progress: Callable[[str], None],
    telemetry: Recorder = NO_JOURNAL,
) -> ExternalResult:
    """Run the detector `name` on the sound files of all `chunks` and return what it found, one item per chunk.

    A chunk that cannot be cut out, or on which the detector fails, becomes a failed item with its reason while the
    others go on. Raises StageError if more than `settings.max_failed_fraction` of them failed, or the detector cannot
    work at all: it says so, or fails on the first five and so many may not fail.

    What is finished stands in the file `journal`, which the caller deletes once he has written the tables; `programs`
    says what the detector consists of. `stop` is asked all along; if it says yes, StoppedError is raised. Another call
    with the same settings, programs, chunks and recordings runs only what is missing or failed.
    """
    todo = chunks.sort_values(["recording_id", "start_sample"])
    facts = recordings.set_index("recording_id")
    written = Journal(journal, _digest(todo, facts, settings, targets, programs))
    done = {chunk_id for chunk_id, entry in written.entries.items() if entry.item["status"] == "ok"}
    missing = todo[~todo["chunk_id"].isin(done)]
    if written.entries:
        failed = len(written.entries) - len(done)
        progress(f"resuming after {len(done)} of {len(todo)} chunks" + f"; {failed} failed before" * bool(failed))
    planned_s = sum(_duration_s(facts, chunk) for chunk in todo.itertuples(index=False))
    telemetry.write("plan", items_total=len(todo), items_done=len(done), audio_s=planned_s)
    if len(missing):
        with tempfile.TemporaryDirectory(prefix="otus-external-", ignore_cleanup_errors=True) as folder:
            runner = _runner(settings, targets, Path(folder), stop)
            job = _Job(root, facts, name, settings, targets, runner, Path(folder), len(todo))
            try:
                _run(job, missing, written, stop=stop, progress=progress, telemetry=telemetry)
            finally:
                runner.close()
    entries = [written.entries[chunk_id] for chunk_id in todo["chunk_id"]]
    _refuse_too_many_failures(name, [entry.item for entry in entries], settings.max_failed_fraction)
    dropped = sum((Counter(entry.dropped) for entry in entries), Counter[str]())
    rows = [{**row, "model": name, "layer": "external"} for entry in entries for row in entry.rows]
    return ExternalResult(
        table("selections", rows),
        table("items", [entry.item for entry in entries]),
        sum(entry.item["audio_s"] for entry in entries),
        dict(sorted(dropped.items())),
    )


@dataclass(frozen=True)
class _Job:
    root: Path
    facts: pd.DataFrame
    name: str
    settings: ExternalSettings
    targets: Sequence[str]
    runner: Runner
    folder: Path
    n_chunks: int


def _runner(settings: ExternalSettings, targets: Sequence[str], folder: Path, stop: Callable[[], bool]) -> Runner:
    if settings.runner == "hawkears":
        return HawkEarsRunner(settings, folder, stop)
    labels = list(settings.label_map(targets))
    return CommandRunner(settings, labels[0] if len(labels) == 1 else None, stop)


def _run(
    job: _Job,
    missing: pd.DataFrame,
    written: Journal,
    *,
    stop: Callable[[], bool],
    progress: Callable[[str], None],
    telemetry: Recorder,
) -> None:
    """Run the detector on the chunks that are missing, and write down what comes of each at once."""
    began = reported = time.monotonic()
    audio_s = 0.0
    failed: list[dict[str, Any]] = []
    for number, chunk in enumerate(missing.itertuples(index=False), start=1):
        earlier = written.entries.get(chunk.chunk_id)
        attempt = 1 + (int(earlier.item["attempt"]) if earlier else 0)
        telemetry.write("item_start", item_id=chunk.chunk_id, attempt=attempt)
        try:
            if stop():
                raise InterruptedProgramError("the job was asked to stop")
            entry = _of_chunk(job, chunk, attempt)
        except InterruptedProgramError:
            raise StoppedError(f"{number - 1} of {len(missing)} chunks", written.path) from None
        written.add(entry)
        _tell(telemetry, entry)
        audio_s += entry.item["audio_s"]
        if entry.item["status"] == "failed":
            failed.append(entry.item)
            if len(failed) <= _TOLD:
                progress(f"{chunk.chunk_id} failed: {entry.item['error']}")
            _refuse_the_hopeless(job, failed, written)
        now = time.monotonic()
        if number % max(1, len(missing) // 10) == 0 or number == len(missing) or now - reported > _REPORT_EVERY_S:
            reported, spent_s = now, max(now - began, 1e-9)
            left_min = spent_s / number * (len(missing) - number) / 60
            progress(
                f"{number} of {len(missing)} chunks, {len(failed)} failed, {audio_s / 3600:.2f} h searched at "
                f"{audio_s / spent_s:.0f} x real time, about {left_min:.0f} min left"
            )


def _tell(telemetry: Recorder, entry: Entry) -> None:
    item = entry.item
    telemetry.write(
        "item_end",
        item_id=item["chunk_id"],
        **{name: item[name] for name in ("status", "attempt", "wall_s", "audio_s", "error_class")},
        error_tail=item["error"],
        n_detections=len(entry.rows),
    )


def _refuse_the_hopeless(job: _Job, failed: Sequence[Mapping[str, Any]], written: Journal) -> None:
    """Raise StageError if the program has failed some times and never worked, and so many failures are too many."""
    alike = all(item["error_class"] == ProgramError.__name__ for item in failed)
    worked = any(entry.item["status"] == "ok" for entry in written.entries.values())
    if (
        len(failed) >= _HOPELESS
        and alike
        and not worked
        and len(failed) > job.settings.max_failed_fraction * job.n_chunks
    ):
        raise StageError(
            f"external: {job.name} failed on each of the first {len(failed)} of {job.n_chunks} chunks and was given "
            f"up; the first ({failed[0]['chunk_id']}): {failed[0]['error']}"
        )


def _duration_s(facts: pd.DataFrame, chunk: Any) -> float:
    return float((chunk.end_sample - chunk.start_sample) / int(facts.at[chunk.recording_id, "sample_rate"]))


def _of_chunk(job: _Job, chunk: Any, attempt: int) -> Entry:
    """The item and the selections of one chunk."""
    item = {"chunk_id": chunk.chunk_id, "recording_id": chunk.recording_id, "shard": int(chunk.shard)}
    item |= {"status": "ok", "error_class": None, "error": None, "attempt": attempt}
    began = time.monotonic()
    try:
        kept = _found_in_chunk(job, chunk)
    except _ITEM_ERRORS as error:
        item |= {"status": "failed", "error_class": type(error).__name__, "error": str(error)}
        return Entry(item | {"wall_s": time.monotonic() - began, "audio_s": 0.0}, [], {})
    item |= {"wall_s": time.monotonic() - began, "audio_s": _duration_s(job.facts, chunk)}
    return Entry(item, numbered(kept.rows, chunk.chunk_id, chunk.recording_id), kept.dropped)


def _found_in_chunk(job: _Job, chunk: Any) -> Kept:
    """Cut the sound file, run the detector on it in a fresh folder, and carry its times back to the recording."""
    fact = job.facts.loc[chunk.recording_id]
    info = info_of(fact)
    rate = info.sample_rate
    sound = job.folder / f"{chunk.chunk_id}.wav"
    offset_s = cut_chunk(job.root, str(fact["path"]), chunk, info, sound, sample_rate=job.settings.sample_rate)
    own = Path(tempfile.mkdtemp(prefix="chunk-", dir=job.folder))
    try:
        found = job.runner.find(sound, own)
    finally:
        sound.unlink(missing_ok=True)
        shutil.rmtree(own, ignore_errors=True)
    times = ChunkTimes(
        start_s=chunk.start_sample / rate,
        end_s=chunk.end_sample / rate,
        file_start_s=offset_s,
        file_end_s=(chunk.end_sample + chunk.context_right) / rate,
    )
    settings = job.settings
    labels = settings.label_map(job.targets)
    return selections_of_chunk(found, times, labels, kind=settings.scores, min_score=settings.min_score)


def _digest(
    todo: pd.DataFrame,
    facts: pd.DataFrame,
    settings: ExternalSettings,
    targets: Sequence[str],
    programs: Mapping[str, Any],
) -> str:
    """A SHA-256 over all that the selections of a shard depend on, as far as Otus can see it.

    What only says how long a job may take or how much may fail is no part of it.
    """
    ids = sorted(set(todo["recording_id"]))
    resources = {"timeout_s", "threads", "gpu", "max_failed_fraction", "gap_s", "low_hz", "high_hz"}
    parts = (
        code_digest("external"),
        settings.model_dump_json(exclude=resources),
        list(targets),
        sorted(programs.items()),
        todo.to_csv(index=False),
        facts.loc[ids, ["path", "sha256"]].to_csv(),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _refuse_too_many_failures(name: str, items: Sequence[Mapping[str, Any]], allowed: float) -> None:
    failed = [item for item in items if item["status"] == "failed"]
    if len(failed) > allowed * len(items):
        raise StageError(
            f"external: {name} failed on {len(failed)} of {len(items)} chunks, more than external.{name}."
            f"max_failed_fraction {allowed:g} allows; the first ({failed[0]['chunk_id']}): {failed[0]['error']}"
        )
