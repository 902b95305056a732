"""The alpaca pipeline's corpus_index.json: hums, each with its clip and its times in the clip."""

import json
from typing import Any

from otus.annotations.rows import AnnotationFile, Problem, unusable
from otus.config import AnnotationSource

#: What the pipeline detects, and the label of every row, unless the source gives another.
HUM = "hum"


def is_alpaca_index(text: str) -> bool:
    """Return whether `text` looks like a corpus index: an object with entries that name hums."""
    return text.lstrip()[:1] == "{" and '"entries"' in text and ('"hum_path"' in text or '"n_hums"' in text)


def read_alpaca_index(text: str, source: AnnotationSource) -> AnnotationFile:
    """Return the hums in `text`, each as a row of its clip; `source_row` is the number of the entry, from 1.

    `clip_start_s` and `clip_end_s` are the hum's times (s) within its clip. The times within the raw recording are not
    read: where the names of clips count minutes, the index has added them to seconds.
    """
    remedy = "make the index again, or leave it out of the glob"
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        said = error if isinstance(error, ValueError) else "lists within lists without an end"
        return unusable(f"is no valid JSON ({said})", remedy)
    entries = content.get("entries") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        return unusable("is no corpus index: it has no list `entries`", remedy)
    result = AnnotationFile("alpaca_index", n_rows=len(entries))
    for number, entry in enumerate(entries, start=1):
        clip = entry.get("clip_path") if isinstance(entry, dict) else None
        if not isinstance(clip, str) or not clip:
            result.problems.append(Problem(number, "names no clip (`clip_path`)", remedy))
            continue
        result.add(
            number,
            (_text(entry.get("clip_start_s")), _text(entry.get("clip_end_s"))),
            source.label or HUM,
            quality=_text(entry.get("quality")),
            recording=_text(clip),
        )
    return result


def _text(value: object) -> str:
    """What an entry says, as text that a table can hold: JSON may name halves of characters."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()
