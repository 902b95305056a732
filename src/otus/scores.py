"""The score store: frame logits of many recordings in one Parquet file, about two bytes a value.

Columns: recording_id, frame, one per label (activity) and one `onset:<label>` per label. Logits are rounded to
1/16384: far finer than any threshold, and the zeros in the mantissa compress.
"""

import bisect
import contextlib
import itertools
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from otus.atomic import replacing
from otus.errors import DataError
from otus.tables import SCHEMA_VERSION, table_metadata

_STEP = 1 / 16384

#: A row group has at least so many frames, unless it is the last: many small ones are slow to write and to read.
_GROUP_FRAMES = 2**16

Logits = NDArray[np.float32]


class ScoreWriter:
    """Write the scores of one recording stretch after another; use as a context manager.

    The same stretches in the same order give the same bytes. Raises MissingPartError if the disk is full or the folder
    cannot be written; nothing is left then.
    """

    def __init__(self, path: Path, classes: Sequence[str], frame_hop_s: float) -> None:
        self._names = [*classes, *(f"onset:{c}" for c in classes)]
        metadata = {"schema": "scores", "schema_version": SCHEMA_VERSION, "frame_hop_s": frame_hop_s}
        self._schema = pa.schema(
            [("recording_id", pa.dictionary(pa.int32(), pa.string())), ("frame", pa.int32())]
            + [(name, pa.float32()) for name in self._names],
            metadata={k: json.dumps(v) for k, v in {**metadata, "classes": list(classes)}.items()},
        )
        self._path = path
        self._open = contextlib.ExitStack()
        self._waiting: list[tuple[str, int, Logits]] = []
        self._frames = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            self._writer = pq.ParquetWriter(
                opening.enter_context(replacing(self._path)),
                self._schema,
                compression="zstd",
                use_dictionary=["recording_id"],
                column_encoding={"frame": "DELTA_BINARY_PACKED", **dict.fromkeys(self._names, "BYTE_STREAM_SPLIT")},
            )
            opening.callback(self._writer.close)
            self._open = opening.pop_all()
        return self

    def write(self, recording_id: str, first_frame: int, logits: Logits) -> None:
        """Append the logits (2 * classes, frames) of consecutive frames of a recording."""
        self._waiting.append((recording_id, first_frame, logits))
        self._frames += logits.shape[1]
        if self._frames >= _GROUP_FRAMES:
            self._write_group()

    def _write_group(self) -> None:
        """Write what waits as one row group."""
        if not self._waiting:
            return
        lengths = [logits.shape[1] for _, _, logits in self._waiting]
        ids = list(dict.fromkeys(recording_id for recording_id, _, _ in self._waiting))
        number = {recording_id: i for i, recording_id in enumerate(ids)}
        codes = np.repeat(np.array([number[s[0]] for s in self._waiting], dtype=np.int32), lengths)
        frames = np.concatenate(
            [np.arange(s[1], s[1] + n, dtype=np.int32) for s, n in zip(self._waiting, lengths, strict=True)]
        )
        logits = np.concatenate([logits for _, _, logits in self._waiting], axis=1)
        rounded = (np.round(logits / _STEP) * _STEP).astype(np.float32)
        stored_ids = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(ids, pa.string()))
        columns = [stored_ids, pa.array(frames), *(pa.array(row) for row in rounded)]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=max(1, len(codes)))
        self._waiting, self._frames = [], 0

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._open.__exit__(*error)
            return
        with self._open:
            self._write_group()


class ScoreRows:
    """What a score file holds, by rows in the order in which they were written; use as a context manager.

    Holds one row group. Raises pyarrow.ArrowInvalid if it is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, pq.ParquetFile(path)
        counts = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = [0, *itertools.accumulate(counts)]
        self._held = -1
        self._columns: tuple[list[str], NDArray[np.int32], NDArray[np.int32], Logits]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def stretch(self, first_row: int, n_rows: int) -> tuple[str, int, Logits]:
        """Return the recording, the first frame and the logits (2 * classes, frames) of what was written at once.

        Raises DataError if these rows are no consecutive frames of one recording.
        """
        group = bisect.bisect_right(self._starts, first_row, hi=len(self._starts) - 1) - 1
        self._hold(group)
        ids, codes, frames, logits = self._columns
        rows = slice(first_row - self._starts[group], first_row - self._starts[group] + n_rows)
        own, numbers = codes[rows], frames[rows]
        if not n_rows or len(own) != n_rows or (own != own[0]).any() or (np.diff(numbers) != 1).any():
            raise DataError(f"{self._path}: rows {first_row} to {first_row + n_rows} are not of one recording.")
        return ids[own[0]], int(numbers[0]), logits[:, rows]

    def _hold(self, group: int) -> None:
        if group != self._held:
            columns = self._file.read_row_group(group)
            ids = columns["recording_id"].combine_chunks()
            values = np.stack([columns[name].to_numpy() for name in columns.column_names[2:]])
            codes, frames = ids.indices.to_numpy(), columns["frame"].to_numpy()
            self._columns = [str(name) for name in ids.dictionary.to_pylist()], codes, frames, values
            self._held = group


def read_scores(paths: Sequence[str | Path], *, only: Collection[str]) -> tuple[dict[str, Logits], list[str], float]:
    """Return the logits (2 * classes, frames) of the recordings `only`, the classes and the frame hop in s.

    Raises DataError if a file is no score table, if the files come from different models, or if frames of a
    recording are missing or double.
    """
    tables = [_read(path) for path in paths]
    metadata = [table_metadata(t.schema) for t in tables]
    for path, entry in zip(paths, metadata, strict=True):
        if entry.get("schema") != "scores" or entry.get("schema_version") != SCHEMA_VERSION:
            raise DataError(f"{path}: not a score table of this version of Otus; delete it and run again.")
        if entry != metadata[0]:
            raise DataError(f"{path}: other classes or another frame hop than {paths[0]}; delete both and run again.")
    whole = pa.concat_tables([t.unify_dictionaries() for t in tables]).unify_dictionaries().combine_chunks()
    classes = [str(c) for c in metadata[0]["classes"]]
    values = np.stack([whole[name].to_numpy() for name in [*classes, *(f"onset:{c}" for c in classes)]])
    ids = whole["recording_id"].combine_chunks() if len(whole) else pa.array([], pa.dictionary(pa.int32(), pa.string()))
    codes, frames = ids.indices.to_numpy(), whole["frame"].to_numpy()
    order = np.lexsort((frames, codes))
    borders = np.flatnonzero(np.diff(codes[order], prepend=-1, append=-1))
    scores = {}
    for start, end in itertools.pairwise(borders):
        rows = order[start:end]
        recording_id = str(ids.dictionary[int(codes[rows[0]])])
        if recording_id not in only:
            continue
        if not np.array_equal(frames[rows], np.arange(len(rows))):
            raise DataError(f"scores of {recording_id}: frames are missing or double; delete the scores and run again.")
        scores[recording_id] = values[:, rows]
    if missing := sorted(set(only) - set(scores)):
        raise DataError(f"scores of {missing[0]}: none in {paths[0]} and the other shards; delete them and run again.")
    return scores, classes, float(metadata[0]["frame_hop_s"])


def _read(path: str | Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file that can be read; delete it and run again.") from error
