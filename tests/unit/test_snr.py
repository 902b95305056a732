import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.config import AnnotationSource, CorpusSettings
from otus.inventory import take_inventory
from otus.inventory.snr import Call, calls_snr_db, typical_band

RATE = 16_000
HEADER = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\n"


class Sound:
    """Samples that are read like a recording, and which of them were."""

    def __init__(self, samples):
        self.samples = np.asarray(samples, dtype=np.float32)
        self.reads = []

    def read(self, start, end):
        self.reads.append((start, end))
        return self.samples[start:end]


def noise(duration_s, level=0.01, seed=1):
    return np.random.default_rng(seed).normal(0.0, level, int(duration_s * RATE))


def with_tone(samples, start_s, end_s, hz, level):
    out = samples.copy()
    here = slice(int(start_s * RATE), int(end_s * RATE))
    out[here] += level * np.sqrt(2.0) * np.sin(2 * np.pi * hz * np.arange(len(out[here])) / RATE)
    return out


def measure(samples, *calls, busy=None):
    times = [(call.start_s, call.end_s) for call in calls] if busy is None else busy
    return calls_snr_db(Sound(samples), len(samples), RATE, calls, times)


@pytest.mark.parametrize("true_db", [-5.0, 0.0, 10.0, 20.0, 40.0])
def test_a_tone_in_white_noise_has_the_snr_of_its_band(true_db):
    # white noise of power s2 has s2 * 1000 / 8000 of it in a band of 1 kHz
    level = 0.01 * np.sqrt(1000 / 8000 * 10 ** (true_db / 10))
    values = []
    for seed in range(8):
        samples = with_tone(noise(8.0, seed=seed), 3.0, 4.0, 2000.0, level)
        values += measure(samples, Call(3.0, 4.0, 1500.0, 2500.0))
    assert np.mean(values) == pytest.approx(true_db, abs=0.6 if true_db >= 0 else 1.5)


def test_the_median_of_few_bins_is_no_bias():
    # a band of 100 Hz is three bins wide: the median of noise is 0.8 dB below its mean there
    call = Call(4.0, 5.0, 1950.0, 2050.0)
    level = 0.01 * np.sqrt(3 * 31.25 / 8000 * 10 ** (20 / 10))
    values = [measure(with_tone(noise(9.0, seed=seed), 4.0, 5.0, 2000.0, level), call)[0] for seed in range(60)]
    assert np.mean(values) == pytest.approx(20.0, abs=0.4)


def test_noise_outside_of_the_band_does_not_count():
    samples = with_tone(noise(8.0), 3.0, 4.0, 2000.0, 0.02)
    loud = samples + 0.3 * np.sin(2 * np.pi * 300.0 * np.arange(len(samples)) / RATE)
    call = Call(3.0, 4.0, 1500.0, 2500.0)
    assert measure(loud, call)[0] == pytest.approx(measure(samples, call)[0], abs=0.3)


def test_other_annotations_are_no_background():
    samples = with_tone(noise(8.0), 3.0, 4.0, 2000.0, 0.02)
    disturbed = with_tone(samples, 1.0, 2.9, 2000.0, 0.5)
    disturbed = with_tone(disturbed, 4.1, 5.9, 2000.0, 0.5)
    call = Call(3.0, 4.0, 1500.0, 2500.0)
    busy = [(3.0, 4.0), (1.0, 2.9), (4.1, 5.9)]
    assert measure(disturbed, call, busy=busy)[0] == pytest.approx(measure(samples, call)[0], abs=1.5)
    assert measure(disturbed, call)[0] < 0.0


def test_a_click_in_the_background_does_not_change_much():
    samples = with_tone(noise(8.0), 3.0, 4.0, 2000.0, 0.02)
    clicks = samples.copy()
    clicks[[int(1.5 * RATE), int(2.2 * RATE), int(5.1 * RATE)]] += 1.0
    call = Call(3.0, 4.0, 1500.0, 2500.0)
    assert measure(clicks, call)[0] == pytest.approx(measure(samples, call)[0], abs=0.5)


