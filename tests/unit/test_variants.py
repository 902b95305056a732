"""Whole dataset variants: every strategy, what its sides share, and hard negatives from files."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.columns import SCHEMAS
from otus.config import LEAKY_STRATEGIES, DatasetSettings, SplitSettings
from otus.datasets import leakage_table, make_variant, read_selections, verdict
from otus.errors import DataError
from otus.tables import table, write_table

RATE = 1000
STRATEGIES = DatasetSettings.model_json_schema()["properties"]["strategy"]["enum"]


def corpus(calls_of, *, per_group=1, seconds=60, labels=("hum",)):
    """Recordings with so many calls each; `per_group` neighbours make a group."""
    recordings = [
        {
            "recording_id": f"r{i:03d}", "path": f"r{i:03d}.wav", "group": f"g{i // per_group:03d}",
            "duration_s": float(seconds), "n_samples": seconds * RATE, "sample_rate": RATE, "labelled": True,
            "readable": True, "sha256": f"{i:064d}", "content_sha256": f"{i:064x}",
        }
        for i in range(len(calls_of))
    ]  # fmt: skip
    rows = [
        {
            "annotation_id": f"r{i:03d}_{c}", "recording_id": f"r{i:03d}", "start_s": 2.0 * c + 0.5,
            "end_s": 2.0 * c + 1.0, "label": labels[(i + c) % len(labels)], "quality": str(1 + c % 3),
        }
        for i, calls in enumerate(calls_of)
        for c in range(calls)
    ]  # fmt: skip
    return table("recordings", recordings), table("annotations", rows)


def variant(tables, *, split=None, seed=1, targets=("hum",), selections=None, **values):
    return make_variant(
        *tables, selections, dataset="v", targets=targets, split=SplitSettings(**(split or {})),
        settings=DatasetSettings(**values), seed=seed,
    )  # fmt: skip


def check_tables(made, tables, leaky):
    """What holds for every variant."""
    recordings = tables[0].set_index("recording_id")
    clips, splits = made.clips, made.splits
    assert list(clips.columns) == list(SCHEMAS["clips"]) and list(splits.columns) == list(SCHEMAS["splits"])
    assert not clips.duplicated(["fold", "clip_id"]).any()
    assert clips["leaky"].eq(leaky).all() and splits["leaky"].eq(leaky).all()
    assert clips["start_sample"].ge(0).all() and clips["end_sample"].gt(clips["start_sample"]).all()
    assert (clips["end_sample"] <= clips["recording_id"].map(recordings["n_samples"])).all()
    for (_, recording), spans in splits.groupby(["fold", "recording_id"]):
        edges = spans.sort_values("start_sample")[["start_sample", "end_sample"]].to_numpy()
        assert edges[0, 0] == 0 and edges[-1, 1] == recordings.at[recording, "n_samples"]
        assert (edges[1:, 0] == edges[:-1, 1]).all()
        assert (spans["split"] != spans["split"].shift()).all()
    for _, own in splits.groupby("fold"):
        assert set(own["recording_id"]) == set(recordings.index)


def in_their_spans(made):
    """For every clip, whether its middle lies in a span of its side."""
    found = made.clips.merge(made.splits, on=["recording_id", "fold", "split"], suffixes=("", "_span"))
    middle = (found["start_sample"] + found["end_sample"]) / 2
    inside = found[(middle >= found["start_sample_span"]) & (middle < found["end_sample_span"])]
    return len(inside.drop_duplicates(["fold", "clip_id"])) == len(made.clips)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("split", [{}, {"folds": 4}])
def test_every_strategy(strategy, split):
    tables = corpus([8] * 12, per_group=2)
    made = variant(tables, strategy=strategy, split=split)
    check_tables(made, tables, leaky=strategy in LEAKY_STRATEGIES)
    assert in_their_spans(made)
    assert len(made.leakage) == 3 * split.get("folds", 1)
    assert made.leakage["leaky"].any() == (strategy in LEAKY_STRATEGIES)
    said = verdict(made.leakage)
    if strategy in LEAKY_STRATEGIES:
        assert said.startswith("LEAKY: in fold ") and "recording" in said
    else:
        assert said.startswith("no group, recording or content stands on two sides")
        assert (made.leakage.filter(regex="^shared_|^overlapping") == 0).all(axis=None)
        assert (made.splits.groupby(["fold", "group"])["split"].nunique() == 1).all()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=4, max_size=10).filter(lambda calls: sum(calls) >= 12),
    st.sampled_from(sorted(LEAKY_STRATEGIES)),
    st.tuples(st.floats(0.3, 0.8), st.floats(0.2, 0.8)),
    st.integers(0, 2**40),
)
def test_shares_of_single_clips(calls_of, strategy, cuts, seed):
    train, val = cuts[0], (1 - cuts[0]) * cuts[1]
    fractions = (train, val, 1 - train - val)
    tables = corpus(calls_of)
    try:
        made = variant(tables, strategy=strategy, fractions=fractions, seed=seed)
    except DataError as error:
        assert "has no target call in its" in str(error)
        return
    check_tables(made, tables, leaky=True)
    assert in_their_spans(made)
    keys = {
        "quality_balanced": ["class", "quality"], "clipwise_balanced": ["recording_id"],
        "quality_and_clipwise_balanced": ["recording_id", "class", "quality"],
    }.get(strategy, ["leaky"])  # fmt: skip
    for _, stratum in made.clips.fillna({"quality": "-"}).groupby(keys):
        for side, share in zip(("train", "val", "test"), fractions, strict=True):
            assert abs((stratum["split"] == side).sum() - share * len(stratum)) < 1 + 1e-6


def test_each_strategy_balances_what_its_name_says():
    tables = corpus([10] * 10)
    by_clip = variant(tables, strategy="clipwise_balanced", fractions=(0.6, 0.2, 0.2), noise_per_target=1).clips
    noise_of = by_clip.groupby("recording_id")["split"].value_counts().unstack()
    assert (noise_of["test"] >= noise_of.sum(axis=1) * 0.2 - 1).all()
    by_quality = variant(tables, strategy="quality_balanced", fractions=(0.6, 0.2, 0.2)).clips
    calls = by_quality[by_quality["class"] == "target"].groupby(["quality", "split"]).size().unstack()
    assert (calls["val"] - calls.sum(axis=1) * 0.2).abs().max() < 1
    more, plain = (variant(tables, strategy=s).noise.wanted for s in ("random_more_noise", "random"))
    assert (more, plain) == (800, 400)


def test_overlapping_and_equal_annotations_in_a_leaky_variant():
    recordings, annotations = corpus([12] * 4)
    doubled = annotations.assign(annotation_id=annotations["annotation_id"] + "x", label="bark")
    nested = annotations.assign(annotation_id=annotations["annotation_id"] + "y", label="growl")
    nested["start_s"] += 0.1
    rows = table("annotations", pd.concat([annotations, doubled, nested], ignore_index=True))
    made = variant((recordings, rows), strategy="random", targets=("hum", "bark", "growl"))
    check_tables(made, (recordings, rows), leaky=True)
    assert made.leakage["overlapping_clips"].sum() > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_seeds_and_order(strategy):
    recordings, annotations = corpus([6] * 12)
    shuffled = np.random.default_rng(0).permutation(len(recordings)), np.random.default_rng(1).permutation(72)
    one = variant((recordings, annotations), strategy=strategy)
    other = variant((recordings.iloc[shuffled[0]], annotations.iloc[shuffled[1]]), strategy=strategy)
    for name in ("clips", "splits", "leakage"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))
    assert one.noise == other.noise
    assert not variant((recordings, annotations), strategy=strategy, seed=2).clips.equals(one.clips)
    own = variant((recordings, annotations), strategy=strategy, seed=2, **{}).clips
    named = make_variant(
        recordings, annotations, dataset="v", targets=["hum"], split=SplitSettings(),
        settings=DatasetSettings(strategy=strategy, seed=2), seed=1,
    ).clips  # fmt: skip
    assert named.equals(own)


def test_variants_of_one_seed_share_their_groups():
    tables = corpus([5] * 12, per_group=2)
    sides = [
        variant(tables, **values).splits.drop(columns="leaky")
        for values in ({}, {"noise_per_target": 1}, {"min_quality": 2}, {"margin_s": 1.0})
    ]
    assert all(other.equals(sides[0]) for other in sides[1:])


def test_recordings_without_any_clip_have_a_side():
    recordings, annotations = corpus([10, 10, 0, 0])
    made = variant((recordings, annotations), strategy="random", noise_per_target=0)
    check_tables(made, (recordings, annotations), leaky=True)


def test_unknown_intervals_go_with_the_time_around_them():
    recordings, annotations = corpus([20] * 5)
    annotations.loc[annotations.index % 4 == 0, "label"] = "unknown"
    made = variant((recordings, annotations), strategy="random")
    assert in_their_spans(made) and made.clips["class"].eq("unknown").sum() == 25


def test_rare_labels_are_not_outnumbered():
    recordings, annotations = corpus([10] * 12, labels=("hum", "hum", "hum", "hum", "growl"))
    tables = recordings, annotations
    made = variant(tables, targets=("hum", "growl"), class_balance=2.0, split={"folds": 3})
    free = variant(tables, targets=("hum", "growl"), split={"folds": 3})
    train = made.clips[(made.clips["class"] == "target") & (made.clips["split"] == "train")]
    counts = train.groupby(["fold", "label"]).size().unstack()
    assert (counts["hum"] == 2 * counts["growl"]).all() and (counts["growl"] > 5).all()
    rest = ~((free.clips["class"] == "target") & (free.clips["split"] == "train"))
    kept = ~((made.clips["class"] == "target") & (made.clips["split"] == "train"))
    assert made.clips[kept].reset_index(drop=True).equals(free.clips[rest].reset_index(drop=True))


def test_a_sheet_cannot_split_clips():
    recordings, annotations = corpus([5] * 6)
    recordings["given_split"] = ["train", "train", "val", "val", "test", "test"]
    with pytest.raises(DataError, match="which strategy random cannot follow"):
        variant((recordings, annotations), strategy="random")
    assert variant((recordings, annotations)).splits["split"].value_counts().to_dict() == dict.fromkeys(
        ("train", "val", "test"), 2
    )


def test_too_few_calls_for_three_sides():
    with pytest.raises(DataError, match="no target call in its"):
        variant(corpus([2, 0, 0]), strategy="random")


def test_leakage_names_what_is_shared():
    recordings, annotations = corpus([4] * 4)
    made = variant((recordings, annotations), noise_per_target=0)
    recordings.loc[1, "content_sha256"] = recordings.loc[0, "content_sha256"] = "same"
    recordings.loc[3, "raw"] = "r002"
    sides = dict(zip(recordings["recording_id"], ("train", "test", "train", "val"), strict=True))
    splits = made.splits.assign(split=made.splits["recording_id"].map(sides))
    clips = made.clips.assign(split=made.clips["recording_id"].map(sides))
    found = leakage_table(recordings, clips, splits, dataset="v").set_index(["side", "other_side"])
    assert list(found.reset_index().columns)[:2] == ["side", "other_side"] and found["dataset"].eq("v").all()
    assert found.loc[("train", "test"), ["shared_contents", "shared_raw_recordings"]].tolist() == [1, 0]
    assert found.loc[("train", "val"), ["shared_contents", "shared_raw_recordings"]].tolist() == [0, 1]
    assert found["leaky"].tolist() == [True, True, False]
    assert found.loc[("train", "val"), "example"] == "raw_recordings: r002"


def test_contents_that_were_not_compared_prove_nothing():
    recordings, annotations = corpus([4] * 6)
    made = variant((recordings.assign(content_sha256=None), annotations))
    assert not made.leakage["leaky"].any() and made.leakage["shared_contents"].isna().all()
    assert "contents were not compared (corpus.audio_check)" in verdict(made.leakage)


def test_extracts_of_an_absent_tape_that_overlap_are_seen():
    recordings, annotations = corpus([4] * 6)
    made = variant((recordings, annotations), noise_per_target=0)
    recordings["raw"], recordings["parent_start_s"] = "tape", 1.0  # each of them the same minute
    found = leakage_table(recordings, made.clips, made.splits, dataset="v")
    assert found["shared_raw_recordings"].eq(1).all() and found["leaky"].all()
    assert found["overlapping_clips"].tolist() == [len(made.clips[made.clips["split"] == s]) for s in found["side"]]


def test_tapes_cannot_be_drawn_where_a_sheet_gives_the_split():
    recordings, annotations = corpus([5] * 3)
    recordings["given_split"] = ["train", "val", "test"]
    with pytest.raises(DataError, match="so strategy proportional_by_tape cannot draw one"):
        variant((recordings, annotations), strategy="proportional_by_tape")


def selections_table():
    return table(
        "selections",
        [
            {"selection_id": "a", "recording_id": "r000", "start_s": 30.0, "end_s": 31.0, "peak_score": 2.0},
            {"selection_id": "b", "recording_id": "gone", "start_s": 1.0, "end_s": 2.0, "peak_score": 1.0},
        ],
    )


def test_selections_of_an_earlier_model(tmp_path):
    recordings, _ = corpus([3, 3])
    write_table(tmp_path / "selections.parquet", "selections", selections_table())
    found = read_selections(tmp_path / "selections.parquet", recordings)
    assert (found.unreadable, found.unknown) == (0, 1)
    assert found.rows.to_dict("records") == [{"recording_id": "r000", "start_s": 30.0, "end_s": 31.0, "score": 2.0}]
    text = "recording,start_s,end_s\nr001.wav,5,6\nr000,7,8\nother.wav,1,2\nr000,x,9\nr000,9,8\n"
    (tmp_path / "found.csv").write_text(text)
    found = read_selections(tmp_path / "found.csv", recordings)
    assert found.rows["recording_id"].tolist() == ["r001", "r000"] and found.rows["score"].is_monotonic_decreasing
    assert (found.unreadable, found.unknown) == (2, 1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.csv", None, "does not exist"),
        ("empty.csv", "", "cannot be used as selections"),
        ("other.csv", "recording,start_s,end_s\nx.wav,1,2\n", "none of 1 selections names a recording"),
        ("broken.parquet", "no parquet", "cannot be read as a table"),
    ],
)
def test_selections_that_cannot_be_used(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_selections(tmp_path / name, corpus([3])[0])
