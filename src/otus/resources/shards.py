"""How many shards a corpus is divided into. Light: it must be known while Snakemake is parsed, before any job runs."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from otus.config import Config
from otus.errors import DataError
from otus.fingerprint import seen_files
from otus.resources.corpus_size import corpus_size

#: Hands the number from the driver to its jobs.
_TOLD = "OTUS_SHARDS"


@dataclass(frozen=True)
class Sharding:
    """A number of shards; `shard_s` and `audio` say for which length and which files, unless the config names it."""

    shards: int
    shard_s: float | None = None
    audio: str | None = None


def sharding_of(config: Config, *, asks_driver: bool) -> Sharding:
    """Return the number of shards: `chunking.shards`, or what follows from `chunking.shard_min` and the corpus.

    The audio is counted by the inventory, or guessed from the files while there is none. The two differ, and a second
    run with another number would do all predictions again. So the number is written down with the chunks that are made
    (<results>/chunks/shards.json), and it stays that number as long as shard_min and the recordings (their names and
    sizes; of a corpus that is made, its settings) are the same. Once other recordings are there, the inventory is out
    of date and the number is guessed anew. A job takes the number that its driver found and handed on in the
    environment, for meanwhile there may be an inventory. A corpus that cannot be looked at is one shard.
    """
    settings = config.chunking
    if settings.shards is not None:
        return Sharding(settings.shards)
    told = _sharding(os.environ.get(_TOLD, "")) if asks_driver else None
    if told is None:
        told = _found(config)
        os.environ[_TOLD] = json.dumps(asdict(told))
    return told


def record_file(results: Path) -> Path:
    """Return where the number of shards is written down."""
    return results / "chunks" / "shards.json"


def _found(config: Config) -> Sharding:
    results, shard_s, audio = Path(config.results_dir), config.chunking.shard_s, _audio(config)
    try:
        record = _sharding(record_file(results).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    made_of_this = record is None or record.audio in (None, audio)
    if record is not None and (record.shard_s, record.audio) == (shard_s, audio):
        return record
    size = corpus_size(results / "inventory" if made_of_this else None, config.corpus)
    return Sharding(config.chunking.shards_for(3600 * size.labelled_hours), shard_s, audio)


def _audio(config: Config) -> str:
    """A digest of what the recordings are or are made of. A file that was only touched is the same."""
    corpus = config.corpus
    facts: list[Any] = [corpus.model_dump(mode="json", include={"demo", "soundscapes"})]
    if corpus.demo is None:
        try:
            facts += [(file.path, file.size) for file in seen_files(Path(corpus.source.root), corpus.source).audio]
        except (DataError, OSError):
            facts.append(None)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _sharding(text: str) -> Sharding | None:
    """What is written down, or None if that is no number of shards."""
    try:
        found = Sharding(**json.loads(text))
    except (ValueError, TypeError):
        return None
    return found if isinstance(found.shards, int) and found.shards > 0 else None
