"""The score store: frame logits of many recordings in one Parquet file, about two bytes a value.

Columns: recording_id, frame, one per label (activity) and one `onset:<label>` per label. Logits are rounded to
1/16384: far finer than any threshold, and the zeros in the mantissa compress.
"""

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

Logits = NDArray[np.float32]


class ScoreWriter:
    """Write the scores of one recording stretch after another, a row group each; use as a context manager.

    Raises MissingPartError if the disk is full or the folder cannot be written; nothing is left then.
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
        n = logits.shape[1]
        ids = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, dtype=np.int32)), pa.array([recording_id]))
        frames = pa.array(np.arange(first_frame, first_frame + n, dtype=np.int32))
        rounded = (np.round(logits / _STEP) * _STEP).astype(np.float32)
        self.append(pa.table([ids, frames, *(pa.array(row) for row in rounded)], schema=self._schema))

    def append(self, stretch: pa.Table) -> None:
        """Append a stretch as it is: a row group of another score file of the same model."""
        self._writer.write_table(stretch, row_group_size=max(1, len(stretch)))

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)


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
