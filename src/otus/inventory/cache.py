"""What earlier inventories found in unchanged files, so that a second one need not read them again."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from otus.atomic import replacing
from otus.audio import AudioInfo
from otus.fingerprint import FoundFile
from otus.inventory.examine import Content, Examined
from otus.inventory.levels import Levels
from otus.provenance import code_digest

_TEXT, _REAL, _INT = pa.string(), pa.float64(), pa.int64()
_SCHEMA = {
    "path": _TEXT,
    "size": _INT,
    "mtime_ns": _INT,
    "sha256": _TEXT,
    "n_samples": _INT,
    "sample_rate": _INT,
    "channels": _INT,
    "subtype": _TEXT,
    "surplus_bytes": _INT,
    "content_sha256": _TEXT,
    "peak_dbfs": _REAL,
    "rms_dbfs": _REAL,
    "clipped_share": _REAL,
    "silent_share": _REAL,
    "dead_channels": pa.list_(pa.int32()),
}
_ENTRY = b"otus_inventory_cache"


def load_cache(path: Path, root: Path, check: str, progress: Callable[[str], None]) -> dict[FoundFile, Examined]:
    """Return what is known of the files below `root`, by path, size and time of change.

    Empty if there is no cache, or one of another root or audio check, of other code or of another decoder. One that
    cannot be read is ignored with a line to `progress`.
    """
    if not path.exists():
        return {}
    try:
        arrow = pq.read_table(path)
        if (arrow.schema.metadata or {}).get(_ENTRY) != _origin(root, check):
            progress(f"{path} was made from other settings or by another version: all files are looked into again")
            return {}
        columns = [arrow[name].to_pylist() for name in _SCHEMA]
        return {FoundFile(*row[:3]): _examined(row[3:]) for row in zip(*columns, strict=True)}
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        progress(f"{path} cannot be read ({str(error).splitlines()[0]}): all files are looked into again")
        return {}


def save_cache(path: Path, root: Path, check: str, known: Mapping[FoundFile, Examined]) -> None:
    """Write what is known of the files below `root`, atomically. Raises MissingPartError if the disk refuses."""
    rows = [_row(file, found) for file, found in known.items()]
    schema = pa.schema(list(_SCHEMA.items()), metadata={_ENTRY: _origin(root, check)})
    columns = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, _SCHEMA.values(), strict=True)]
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary, compression="zstd")


def _origin(root: Path, check: str) -> bytes:
    """What the entries depend on besides the files: where these lie, how they were read, and by which code."""
    code = code_digest("inventory.examine")
    facts = {
        "root": str(root.resolve()),
        "check": check,
        "code": code,
        "decoder": soundfile.__libsndfile_version__,
        "columns": list(_SCHEMA),
    }
    return json.dumps(facts, sort_keys=True).encode()


def _row(file: FoundFile, found: Examined) -> tuple[Any, ...]:
    info, content = found.info, found.content
    levels = content.levels if content else None
    return (
        file.path,
        file.size,
        file.mtime_ns,
        found.sha256,
        info.n_samples,
        info.sample_rate,
        info.channels,
        info.subtype,
        found.surplus_bytes,
        content and content.sha256,
        levels and levels.peak_dbfs,
        levels and levels.rms_dbfs,
        levels and levels.clipped_share,
        levels and levels.silent_share,
        levels and levels.dead_channels,
    )


def _examined(cells: tuple[Any, ...]) -> Examined:
    sha256, n_samples, sample_rate, channels, subtype, surplus_bytes = cells[:6]
    content_sha256, peak_dbfs, rms_dbfs, clipped_share, silent_share, dead_channels = cells[6:]
    info = AudioInfo(n_samples, sample_rate, channels, subtype)
    if content_sha256 is None:
        return Examined(info, sha256, surplus_bytes, None)
    levels = Levels(peak_dbfs, rms_dbfs, clipped_share, silent_share, tuple(dead_channels))
    return Examined(info, sha256, surplus_bytes, Content(content_sha256, levels))