@pytest.mark.parametrize(
    ("call", "busy", "expected"),
    [
        (Call(3.0, 4.0, 9000.0, 10000.0), None, None),  # above half the sample rate
        (Call(3.0, 3.0005, 1500.0, 2500.0), None, None),  # 8 samples
        (Call(3.0, 4.0, 1500.0, 2500.0), [(0.0, 8.0)], None),
        (Call(3.0, 4.0, 1500.0, 2500.0), [(0.0, 3.0), (3.0, 4.0), (4.09, 8.0)], None),  # 90 ms of background
        (Call(0.0, 8.0, 1500.0, 2500.0), None, None),
    ],
)
def test_without_background_or_band_there_is_no_snr(call, busy, expected):
    assert measure(noise(8.0), call, busy=busy) == [expected]


def test_a_tenth_of_a_second_of_background_is_enough():
    busy = [(0.0, 3.0), (3.0, 4.0), (4.125, 8.0)]
    samples = with_tone(noise(8.0), 3.0, 4.0, 2000.0, 0.05)
    assert measure(samples, Call(3.0, 4.0, 1500.0, 2500.0), busy=busy)[0] > 15.0


def test_limits():
    silence = np.zeros(8 * RATE)
    call = Call(3.0, 4.0, 1500.0, 2500.0)
    assert measure(silence, call) == [None]
    assert measure(with_tone(silence, 3.0, 4.0, 2000.0, 0.1), call) == [60.0]
    quiet = noise(8.0)
    quiet[3 * RATE : 4 * RATE] *= 0.1
    assert measure(quiet, call) == [-20.0]
    assert measure(np.full(8 * RATE, np.nan), call) == [None]
    assert measure(np.full(8 * RATE, 0.3), call) == [None]  # a constant is no sound


def test_calls_at_the_ends_have_one_side():
    samples = with_tone(with_tone(noise(4.0), 0.0, 0.5, 2000.0, 0.05), 3.5, 4.0, 2000.0, 0.05)
    first, last = measure(samples, Call(0.0, 0.5, 1500.0, 2500.0), Call(3.5, 4.0, 1500.0, 2500.0))
    assert first == pytest.approx(23.0, abs=1.5)
    assert last == pytest.approx(23.0, abs=1.5)


def test_a_short_call_is_not_diluted():
    true = 10 * np.log10(0.05**2 / (0.01**2 * 4000 / 8000))
    samples = with_tone(noise(4.0), 2.0, 2.005, 4000.0, 0.05)
    assert measure(samples, Call(2.0, 2.005, 2000.0, 6000.0))[0] == pytest.approx(true, abs=2.5)


def test_only_the_neighbourhood_is_read_and_the_middle_of_long_calls():
    sound = Sound(noise(200.0))
    calls = [Call(10.0, 10.5, 1500.0, 2500.0), Call(20.0, 180.0, 1500.0, 2500.0)]
    calls_snr_db(sound, len(sound.samples), RATE, calls, [(10.0, 10.5), (20.0, 180.0)])
    assert sound.reads[0] == (8 * RATE, int(12.5 * RATE))
    assert sum(end - start for start, end in sound.reads[1:]) == (60 + 4) * RATE
    assert measure(with_tone(sound.samples, 20.0, 180.0, 2000.0, 0.05), calls[1])[0] == pytest.approx(23.0, abs=1.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0.001, 2)), min_size=1, max_size=5),
    st.floats(0, 9000),
    st.floats(1, 9000),
)
def test_anything_annotated_gives_a_value_within_the_limits_or_none(times, low_hz, width_hz):
    calls = [Call(start, min(start + length, 3.2), low_hz, low_hz + width_hz) for start, length in sorted(times)]
    for value in measure(noise(3.2), *calls):
        assert value is None or -20.0 <= value <= 60.0


def test_order_and_company_of_the_calls_do_not_matter():
    samples = with_tone(noise(8.0), 3.0, 4.0, 2000.0, 0.02)
    calls = [Call(3.0, 4.0, 1500.0, 2500.0), Call(5.0, 5.2, 500.0, 900.0), Call(6.0, 6.3, 3000.0, 5000.0)]
    busy = [(call.start_s, call.end_s) for call in calls]
    together = measure(samples, *calls, busy=busy)
    assert measure(samples, *calls[::-1], busy=busy[::-1]) == together[::-1]
    assert [measure(samples, call, busy=busy)[0] for call in calls] == together


def test_typical_band():
    assert typical_band([]) == (100.0, np.inf)
    assert typical_band([(100.0, 900.0), (300.0, 1000.0), (200.0, 5000.0)]) == (200.0, 1000.0)


