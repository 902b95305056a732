"""Kinds of damage that recordings and tables come with, and what the inventory must make of each."""

import io
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from otus.config import AnnotationSource

RATE = 8000
HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\n"

#: A recording and its table that lie beside every kind, and must come through it unharmed.
GOOD, GOOD_TABLE = "good.wav", "good.selections.txt"
GOOD_ROWS = [(0.125, 0.25, "owl"), (0.5, 0.75, "frog")]


@dataclass(frozen=True)
class Left:
    """A quarantine row: kind, file in the folder of the damage, what the reason must match, row and number of rows."""

    kind: str
    file: str
    reason: str
    row: int | None = None
    n_rows: int = 0


@dataclass(frozen=True)
class Kind:
    """One kind of damage, in a folder of its own.

    `files` are contents by name; `make` makes what is no plain file. `sources` are the annotation files, with globs
    below the folder. What must come of it: the quarantine rows `left` and no others, the annotations `kept`
    (recording, start, end, label), what the `flags` of a recording match, the `views` of each table, and the recordings
    that an `unusable` table leaves unlabelled. `passed_over` are files that are none. Kinds with `settings` of the
    corpus stand alone.
    """

    name: str
    files: Mapping[str, bytes | Callable[[], bytes]] = field(default_factory=dict)
    make: Callable[[Path], None] = lambda folder: None
    sources: tuple[AnnotationSource, ...] = ()
    left: tuple[Left, ...] = ()
    kept: tuple[tuple[str, float, float, str], ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    views: Mapping[str, int] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def build(kind: Kind, root: Path) -> None:
    """Make the folder of a kind, with the good recording and its table."""
    folder = root / kind.name
    folder.mkdir(parents=True)
    for name, content in {GOOD: recording(f"good {kind.name}"), GOOD_TABLE: raven(*GOOD_ROWS), **kind.files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content() if callable(content) else content)
    kind.make(folder)


def raven(*rows: tuple[object, object, str]) -> bytes:
    """A Raven table with a row for each begin, end and label."""
    lines = (f"{i}\tSpectrogram 1\t1\t{a}\t{b}\t100\t900\t{label}\n" for i, (a, b, label) in enumerate(rows, start=1))
    return (HEADER + "".join(lines)).encode()


# The one generator of recordings, and containers written by hand where a header is to be wrong.


def sound(name: str, duration_s: float = 1.0) -> np.ndarray:
    """Noise that no other name gives, in steps of 16 bits."""
    samples = np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.1, round(duration_s * RATE))
    return np.round(samples * 2**15) / 2**15


def encoded(samples: np.ndarray, format_: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=format_, subtype=subtype)
    return file.getvalue()


def recording(name: str, duration_s: float = 1.0) -> bytes:
    return encoded(sound(name, duration_s))


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body


def fmt(tag: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame % 2**32, frame % 2**16, bits))


