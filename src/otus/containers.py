"""Where the audio lies in a sound file, by its own header: what is missing of it, and what stands behind it.

libsndfile clamps what a header promises to what is there, so a truncated file looks whole to whoever reads it.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

#: Sizes that programs write which cannot seek back (sox, arecord, ffmpeg in a pipe): the largest, or nearly.
_OPEN_ENDED = (range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))

#: A page of an Ogg stream is at most so long.
_OGG_PAGE_BYTES = 27 + 255 + 255 * 255


@dataclass(frozen=True)
class Extent:
    """`missing_bytes`: audio that the header promises beyond the end of the file. `surplus_bytes`: what stands behind
    the audio and is no chunk of the format. `unfinished`: an Ogg stream whose last page is not there.
    """

    missing_bytes: int = 0
    surplus_bytes: int = 0
    unfinished: bool = False


@dataclass(frozen=True)
class _Chunks:
    """How a format writes its chunks: each has a name, a size and a body."""

    first: int  # position of the first chunk
    audio: bytes  # the name of the chunk with the samples begins so
    name_bytes: int = 4
    size_bytes: int = 4
    order: Literal["little", "big"] = "little"
    aligned: int = 1  # chunks begin at multiples of so many bytes
    size_counts_head: bool = False


_RIFF = _Chunks(first=12, audio=b"data", aligned=2)
_RIFX = _Chunks(first=12, audio=b"data", order="big", aligned=2)
_AIFF = _Chunks(first=12, audio=b"SSND", order="big", aligned=2)
_CAF = _Chunks(first=8, audio=b"data", size_bytes=8, order="big")
_W64 = _Chunks(first=40, audio=b"data", name_bytes=16, size_bytes=8, aligned=8, size_counts_head=True)


def extent(path: str | Path) -> Extent:
    """Return what the file's own header says about the extent of its audio, compared with its size.

    Knows WAV, RF64, BW64, RIFX, W64, AIFF, AIFF-C, CAF, AU and Ogg; for any other file nothing is missing. Raises
    OSError if the file cannot be read.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(40)
        if head[:4] == b"OggS":
            return Extent(unfinished=not _ends_its_stream(file, size))
        if head[:4] == b".snd":
            promised = int.from_bytes(head[8:12], "big")
            end = None if _is_open_ended(promised) else int.from_bytes(head[4:8], "big") + promised
            return _compared(end, size)
        chunks = _chunks_of(head)
        return Extent() if chunks is None else _walked(file, size, chunks)


def _chunks_of(head: bytes) -> _Chunks | None:
    """How the format that begins with `head` writes its chunks."""
    kind, form = head[:4], head[8:12]
    if kind in (b"RIFF", b"RF64", b"BW64") and form == b"WAVE":
        return _RIFF
    if kind == b"RIFX" and form == b"WAVE":
        return _RIFX
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return _AIFF
    if kind == b"caff":
        return _CAF
    return _W64 if kind == b"riff" and head[24:28] == b"wave" else None


def _walked(file: BinaryIO, size: int, chunks: _Chunks) -> Extent:
    """Go from chunk to chunk to the audio and on to the end of the file."""
    head_bytes = chunks.name_bytes + chunks.size_bytes
    position, audio_end, size_beyond_32_bits = chunks.first, None, 0
    while position + head_bytes <= size:
        file.seek(position)
        name = file.read(chunks.name_bytes)
        promised = int.from_bytes(file.read(chunks.size_bytes), chunks.order)
        body = position + head_bytes
        if name == b"ds64":
            size_beyond_32_bits = int.from_bytes(file.read(16)[8:], "little")
        is_audio = audio_end is None and name.startswith(chunks.audio)
        if is_audio:
            if promised == 0xFFFFFFFF and size_beyond_32_bits:
                promised = size_beyond_32_bits
            elif _is_open_ended(promised) or promised >= 1 << 63:
                return Extent()
        end = body + promised - (head_bytes if chunks.size_counts_head else 0)
        if is_audio:
            audio_end = end
        elif end > size or end < body or not name[:4].isascii() or not name[:4].decode().isprintable():
            break
        position = -(-end // chunks.aligned) * chunks.aligned
    if audio_end is None or audio_end > size:
        return _compared(audio_end, size)
    return Extent(surplus_bytes=max(0, size - position))


def _compared(end: int | None, size: int) -> Extent:
    """The extent of audio that should end at `end` (None: wherever the file does), with nothing known behind it."""
    return Extent() if end is None else Extent(max(0, end - size), max(0, size - end))


def _is_open_ended(promised: int) -> bool:
    """Whether a size of audio is no size: never filled in, or as large as can be."""
    return promised == 0 or any(promised in sizes for sizes in _OPEN_ENDED)


def _ends_its_stream(file: BinaryIO, size: int) -> bool:
    """Whether the last page of an Ogg file is whole and marked as the end of its stream."""
    file.seek(max(0, size - 2 * _OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    body_bytes = sum(page[27 : 27 + page[26]])
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + body_bytes
