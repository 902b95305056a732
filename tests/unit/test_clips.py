import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.config import DatasetSettings
from otus.datasets import make_clips
from otus.tables import SCHEMAS, table

RATE = 1000


def recordings_of(durations, rate=RATE):
    """A table of recordings r00, r01, ... and, as in a real inventory, one that cannot be read."""
    rows = [
        {
            "recording_id": f"r{i:02d}", "path": f"r{i:02d}.wav", "group": f"g{i:02d}", "duration_s": n / rate,
            "n_samples": n, "sample_rate": rate, "labelled": True, "readable": True,
        }
        for i, n in enumerate(round(d * rate) for d in durations)
    ]  # fmt: skip
    broken = {"recording_id": "broken", "path": "broken.wav", "group": "g", "labelled": False, "readable": False}
    return table("recordings", [*rows, broken])


def annotations_of(rows):
    return table(
        "annotations",
        [
            {
                "annotation_id": f"a{i}",
                "recording_id": r,
                "start_s": start,
                "end_s": end,
                "label": label,
                "quality": "2",
            }
            for i, (r, start, end, label) in enumerate(rows)
        ],
    )


def splits_of(recordings, folds=1):
    ids = recordings.loc[recordings["readable"], ["recording_id", "group"]]
    sides = ["train", "val", "test"]
    return table(
        "splits",
        pd.concat([ids.assign(fold=f + 1, split=[sides[(i + f) % 3] for i in range(len(ids))]) for f in range(folds)]),
    )


def clips_of(durations, rows, *, folds=1, seed=1, rate=RATE, **values):
    recordings = recordings_of(durations, rate)
    return make_clips(
        recordings, annotations_of(rows), splits_of(recordings, folds), targets=["hum"],
        settings=DatasetSettings(**values), seed=seed,
    )  # fmt: skip


@st.composite
def corpora(draw):
    durations = draw(st.lists(st.floats(3, 60), min_size=1, max_size=4))
    rows = []
    for i, duration in enumerate(durations):
        for _ in range(draw(st.integers(0, 6))):
            start = draw(st.floats(0, duration - 0.1))
            end = draw(st.floats(start + 0.05, duration))
            rows.append((f"r{i:02d}", start, end, draw(st.sampled_from(["hum", "bark", "other"]))))
    return durations, rows


@settings(max_examples=40, deadline=None)
@given(corpora(), st.floats(0, 2), st.floats(0.2, 3), st.floats(0, 8), st.integers(0, 2**40))
def test_mined_noise_touches_nothing(corpus, margin_s, min_noise_s, noise_per_target, seed):
    durations, rows = corpus
    clips = clips_of(
        durations, rows, seed=seed, margin_s=margin_s, min_noise_s=min_noise_s, noise_per_target=noise_per_target
    )
    assert list(clips.columns) == list(SCHEMAS["clips"])
    mined = clips[clips["origin"] == "mined"]
    calls = [(end - start) for _, start, end, label in rows if label == "hum"]
    assert len(mined) <= round(noise_per_target * len(calls))
    for i, duration in enumerate(durations):
        own = mined[mined["recording_id"] == f"r{i:02d}"].sort_values("start_sample")
        starts, ends = own["start_sample"].to_numpy(), own["end_sample"].to_numpy()
        assert (starts >= 0).all() and (ends <= round(duration * RATE)).all()
        assert (ends - starts >= min_noise_s * RATE - 2).all()
        assert (ends - starts <= max([min_noise_s, *calls]) * RATE + 1).all()
        assert (starts[1:] >= ends[:-1]).all()  # no two overlap
        for recording, start, end, _ in rows:  # nor does any come near an annotation, of whatever label
            if recording == f"r{i:02d}":
                clear = (ends / RATE <= start - margin_s + 1e-6) | (starts / RATE >= end + margin_s - 1e-6)
                assert clear.all()


@settings(max_examples=40, deadline=None)
@given(corpora(), st.sampled_from([8_000, 44_100]))
def test_every_annotation_is_a_clip(corpus, rate):
    durations, rows = corpus
    clips = clips_of(durations, rows, rate=rate, noise_per_target=1)
    columns = ["recording_id", "start_sample", "end_sample", "label", "class"]
    found = clips.loc[clips["origin"] == "annotation", columns].itertuples(index=False, name=None)
    lengths = {f"r{i:02d}": round(duration * rate) for i, duration in enumerate(durations)}
    expected = sorted(
        (r, int(start * rate), min(math.ceil(end * rate), lengths[r]), label) for r, start, end, label in rows
    )
    found = sorted(found)
    assert len(found) == len(expected)
    for (recording, start, end, label, kind), whole in zip(found, expected, strict=True):
        assert (recording, start, end, label) == whole and start < end
        assert kind == ("target" if label == "hum" else "noise")


def test_what_a_clip_says():
    rows = [("r00", 1.0, 2.0, "hum"), ("r01", 0.5, 0.75, "bark")]
    clips = clips_of([10, 10], rows, folds=3, noise_per_target=2)
    assert len(clips) == 3 * 4 and not clips.duplicated(["fold", "clip_id"]).any()
    one = clips[clips["fold"] == 2]
    assert one["clip_id"].is_unique and set(one["clip_id"]) == set(clips["clip_id"])
    by_origin = one.set_index("origin")
    target = one[one["class"] == "target"].iloc[0]
    assert (target["recording_id"], target["start_sample"], target["end_sample"]) == ("r00", 1000, 2000)
    assert (target["label"], target["quality"], target["group"], target["split"]) == ("hum", "2", "g00", "val")
    confuser = one[one["label"] == "bark"].iloc[0]
    assert (confuser["class"], confuser["origin"], confuser["split"]) == ("noise", "annotation", "test")
    mined = by_origin.loc[["mined"]]
    assert len(mined) == 2 and mined["class"].eq("noise").all() and mined[["label", "quality"]].isna().all(axis=None)
    assert (clips.groupby("clip_id")[["recording_id", "start_sample", "end_sample"]].nunique() == 1).all(axis=None)