def wav(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return chunk(b"RIFF", body)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def damaged(content: bytes, length: int = 200) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(length) + content[middle + length :]


def spoilt(name: str, value: float) -> bytes:
    samples = sound(name)
    samples[100] = value
    return encoded(samples, subtype="DOUBLE")


# Audio.

UNKNOWN = r"^cannot be read as audio \(it is in no format that is known\)$"
NO_DATA = r"^cannot be read as audio \(no audio follows its header\)$"
SENSELESS = r"^cannot be read as audio \(its header makes no sense\)$"
CODING = r"^cannot be read as audio \(its header is damaged, or names a coding that is not known\)$"
FLAC = r"^cannot be read as audio \(its FLAC data are damaged\)$"
TRUNCATED = "^truncated: 5000 bytes of audio that its header promises are not there$"
OGG = "^truncated: the page that ends an Ogg stream is not there$"
NO_NUMBERS = r"^holds samples that are no numbers \(NaN or infinite\)$"


def bad(name: str, content: bytes | Callable[[], bytes], reason: str, file: str = "bad.wav") -> Kind:
    """A recording that cannot be used."""
    return Kind(name, {file: content}, left=(Left("recording", file, reason),))


def odd(name: str, content: bytes | Callable[[], bytes], flags: str = "", file: str = "odd.wav") -> Kind:
    """A recording that can be used all the same."""
    return Kind(name, {file: content}, flags={file: flags} if flags else {})


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(target)


def bytes_named(name: bytes, content: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:  # noqa: PTH118, PTH123 (no Path for these)
            file.write(content)

    return make


def named(name: str, *files: str) -> Kind:
    """Good recordings under difficult names."""
    return Kind(name, {file: recording(f"{name} {file}") for file in files})


def data(name: str, size: int | None = None) -> bytes:
    """A data chunk with the samples of a name, and perhaps another size in its header."""
    return chunk(b"data", (sound(name) * 2**15).astype("<i2").tobytes(), size)


def mp3(name: str) -> bytes:
    return encoded(sound(name, 5), "MP3", "MPEG_LAYER_III")


def damaged_frame(content: bytes) -> bytes:
    """An MP3 file of which the second frame begins wrongly: its end seems to lie elsewhere."""
    second = content.index(content[:3], 4)
    return content[:second] + b"\xff" * 4 + content[second + 4 :]


AUDIO = [
    bad("empty file", b"", r"^cannot be read as audio \(it has 0 bytes\)$"),
    bad("text", b"this is no audio\n" * 50, UNKNOWN),
    bad("pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 9\n", UNKNOWN),
    bad("page of an error", b"<!DOCTYPE html><html><body>404 not found</body></html>", UNKNOWN),
    bad("zip", b"PK\3\4" + bytes(200), UNKNOWN),
    bad("m4a", b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(300), UNKNOWN),
    bad("zeros", bytes(16000), UNKNOWN),
    bad("four bytes", b"RIFF", UNKNOWN),
    bad("beginning of a header", wav(), NO_DATA),
    bad("header without audio", wav(fmt(), chunk(b"data", b"")), "^holds no samples$"),
    bad("header of a lost recording", wav(fmt(), chunk(b"data", b"", 16000)), "^truncated: 16000 bytes of audio that"),
    bad("length never filled in", wav(fmt(), data("unfilled", 0)), "^holds no samples by its header, but has 16044 by"),
    bad("flac without audio", encoded(sound("header"), "FLAC")[:42], r"\(its end cannot be reached\)$", "bad.flac"),
    bad("no format", wav(data("no format")), NO_DATA),
    bad("format after the data", wav(data("late"), fmt()), NO_DATA),
    bad("two data chunks", wav(fmt(), data("first"), data("second")), SENSELESS),
    bad("riff cut", encoded(sound("riff"))[:-5000], TRUNCATED),
    bad("rf64 cut", encoded(sound("rf64"), "RF64")[:-5000], TRUNCATED, "bad.rf64"),
    bad("aiff cut", encoded(sound("aiff"), "AIFF")[:-5000], TRUNCATED, "bad.aiff"),
    bad("caf cut", encoded(sound("caf"), "CAF")[:-5000], TRUNCATED, "bad.caf"),
    bad("w64 cut", encoded(sound("w64"), "W64")[:-5000], TRUNCATED, "bad.w64"),
    bad("au cut", encoded(sound("au"), "AU")[:-5000], TRUNCATED, "bad.au"),
    bad("flac cut", lambda: cut(encoded(sound("flac cut"), "FLAC")), FLAC, "bad.flac"),
    bad("flac damaged", lambda: damaged(encoded(sound("flac"), "FLAC")), FLAC, "bad.flac"),
    bad("ogg cut", lambda: cut(encoded(sound("ogg", 5), "OGG", "VORBIS")), OGG, "bad.ogg"),
    bad("opus cut", lambda: cut(encoded(sound("opus", 5), "OGG", "OPUS")), OGG, "bad.opus"),
    bad("mp3 cut", lambda: cut(mp3("mp3")), r"^ends early: \d+ of the 40000 samples that its header", "bad.mp3"),
    Kind(
        "mp3 with a damaged frame",
        {"bad.mp3": lambda: damaged_frame(encoded(sound("g"), "MP3", "MPEG_LAYER_III"))},
        left=(Left("recording", "bad.mp3", r"^ends early: its header promises \d+ samples$"),),
        settings={"audio_check": "ends"},
    ),
    bad("mp3 of 100 bytes", lambda: mp3("mp3")[:100], r"\(no audio is found in it\)$", "bad.mp3"),
    odd("mp3 after garbage", lambda: b"garbage in front " * 30 + mp3("garbage"), file="odd.mp3"),
    odd("flac after a tag", lambda: b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + encoded(sound("id3"), "FLAC"), file="o.flac"),
    odd("flac named wav", lambda: encoded(sound("other name"), "FLAC")),
    bad("nan", lambda: spoilt("nan", np.nan), NO_NUMBERS),
    bad("inf", lambda: spoilt("inf", np.inf), NO_NUMBERS),
    bad("too large for a float", lambda: spoilt("1e300", 1e300), NO_NUMBERS),
    bad("sample rate 0", wav(fmt(rate=0), data("rate 0")), SENSELESS),
    bad("sample rate 4 GHz", wav(fmt(rate=4_000_000_000), data("4 GHz")), SENSELESS),
    bad("channels 0", wav(fmt(channels=0), data("channels 0")), r"\(Channel count is zero\)$"),
    bad("channels 65535", wav(fmt(channels=65535), data("channels")), r"\(Too many channels specified\)$"),
    bad("bits 0", wav(fmt(bits=0), data("bits 0")), CODING),
    bad("unknown codec", wav(fmt(tag=0x1234), data("codec")), CODING),
    bad("mp3 codec without its fields", wav(fmt(tag=0x55), data("mp3 codec")), CODING),
    bad("absurd size of the format", wav(b"fmt \xf0\xff\xff\xff" + fmt()[8:], data("fmt")), CODING),
    bad("absurd size of a tag", wav(fmt(), chunk(b"LIST", b"INFO", 0xFFFFFFF0), data("tag")), NO_DATA),
    bad("absurd size of the data", wav(fmt(), data("data", 0x8FFFFFFF)), "^truncated: 2415903103 bytes"),
    odd("size of a pipe", wav(fmt(), data("pipe", 0xFFFFFFFF))),
    odd("data beyond the header", wav(fmt(), data("surplus")) + b"\1" * 5000, "^data after the audio: 5000 bytes$"),
    odd("size smaller than the data", wav(fmt(), data("small", 4000)), "^data after the audio: 12000 bytes$"),
    odd("odd bytes", wav(fmt(), chunk(b"data", data("odd")[8:] + b"\x7f"))),
    odd("silent", lambda: encoded(np.zeros(7000)), "^silent$"),
    odd("nearly silent", lambda: encoded(sound("faint") / 5000), r"^nearly silent \(peak -8\d dBFS\)$"),
    odd("partly silent", lambda: encoded(np.append(sound("part"), np.zeros(2000))), "^20 % digital silence$"),
    odd("dead", lambda: encoded(np.stack([sound("dead"), np.zeros(RATE)], axis=1)), "^channel 2 is dead$"),
    odd("clipped", lambda: encoded(np.clip(sound("clipped") * 20, -1, 1)), r"^clipped \d+ %$"),
    Kind(
        "copies",
        {
            "call.wav": recording("copies"),
            "a/copy of call.wav": recording("copies"),
            "call-2.flac": encoded(sound("copies"), "FLAC"),
            "call-3.wav": recording("copies") + chunk(b"LIST", b"INFOIART\4\0\0\0owl\0"),
            "a/copy of call.txt": b"0.25\t0.5\towl\n",
        },
        sources=(AnnotationSource(files="a/copy of call.txt"),),
        left=(
            Left("duplicate", "a/copy of call.wav", r"^byte-identical to copies/call\.wav, which is kept$"),
            Left("duplicate", "call-2.flac", r"^same samples as copies/call\.wav, which is kept$"),
            Left("duplicate", "call-3.wav", r"^same samples as copies/call\.wav, which is kept$"),
        ),
        kept=(("call.wav", 0.25, 0.5, "owl"),),
    ),
    named("folder named like a file", "x.wav/call.wav"),
    Kind(
        "link to nothing",
        make=link("dangling.wav", "not/there.wav"),
        left=(Left("recording", "dangling.wav", r"^cannot be read as audio \(No such file or directory\)$"),),
    ),
    Kind("pipe", make=lambda folder: os.mkfifo(folder / "pipe.wav"), passed_over=("pipe.wav",)),
    Kind(
        "name that is no UTF-8",
        make=bytes_named(b"K\xe4uzchen.wav", recording("latin name")),
        left=(Left("recording", r"K\xe4uzchen.wav", "^its name is not valid UTF-8$"),),
    ),
    bad("name with HTML", b"no audio", UNKNOWN, "<script>alert('name')<%2fscript>.wav"),
    bad("name with a line end", b"no audio", UNKNOWN, "two\nlines.wav"),
    bad("name with quotes", b"no audio", UNKNOWN, '"owl\'s" $(call) `x`; & {{ 6 * 7 }}.wav'),
    named("name of 200 characters", "x" * 196 + ".wav", "x" * 195 + "y.wav"),
    named("names with one id", "a b.wav", "a?b.wav", "a*b.wav", "a_b.wav"),
    named("names that differ in case", "k.wav", "K.wav", "k.WAV"),
    named("accents composed and not", "caf\u00e9.wav", "cafe\u0301.wav"),
    named("names of one stem", "x.wav", "x.flac", "x.wav.wav"),
    Kind(
        "impossible date",
        {"rec_20210230_250000.wav": recording("date"), "rec_none.wav": recording("no date")},
        settings={"names": [{"pattern": r"(?P<recorder>rec)_(?P<time>\d{8}_\d{6})"}, {"pattern": "(?P<site>good)"}]},
        flags={
            "rec_20210230_250000.wav": "^no date in the name can be read$",
            "rec_none.wav": "^fits no name pattern$",
        },
    ),
]
