import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.config import DatasetSettings
from otus.datasets import Selections
from otus.datasets.clips import COLUMNS, collect_clips
from otus.tables import table

RATE = 1000


def recordings_of(durations, rate=RATE):
    """A table of recordings r00, r01, ... and, as in a real inventory, one that cannot be read."""
    rows = [
        {
            "recording_id": f"r{i:02d}", "path": f"r{i:02d}.wav", "group": f"g{i:02d}", "duration_s": n / rate,
            "n_samples": n, "sample_rate": rate, "labelled": True, "sha256": f"{i:064d}", "readable": True,
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


def collected(durations, rows, *, seed=1, rate=RATE, **values):
    recordings = recordings_of(durations, rate)
    annotations = annotations_of(rows)
    return collect_clips(
        recordings, annotations, None, targets=["hum"], settings=DatasetSettings(**values), seed=seed
    )  # fmt: skip


def clips_of(durations, rows, **values):
    return collected(durations, rows, **values)[0]


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
    clips, report = collected(
        durations, rows, seed=seed, margin_s=margin_s, min_noise_s=min_noise_s, noise_per_target=noise_per_target
    )
    assert list(clips.columns) == ["clip_id", *COLUMNS] and clips["clip_id"].is_unique
    mined = clips[clips["origin"] == "mined"]
    calls = [(end - start) for _, start, end, label in rows if label == "hum"]
    assert report.wanted == round(noise_per_target * len(calls)) == report.mined + report.unmet
    assert report.mined == len(mined)
    for i, duration in enumerate(durations):
        own = mined[mined["recording_id"] == f"r{i:02d}"].sort_values("start_sample")
        starts, ends = own["start_sample"].to_numpy(), own["end_sample"].to_numpy()
        assert (starts >= 0).all() and (ends <= round(duration * RATE)).all()
        assert (ends - starts >= min_noise_s * RATE - 2).all()
        assert (ends - starts <= max([min_noise_s, *calls]) * RATE + 2).all()
        assert (starts[1:] >= ends[:-1]).all()  # no two overlap
        for recording, start, end, _ in rows:  # nor does any come near an annotation, of whatever label
            if recording == f"r{i:02d}":
                clear = (ends / RATE <= start - margin_s + 1e-6) | (starts / RATE >= end + margin_s - 1e-6)
                assert clear.all()


@settings(max_examples=40, deadline=None)
@given(corpora(), st.sampled_from([8_000, 44_100]))
def test_every_annotation_is_a_clip(corpus, rate):
    durations, rows = corpus
    clips, report = collected(durations, rows, rate=rate, noise_per_target=1)
    columns = ["recording_id", "start_sample", "end_sample", "label", "class"]
    found = clips.loc[clips["origin"] == "annotation", columns].itertuples(index=False, name=None)
    lengths = {f"r{i:02d}": round(duration * rate) for i, duration in enumerate(durations)}
    cut = [
        (r, int(start * rate + 1e-3), min(math.ceil(end * rate - 1e-3), lengths[r]), label)
        for r, start, end, label in rows
    ]
    mixed = [
        label != "hum" and any(o == r and a < end - 1 and b > start + 1 and other == "hum" for o, a, b, other in cut)
        for r, start, end, label in cut
    ]
    expected = sorted(clip for clip, left_out in zip(cut, mixed, strict=True) if not left_out)
    found = sorted(found)
    assert len(found) == len(expected) and report.confusers_left_out == sum(mixed)
    for (recording, start, end, label, kind), whole in zip(found, expected, strict=True):
        assert (recording, start, end, label) == whole and start < end
        assert kind == ("target" if label == "hum" else "noise")


def test_what_a_clip_says():
    rows = [("r00", 1.0, 2.0, "hum"), ("r01", 0.5, 0.75, "bark"), ("r01", 5.0, 6.0, "unknown")]
    clips = clips_of([10, 10], rows, noise_per_target=2).set_index("label")
    target, confuser, unknown = (clips.loc[name] for name in ("hum", "bark", "unknown"))
    assert (target["recording_id"], target["start_sample"], target["end_sample"]) == ("r00", 1000, 2000)
    assert (target["class"], target["quality"], target["group"]) == ("target", "2", "g00")
    assert (confuser["class"], confuser["origin"], confuser["group"]) == ("noise", "annotation", "g01")
    assert (unknown["class"], unknown["origin"]) == ("unknown", "annotation")
    mined = clips[clips["origin"] == "mined"]
    assert len(mined) == 2 and mined["class"].eq("noise").all() and mined["quality"].isna().all()


def test_recordings_that_are_not_labelled_have_no_clips():
    recordings = recordings_of([20, 20])
    recordings.loc[1, "labelled"] = False
    rows = annotations_of([("r00", 1, 2, "hum"), ("r01", 1, 2, "hum"), ("broken", 1, 2, "hum")])
    clips, report = collect_clips(recordings, rows, None, targets=["hum"], settings=DatasetSettings(), seed=1)
    assert set(clips["recording_id"]) == {"r00"} and clips["class"].eq("target").sum() == 1
    assert clips["origin"].eq("mined").sum() == 4 == report.mined


def test_calls_of_a_low_quality_are_neither_target_nor_noise():
    rows = annotations_of([("r00", i * 10 + 1, i * 10 + 2, "hum" if i < 5 else "bark") for i in range(6)])
    rows["quality"] = ["Q1", "2", "Q3", None, "good", "Q1"]
    make = collect_clips(
        recordings_of([100]), rows, None, targets=["hum"], settings=DatasetSettings(min_quality=2), seed=1
    )
    clips = make[0]
    kinds = clips[clips["origin"] == "annotation"].sort_values("start_sample")["class"].tolist()
    assert kinds == ["unknown", "target", "target", "target", "target", "noise"]
    assert make[1].wanted == 16
    mined = clips[clips["origin"] == "mined"]
    assert not ((mined["start_sample"] < 2100) & (mined["end_sample"] > 900)).any()


def test_the_same_seed_gives_the_same_clips():
    recordings = recordings_of([30, 40, 50])
    annotations = annotations_of([(f"r{i % 3:02d}", 2 * i, 2 * i + 1, "hum") for i in range(9)])

    def make(seed=1, order=1, **values):
        settings = DatasetSettings(max_per_recording=2, **values)
        tables = recordings[::order], annotations[::order]
        return collect_clips(*tables, None, targets=["hum"], settings=settings, seed=seed)[0]

    assert make().equals(make()) and make().equals(make(order=-1))
    assert not make().equals(make(seed=2))


@pytest.mark.parametrize("most", [1, 3, 50])
def test_at_most_so_many_calls_of_a_recording(most):
    rows = [("r00", i, i + 0.5, "hum") for i in range(20)] + [("r01", i, i + 0.5, "bark") for i in range(20)]
    clips, report = collected([60, 60], rows, max_per_recording=most)
    assert clips["class"].eq("target").sum() == min(most, 20)
    assert clips["label"].eq("bark").sum() == 20 and report.wanted == 4 * min(most, 20)
    kept = clips.loc[clips["class"] == "target", "start_sample"].tolist()
    assert most != 3 or kept != [0, 1000, 2000]  # drawn, not the first


def test_noise_is_drawn_in_proportion_to_the_room():
    """One clip a seed, in recordings with 10, 20 and 30 s of room, the last of it in two halves."""
    recordings = recordings_of([11, 21, 42, 1])
    annotations = annotations_of([("r02", 16, 26, "bark"), ("r03", 0, 1, "hum")])
    one = DatasetSettings(noise_per_target=1, margin_s=0, min_noise_s=1)
    drawn = [collect_clips(recordings, annotations, None, targets=["hum"], settings=one, seed=s)[0] for s in range(100)]
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
    assert len(clips) == len(rows) and list(clips.columns) == ["clip_id", *COLUMNS]


def test_room_that_fills_up_is_used_to_the_last_gap():
    """Forty clips of 1 s in 44 s of room: nearly every draw falls on something taken."""
    rows = [("r00", 0.0, 1.0, "hum"), ("r00", 45.0, 46.0, "bark")]
    clips, report = collected([46], rows, noise_per_target=60, margin_s=0)
    mined = clips[clips["origin"] == "mined"]
    assert 22 <= len(mined) == report.mined <= 44 and report.unmet == 60 - len(mined)
    gaps = np.diff([1000, *np.column_stack([mined["start_sample"], mined["end_sample"]]).ravel(), 45_000])[::2]
    assert (gaps >= 0).all() and gaps.max() < 1000  # no room left for another


def test_noise_of_a_calls_own_recording():
    rows = [("r00", 1, 2, "hum"), ("r00", 4, 6, "hum"), ("r01", 0, 9.5, "hum"), ("r02", 1, 2, "bark")]
    clips, report = collected([60, 10, 60], rows, noise_from="own", noise_per_target=1.5, margin_s=0)
    mined = clips[clips["origin"] == "mined"]
    assert set(mined["recording_id"]) == {"r00"} and report.wanted == 4  # round(1.5 * 3), to even
    assert report.recordings_without_room == 1 and report.unmet == report.wanted - len(mined) >= 1


def extracts():
    """A tape of 100 s with extracts at 10 and 40 s that are full of calls, and another tape without a place."""
    recordings = recordings_of([10, 10, 100, 10, 100])
    recordings["raw"] = recordings["parent"] = ["r02", "r02", None, "r04", None, None]
    recordings["parent_start_s"] = [10.0, 40.0, None, None, None, None]
    recordings["labelled"] = [True, True, False, True, False, False]
    recordings["group"] = ["tape", "tape", "tape", "other", "other", "g"]
    rows = [("r00", 0, 10, "hum"), ("r01", 0.5, 10, "hum"), ("r03", 0, 9.9, "hum")]
    return recordings, annotations_of(rows)


def test_the_rest_of_a_raw_recording():
    settings = DatasetSettings(noise_per_target=2, noise_from="own", fallback_raw=True, margin_s=0.5)
    clips, report = collect_clips(*extracts(), None, targets=["hum"], settings=settings, seed=3)
    spare = clips[clips["origin"] == "mined_raw"]
    assert report.mined == 0 and report.wanted == 6 and report.mined_raw == len(spare) > 0
    assert report.unmet == 6 - len(spare) and set(spare["recording_id"]) == {"r02"} and set(spare["group"]) == {"tape"}
    for start, end in ((9.5, 20.5), (39.5, 50.5)):
        assert ((spare["end_sample"] <= start * RATE) | (spare["start_sample"] >= end * RATE)).all()
    assert spare["start_sample"].ge(0).all() and spare["end_sample"].le(100 * RATE).all()


def test_no_raw_noise_unless_it_is_asked_for():
    settings = DatasetSettings(noise_per_target=2)
    clips, report = collect_clips(*extracts(), None, targets=["hum"], settings=settings, seed=3)
    assert not clips["origin"].eq("mined_raw").any() and report.unmet == 6


def test_false_alarms_become_noise_clips():
    rows = annotations_of([("r00", 10, 12, "hum"), ("r00", 40, 41, "bark"), ("r00", 50, 51, "unknown")])
    alarms = [
        ("r00", 20, 21, 0.5),  # kept, third
        ("r00", 11.9, 13, 0.9),  # touches a call
        ("r00", 12.05, 13, 0.9),  # within the margin
        ("r00", 50.5, 52, 0.9),  # touches what is unknown
        ("r00", 30, 31, 0.8),  # kept
        ("r00", 30.5, 31.5, 0.7),  # the same alarm once more
        ("r01", 59.5, 61, 0.6),  # kept, cut at the end of the recording
        ("r02", 1, 2, 0.99),  # nobody has labelled that one
        ("r00", 25, 26, 0.1),  # one too many
        ("r00", 70, 71, 0.95),  # beyond the end
    ]
    selections = pd.DataFrame(alarms, columns=["recording_id", "start_s", "end_s", "score"])
    recordings = recordings_of([60, 60, 60])
    recordings.loc[2, "labelled"] = False
    settings = DatasetSettings(hard_negatives={"selections": "x", "per_target": 3}, noise_per_target=100)
    for order in (1, -1):
        clips, report = collect_clips(
            recordings, rows, Selections(selections[::order], 2, 1), targets=["hum"], settings=settings, seed=1
        )
        found = clips[clips["origin"] == "false_alarm"]
        places = found[["recording_id", "start_sample", "end_sample"]].itertuples(index=False, name=None)
        assert list(places) == [("r00", 20_000, 21_000), ("r00", 30_000, 31_000), ("r01", 59_500, 60_000)]
        assert found["class"].eq("noise").all() and report.false_alarms == 3
        assert report.selections == {
            "used": 3, "unreadable": 2, "unknown recording": 1, "not labelled": 1, "outside the recording": 1,
            "near an annotation": 3, "overlapping a better one": 1, "over the limit": 1,
        }  # fmt: skip
        assert sum(report.selections.values()) == len(selections) + 3
        assert report.overlapping_noise == 0  # mined noise keeps clear of them


def test_selections_without_a_false_alarm():
    found = pd.DataFrame([("r00", 1, 2, 0.5)], columns=["recording_id", "start_s", "end_s", "score"])
    settings = DatasetSettings(hard_negatives={"selections": "x"}, noise_per_target=0)
    clips, report = collect_clips(
        recordings_of([60]), annotations_of([("r00", 1, 2, "hum")]), Selections(found), targets=["hum"],
        settings=settings, seed=1,
    )  # fmt: skip
    assert report.false_alarms == 0 and clips["class"].tolist() == ["target"]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 250_000]),
    st.integers(0, 10**9),
    st.integers(1, 10**6),
)
def test_times_of_whole_samples_come_back_to_the_sample(rate, start, length):
    recordings = recordings_of([1.0], rate)
    recordings["n_samples"] = start + length + 5
    recordings["duration_s"] = recordings["n_samples"] / rate
    rows = annotations_of([("r00", start / rate, (start + length) / rate, "hum")])
    none = DatasetSettings(noise_per_target=0)
    clips = collect_clips(recordings, rows, None, targets=["hum"], settings=none, seed=1)[0]
    assert clips[["start_sample", "end_sample"]].to_numpy().tolist() == [[start, start + length]]


