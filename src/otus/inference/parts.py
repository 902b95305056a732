"""The finished parts of a shard: what a stopped prediction leaves, and what the next one takes over."""

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from otus.atomic import read_json, storage_explained, write_text
from otus.audio import sha256
from otus.errors import DataError, StageError
from otus.scores import Logits, ScoreRows, ScoreWriter

#: A part is finished after so much time: a node that dies costs no more than that.
_PART_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """What became of a chunk: its item, and where its scores are, if it has some: file, first row, number of rows."""

    item: dict[str, Any]
    place: tuple[Path, int, int] | None


@dataclass(frozen=True)
class ChunkFrames:
    """Which frames the scores of a chunk must hold."""

    chunk_id: str
    recording_id: str
    first_frame: int
    n_frames: int


class ShardParts:
    """Scores and items of a shard and model, in parts of about 30 s of work; use as a context manager.

    A part is `part-00001.parquet` (scores) and then `part-00001.json` (items, and the SHA-256 of the scores): it counts
    once the second is there. `outcomes` holds the latest of every chunk. What was added before an error that leaves the
    context becomes a part, if the disk takes it. Raises MissingPartError if the disk is full or the folder
    cannot be written; finished parts stay.
    """

    def __init__(self, folder: Path, digest: str, classes: Sequence[str], frame_hop_s: float) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.folder, self._digest = folder, digest
        self._classes, self._frame_hop_s = classes, frame_hop_s
        self._number = 1
        self._sha256: dict[Path, str] = {}
        self._writer: ScoreWriter | None = None
        self._path = folder  # of the scores of the part under way
        self._under_way: list[Outcome] = []
        self._rows = 0
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.commit()

    def take_over(self, progress: Callable[[str], None]) -> None:
        """Take over the parts in the folder that are whole and of the same digest; delete the others, and say so."""
        incomplete = [p.stem for p in self.folder.glob("part-*.parquet") if not p.with_suffix(".json").exists()]
        dropped = {"incomplete": sorted(incomplete)} if incomplete else {}
        for path in sorted(self.folder.glob("part-*.json"), key=lambda p: (len(p.name), p.name)):
            if reason := self._take_over(path):
                dropped.setdefault(reason, []).append(path.stem)
        for path in list(self.folder.glob("*part-*")):
            if path.with_suffix(".parquet") not in self._sha256:
                with storage_explained(path):
                    path.unlink()
        for reason, names in dropped.items():
            progress(f"{self.folder}: {', '.join(names)} not taken over: {reason}")

    def _take_over(self, path: Path) -> str | None:
        """Take over one part; return the reason if it cannot be."""
        scores = path.with_suffix(".parquet")
        try:
            content = read_json(path)
            if content["digest"] != self._digest:
                return "of other recordings, chunks, weights or code"
            if sha256(scores) != content["scores_sha256"]:
                return "damaged"
            entries = [(dict(e["item"]), e["rows"]) for e in content["chunks"]]
            found = [Outcome(item, (scores, int(rows[0]), int(rows[1])) if rows else None) for item, rows in entries]
            by_chunk = {str(outcome.item["chunk_id"]): outcome for outcome in found}
            self._number = int(path.stem.removeprefix("part-")) + 1
        except (OSError, ValueError, KeyError, TypeError):
            return "damaged"
        self.outcomes |= by_chunk
        self._sha256[scores] = content["scores_sha256"]
        return None

    def add(self, item: dict[str, Any], first_frame: int, logits: Logits | None) -> None:
        """Add what became of a chunk; `logits` (2 * classes, frames) are None if it has no scores."""
        if self._writer is None:
            self._path = self.folder / f"part-{self._number:05d}.parquet"
            self._writer = ScoreWriter(self._path, self._classes, self._frame_hop_s).__enter__()
        place = None
        if logits is not None:
            place = self._path, self._rows, logits.shape[1]
            self._rows += logits.shape[1]
            self._write(str(item["recording_id"]), first_frame, logits)
        self._under_way.append(Outcome(item, place))
        if time.monotonic() - self._since > _PART_S:
            self.commit()

    def _write(self, recording_id: str, first_frame: int, logits: Logits) -> None:
        assert self._writer is not None
        try:
            self._writer.write(recording_id, first_frame, logits)
        except BaseException:
            writer, self._writer = self._writer, None
            writer.__exit__(*sys.exc_info())
            raise

    def commit(self) -> None:
        """Finish the part under way."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        writer.__exit__(None, None, None)
        path = self._path
        self._sha256[path] = sha256(path)
        chunks = [{"item": o.item, "rows": list(o.place[1:]) if o.place else None} for o in self._under_way]
        content = {"digest": self._digest, "scores_sha256": self._sha256[path], "chunks": chunks}
        write_text(path.with_suffix(".json"), json.dumps(content, allow_nan=False))
        self.outcomes |= {str(outcome.item["chunk_id"]): outcome for outcome in self._under_way}
        self._number, self._under_way, self._rows = self._number + 1, [], 0
        self._since = time.monotonic()

    def copy_into(self, writer: ScoreWriter, chunks: Iterable[ChunkFrames]) -> None:
        """Append the scores of these chunks, in this order, reading one row group at a time.

        Raises StageError if a part is not what was written, or if scores of a chunk are missing or another's.
        """
        wanted = [(chunk, *self._place(chunk)) for chunk in chunks if chunk.n_frames]
        for scores in dict.fromkeys(scores for _, scores, *_ in wanted):
            if sha256(scores) != self._sha256[scores]:
                raise StageError(
                    f"{scores}: altered meanwhile; see that no other job scores the same shard, and start again."
                )
        for scores, in_file in itertools.groupby(wanted, key=lambda entry: entry[1]):
            with ScoreRows(scores) as rows:
                for chunk, _, first_row, n_rows in in_file:
                    writer.write(*_stretch(rows, scores, chunk, first_row, n_rows))

    def _place(self, chunk: ChunkFrames) -> tuple[Path, int, int]:
        place = self.outcomes[chunk.chunk_id].place
        if place is None:
            raise StageError(f"{self.folder}: chunk {chunk.chunk_id} has no scores; delete the folder and start again.")
        return place


def _stretch(rows: ScoreRows, path: Path, chunk: ChunkFrames, first_row: int, n_rows: int) -> tuple[str, int, Logits]:
    """The scores of a chunk, which must be those of its frames."""
    try:
        found = rows.stretch(first_row, n_rows)
    except DataError as error:
        raise StageError(f"{error} Delete the folder {path.parent} and start again.") from error
    if (*found[:2], n_rows) != (chunk.recording_id, chunk.first_frame, chunk.n_frames):
        raise StageError(
            f"{path}: the scores of chunk {chunk.chunk_id} are not those of its {chunk.n_frames} frames; delete the "
            f"folder {path.parent} and start again."
        )
    return found
