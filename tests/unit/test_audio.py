import hashlib
import itertools
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from otus import audio
from otus.containers import Extent, extent
from otus.errors import DataError

#: Largest difference that counting in 16 bits and one byte less makes.
STEP = {"PCM_16": 1 / 2**15, "PCM_24": 1 / 2**23, "FLOAT": 1e-7, "VORBIS": 0.1, "PCM_U8": 1 / 2**7}


def noise(n, channels=1, seed=0):
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (n, channels)).astype(np.float32)
    return samples[:, 0] if channels == 1 else samples


def tones(n, rate):
    time = np.arange(n) / rate
    return (0.2 * sum(np.sin(2 * np.pi * f * time) for f in (0.01 * rate, 0.0777 * rate, 0.123 * rate))).astype("f4")


def written(path, samples, rate, subtype=None):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.fixture
def wav(tmp_path):
    return written(tmp_path / "a.wav", noise(5000), 22_050)


def with_data_size(path, size, riff_size=None):
    """Write another size into the header of the data chunk (and of the RIFF chunk)."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"data") + 4
    raw[at : at + 4] = struct.pack("<I", size)
    if riff_size is not None:
        raw[4:8] = struct.pack("<I", riff_size)
    path.write_bytes(raw)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000])
@pytest.mark.parametrize(
    ("suffix", "subtype", "channels"),
    [
        ("wav", "PCM_16", 1),
        ("wav", "PCM_24", 2),
        ("wav", "PCM_U8", 1),
        ("wav", "FLOAT", 3),
        ("flac", "PCM_16", 2),
        ("flac", "PCM_24", 1),
        ("ogg", "VORBIS", 2),
    ],
)
def test_formats(tmp_path, rate, suffix, subtype, channels):
    samples = tones(3001, rate)
    samples = samples if channels == 1 else np.stack([samples * (1 - i / 4) for i in range(channels)], axis=1)
    path = written(tmp_path / f"a.{suffix}", samples, rate, subtype)
    info = audio.inspect(path)
    assert info == audio.AudioInfo(3001, rate, channels, subtype)
    assert info.duration_s == 3001 / rate
    found, found_rate = audio.read(path)
    expected = samples if channels == 1 else samples.mean(axis=1)
    assert found_rate == rate and found.dtype == np.float32 and found.shape == (3001,)
    assert np.abs(found - expected).max() <= STEP[subtype]
    part, _ = audio.read(str(path), 1000, 2000)
    np.testing.assert_allclose(part, found[1000:2000], atol=1e-4 if subtype == "VORBIS" else 0)


def test_the_channels_are_averaged(tmp_path):
    left = noise(100)
    path = written(tmp_path / "a.wav", np.stack([left, -left, left], axis=1), 8_000, "FLOAT")
    np.testing.assert_allclose(audio.read(path)[0], left / 3, atol=1e-7)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, None, (0, 4000)),
        (-50, 20, (0, 20)),
        (3990, 5000, (3990, 4000)),
        (4000, 4100, (4000, 4000)),
        (9000, 9100, (4000, 4000)),
        (20, 10, (20, 20)),
        (-20, -10, (0, 0)),
        (3999, None, (3999, 4000)),
    ],
)
def test_positions_beyond_the_ends_are_not_padded(tmp_path, suffix, start, end, expected):
    path = written(tmp_path / f"a.{suffix}", tones(4000, 8_000), 8_000)
    whole, _ = audio.read(path)
    found, _ = audio.read(path, start, end)
    assert len(whole) == 4000 and len(found) == expected[1] - expected[0]
    if suffix in ("wav", "flac"):  # libsndfile finds a place near the end of the others only roughly
        np.testing.assert_array_equal(found, whole[slice(*expected)])


@pytest.mark.parametrize("missing", [1, 2, 1000, 9_000])
def test_a_wav_that_ends_before_its_header_says(wav, missing):
    wav.write_bytes(wav.read_bytes()[:-missing])
    with pytest.raises(DataError, match=rf"a\.wav: truncated: {missing} bytes of audio that its header promises"):
        audio.inspect(wav)


def test_a_truncated_rf64(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(5000), 22_050, format="RF64", subtype="PCM_16")
    assert path.read_bytes()[:4] == b"RF64" and audio.inspect(path).n_samples == 5000
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="truncated: 1000 bytes"):
        audio.inspect(path)


@pytest.mark.parametrize("share", [0.99, 0.5, 0.1])
def test_a_truncated_flac(tmp_path, share):
    path = written(tmp_path / "a.flac", noise(20_000), 22_050)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=r"a\.flac: cannot be read as audio \(.*\)\.$"):
        audio.inspect(path)
    with pytest.raises(DataError, match=r"a\.flac: (only \d+ of 20000 samples could|cannot) be decoded"):
        audio.read(path)


def test_data_behind_the_audio_are_no_audio(wav):
    wav.write_bytes(wav.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert audio.inspect(wav).n_samples == 5000


def test_an_odd_chunk_before_the_audio_is_passed_over(wav):
    raw = wav.read_bytes()
    at = raw.index(b"data")
    chunk = b"note" + struct.pack("<I", 3) + b"abc\0"
    wav.write_bytes(raw[:4] + struct.pack("<I", len(raw) - 8 + len(chunk)) + raw[8:at] + chunk + raw[at:])
    assert audio.inspect(wav).n_samples == 5000
    wav.write_bytes(wav.read_bytes()[:-10])
    with pytest.raises(DataError, match="truncated: 10 bytes"):
        audio.inspect(wav)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFDB, 0x80000000, 0x7FFFFF00, 0x7FFFF000])
def test_a_wav_written_to_a_pipe_is_as_long_as_its_data(wav, size):
    samples, _ = audio.read(wav)
    with_data_size(wav, size, min(size + 36, 0xFFFFFFFF))
    assert audio.inspect(wav).n_samples == 5000
    np.testing.assert_array_equal(audio.read(wav)[0], samples)


@pytest.mark.parametrize("form", ["AIFF", "W64", "AU", "RF64"])
@pytest.mark.parametrize("missing", [2, 900])
def test_a_truncated_file_of_another_format(tmp_path, form, missing):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(5000), 22_050, format=form, subtype="PCM_16")
    assert audio.inspect(path).n_samples == 5000 and extent(path) == Extent()
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(DataError, match=rf"a\.wav: truncated: {missing} bytes of audio that its header promises"):
        audio.inspect(path)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_stream_without_its_end(tmp_path, subtype):
    path = tmp_path / "a.ogg"
    with soundfile.SoundFile(path, "w", 48_000, 1, format="OGG", subtype=subtype) as file:
        file.write(noise(90_000))
    whole = path.read_bytes()
    assert audio.inspect(path).n_samples == 90_000 and not extent(path).unfinished
    last_page = whole.rindex(b"OggS")
    for content in (whole[:-1], whole[: last_page + 20], whole[:last_page], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.ogg: truncated: the page that ends an Ogg stream is not there\."):
            audio.inspect(path)
    path.write_bytes(whole + b"TAG" + bytes(125))
    assert not extent(path).unfinished


def test_a_flac_without_a_length(tmp_path):
    raw = bytearray(written(tmp_path / "a.flac", noise(5000), 22_050).read_bytes())
    raw[21] &= 0xF0
    raw[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.flac: its header does not say how long it is; convert it anew"):
        audio.inspect(tmp_path / "a.flac")


def chunk(name, body, size=None, order="<"):
    return name + struct.pack(f"{order}I", len(body) if size is None else size) + body + bytes(len(body) % 2)


DATA = bytes(range(1, 101))
AU = struct.pack(">4sIIIII", b".snd", 24, 100, 3, 8000, 1)
GUID = bytes(12)  # what follows the name in a chunk of W64


def w64(name, body):
    return name + GUID + struct.pack("<Q", 24 + len(body)) + body + bytes(-len(body) % 8)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"RIFF----WAVE" + chunk(b"data", DATA), Extent()),
        (b"RIFF----WAVE" + chunk(b"fmt ", DATA[:15]) + chunk(b"data", DATA[:99]) + chunk(b"LIST", DATA), Extent()),
        (b"RIFF----WAVE" + chunk(b"data", DATA, 90), Extent(surplus_bytes=10)),
        (b"RIFF----WAVE" + chunk(b"data", DATA, 150), Extent(missing_bytes=50)),
        (b"RIFF----WAVE" + chunk(b"data", DATA) + chunk(b"LIST", DATA, 900), Extent(surplus_bytes=108)),
        (b"RIFF----WAVE" + chunk(b"data", DATA) + chunk(b"LIST", DATA) + bytes(30), Extent(surplus_bytes=30)),
        (b"RIFF----WAVE" + chunk(b"data", DATA) + chunk(b"data", DATA), Extent()),
        (b"RIFF----WAVE" + chunk(b"data", DATA, 0), Extent()),
        (b"RIFF----WAVE" + chunk(b"data", DATA, 0xFFFFFFFF), Extent()),
        (b"RIFF----WAVE" + bytes(5000), Extent()),
        (b"RIFX----WAVE" + chunk(b"data", DATA, 150, ">"), Extent(missing_bytes=50)),
        (b"RF64----WAVE" + chunk(b"ds64", struct.pack("<QQQI", 0, 150, 0, 0)) + chunk(b"data", DATA, 0xFFFFFFFF),
         Extent(missing_bytes=50)),
        (b"BW64----WAVE" + chunk(b"ds64", struct.pack("<QQQI", 0, 100, 0, 0)) + chunk(b"data", DATA, 0xFFFFFFFF),
         Extent()),
        (b"FORM----AIFF" + chunk(b"COMM", DATA[:18], None, ">") + chunk(b"SSND", DATA, 101, ">"), Extent(1)),
        (b"FORM----AIFC" + chunk(b"SSND", DATA, None, ">") + chunk(b"ID3 ", DATA, None, ">"), Extent()),
        (b"caff\0\1\0\0" + b"data" + struct.pack(">q", 140) + DATA, Extent(40)),
        (b"caff\0\1\0\0" + b"data" + struct.pack(">q", -1) + DATA, Extent()),
        (b"caff\0\1\0\0" + b"data" + struct.pack(">q", 100) + DATA + b"pakt" + struct.pack(">q", 100) + DATA, Extent()),
        (b"riff" + GUID + bytes(8) + b"wave" + GUID + w64(b"fmt ", DATA[:20]) + w64(b"data", DATA), Extent()),
        (b"riff" + GUID + bytes(8) + b"wave" + GUID + w64(b"data", DATA)[:-10], Extent(6)),
        (AU + DATA, Extent()),
        (AU + DATA[:70], Extent(missing_bytes=30)),
        (AU + DATA + DATA, Extent(surplus_bytes=100)),
        (AU[:8] + b"\xff" * 4 + AU[12:] + DATA, Extent()),
        (b"OggS", Extent(unfinished=True)),
        (b"fLaC" + bytes(100), Extent()),
        (b"", Extent()),
    ],
)  # fmt: skip
def test_the_extent_of_the_audio_by_its_header(tmp_path, content, expected):
    (tmp_path / "x").write_bytes(content)
    assert extent(tmp_path / "x") == expected


def test_a_wav_beyond_four_gigabytes_has_surplus(tmp_path):
    """Its 32-bit size counts from zero again; the rest is not lost without a word."""
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.write(b"RIFF----WAVE" + b"data" + struct.pack("<I", 1000))
        file.truncate(20 + 1000 + 2**32)
    assert extent(path) == Extent(surplus_bytes=2**32)


@given(
    st.binary(max_size=300), st.sampled_from([b"RIFF----WAVE", b"FORM----AIFF", b"caff\0\1\0\0", b".snd", b"OggS", b""])
)
def test_no_header_whatsoever_breaks_it(tmp_path_factory, content, head):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(head + content)
    found = extent(path)
    assert found.missing_bytes >= 0 and 0 <= found.surplus_bytes <= len(head + content)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_no_samples(tmp_path, suffix):
    path = written(tmp_path / f"a.{suffix}", noise(0), 8_000)
    with pytest.raises(DataError):
        audio.inspect(path)


def test_no_samples_in_one_sentence(tmp_path):
    path = written(tmp_path / "a.wav", noise(0), 8_000)
    with pytest.raises(DataError, match=r"^[^.]*a\.wav: holds no samples\.$"):
        audio.inspect(path)
    assert len(audio.read(path)[0]) == 0


@pytest.mark.parametrize("content", [b"", b"no sound at all" * 100, b"RIFF\x00\x00\x00\x00WAVE", bytes(1000)])
def test_what_is_no_audio(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    for attempt in (audio.inspect, audio.read):
        with pytest.raises(DataError, match=r"a\.wav: cannot be (read as audio|decoded) \(\S") as error:
            attempt(path)
        assert str(error.value).count("a.wav") == 1 and str(error.value).endswith(").")
        assert "\n" not in str(error.value)


def test_what_is_not_there(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(DataError):
            audio.inspect(path)
        with pytest.raises(DataError):
            audio.read(path)


def test_sha256_is_that_of_the_bytes(wav):
    assert audio.sha256(wav) == hashlib.sha256(wav.read_bytes()).hexdigest()


@given(st.integers(0, 10**11), st.integers(1, 500_000), st.integers(1, 500_000))
def test_length_after_resampling(n_samples, rate, target):
    length = audio.resampled_length(n_samples, rate, target)
    assert (length - 1) * rate < n_samples * target <= length * rate  # ceil, in whole numbers
    if n_samples < 10**9:
        assert abs(length - math.ceil(n_samples * target / rate)) <= 1


RATIOS = [
    (44_100, 48_000),
    (48_000, 32_000),
    (250_000, 96_000),
    (22_050, 16_000),
    (8_000, 44_100),
    (384_000, 16_000),
    (500_000, 8_000),
    (44_100, 16_001),
]


@pytest.mark.parametrize(("rate", "target"), RATIOS)
@pytest.mark.parametrize("extra", [0, 1, 317])  # samples beyond a whole second or so
def test_a_stretch_is_the_same_stretch_of_the_whole_recording_resampled(tmp_path, rate, target, extra):
    n_samples = min(rate, 60_000) + extra
    samples = noise(n_samples)
    path = written(tmp_path / "a.wav", samples, rate, "FLOAT")
    info = audio.inspect(path)
    whole = soxr.resample(samples, rate, target, quality="HQ")
    total = audio.resampled_length(n_samples, rate, target)
    assert 0 <= total - len(whole) <= 1
    whole = np.pad(whole, (0, total - len(whole)))
    assert np.abs(whole).max() > 0.05
    generator = np.random.default_rng(extra)
    cuts = np.sort(generator.integers(0, total, (6, 2)), axis=1).tolist()
    for start, end in [
        (0, total),
        (0, 1),
        (total - 1, total),
        (total - 100, total),
        (total // 2, total // 2 + 7),
        *cuts,
    ]:
        found = audio.read_at_rate(path, start, end, target, info)
        assert found.dtype == np.float32 and found.flags.c_contiguous and len(found) == end - start
        np.testing.assert_allclose(found, whole[start:end], atol=1e-4)


def test_neighbouring_stretches_join_without_a_seam(tmp_path):
    path = written(tmp_path / "a.flac", noise(50_001), 44_100)
    info = audio.inspect(path)
    total = audio.resampled_length(50_001, 44_100, 32_000)
    borders = [0, 1, 999, 10_000, 10_001, 33_333, total]
    parts = [audio.read_at_rate(path, a, b, 32_000, info) for a, b in itertools.pairwise(borders)]
    np.testing.assert_allclose(np.concatenate(parts), audio.read_at_rate(path, 0, total, 32_000, info), atol=1e-4)


@pytest.mark.parametrize("target", [8_000, 16_000])
def test_resampled_positions_beyond_the_ends_are_not_padded(tmp_path, target):
    path = written(tmp_path / "a.wav", noise(4001), 8_000)
    info = audio.inspect(path)
    total = 4001 * target // 8_000
    whole = audio.read_at_rate(path, 0, total, target, info)
    assert len(whole) == total
    np.testing.assert_array_equal(audio.read_at_rate(path, -10, 20, target, info), whole[:20])
    assert len(audio.read_at_rate(path, total - 5, total + 50, target, info)) == 5
    for start, end in [(total, total + 10), (50, 50), (60, 50), (-10, 0)]:
        empty = audio.read_at_rate(path, start, end, target, info)
        assert len(empty) == 0 and empty.dtype == np.float32


def test_at_its_own_rate_a_recording_is_read_as_it_is(wav):
    info = audio.inspect(wav)
    np.testing.assert_array_equal(audio.read_at_rate(wav, 10, 90, 22_050, info), audio.read(wav, 10, 90)[0])


def test_resampling_keeps_the_pitch(tmp_path):
    time = np.arange(44_100) / 44_100
    path = written(tmp_path / "a.wav", (0.5 * np.sin(2 * np.pi * 1000 * time)).astype("f4"), 44_100, "FLOAT")
    heard = audio.read_at_rate(path, 8_000, 24_000, 32_000, audio.inspect(path))
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(8_000, 24_000) / 32_000)
    np.testing.assert_allclose(heard, expected, atol=1e-3)


def test_only_the_stretch_and_its_margin_are_read(tmp_path, monkeypatch):
    path = written(tmp_path / "a.wav", noise(300_000), 48_000)
    info = audio.inspect(path)
    lengths = []

    def noted(*arguments):
        block, rate = read(*arguments)
        lengths.append(len(block))
        return block, rate

    read = audio.read
    monkeypatch.setattr(audio, "read", noted)
    audio.read_at_rate(path, 100_000, 101_000, 32_000, info)
    assert lengths[0] < 1500 + 3 * 2048


SUBTYPES = [
    ("wav", "PCM_16"),
    ("wav", "PCM_U8"),
    ("wav", "PCM_24"),
    ("wav", "FLOAT"),
    ("wav", "ULAW"),
    ("flac", "PCM_16"),
    ("flac", "PCM_S8"),
    ("flac", "PCM_24"),
    ("ogg", "VORBIS"),
    ("mp3", "MPEG_LAYER_III"),
]


@pytest.fixture
def small_blocks(monkeypatch):
    """Decoders and resamplers whose results depend on where they begin do so every 4096 samples."""
    monkeypatch.setattr(audio, "_DECODED_AT_ONCE", 4096)
    monkeypatch.setattr(audio, "_RESAMPLED_AT_ONCE", 4096)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("suffix", "subtype"), SUBTYPES)
def test_an_open_file_holds_what_is_read_otherwise(tmp_path, suffix, subtype, channels):
    path = written(tmp_path / f"a.{suffix}", noise(20_000, channels), 32_000, subtype)
    with audio.AudioFile(path) as file:
        assert file.info == audio.inspect(path)
        found = file.read(0, file.info.n_samples)
    expected, _ = audio.read(path)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    if suffix == "mp3":
        np.testing.assert_allclose(found, expected, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("target", [32_000, 22_050, 48_000])
@pytest.mark.parametrize(("suffix", "subtype"), SUBTYPES)
def test_a_sample_is_the_same_to_the_last_bit_in_whatever_stretch_and_order(
    tmp_path, small_blocks, suffix, subtype, target
):
    path = written(tmp_path / f"a.{suffix}", noise(40_000, 2), 32_000, subtype)
    total = audio.resampled_length(40_000, 32_000, target)
    with audio.AudioFile(path) as file:
        whole = file.read_at_rate(0, total, target)
    assert len(whole) == total
    generator = np.random.default_rng(0)
    with audio.AudioFile(path) as used:
        for start, end in np.sort(generator.integers(0, total + 1, (12, 2)), axis=1).tolist():
            np.testing.assert_array_equal(used.read_at_rate(start, end, target), whole[start:end])
            with audio.AudioFile(path) as fresh:
                np.testing.assert_array_equal(fresh.read_at_rate(start, end, target), whole[start:end])
    np.testing.assert_allclose(whole, audio.read_at_rate(path, 0, total, target, audio.inspect(path)), atol=1e-4)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_stretches_that_overlap_are_decoded_once(tmp_path, small_blocks, monkeypatch, suffix):
    path = written(tmp_path / f"a.{suffix}", noise(50_000), 16_000)
    decoded, real = [], audio.AudioFile._decode
    monkeypatch.setattr(audio.AudioFile, "_decode", lambda self, a, b: decoded.append((a, b)) or real(self, a, b))
    with audio.AudioFile(path) as file:
        for start in range(0, 50_000, 5000):
            file.read(start - 700, start + 5700)
    assert sum(b - a for a, b in decoded) == 50_000
    assert all(a[1] == b[0] for a, b in itertools.pairwise(decoded)), "in one go"


@pytest.mark.parametrize("suffix", ["mp3", "ogg"])
def test_what_is_decoded_from_its_beginning_is_opened_anew_only_to_go_back(tmp_path, small_blocks, monkeypatch, suffix):
    path = written(tmp_path / f"a.{suffix}", noise(50_000), 16_000)
    opened, real = [], audio.AudioFile._opened
    monkeypatch.setattr(audio.AudioFile, "_opened", lambda self: opened.append(1) or real(self))
    with audio.AudioFile(path) as file:
        late = file.read(30_000, 31_000)
        file.read(40_000, 41_000)
        assert len(opened) == 1
        np.testing.assert_array_equal(file.read(30_000, 31_000), late)
        assert len(opened) == 2


@pytest.mark.parametrize(("start", "end"), [(-50, 20), (3990, 5000), (4000, 4100), (9000, 9100), (20, 10), (-20, -10)])
@pytest.mark.parametrize("rate", [8000, 16_000, 6000])
def test_an_open_file_pads_nothing(tmp_path, start, end, rate):
    path = written(tmp_path / "a.wav", noise(4000), 8_000)
    total = 4000 * rate // 8000
    with audio.AudioFile(path) as file:
        whole = file.read_at_rate(0, total, rate)
        found = file.read_at_rate(start, end, rate)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, whole[max(0, start) : max(0, end)])


def test_what_an_open_file_says_of_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        audio.AudioFile(tmp_path / "none.wav")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        audio.AudioFile(tmp_path / "folder")
    (tmp_path / "a.wav").write_bytes(b"no sound at all" * 100)
    with pytest.raises(DataError, match=r"a\.wav: cannot be read as audio \(it is in no format that is known\)\."):
        audio.AudioFile(tmp_path / "a.wav")
    with pytest.raises(DataError, match="holds no samples"):
        audio.AudioFile(written(tmp_path / "b.wav", noise(0), 8_000))


def test_a_damaged_end_fails_alone(tmp_path):
    path = written(tmp_path / "a.flac", noise(100_000), 22_050)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with audio.AudioFile(path) as file:
        assert len(file.read(0, 20_000)) == 20_000
        with pytest.raises(DataError, match=r"a\.flac: (only \d+ of 20000 samples could|cannot) be decoded"):
            file.read(80_000, 100_000)
        assert len(file.read(0, 20_000)) == 20_000


def test_no_open_file_is_left(tmp_path):
    path = written(tmp_path / "a.wav", noise(100), 8_000)
    (tmp_path / "b.wav").write_bytes(b"nothing")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with audio.AudioFile(path) as file:
            file.read(0, 10)
        with pytest.raises(DataError):
            audio.AudioFile(tmp_path / "b.wav")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