class Corpus:
    """Two recordings with a tone each; one table gives bands, the other does not."""

    def __init__(self, root: Path):
        self.root = root
        for number, name in enumerate(("a", "b"), start=1):
            samples = with_tone(noise(8.0, seed=number), 3.0, 4.0, 2000.0, 0.05)
            soundfile.write(root / f"{name}.wav", samples, RATE, subtype="FLOAT")
        self.table("a", "3\t4\t1500\t2500\towl", "6\t6.5\t1500\t2500\tfrog")
        self.table("b", "3\t4\t\t\towl")

    def table(self, name, *rows):
        lines = "".join(f"{i}\tSpectrogram 1\t{row}\n" for i, row in enumerate(rows, start=1))
        (self.root / f"{name}.Table.1.selections.txt").write_text(HEADER + lines)

    def take(self, cache=None, workers=1, **values):
        said = []
        source = AnnotationSource(files="*.txt")
        settings_ = CorpusSettings(root=str(self.root), annotations=[source], targets=["owl"], **values)
        inventory = take_inventory(self.root, settings_, workers=workers, cache=cache, progress=said.append)
        return inventory.annotations.set_index("annotation_id")["snr_db"], said


def test_the_inventory_tells_the_snr_of_target_annotations(tmp_path):
    snr_db, _ = Corpus(tmp_path).take()
    assert snr_db["a_a0001"] == pytest.approx(23.0, abs=1.0)
    assert snr_db["b_a0001"] == pytest.approx(23.0, abs=1.0)  # in the band that the label has elsewhere
    assert np.isnan(snr_db["a_a0002"])


def test_workers_and_the_cache_change_nothing(tmp_path, monkeypatch):
    (tmp_path / "corpus").mkdir()
    corpus, cache = Corpus(tmp_path / "corpus"), tmp_path / "cache" / "inventory.parquet"
    first, _ = corpus.take(cache)
    assert corpus.take(workers=3)[0].equals(first)
    assert (tmp_path / "cache" / "inventory_snr.parquet").exists()
    measured = []

    def counting(recording, n_samples, rate, calls, busy_s):
        measured.append(len(calls))
        return calls_snr_db(recording, n_samples, rate, calls, busy_s)

    monkeypatch.setattr("otus.inventory.snr_survey.calls_snr_db", counting)
    assert corpus.take(cache)[0].equals(first)
    assert measured == []
    corpus.table("b", "3\t4\t\t\towl", "5\t6\t\t\tfrog")  # more is annotated: less is background
    corpus.take(cache)
    assert measured == [1]
    corpus.table("a", "3\t4\t1000\t3000\towl")  # the band of the other recording, too
    changed, _ = corpus.take(cache)
    assert measured == [1, 1, 1]
    assert corpus.take()[0].equals(changed)


@pytest.mark.parametrize("damage", [b"no table", b""])
def test_a_damaged_cache_is_ignored(tmp_path, damage):
    (tmp_path / "corpus").mkdir()
    corpus, cache = Corpus(tmp_path / "corpus"), tmp_path / "inventory.parquet"
    expected, _ = corpus.take(cache)
    cache.with_name("inventory_snr.parquet").write_bytes(damage)
    found, said = corpus.take(cache)
    assert found.equals(expected)
    assert any("inventory_snr.parquet cannot be read" in line for line in said)


def test_what_cannot_be_read_any_more_has_no_snr(tmp_path, monkeypatch):
    corpus = Corpus(tmp_path)
    really = soundfile.SoundFile

    def opened(file, *args, **kwargs):
        if isinstance(file, int):  # only AudioFile opens by descriptor
            raise soundfile.LibsndfileError(1)
        return really(file, *args, **kwargs)

    monkeypatch.setattr("otus.audio.soundfile.SoundFile", opened)
    snr_db, said = corpus.take()
    assert snr_db.isna().all()
    assert any("the SNR of 2 of 2 target annotations is unknown" in line for line in said)


@pytest.mark.real
@pytest.mark.skipif("OTUS_DATA" not in os.environ, reason="OTUS_DATA is not set")
def test_boobook_calls_are_measured():
    root = Path(os.environ["OTUS_DATA"]) / "boobook"
    source = AnnotationSource(files="positive/*.selections.txt", label="boobook")
    settings_ = CorpusSettings(
        root=str(root), annotations=[source], targets=["boobook"], unlabelled="negative", audio_check="ends"
    )
    found: pd.Series = take_inventory(root, settings_, progress=lambda line: None).annotations["snr_db"]
    assert found.notna().sum() == 49
    assert found.between(-20.0, 20.0).all()
    assert found.std() > 2.0
