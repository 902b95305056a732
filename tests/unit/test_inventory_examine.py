import hashlib
import io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from otus import audio
from otus.errors import DataError
from otus.inventory import examine as module
from otus.inventory.examine import examine

RATE = 22_050


def noise(n=20_000, channels=1, seed=0, sd=0.1):
    return np.random.default_rng(seed).normal(0, sd, (n, channels)).clip(-0.99, 0.99)


def written(path, samples=None, rate=RATE, **how):
    samples = noise() if samples is None else samples
    with soundfile.SoundFile(path, "w", rate, 1 if samples.ndim == 1 else samples.shape[1], **how) as file:
        file.write(samples)
    return path


def encoded(samples=None, rate=RATE, **how):
    """The bytes of a sound file."""
    out = io.BytesIO()
    soundfile.write(out, noise() if samples is None else samples, rate, **how)
    return out.getvalue()


def integers(path):
    return soundfile.read(path, dtype="int16", always_2d=True)[0]


def without_length(flac):
    raw = bytearray(flac)
    raw[21] &= 0xF0
    raw[22:26] = bytes(4)
    return bytes(raw)


def with_field(wav, offset, layout, value):
    raw = bytearray(wav)
    struct.pack_into(layout, raw, offset, value)
    return bytes(raw)


def cut_after_page(ogg, n):
    """The first pages of an Ogg stream."""
    at = -1
    for _ in range(n + 1):
        at = ogg.index(b"OggS", at + 1)
    return ogg[:at]


WAV = encoded(format="WAV", subtype="PCM_16")
FLAC = encoded(format="FLAC")
OGG = encoded(noise(100_000), format="OGG", subtype="VORBIS")
CAF = encoded(format="CAF", subtype="PCM_16")
OPUS = encoded(noise(100_000), 48_000, format="OGG", subtype="OPUS")
MP3 = encoded(format="MP3")
NOT_A_NUMBER = noise()
NOT_A_NUMBER[15_000] = np.nan
INFINITE = noise()
INFINITE[15_000] = np.inf

