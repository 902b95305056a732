"""The finished parts of a shard: what a stopped prediction leaves, and what the next one takes over."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq

from otus.atomic import read_json, storage_explained, write_json
from otus.audio import sha256
from otus.errors import StageError
from otus.scores import Logits, ScoreWriter

#: A part is finished after so much time: a node that dies costs no more than that.
_PART_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """What became of a chunk: its item, and file and row group of its scores (None if it failed or has no frame)."""

    item: dict[str, Any]
    place: tuple[Path, int] | None


class ShardParts:
    """Scores and items of a shard, in parts of about 30 s of work; use as a context manager.

    A part is `part-00001.parquet` (scores, a row group for each chunk) and then `part-00001.json` (items, and the
    SHA-256 of the scores): it counts once the second is there. `outcomes` holds the latest of every chunk. Raises
    MissingPartError if the disk is full or the folder cannot be written; finished parts stay.
    """

    def __init__(self, folder: Path, digest: str, classes: Sequence[str], frame_hop_s: float) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.folder, self._digest = folder, digest
        self._classes, self._frame_hop_s = classes, frame_hop_s
        self._number = 1
        self._sha256: dict[Path, str] = {}
        self._writer: ScoreWriter | None = None
        self._under_way: list[Outcome] = []
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self.commit()
        elif self._writer is not None:
            self._writer.__exit__(*error)

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
            groups = [(dict(e["item"]), e["row_group"]) for e in content["chunks"]]
            found = [Outcome(item, None if group is None else (scores, int(group))) for item, group in groups]
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
            self._writer = ScoreWriter(self._path(), self._classes, self._frame_hop_s).__enter__()
        place = None
        if logits is not None:
            place = self._path(), sum(outcome.place is not None for outcome in self._under_way)
            self._writer.write(str(item["recording_id"]), first_frame, logits)
        self._under_way.append(Outcome(item, place))
        if time.monotonic() - self._since > _PART_S:
            self.commit()

    def commit(self) -> None:
        """Finish the part under way."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        writer.__exit__(None, None, None)
        path = self._path()
        self._sha256[path] = sha256(path)
        chunks = [{"item": o.item, "row_group": o.place[1] if o.place else None} for o in self._under_way]
        content = {"digest": self._digest, "scores_sha256": self._sha256[path], "chunks": chunks}
        write_json(path.with_suffix(".json"), content)
        self.outcomes |= {str(outcome.item["chunk_id"]): outcome for outcome in self._under_way}
        self._number, self._under_way, self._since = self._number + 1, [], time.monotonic()

    def copy_into(self, writer: ScoreWriter, chunk_ids: Iterable[str]) -> None:
        """Append the scores of these chunks, in this order, reading one chunk at a time.

        Raises StageError if a part is not what was written.
        """
        places = [o.place for o in map(self.outcomes.get, chunk_ids) if o is not None and o.place is not None]
        for scores, in_file in itertools.groupby(places, key=lambda place: place[0]):
            if sha256(scores) != self._sha256[scores]:
                raise StageError(
                    f"{scores}: altered meanwhile; see that no other job scores the same shard, and start again."
                )
            with pq.ParquetFile(scores) as file:
                for _, row_group in in_file:
                    writer.append(file.read_row_group(row_group))

    def _path(self) -> Path:
        """The scores of the part under way."""
        return self.folder / f"part-{self._number:05d}.parquet"