def test_the_side_of_a_clip_is_that_of_its_recording():
    clips = clips_of([20] * 6, [(f"r{i:02d}", 1, 2, "hum") for i in range(6)], folds=3)
    splits = splits_of(recordings_of([20] * 6), folds=3)
    merged = clips.merge(splits, on=["recording_id", "fold"], suffixes=("", "_expected"))
    assert len(merged) == len(clips) and (merged["split"] == merged["split_expected"]).all()
    assert (merged["group"] == merged["group_expected"]).all()


def test_recordings_and_annotations_that_are_not_split_have_no_clips():
    recordings = recordings_of([20, 20])
    rows = [("r00", 1, 2, "hum"), ("r01", 1, 2, "hum"), ("broken", 1, 2, "hum")]
    splits = splits_of(recordings)
    clips = make_clips(
        recordings, annotations_of(rows), splits[splits["recording_id"] == "r00"], targets=["hum"],
        settings=DatasetSettings(), seed=1,
    )  # fmt: skip
    assert set(clips["recording_id"]) == {"r00"} and clips["class"].eq("target").sum() == 1
    assert clips["origin"].eq("mined").sum() == 4


def test_the_same_seed_gives_the_same_clips():
    recordings = recordings_of([30, 40, 50])
    annotations = annotations_of([(f"r{i % 3:02d}", 2 * i, 2 * i + 1, "hum") for i in range(9)])
    splits = splits_of(recordings)

    def make(seed=1, order=1):
        tables = (recordings[::order], annotations, splits[::order])
        return make_clips(*tables, targets=["hum"], settings=DatasetSettings(), seed=seed)

    assert make().equals(make()) and make().equals(make(order=-1))
    assert not make().equals(make(seed=2))


def test_noise_is_drawn_in_proportion_to_the_room():
    """One clip a seed, in recordings with 10, 20 and 30 s of room, the last of it in two halves."""
    recordings = recordings_of([11, 21, 42, 1])
    annotations, splits = annotations_of([("r02", 16, 26, "bark"), ("r03", 0, 1, "hum")]), splits_of(recordings)
    one = DatasetSettings(noise_per_target=1, margin_s=0, min_noise_s=1)
    drawn = [make_clips(recordings, annotations, splits, targets=["hum"], settings=one, seed=s) for s in range(100)]
    found = pd.concat(clips[clips["origin"] == "mined"] for clips in drawn)
    assert len(found) == 100
    shares = found["recording_id"].value_counts(normalize=True)
    np.testing.assert_allclose(shares[["r00", "r01", "r02"]], [1 / 6, 1 / 3, 1 / 2], atol=0.15)  # 3 standard errors
    starts = found.loc[found["recording_id"] == "r01", "start_sample"] / 20_000
    assert starts.between(0, 1).all() and abs(starts.mean() - 0.5) < 0.15 and 0.18 < starts.std() < 0.4


def test_noise_is_as_long_as_calls_but_not_shorter_than_asked():
    rows = [("r00", 10, 10.3, "hum"), ("r00", 20, 23, "hum"), ("r00", 40, 47, "bark")]
    clips = clips_of([600], rows, noise_per_target=20, min_noise_s=1.0)
    mined = clips[clips["origin"] == "mined"]
    lengths = (mined["end_sample"] - mined["start_sample"]).to_numpy()
    near = [np.isin(lengths, [n - 1, n]) for n in (1000, 3000)]
    assert len(mined) == 40 and (near[0] | near[1]).all() and near[0].any() and near[1].any()


def test_fewer_where_there_is_no_room():
    """Two gaps of 1.5 s hold one clip of 1 s each; a recording that is covered by annotations holds none."""
    rows = [("r00", 1.5, 2.5, "hum"), ("r00", 2.5, 3.5, "hum"), ("r01", 0, 3, "bark"), ("r01", 2, 5, "bark")]

    def mined(rows, **values):
        clips = clips_of([5, 5], rows, noise_per_target=50, **values)
        return clips[clips["origin"] == "mined"]

    assert mined(rows, margin_s=0)["recording_id"].tolist() == ["r00", "r00"]
    assert (mined(rows, margin_s=0)["start_sample"] // 2500).tolist() == [0, 1]
    assert mined(rows, margin_s=0.6).empty
    too_long = [("r00", 1.5, 3.5, "hum"), *rows[2:]]
    assert mined(too_long, margin_s=0).empty


@pytest.mark.parametrize(
    ("rows", "noise_per_target"), [([("r00", 1, 2, "hum")], 0), ([("r00", 1, 2, "bark")], 4), ([], 4)]
)
def test_no_noise(rows, noise_per_target):
    clips = clips_of([60], rows, noise_per_target=noise_per_target)
    assert len(clips) == len(rows) and list(clips.columns) == list(SCHEMAS["clips"])
