"""The SNR of every target annotation of a corpus, recording by recording, with what earlier inventories measured."""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from otus.annotations import AnnotationRow
from otus.atomic import replacing
from otus.audio import AudioFile
from otus.errors import DataError, MissingPartError
from otus.fingerprint import FoundFile
from otus.inventory.labels import AttachedRow
from otus.inventory.snr import Call, calls_snr_db, typical_band
from otus.provenance import code_digest

_REPORT_EVERY_S = 10.0
#: Recordings that a thread is given at a time, and how many such batches wait for each thread.
_BATCH, _AHEAD = 32, 4

_SCHEMA = {
    "path": pa.string(),
    "size": pa.int64(),
    "mtime_ns": pa.int64(),
    "calls": pa.string(),
    "snr_db": pa.list_(pa.float64()),
}
_ENTRY = b"otus_snr_cache"

Progress = Callable[[str], None]
Values = list[float | None]


@dataclass(frozen=True)
class _Task:
    """The calls to measure in one recording, which rows they are, and everything annotated there."""

    file: FoundFile
    calls: list[Call]
    rows: list[int]
    busy_s: list[tuple[float, float]]

    @property
    def digest(self) -> str:
        """What the values depend on besides the sound."""
        calls = [(call.start_s, call.end_s, call.low_hz, call.high_hz) for call in self.calls]
        return hashlib.sha256(repr((calls, self.busy_s)).encode()).hexdigest()


def annotation_snr_db(
    root: Path,
    rows: Sequence[AttachedRow],
    files: Mapping[str, FoundFile],
    targets: Sequence[str],
    *,
    workers: int,
    cache: Path | None,
    progress: Progress,
) -> Values:
    """Return the SNR (dB) of each annotation row that has a target label; None for others and where it is unknown.

    `rows` are sorted by recording and start; `files` has the audio file of every recording. A call without a band has
    the median band of its label. Only the sound around target annotations is read, by `workers` threads, and not
    where the table at `cache` knows the recording and its annotations; what is measured is added to it, also if this
    is stopped. What cannot be read has no SNR; how many have none is said once.
    """
    tasks = _tasks(rows, files, set(targets))
    known = _load(cache, root, progress) if cache else {}
    found = {task.file: known[task.file] for task in tasks if known.get(task.file, ("",))[0] == task.digest}
    todo = [task for task in tasks if task.file not in found]
    try:
        for task, values in _measured(root, todo, workers, progress):
            if values is not None:
                found[task.file] = task.digest, values
    finally:
        if cache and (todo or len(known) > len(found)):
            _save(cache, root, found, progress)
    snr_db: Values = [None] * len(rows)
    for task in tasks:
        values = found[task.file][1] if task.file in found else []
        for row, value in zip(task.rows, values, strict=False):  # none of a recording that could not be read
            snr_db[row] = value
    wanted = [row for task in tasks for row in task.rows]
    unknown = sum(snr_db[row] is None for row in wanted)
    if unknown:
        progress(f"the SNR of {unknown} of {len(wanted)} target annotations is unknown: too little background, or none")
    return snr_db


def _tasks(rows: Sequence[AttachedRow], files: Mapping[str, FoundFile], targets: set[str]) -> list[_Task]:
    """What is to be measured in each recording that has target annotations, by path."""
    bands: dict[str, list[tuple[float, float]]] = {label: [] for label in targets}
    for attached in rows:
        if attached.row.label in targets and (band := _own_band(attached.row)):
            bands[attached.row.label].append(band)
    typical = {label: typical_band(own) for label, own in bands.items()}
    tasks = []
    for path, group in groupby(enumerate(rows), key=lambda entry: entry[1].recording):
        own = [(number, attached.row) for number, attached in group]
        wanted = [(number, row) for number, row in own if row.label in targets]
        calls = [Call(row.start_s, row.end_s, *(_own_band(row) or typical[row.label])) for _, row in wanted]
        if calls:
            busy_s = [(row.start_s, row.end_s) for _, row in own]
            tasks.append(_Task(files[path], calls, [number for number, _ in wanted], busy_s))
    return tasks


def _own_band(row: AnnotationRow) -> tuple[float, float] | None:
    return None if row.low_hz is None or row.high_hz is None else (row.low_hz, row.high_hz)


def _measured(
    root: Path, tasks: Sequence[_Task], workers: int, progress: Progress
) -> Iterator[tuple[_Task, Values | None]]:
    """The values of each recording, in order; None of one that cannot be read."""
    reported, done = time.monotonic(), 0
    waiting: deque[Future[list[tuple[_Task, Values | None]]]] = deque()
    batches = deque(tasks[i : i + _BATCH] for i in range(0, len(tasks), _BATCH))
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        try:
            while batches or waiting:
                while batches and len(waiting) < _AHEAD * max(1, workers):
                    waiting.append(pool.submit(_measure, root, batches.popleft()))
                results = waiting.popleft().result()
                done += len(results)
                yield from results
                if time.monotonic() - reported >= _REPORT_EVERY_S:
                    reported = time.monotonic()
                    progress(f"measuring the SNR of calls: {done} of {len(tasks)} recordings")
        finally:
            pool.shutdown(cancel_futures=True)


def _measure(root: Path, tasks: Sequence[_Task]) -> list[tuple[_Task, Values | None]]:
    return [(task, _values(root, task)) for task in tasks]


def _values(root: Path, task: _Task) -> Values | None:
    try:
        with AudioFile(root / task.file.path) as file:
            return calls_snr_db(file, file.info.n_samples, file.info.sample_rate, task.calls, task.busy_s)
    except (DataError, OSError):
        return None


def _load(cache: Path, root: Path, progress: Progress) -> dict[FoundFile, tuple[str, Values]]:
    """What earlier inventories measured, by file: a digest of the calls, and their values."""
    if not cache.exists():
        return {}
    try:
        arrow = pq.read_table(cache)
        if (arrow.schema.metadata or {}).get(_ENTRY) != _origin(root):
            progress(f"{cache} was made by another version or of another folder: the SNR of all calls is measured anew")
            return {}
        columns = [arrow[name].to_pylist() for name in _SCHEMA]
        return {FoundFile(*row[:3]): (row[3], row[4]) for row in zip(*columns, strict=True)}
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        progress(f"{cache} cannot be read ({str(error).splitlines()[0]}): the SNR of all calls is measured anew")
        return {}


def _save(cache: Path, root: Path, found: Mapping[FoundFile, tuple[str, Values]], progress: Progress) -> None:
    """Write what was measured; a place that cannot be written is said and stops nothing."""
    rows = [(file.path, file.size, file.mtime_ns, *entry) for file, entry in sorted(found.items(), key=_by_path)]
    columns = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, _SCHEMA.values(), strict=True)]
    schema = pa.schema(list(_SCHEMA.items()), metadata={_ENTRY: _origin(root)})
    try:
        with replacing(cache) as temporary:
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary, compression="zstd")
    except (MissingPartError, OSError) as error:
        progress(f"the SNR of calls is not kept for the next inventory: {error}")


def _by_path(entry: tuple[FoundFile, tuple[str, Values]]) -> str:
    return entry[0].path


def _origin(root: Path) -> bytes:
    """What the values depend on besides the files and their annotations."""
    facts = {
        "root": str(root.resolve()),
        "code": code_digest("inventory.snr", "audio"),
        "decoder": soundfile.__libsndfile_version__,
        "columns": list(_SCHEMA),
    }
    return json.dumps(facts, sort_keys=True).encode()
