"""The examples of the report: which are chosen, their spectrograms and their sounds."""

import base64
import io
import wave
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tests.unit.report_content import RATE, make_content, match_rows, written

from otus.report.examples import choose_examples
from otus.report.figures import Mark, spectrogram_png, wav_bytes


def test_false_alarms_take_turns_between_recordings():
    chosen = choose_examples(match_rows(), "false_alarm", 4)
    assert [row["selection_id"] for row in chosen] == ["s01", "s21", "s31", "s41"]
    assert [row["selection_id"] for row in choose_examples(match_rows(), "false_alarm", 9)] == [
        "s01",
        "s11",
        "s21",
        "s31",
        "s41",
    ]


def test_misses_come_longest_first_and_do_not_depend_on_row_order():
    chosen = choose_examples(match_rows(), "miss", 2)
    assert [row["annotation_id"] for row in chosen] == ["n42", "n32"]
    shuffled = match_rows().sample(frac=1.0, random_state=3)
    assert [row["annotation_id"] for row in choose_examples(shuffled, "miss", 2)] == ["n42", "n32"]


def test_hits_span_the_scores():
    rows = match_rows().iloc[[0] * 40].reset_index(drop=True)
    rows["score"] = np.arange(40.0)
    rows["recording_id"] = [f"r{i % 3}" for i in range(40)]
    scores = [row["score"] for row in choose_examples(rows, "hit", 4)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] >= 30 and scores[-1] < 10
    assert choose_examples(rows, "hit", 0) == [] and choose_examples(rows.iloc[:0], "hit", 4) == []
    assert len(choose_examples(rows.iloc[:2], "hit", 6)) == 2


# Figures and sounds


@pytest.mark.parametrize("samples", [np.zeros(4000), np.ones(1), np.full(50, 1e-30)])
def test_spectrogram_of_silence_and_of_next_to_nothing(samples):
    png = spectrogram_png(samples.astype(np.float32), 8000, start_s=2.0, window_s=0.02, low_hz=9000.0, high_hz=12000.0)
    assert png.startswith(b"\x89PNG")


def test_spectrogram_shows_its_marks_and_refuses_nothing_at_all():
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    plain = spectrogram_png(noise, 8000, start_s=0.0)
    mark = Mark("selection", 0.2, 0.5, focus=True)
    marked = spectrogram_png(noise, 8000, start_s=0.0, marks=[mark])
    other = spectrogram_png(noise, 8000, start_s=0.0, marks=[replace(mark, kind="annotation")])
    assert len({plain, marked, other}) == 3
    elsewhere = replace(mark, start_s=5.0, end_s=6.0)
    assert spectrogram_png(noise, 8000, start_s=0.0, marks=[elsewhere]) == plain  # no legend for what is not to be seen
    with pytest.raises(ValueError, match="no samples"):
        spectrogram_png(noise[:0], 8000, start_s=0.0)


def test_spectrogram_puts_a_higher_tone_higher():
    def darkest_row(hz):
        tone = np.sin(2 * np.pi * hz * np.arange(8000) / 8000).astype(np.float32)
        picture = Image.open(io.BytesIO(spectrogram_png(tone, 8000, start_s=0.0))).convert("L")
        return np.asarray(picture)[:, 200:400].mean(axis=1)[60:-70].argmin() / picture.height

    low, middle, high = (darkest_row(hz) for hz in (1000, 2000, 3000))
    assert low > middle > high
    assert low - middle == pytest.approx(0.7 / 4, abs=0.02)  # the axis takes 70 % of the height for 4 kHz
    assert middle - high == pytest.approx(0.7 / 4, abs=0.02)


def test_wav_is_raised_but_never_lowered():
    def peak(scale):
        tone = (scale * np.sin(np.arange(8000) / 3)).astype(np.float32)
        with wave.open(io.BytesIO(wav_bytes(tone, 22050))) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22050)
            return np.abs(np.frombuffer(file.readframes(8000), "<i2")).max() / 32767

    assert peak(0.001) == pytest.approx(0.7, abs=0.01)
    assert peak(0.95) == pytest.approx(0.95, abs=0.01)
    assert peak(0.0) == 0.0
    assert len(wav_bytes(np.zeros(0, np.float32), 8000)) == 44


def test_sound_in_the_page_is_the_stretch_around_the_event(tmp_path):
    page = written(tmp_path, make_content(tmp_path))
    sounds = [base64.b64decode(a["src"].split(",")[1]) for a in page.of("audio")]
    with wave.open(io.BytesIO(sounds[0])) as file:
        assert file.getframerate() == RATE
        assert 1.5 < file.getnframes() / RATE < 2.6
