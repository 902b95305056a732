"""How many windows a GPU scores at once: found by trying, and remembered for the next job."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from otus.atomic import read_json, write_json
from otus.dense import is_out_of_memory

#: Tried from the least to the most, each twice the one before, as long as a window gets faster by so much.
_LEAST, _MOST, _GAIN = 64, 4096, 1.05
_BATCHES = [_LEAST * 2**i for i in range((_MOST // _LEAST).bit_length())]


def fastest_batch(seconds: Callable[[int], float]) -> int:
    """Return the number of windows to score at once; `seconds` tries a number and says how long that took.

    It is doubled until memory runs out or a window gets no faster. Where not even the fewest fit, as on a GPU that
    others fill, it is the fewest all the same: whoever scores takes less if he must. Raises what else `seconds` raises.
    """
    best, pace = _LEAST, 0.0
    for batch in _BATCHES:
        try:
            faster = batch / seconds(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        if faster < _GAIN * pace:
            break
        best, pace = batch, faster
    return best


def remembered_batch(cache: Path | None, key: str, find: Callable[[], int]) -> int:
    """Return what `cache`, a JSON file of numbers by key, says; else what `find` finds, which is noted there.

    A file that cannot be read or written is no cache, and no error.
    """
    if cache is None:
        return find()
    known = _known(cache)
    if key not in known:
        known[key] = find()
        with contextlib.suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, dict(sorted({**_known(cache), **known}.items())))
    return known[key]


def _known(cache: Path) -> dict[str, int]:
    """The numbers in a cache that make sense."""
    try:
        content = read_json(cache)
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {str(key): value for key, value in content.items() if type(value) is int and 1 <= value <= _MOST}