def test_a_confuser_over_a_call_is_no_clip_and_no_room_for_noise():
    bark = [("r00", start, end, "bark") for start, end in ((2.5, 4), (6, 7), (8.5, 9.5))]
    clips, report = collected([20], [("r00", 1, 3, "hum"), ("r00", 8, 9, "unknown"), *bark])
    assert report.confusers_left_out == 2
    assert clips.loc[clips["label"] == "bark", "start_sample"].tolist() == [6000]
    mined = clips[clips["origin"] == "mined"]
    assert not ((mined["start_sample"] < 4100) & (mined["end_sample"] > 900)).any()


def test_what_is_annotated_in_an_overlapping_extract_is_no_noise_here():
    """Extracts 0 to 60 and 30 to 90 s of a tape that is not there; the second one alone has the calls."""
    recordings = recordings_of([60, 60])
    recordings["raw"], recordings["parent_start_s"] = ["tape", "tape", None], [0.0, 30.0, None]
    rows = [("r01", start, start + 1.5, "hum") for start in range(0, 30, 2)]
    settings = DatasetSettings(margin_s=0)
    clips, _ = collect_clips(recordings, annotations_of(rows), None, targets=["hum"], settings=settings, seed=1)
    mined = clips[(clips["origin"] == "mined") & (clips["recording_id"] == "r00")]
    assert len(mined) > 5
    for _, start, end, _ in rows:
        here = (30 + start) * RATE, (30 + end) * RATE
        assert not ((mined["start_sample"] < here[1]) & (mined["end_sample"] > here[0])).any()


def test_qualities_without_a_number_are_counted():
    rows = annotations_of([("r00", i, i + 0.5, "hum") for i in range(4)])
    rows["quality"] = ["good", "2", None, "1"]
    made = [
        collect_clips(recordings_of([60]), rows, None, targets=["hum"], settings=DatasetSettings(min_quality=q), seed=1)
        for q in (2, None)
    ]
    assert [report.unrated_calls for _, report in made] == [1, 0]


def test_noise_that_overlaps_is_told():
    rows = [("r00", 1, 2, "hum"), ("r00", 5, 7, "bark"), ("r00", 6, 8, "bark"), ("r00", 6, 8, "growl")]
    report = collected([60], rows)[1]
    assert (report.overlapping_noise, report.duplicate_noise) == (2, 1)
    assert report.examples[0] == "r00: samples 6000 to 8000 (annotation)"