#: Name -> content and what is said of it. Nothing of these may be used, and none may stop anything.
BAD = {
    "empty": (b"", "cannot be read as audio"),
    "text": (b"no sound at all\n" * 50, "cannot be read as audio"),
    "a web page": (b"<!DOCTYPE html><title>404</title>" * 9, "cannot be read as audio"),
    "zeros": (bytes(5000), "cannot be read as audio"),
    "an archive": (b"PK\x03\x04" + bytes(range(256)) * 9, "cannot be read as audio"),
    "the first bytes of a header": (WAV[:30], "cannot be read as audio"),
    "a header without chunks": (b"RIFF\x00\x00\x00\x00WAVE", "cannot be read as audio"),
    "no channels": (with_field(WAV, 22, "<H", 0), "cannot be read as audio"),
    "an unknown codec": (with_field(WAV, 20, "<H", 0x7A7A), "cannot be read as audio"),
    "no samples": (encoded(noise(0), format="WAV"), "holds no samples"),
    "WAV cut in the header of the data": (WAV[:42], "cannot be read as audio|holds no samples"),
    "WAV cut": (WAV[:-9001], "truncated: 9001 bytes of audio that its header promises are not there"),
    "WAV without the last sample": (WAV[:-2], "truncated: 2 bytes"),
    "WAV of 24 bits cut": (encoded(format="WAV", subtype="PCM_24")[:-900], "truncated: 900 bytes"),
    "RF64 cut": (encoded(format="RF64", subtype="PCM_16")[:-900], "truncated: 900 bytes"),
    "W64 cut": (encoded(format="W64", subtype="PCM_16")[:-900], "truncated: 900 bytes"),
    "AIFF cut": (encoded(format="AIFF", subtype="PCM_16")[:-900], "truncated: 900 bytes"),
    "AIFF-C cut": (encoded(format="AIFF", subtype="FLOAT")[:-900], "truncated: 900 bytes"),
    "CAF cut": (CAF[:-900], r"truncated: \d+ bytes"),
    "CAF cut in half": (CAF[: len(CAF) // 2], r"truncated: \d+ bytes"),
    "AU cut": (encoded(format="AU", subtype="PCM_16")[:-900], "truncated: 900 bytes"),
    "ADPCM cut": (encoded(format="WAV", subtype="IMA_ADPCM")[:-900], "truncated: 900 bytes"),
    "FLAC cut": (FLAC[:-900], r"cannot be read as audio \(.+\)"),
    "FLAC damaged": (FLAC[:9000] + b"\x55" * 20 + FLAC[9020:], r"cannot be read as audio \(.+\)"),
    "FLAC without a length": (without_length(FLAC), "its header does not say how long it is; convert it anew"),
    "Ogg cut in a page": (OGG[:-900], "truncated: the page that ends an Ogg stream is not there"),
    "Ogg without the last page": (cut_after_page(OGG, 4), "truncated: the page that ends an Ogg stream"),
    "Opus damaged": (
        OPUS[: len(OPUS) // 2] + b"\x55" * 50 + OPUS[len(OPUS) // 2 + 50 :],
        r"ends early: \d+ of the 100000 samples that its header promises can be decoded|cannot be read as audio",
    ),
    "MP3 cut": (MP3[: len(MP3) // 2], r"ends early: \d+ of the 20000 samples"),
    "MP3 that is none": (b"nothing " * 100, "cannot be read as audio"),
    "not a number": (encoded(NOT_A_NUMBER, format="WAV", subtype="FLOAT"), "holds samples that are no numbers"),
    "infinite": (encoded(INFINITE, format="WAV", subtype="DOUBLE"), "holds samples that are no numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_says_so_in_one_sentence(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / ("x.mp3" if "MP3" in name else "x.wav")
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.\w+: (?:{message})") as error:
        examine(path, "full")
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text and text.count("x.wav") <= 1 and "pipe?" not in text


def test_what_is_not_there(tmp_path):
    for check in ("full", "ends"):
        with pytest.raises(DataError, match=r"none\.wav: cannot be read as audio \(No such file"):
            examine(tmp_path / "none.wav", check)


FORMATS = [
    ("a.wav", {"subtype": "PCM_16"}, "int16"),
    ("a.wav", {"subtype": "PCM_U8"}, "int16"),
    ("a.wav", {"subtype": "PCM_24"}, "int32"),
    ("a.wav", {"subtype": "PCM_32"}, "int32"),
    ("a.wav", {"subtype": "FLOAT"}, "float32"),
    ("a.wav", {"subtype": "DOUBLE"}, "float32"),
    ("a.wav", {"subtype": "ULAW"}, "int16"),
    ("a.flac", {"subtype": "PCM_16"}, "int16"),
    ("a.flac", {"subtype": "PCM_24"}, "int32"),
    ("a.flac", {"subtype": "PCM_S8"}, "int16"),
    ("a.aiff", {"subtype": "PCM_16"}, "int16"),
    ("a.caf", {"subtype": "ALAC_24"}, "int32"),
    ("a.ogg", {"subtype": "VORBIS"}, "float32"),
    ("a.mp3", {}, "float32"),
]


@pytest.mark.parametrize(("name", "how", "kind"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_sample_is_looked_at_once(tmp_path, monkeypatch, name, how, kind, channels):
    monkeypatch.setattr(module, "_BLOCK_SAMPLES", 4000 * channels)
    path = written(tmp_path / name, noise(30_000, channels), **how)
    found = examine(path, "full")
    samples = soundfile.read(path, dtype=kind, always_2d=True)[0]
    assert found.info == audio.AudioInfo(30_000, RATE, channels, soundfile.info(path).subtype)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    text = f"otus-samples {RATE} {channels} {kind}\n".encode()
    if name != "a.mp3":  # whose samples differ in their last bit with the places that decoding was begun at
        assert found.content.sha256 == hashlib.sha256(text + samples.tobytes()).hexdigest()
    full_scale = {"int16": 2**15, "int32": 2**31, "float32": 1}[kind]
    scaled = samples / full_scale
    levels = found.content.levels
    assert levels.peak_dbfs == pytest.approx(20 * np.log10(np.abs(scaled).max()), abs=0.01)
    assert levels.rms_dbfs == pytest.approx(20 * np.log10(np.sqrt(scaled.var(axis=0).mean())), abs=0.01)
    assert (levels.clipped_share, levels.silent_share, levels.dead_channels) == (0, 0, ())


def test_copies_in_other_formats_and_with_other_metadata_have_the_same_content(tmp_path):
    wav = written(tmp_path / "a.wav", noise(channels=2), subtype="PCM_16")
    samples = integers(wav)
    copies = [written(tmp_path / f"a.{kind}", samples, subtype="PCM_16") for kind in ("flac", "aiff", "caf", "w64")]
    copies.append(tmp_path / "b.wav")
    copies[-1].write_bytes(wav.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    first = examine(wav, "full")
    for copy in copies:
        found = examine(copy, "full")
        assert found.content == first.content and found.sha256 != first.sha256


def test_other_samples_another_rate_and_other_channels_are_other_content(tmp_path):
    samples = integers(written(tmp_path / "a.wav"))
    changed = samples.copy()
    changed[-1] += 1
    files = [
        written(tmp_path / "b.wav", samples),
        written(tmp_path / "c.wav", changed),
        written(tmp_path / "d.wav", samples, RATE + 1),
        written(tmp_path / "e.wav", samples.reshape(-1, 2)),
        written(tmp_path / "f.wav", samples[:-1]),
    ]
    assert len({examine(file, "full").content.sha256 for file in files}) == len(files)


def test_ends_looks_at_no_samples(tmp_path):
    path = written(tmp_path / "a.wav")
    found = examine(path, "ends")
    assert found.content is None and found.sha256 == audio.sha256(path) and found.info == audio.inspect(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="truncated: 10 bytes"):
        examine(path, "ends")


@pytest.mark.parametrize("check", ["full", "ends"])
def test_data_behind_the_audio_are_counted(tmp_path, check):
    path = written(tmp_path / "a.wav", subtype="PCM_16")
    whole = path.read_bytes()
    path.write_bytes(whole + b"iXML" + struct.pack("<I", 300) + bytes(300))
    assert examine(path, check).surplus_bytes == 0
    path.write_bytes(whole + bytes(4000))
    assert examine(path, check).surplus_bytes == 4000
    path.write_bytes(with_field(whole, 40, "<I", 20_000))  # the recorder died before it corrected the header
    found = examine(path, check)
    assert (found.info.n_samples, found.surplus_bytes) == (10_000, 20_000)


def test_a_long_recording_needs_no_more_memory(tmp_path):
    path = tmp_path / "a.wav"
    with soundfile.SoundFile(path, "w", 48_000, 1) as file:
        for i in range(20):
            file.write(noise(300_000, seed=i))
    tracemalloc.start()
    examine(path, "full")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6 < path.stat().st_size


def test_every_byte_is_hashed_along_with_decoding(tmp_path, monkeypatch):
    """The digest of the bytes follows the decoder, so that a large file comes from the disk once."""
    monkeypatch.setattr(module, "_READ_BYTES", 4096)
    path, places = written(tmp_path / "a.wav", noise(600_000)), []
    hash_up_to = module._hash_up_to

    def noted(digest, file, position):
        places.append(position)
        hash_up_to(digest, file, position)

    monkeypatch.setattr(module, "_hash_up_to", noted)
    assert examine(path, "full").sha256 == audio.sha256(path)
    assert len(places) == 6 and places[-1] is None and places[:-1] == sorted(places[:-1])
    assert places[1] == pytest.approx(path.stat().st_size * 2 * 130_176 / 600_000, rel=0.01)
