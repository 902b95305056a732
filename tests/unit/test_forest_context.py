"""Context features of candidates, and the table that holds all features."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from otus import audio
from otus.audio import AudioFile
from otus.errors import DataError
from otus.forest import spectra
from otus.forest.candidates import CONTEXT_FAMILIES, SHAPE_NAMES, candidate_features, candidate_names
from otus.forest.context import NEIGHBOUR_NAMES, neighbour_features, rival_features
from otus.forest.contrast import CONTRAST_NAMES, surrounded_features
from otus.forest.features import feature_names, selection_features

RATE = 24_000
SETTINGS = {"window_s": 0.04, "low_hz": 200.0, "high_hz": 6000.0, "n_mfcc": 13}


def candidates(*rows, **columns):
    """Candidates from (start_s, end_s, peak_score); other columns are the same in all rows."""
    start_s, end_s, peak = np.array(rows, dtype=float).reshape(-1, 3).T
    names = [f"s{number:03d}" for number in range(len(rows))]
    keys = {"selection_id": names, "recording_id": "r", "label": "owl", "fold": 1, "split": "test", "score": 1.0}
    return pd.DataFrame({**keys, "start_s": start_s, "end_s": end_s, "peak_score": peak} | columns)


def neighbours(*rows, **columns):
    return pd.DataFrame(neighbour_features(candidates(*rows, **columns)), columns=list(NEIGHBOUR_NAMES))


def noise(duration_s, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=int(duration_s * RATE))).astype(np.float32)


def write(folder, samples, name="r.wav"):
    path = folder / name
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for start in range(0, len(samples), RATE):  # some encoders cannot take much at once
            file.write(samples[start : start + RATE])
    return path, audio.inspect(path)


def recordings(folder, *names):
    rows = []
    for name in names:
        info = audio.inspect(folder / name)
        facts = {"n_samples": info.n_samples, "sample_rate": info.sample_rate, "channels": info.channels}
        rows.append({"recording_id": Path(name).stem, "path": name, "subtype": info.subtype, **facts})
    return pd.DataFrame(rows)


def shapes_of(frame):
    return pd.DataFrame({"selection_id": frame["selection_id"], **dict.fromkeys(SHAPE_NAMES, 0.25)})


def contrast(path, info, start_s, end_s, **changes):
    found = surrounded_features(path, info, start_s, end_s, np.zeros(len(start_s)), **SETTINGS | changes)
    return pd.DataFrame(found[:, -len(CONTRAST_NAMES) :], columns=list(CONTRAST_NAMES))


# Neighbours


def test_neighbours_of_a_series():
    found = neighbours((0, 1, 2.0), (3, 4, 5.0), (6, 8, 4.0), (30, 31, 1.0))
    np.testing.assert_array_equal(found["since_last_s"], [np.nan, 2, 2, 22])
    np.testing.assert_array_equal(found["until_next_s"], [2, 2, 22, np.nan])
    np.testing.assert_array_equal(found["n_within_10s"], [2, 2, 2, 0])
    np.testing.assert_allclose(found["duration_ratio"], [0, 0.5, 1, 1])
    np.testing.assert_allclose(found["peak_difference"], [3, 2, 2, 3])
    np.testing.assert_allclose(found["rhythm"], [np.nan, 0, 21 / 27, np.nan])


def test_alone_and_overlapping():
    alone = neighbours((5, 6, 1.0)).iloc[0]
    assert alone["n_within_10s"] == 0
    assert alone.drop("n_within_10s").isna().all()
    assert neighbours((0, 3, 1.0), (2, 4, 1.0))["until_next_s"][0] == -1
    same = neighbours((0, 1, 1.0), (0, 1, 1.0), (0, 1, 1.0))
    assert same["rhythm"].isna().all()
    assert (same["n_within_10s"] == 2).all()


@pytest.mark.parametrize("column", ["recording_id", "label", "fold", "split"])
def test_company_is_of_one_recording_label_fold_and_side(column):
    values = [1, 1, 2, 2] if column == "fold" else ["a", "a", "b", "b"]
    found = neighbours((0, 1, 1.0), (2, 3, 1.0), (1, 2, 1.0), (9, 10, 1.0), **{column: values})
    np.testing.assert_array_equal(found["since_last_s"], [np.nan, 1, np.nan, 7])
    np.testing.assert_array_equal(found["n_within_10s"], [1, 1, 1, 1])


def test_order_of_the_rows_does_not_matter():
    random = np.random.default_rng(0)
    start_s = random.uniform(0, 60, 40)
    frame = candidates(*zip(start_s, start_s + random.uniform(0.1, 3, 40), random.normal(size=40), strict=True))
    frame["label"] = random.choice(["owl", "frog"], 40)
    order = random.permutation(40)
    for describe in (neighbour_features, rival_features):
        found = describe(frame)
        np.testing.assert_array_equal(describe(frame.iloc[order]), found[order])
        assert not np.isinf(found).any()


# Rivals


def test_rivals_overlap_with_another_label():
    labels = ["owl", "frog", "frog", "owl", "frog"]
    frame = candidates((0, 5, 3.0), (1, 2, 4.0), (4, 6, 1.0), (4.5, 5, 2.0), (6, 7, 9.0), label=labels)
    np.testing.assert_array_equal(rival_features(frame)[:, 0], [-1, 1, -2, 1, np.nan])
    np.testing.assert_array_equal(rival_features(frame.assign(label="owl"))[:, 0], np.full(5, np.nan))
    split = frame.assign(split=["val", *["test"] * 4])
    np.testing.assert_array_equal(rival_features(split)[:, 0], [np.nan, np.nan, -1, 1, np.nan])


# Contrast


def tone(start_s, end_s, duration_s, hz=1500.0, level=0.2):
    t = np.arange(int(duration_s * RATE)) / RATE
    return (level * np.sin(2 * np.pi * hz * t) * ((t >= start_s) & (t < end_s))).astype(np.float32)


def test_a_tone_stands_out_and_noise_does_not(tmp_path):
    path, info = write(tmp_path, noise(10) + tone(4, 5, 10))
    found = contrast(path, info, [4.0, 7.0], [5.0, 8.0])
    # A tone of amplitude 0.2 has power 0.02; white noise of 0.01 has half its 12 kHz in the band, less 200 Hz.
    assert found["band_contrast_db"][0] == pytest.approx(10 * np.log10(1 + 0.02 / (0.01 * 5800 / 12_000)), abs=0.4)
    assert found["peak_contrast_db"][0] > found["band_contrast_db"][0] + 8
    assert found["band_to_rest_db"][0] > found["band_to_rest_db"][1] + 5
    assert found["tonality_db"][0] > found["tonality_db"][1] + 5
    assert found["flatness_db"][0] < found["flatness_db"][1] - 3
    assert abs(found["band_contrast_db"][1]) < 0.3
    assert found["peak_contrast_db"][1] < 3
    np.testing.assert_allclose(found["rest_contrast_db"], 0, atol=0.5)


def test_a_crash_rises_outside_the_band_as_well(tmp_path):
    samples = noise(10)
    samples[4 * RATE : 5 * RATE] *= 2
    found = contrast(*write(tmp_path, samples), [4.0], [5.0])
    np.testing.assert_allclose(found[["band_contrast_db", "rest_contrast_db"]], 20 * np.log10(2), atol=0.3)


def test_neighbouring_calls_do_not_hide_a_call(tmp_path):
    alone = contrast(*write(tmp_path, noise(10) + tone(5, 5.5, 10), "a.wav"), [5.0], [5.5])
    samples = noise(10) + tone(5, 5.5, 10) + tone(4.75, 4.9, 10)
    beside = contrast(*write(tmp_path, samples, "b.wav"), [5.0], [5.5])
    assert beside["band_contrast_db"][0] == pytest.approx(alone["band_contrast_db"][0], abs=0.5)


def test_contrast_is_null_where_nothing_surrounds_or_nothing_is_outside(tmp_path):
    path, info = write(tmp_path, noise(1.0))
    found = contrast(path, info, [0.0, 0.2], [1.1, 0.4])
    assert found.loc[0, ["band_contrast_db", "peak_contrast_db", "rest_contrast_db"]].isna().all()
    assert found.loc[1].notna().all()
    everything = contrast(path, info, [0.2], [0.4], low_hz=0.0, high_hz=RATE / 2).loc[0]
    assert everything[["rest_contrast_db", "band_to_rest_db"]].isna().all()
    assert everything.drop(["rest_contrast_db", "band_to_rest_db"]).notna().all()


def test_silence_is_finite(tmp_path):
    samples = np.zeros(RATE, dtype=np.float32)
    samples[12_000:18_000] = noise(0.25)
    found = contrast(*write(tmp_path, samples), [0.0, 0.5], [0.3, 0.75])
    assert np.isfinite(found).all(axis=None)


def test_company_and_surroundings_do_not_change_a_selection(tmp_path):
    path, info = write(tmp_path, noise(12.0))
    random = np.random.default_rng(3)
    starts = random.uniform(0, 11.5, 30)
    ends = starts + random.uniform(0.01, 2.0, 30)
    together = surrounded_features(path, info, starts, ends, starts, **SETTINGS)
    alone = np.vstack(
        [surrounded_features(path, info, starts[[n]], ends[[n]], starts[[n]], **SETTINGS) for n in range(len(starts))]
    )
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-4)
    alpaca = selection_features(path, info, starts, ends, starts, **SETTINGS)
    np.testing.assert_allclose(together[:, : alpaca.shape[1]], alpaca, rtol=1e-5, atol=1e-4)


# The table


def test_names_and_order():
    names = candidate_names("all", 13)
    assert names[:90] == candidate_names("alpaca", 13) == feature_names(13)
    assert len(set(names)) == len(names) == 90 + sum(map(len, CONTEXT_FAMILIES.values()))


def test_table_of_two_recordings(tmp_path):
    write(tmp_path, noise(4, 1), "a.wav")
    write(tmp_path, noise(4, 2), "b.flac")
    rows = [(0.5, 1.0, 2.0), (1.0, 1.5, 1.0), (2.0, 4.2, 3.0)]
    frame = candidates(*rows, recording_id=["b", "a", "b"], score=[0.1, 0.2, 0.3]).set_index(pd.Index([7, 3, 5]))
    facts = recordings(tmp_path, "a.wav", "b.flac")
    shapes = shapes_of(frame).iloc[[2, 0]]
    found = candidate_features(tmp_path, frame, shapes, facts, features="all", **SETTINGS)
    assert tuple(found.columns) == candidate_names("all", 13)
    assert list(found.index) == [7, 3, 5]
    np.testing.assert_array_equal(found["cnn_logit_mean"], frame["score"])
    np.testing.assert_array_equal(found["peak_position"], [0.25, np.nan, 0.25])
    np.testing.assert_allclose(found["duration_s"], [0.5, 0.5, 2.2])
    np.testing.assert_array_equal(found["since_last_s"], [np.nan, np.nan, 1.0])
    alpaca = candidate_features(tmp_path, frame, shapes, facts, features="alpaca", **SETTINGS)
    np.testing.assert_allclose(alpaca, found[list(alpaca.columns)], rtol=1e-5, atol=1e-4)
    info = audio.inspect(tmp_path / "a.wav")
    own = selection_features(tmp_path / "a.wav", info, [1.0], [1.5], [0.2], **SETTINGS)
    np.testing.assert_allclose(alpaca.loc[[3]], own, rtol=1e-5, atol=1e-4)
    assert np.isfinite(alpaca).all(axis=None)
    assert not np.isinf(found).any(axis=None)


def test_no_candidates_and_no_shapes(tmp_path):
    write(tmp_path, noise(1.0))
    facts = recordings(tmp_path, "r.wav")
    none = candidates()
    assert candidate_features(tmp_path, none, shapes_of(none), facts, features="all", **SETTINGS).shape == (0, 116)
    frame = candidates((0.1, 0.5, 1.0))
    found = candidate_features(tmp_path, frame, shapes_of(none), facts, features="all", **SETTINGS)
    assert found[list(SHAPE_NAMES)].isna().all(axis=None)


def test_nothing_tells_recordings_apart(tmp_path):
    """The same sound and scores in another recording, of another length and at another date, look the same."""
    samples = noise(4.0)
    write(tmp_path, samples, "a.wav")
    write(tmp_path, np.concatenate([samples, np.zeros(RATE, np.float32)]), "b.wav")
    facts = recordings(tmp_path, "a.wav", "b.wav")
    facts["start_time"] = ["2021-01-01T06:00:00", "2022-05-07T18:00:00"]
    rows = [(0.5, 1.0, 2.0), (1.5, 2.0, 1.0)]
    frame = candidates(*rows, *rows, recording_id=["a", "a", "b", "b"])
    found = candidate_features(tmp_path, frame, shapes_of(frame), facts, features="all", **SETTINGS).to_numpy()
    np.testing.assert_allclose(found[:2], found[2:], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(0.1, 0.5, np.inf)], "has no finite score"),
        ([(0.1, 0.5, np.nan)], "has no finite score"),
        ([(3.0, 3.5, 1.0)], "is not inside the recording"),
    ],
)
def test_bad_candidates_are_named(tmp_path, rows, words):
    write(tmp_path, noise(1.0))
    frame = candidates(*rows)
    with pytest.raises(DataError, match=rf"r\.wav: selection 1 .*{words}"):
        candidate_features(tmp_path, frame, shapes_of(frame), recordings(tmp_path, "r.wav"), features="all", **SETTINGS)


def test_a_recording_that_is_gone_or_has_changed(tmp_path):
    path, _ = write(tmp_path, noise(1.0))
    frame, facts = candidates((0.1, 0.5, 1.0)), recordings(tmp_path, "r.wav")
    write(tmp_path, noise(2.0))
    with pytest.raises(DataError, match="has changed since the inventory, from 24000 samples"):
        candidate_features(tmp_path, frame, shapes_of(frame), facts, features="alpaca", **SETTINGS)
    path.unlink()
    with pytest.raises(DataError, match=r"r\.wav: cannot be read"):
        candidate_features(tmp_path, frame, shapes_of(frame), facts, features="alpaca", **SETTINGS)


# Reading


@pytest.mark.parametrize("name", ["r.wav", "r.mp3", "r.ogg"])
def test_files_are_opened_once_and_read_forwards(tmp_path, monkeypatch, name):
    path, info = write(tmp_path, noise(40.0), name)
    random = np.random.default_rng(5)
    starts = random.uniform(0, 38, 60)
    ends = starts + random.uniform(0.05, 2.0, 60)
    whole = surrounded_features(path, info, starts, ends, starts, **SETTINGS)
    monkeypatch.setattr(spectra, "_BATCH_SAMPLES", 2**16)
    monkeypatch.setattr(spectra, "_SLAB_SAMPLES", 2**15)
    opened, decoded = [], []
    open_file, decode = AudioFile._opened, AudioFile._decode
    monkeypatch.setattr(AudioFile, "_opened", lambda file: opened.append(1) or open_file(file))
    monkeypatch.setattr(AudioFile, "_decode", lambda file, a, b: decoded.append((a, b)) or decode(file, a, b))
    batched = surrounded_features(path, info, starts, ends, starts, **SETTINGS)
    np.testing.assert_allclose(batched, whole, rtol=1e-5, atol=1e-4)
    assert len(opened) == 1
    if name != "r.wav":
        assert decoded == sorted(decoded)
        assert sum(b - a for a, b in decoded) <= info.n_samples


@pytest.mark.real
def test_real_owls_have_context(tmp_path):
    folder = os.environ.get("OTUS_DATA")
    if not folder:
        pytest.skip("OTUS_DATA is not set: it names the folder of annotated recordings")
    path = sorted(Path(folder).glob("boobook/**/*.wav"))[0]
    starts = np.arange(0.0, audio.inspect(path).duration_s - 1, 0.7)
    frame = candidates(*[(start, start + 0.6, start) for start in starts], recording_id=path.stem)
    facts = recordings(path.parent, path.name)
    found = candidate_features(path.parent, frame, shapes_of(frame), facts, features="all", **SETTINGS)
    assert np.isfinite(found.iloc[1:-1].drop(columns="peak_above_rival")).all(axis=None)
