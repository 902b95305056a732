"""What is odd about a recording that is kept all the same, in words."""

from collections.abc import Iterable

from otus.inventory.examine import Examined
from otus.inventory.levels import Levels

#: Smaller shares of digital silence and of clipped samples are not worth a word.
_SILENT_SHARE, _CLIPPED_SHARE = 0.01, 0.0005
#: A recording that never gets louder (dBFS) comes from a microphone that is not there: three steps of 16 bits.
_FAINT_DBFS = -80.0
#: So many bytes behind the audio may be padding.
_SURPLUS_BYTES = 512

_SEPARATOR = "; "
_SILENT, _FAINT, _PARTLY_SILENT = "silent", "nearly silent", "digital silence"
_CLIPPED, _DEAD, _SURPLUS = "clipped", "dead", "data after the audio"

#: A part of the text of a flag -> its kind, which is the text itself where nothing fits; the first that fits counts.
_KINDS = {
    **{part: part for part in (_FAINT, _PARTLY_SILENT, _SILENT, _CLIPPED, _SURPLUS)},
    _DEAD: "dead channel",
}


def flags_text(found: Examined | None, said: Iterable[str | None]) -> str | None:
    """Return the flags of a recording joined by "; ", None if there are none.

    `found` is what is in its file, and `said` are the flags of its name.
    """
    heard = _levels_flags(found.content.levels, found.info.channels) if found and found.content else []
    if found and found.surplus_bytes > _SURPLUS_BYTES:
        heard.append(f"{_SURPLUS}: {found.surplus_bytes} bytes")
    return _SEPARATOR.join([*heard, *filter(None, said)]) or None


def flag_kinds(text: str | None) -> list[str]:
    """Return the kinds of the flags in a cell of the column flags, e.g. clipped for "clipped 0.3 %"."""
    flags = text.split(_SEPARATOR) if text else []
    return [next((kind for part, kind in _KINDS.items() if part in flag), flag) for flag in flags]


def _levels_flags(levels: Levels, channels: int) -> list[str]:
    flags = []
    if levels.rms_dbfs is None or levels.silent_share == 1:
        flags.append(_SILENT)
    elif levels.peak_dbfs is not None and levels.peak_dbfs < _FAINT_DBFS:
        flags.append(f"{_FAINT} (peak {levels.peak_dbfs:.0f} dBFS)")
    elif levels.silent_share >= _SILENT_SHARE:
        flags.append(f"{levels.silent_share:.0%} {_PARTLY_SILENT}".replace("%", " %"))
    if levels.clipped_share >= _CLIPPED_SHARE:
        percent = 100 * levels.clipped_share
        flags.append(f"{_CLIPPED} {percent:.0f} %" if percent >= 10 else f"{_CLIPPED} {percent:.1f} %")
    dead = [str(number) for number in levels.dead_channels if channels > 1]
    if dead:
        one = len(dead) == 1
        flags.append(f"channel{'s' * (not one)} {' and '.join(dead)} {'is' if one else 'are'} {_DEAD}")
    return flags
