import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.columns import SCHEMAS
from otus.config import DatasetSettings, SplitSettings, parse_config
from otus.datasets import make_splits, parts_in_words
from otus.datasets.dealing import deal, deal_in_strata
from otus.errors import DataError
from otus.tables import table

SIDES = {"train", "val", "test"}


def corpus(groups, *, given_splits=None, target="hum"):
    """Tables of recordings and annotations; `groups` lists, per group, the number of calls of each recording."""
    recordings, annotations = [], []
    for g, calls_of in enumerate(groups):
        for i, calls in enumerate(calls_of):
            name = f"g{g:02d}_r{i}"
            sides = given_splits[g] if given_splits else None
            given_split = sides[i] if isinstance(sides, list) else sides
            recordings.append(
                {
                    "recording_id": name, "path": f"{name}.wav", "group": f"g{g:02d}", "duration_s": 60.0,
                    "n_samples": 6000, "sample_rate": 100, "labelled": True, "readable": True,
                    "given_split": given_split,
                }
            )  # fmt: skip
            annotations += [
                {"annotation_id": f"{name}_a{c}", "recording_id": name, "start_s": c, "end_s": c + 0.5, "label": target}
                for c in range(calls)
            ]
    return table("recordings", recordings), table("annotations", annotations)


def split(tables, targets=("hum",), seed=1, dataset=None, **values):
    dataset = DatasetSettings(**(dataset or {}))
    return make_splits(*tables, targets=targets, settings=SplitSettings(**values), dataset=dataset, seed=seed)


GROUPS_WITH_CALLS = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=3), min_size=3, max_size=12)


@settings(max_examples=35, deadline=None)
@given(GROUPS_WITH_CALLS, st.integers(3, 12), st.integers(0, 2**40))
def test_folds(groups, folds, seed):
    tables = corpus(groups)
    if folds > len(groups):
        with pytest.raises(DataError, match=rf"{len(groups)} groups cannot make {folds} folds"):
            split(tables, seed=seed, folds=folds)
        return
    found = split(tables, seed=seed, folds=folds)
    assert list(found.columns) == list(SCHEMAS["splits"])
    assert sorted(found["fold"].unique()) == list(range(1, folds + 1))
    for _, own in found.groupby("fold"):
        assert sorted(own["recording_id"]) == sorted(tables[0]["recording_id"])
        assert (own.groupby("group")["split"].nunique() == 1).all()  # no group on two sides
        assert set(own["split"]) == SIDES
    for side in ("test", "val"):
        times = found[found["split"] == side].groupby("recording_id").size()
        assert len(times) == len(tables[0]) and (times == 1).all()  # exactly once


@settings(max_examples=35, deadline=None)
@given(GROUPS_WITH_CALLS, st.floats(0.05, 0.9), st.floats(0.05, 0.9), st.integers(0, 2**40))
def test_one_split_by_fractions_has_all_sides(groups, test_fraction, val_fraction, seed):
    found = split(corpus(groups), seed=seed, test_fraction=test_fraction, val_fraction=val_fraction)
    assert found["fold"].eq(1).all() and found["recording_id"].is_unique
    assert (found.groupby("group")["split"].nunique() == 1).all()
    assert set(found["split"]) == SIDES


def share_of(tables, found, side):
    """Shares of calls and of recordings that stand on `side`, over all folds and per fold."""
    calls = tables[1].groupby("recording_id").size()
    own = found[found["split"] == side]
    per_fold = own["recording_id"].map(calls).fillna(0).groupby(own["fold"]).sum() / calls.sum()
    return per_fold.to_numpy(), (own.groupby("fold").size() / len(tables[0])).to_numpy()


@pytest.mark.parametrize("seed", range(5))
def test_calls_and_recordings_are_shared_out_evenly(seed):
    generator = np.random.default_rng(seed)
    groups = [generator.lognormal(2, 0.7, generator.integers(1, 5)).round().astype(int).tolist() for _ in range(40)]
    tables = corpus(groups)
    for calls, recordings in (share_of(tables, split(tables, seed=seed, folds=5), side) for side in ("test", "val")):
        assert np.abs(calls - 0.2).max() < 0.05 and np.abs(recordings - 0.2).max() < 0.05
    single = split(tables, seed=seed, test_fraction=0.3, val_fraction=0.5)
    for side, expected in (("test", 0.3), ("val", 0.35), ("train", 0.35)):
        calls, recordings = share_of(tables, single, side)
        assert abs(calls[0] - expected) < 0.07 and abs(recordings[0] - expected) < 0.07


def test_every_target_label_is_shared_out():
    tables = corpus([[4]] * 10)
    rare = tables[1].iloc[::13].copy()
    rare["label"] = "bark"
    holders = set(rare["recording_id"])
    both = table("annotations", [*tables[1].to_dict("records"), *rare.to_dict("records")])
    found = split((tables[0], both), targets=("hum", "bark"), folds=3)
    tested = found[(found["split"] == "test") & found["recording_id"].isin(holders)]
    assert len(holders) >= 3 and set(tested["fold"]) == {1, 2, 3}


def test_the_same_seed_gives_the_same_split_in_whatever_order_the_tables_are():
    tables = corpus([[3, 1], [2], [5], [1, 1], [2], [4], [2, 2]])
    for settings_of in ({"folds": 3}, {"test_fraction": 0.4}):
        first = split(tables, **settings_of)
        shuffled = tuple(t.sample(frac=1, random_state=3) for t in tables)
        assert first.equals(split(tables, **settings_of)) and first.equals(split(shuffled, **settings_of))
        assert any(not first.equals(split(tables, seed=seed, **settings_of)) for seed in range(2, 12))


def test_only_readable_and_labelled_recordings_are_split():
    recordings, annotations = corpus([[1], [1], [1], [1], [1]])
    recordings.loc[3, "labelled"] = False
    recordings.loc[4, "readable"] = False
    found = split((recordings, annotations), folds=3)
    assert set(found["recording_id"]) == {"g00_r0", "g01_r0", "g02_r0"}


def test_recordings_without_calls_are_split_too():
    found = split(corpus([[1, 0], [1, 0, 0], [2, 0]]), folds=3)
    assert found.groupby("fold").size().tolist() == [7, 7, 7]


def test_too_few_groups():
    with pytest.raises(DataError, match="2 groups are too few for train, val and test; choose a finer"):
        split(corpus([[1, 1, 1], [1, 1, 1]]))
    with pytest.raises(DataError, match="4 groups cannot make 5 folds"):
        split(corpus([[1], [1], [1], [1]]), folds=5)


def test_no_call_of_a_target():
    tables = corpus([[1], [1], [1]], target="bark")
    with pytest.raises(DataError, match="no labelled recording holds a call of hum, buzz; nothing to train on"):
        split(tables, targets=("hum", "buzz"), folds=3)
    with pytest.raises(DataError, match="no labelled recording"):
        split((tables[0].iloc[:0], tables[1]), targets=("bark",), folds=3)


@pytest.mark.parametrize("values", [{"folds": 3}, {}])
def test_a_side_without_a_call(values):
    """All calls are in one group, so that two sides have none."""
    with pytest.raises(DataError, match=r"prepare: fold 1 has no target call in its (train|val|test) recordings"):
        split(corpus([[9], [0], [0], [0]]), **values)


def test_calls_in_recordings_that_are_left_out_do_not_count():
    recordings, annotations = corpus([[1], [1], [1]])
    recordings.loc[1, "labelled"] = False
    with pytest.raises(DataError):
        split((recordings, annotations), folds=3)


def test_a_given_split_is_kept():
    found = split(corpus([[1, 1], [1], [1], [1]], given_splits=["train", "val", "test", "train"]))
    sides = dict(zip(found["recording_id"], found["split"], strict=True))
    assert sides == {"g00_r0": "train", "g00_r1": "train", "g01_r0": "val", "g02_r0": "test", "g03_r0": "train"}
    assert found["fold"].eq(1).all()


def test_validation_is_drawn_from_train_if_the_given_split_names_none():
    given_splits = ["train"] * 9 + ["test"] * 3
    found = split(corpus([[2, 1]] * 12, given_splits=given_splits), val_fraction=0.33)
    sides = found.groupby("group")["split"].agg(set)
    assert all(sides[f"g{g:02d}"] == {"test"} for g in (9, 10, 11))
    drawn = [sides[f"g{g:02d}"] for g in range(9)]
    assert drawn.count({"val"}) == 3 and drawn.count({"train"}) == 6


def test_a_group_on_both_sides_of_a_given_split_is_named_with_its_files():
    tables = corpus([[1, 1, 1], [1], [1], [1]], given_splits=[["train", "test", "train"], "train", "val", "test"])
    with pytest.raises(DataError) as error:
        split(tables)
    assert str(error.value) == (
        "recordings sheet: group 'g00' stands on both sides of the split (g00_r1.wav in test, g00_r0.wav in train); "
        "choose one."
    )


def test_folds_and_a_given_split_exclude_each_other():
    with pytest.raises(DataError, match=r"the recordings sheet gives a split, so split\.folds must go"):
        split(corpus([[1], [1], [1]], given_splits=["train", "val", "test"]), folds=3)


def test_a_given_split_of_only_some_recordings_is_refused():
    with pytest.raises(DataError, match=r"1 labelled recordings have no split, the first is g03_r0\.wav"):
        split(corpus([[1], [1], [1], [1]], given_splits=["train", "val", "test", [None]]))


def test_a_given_split_without_a_test_side_is_refused():
    with pytest.raises(DataError, match="no target call in its test recordings"):
        split(corpus([[1], [1], [1]], given_splits=["train", "val", "train"]))


@settings(max_examples=35, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), min_size=1, max_size=30),
    st.lists(st.floats(0.05, 1), min_size=1, max_size=6),
    st.integers(0, 100),
)
def test_dealing_fills_every_bin_if_it_can(loads, shares, seed):
    bins = deal(np.asarray(loads, dtype=float), [s / sum(shares) for s in shares], seed)
    assert len(bins) == len(loads) and bins.min() >= 0 and bins.max() < len(shares)
    assert len(set(bins.tolist())) >= min(len(loads), len(shares)) or len(loads) > len(shares)
    if len(loads) >= len(shares):
        assert set(bins.tolist()) == set(range(len(shares)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), max_size=80),
    st.lists(st.floats(0.05, 1.0), min_size=2, max_size=6),
    st.integers(0, 2**40),
)
def test_strata_are_dealt_to_within_one(strata, weights, seed):
    shares, strata = np.array(weights) / sum(weights), np.array(strata, dtype=np.int64)
    bins = deal_in_strata(strata, shares.tolist(), seed)
    assert len(bins) == len(strata)
    for stratum in set(strata.tolist()):
        counts = np.bincount(bins[strata == stratum], minlength=len(shares))
        assert (np.abs(counts - shares * (strata == stratum).sum()) < 1 + 1e-6).all()
    totals = np.bincount(bins, minlength=len(shares))
    assert (np.abs(totals - shares * len(strata)) <= len(shares)).all()


def test_single_items_do_not_all_go_to_one_side():
    counts = np.bincount(deal_in_strata(np.arange(1000), [0.7, 0.15, 0.15], seed=1))
    assert counts.tolist() == [700, 150, 150]


@settings(max_examples=30, deadline=None)
@given(GROUPS_WITH_CALLS, st.integers(0, 2**40))
def test_whole_tapes_in_proportion(groups, seed):
    found = split(corpus(groups), seed=seed, dataset={"strategy": "proportional_by_tape", "fractions": (0.6, 0.2, 0.2)})
    assert (found.groupby("group")["split"].nunique() == 1).all() and not found["leaky"].any()
    counts = found.drop_duplicates("group")["split"].value_counts()
    for side, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert counts[side] >= 1 and abs(counts[side] - share * len(groups)) < 1.0001


def test_tapes_are_drawn_again_until_every_side_has_a_call():
    groups = [[0]] * 9 + [[1]] * 3
    for seed in range(20):
        found = split(corpus(groups), seed=seed, dataset={"strategy": "proportional_by_tape"})
        sides = found.set_index("recording_id")["split"]
        assert set(sides[["g09_r0", "g10_r0", "g11_r0"]]) == SIDES
    drawn = {
        tuple(split(corpus([[1]] * 8), seed=s, dataset={"strategy": "proportional_by_tape"})["split"]) for s in range(9)
    }
    assert len(drawn) > 1


def test_fractions_of_a_variant():
    found = split(corpus([[1]] * 20), dataset={"fractions": (0.5, 0.25, 0.25)})
    assert found["split"].value_counts().to_dict() == {"train": 10, "val": 5, "test": 5}
    with pytest.raises(DataError, match="fractions must go"):
        split(corpus([[1]] * 3, given_splits=["train", "val", "test"]), dataset={"fractions": (0.5, 0.25, 0.25)})


def test_spans_cover_the_recordings():
    found = split(corpus([[1]] * 4))
    assert found["start_sample"].eq(0).all() and found["end_sample"].eq(6000).all() and not found["leaky"].any()


# What a fold tests: everything of one site, recorder, date or daypart


def placed(groups, sites, **columns):
    """The corpus of `groups`, where sites[g] is the site of all recordings of group g, or a list of theirs."""
    recordings, annotations = corpus(groups)
    values = [site[i] if isinstance(site, list) else site for calls, site in zip(groups, sites, strict=True)
              for i in range(len(calls))]  # fmt: skip
    return recordings.assign(site=values, **columns), annotations


def recordings_tested(found):
    return {fold: set(own.loc[own["split"] == "test", "recording_id"]) for fold, own in found.groupby("fold")}


@settings(max_examples=35, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=6, max_size=14),
    st.integers(2, 4),
    st.sampled_from(["grouped", "proportional_by_tape"]),
    st.floats(0.02, 0.9),
    st.integers(0, 2**40),
)
def test_a_fold_tests_all_of_one_site_and_no_group_stands_on_two_sides(groups, n_sites, strategy, val_fraction, seed):
    groups[:8] = [[1], [2], [3], [1], [2], [3], [1], [2]]  # every site has two groups with calls
    groups += [[1]] * (8 - len(groups))
    sites = [f"site {'dbca'[g % n_sites]}" for g in range(len(groups))]
    tables = placed(groups, sites)
    site_of = tables[0].set_index("recording_id")["site"]
    found = split(
        tables, seed=seed, dataset={"strategy": strategy}, folds=n_sites, by="site", val_fraction=val_fraction
    )
    assert list(found.columns) == list(SCHEMAS["splits"])
    names = sorted(set(sites))
    calls = set(tables[1]["recording_id"])
    for fold, own in found.groupby("fold"):
        assert sorted(own["recording_id"]) == sorted(tables[0]["recording_id"])
        assert set(own["part"]) == {names[fold - 1]}, "parts are numbered in sorted order of their values"
        assert (own.groupby("group")["split"].nunique() == 1).all()
        tested = own["recording_id"].map(site_of) == names[fold - 1]
        assert ((own["split"] == "test") == tested).all()
        for side in ("train", "val"):
            assert calls & set(own.loc[own["split"] == side, "recording_id"])
    assert sorted(found["fold"].unique()) == list(range(1, n_sites + 1))


def test_validation_takes_its_share_of_the_other_sites_evenly():
    generator = np.random.default_rng(3)
    groups = [[int(n)] for n in generator.lognormal(2, 0.7, 60).round()]
    tables = placed(groups, [f"s{g % 3}" for g in range(60)])
    calls_of = tables[1].groupby("recording_id").size()
    found = split(tables, folds=3, by="site", val_fraction=0.3)
    for _, own in found.groupby("fold"):
        others = own[own["split"] != "test"]
        n_calls = others["recording_id"].map(calls_of).fillna(0)
        held = others["split"] == "val"
        assert abs(held.mean() - 0.3) < 0.06
        assert abs(n_calls[held].sum() / n_calls.sum() - 0.3) < 0.06


@pytest.mark.parametrize("strategy", ["grouped", "proportional_by_tape"])
def test_train_and_val_have_a_call_each_if_only_two_groups_do(strategy):
    """Ninety-six of the other groups have none, and validation is to have few of them."""
    groups = [[2]] + [[0]] * 96 + [[5], [1], [1]]
    sites = ["a"] * 98 + ["b"] * 2
    for seed in range(8):
        found = split(placed(groups, sites), seed=seed, dataset={"strategy": strategy}, folds=2, by="site",
                      val_fraction=0.02)  # fmt: skip
        for fold, callers in ((2, ("g00_r0", "g97_r0")), (1, ("g98_r0", "g99_r0"))):
            own = found[(found["fold"] == fold) & found["recording_id"].isin(callers)]
            assert sorted(own["split"]) == ["train", "val"]


def test_a_site_without_a_call_may_be_tested():
    found = split(placed([[3], [2], [0], [1], [1]], ["a", "a", "quiet", "b", "b"]), folds=3, by="site")
    assert recordings_tested(found)[3] == {"g02_r0"} and set(found.loc[found["fold"] == 3, "part"]) == {"quiet"}


def test_training_without_a_call_is_refused():
    tables = placed([[3], [2], [0], [0]], ["a", "a", "b", "b"])
    with pytest.raises(DataError) as error:
        split(tables, folds=2, by="site")
    assert str(error.value) == (
        "prepare: fold 1, which tests a, has no target call in its train recordings; label more recordings, choose "
        "another split.by or a finer corpus.group."
    )
    one_caller = placed([[3], [2], [1], [0]], ["a", "a", "b", "b"])
    with pytest.raises(DataError, match=r"fold 1, which tests a, has no target call in its (train|val) recordings"):
        split(one_caller, folds=2, by="site")


def test_one_group_cannot_both_train_and_validate():
    for strategy in ("grouped", "proportional_by_tape"):
        with pytest.raises(DataError, match="the fold that tests a has one group left, but needs others to train and"):
            split(placed([[3, 1], [2], [2]], ["a", "a", "b"]), folds=2, by="site", dataset={"strategy": strategy})


def test_recordings_without_a_value_are_counted_and_one_is_named():
    tables = placed([[1], [1, 1], [1], [1]], ["a", [None, "b"], "b", ""])
    with pytest.raises(DataError) as error:
        split(tables, folds=2, by="site")
    assert str(error.value) == (
        "prepare: 2 of 5 labelled recordings have no site, the first is g01_r0.wav; name it in corpus.names with "
        "(?P<site>...), or in the column site of the recordings sheet, or drop split.by."
    )
    for by, words in (("recorder", "no recorder"), ("date", "no start time"), ("daypart", "no start time")):
        with pytest.raises(DataError, match=rf"5 of 5 labelled recordings have {words}, the first is g00_r0\.wav"):
            split(tables, folds=2, by=by)


def test_recordings_that_are_not_split_need_no_value():
    recordings, annotations = placed([[1], [1], [1], [1], [1]], ["a", "a", "b", "b", None])
    recordings.loc[4, "labelled"] = False
    found = split((recordings, annotations), folds=2, by="site")
    assert set(found["part"]) == {"a", "b"} and "g04_r0" not in set(found["recording_id"])


def test_a_group_of_two_values_is_named_with_both():
    recordings, annotations = placed([[1, 1, 1], [1], [1], [1]], "aaaa")
    recordings["start_time"] = [f"2021-01-17T{hour}:30:00" for hour in ("18", "05", "17", "12", "12", "23")]
    with pytest.raises(DataError) as error:
        split((recordings, annotations), folds=2, by="daypart")
    assert str(error.value) == (
        "prepare: group 'g00' has recordings of two dayparts, day (g00_r2.wav) and night (g00_r0.wav), so it would "
        "stand on two sides of a fold; change corpus.group so that every group has one daypart, or choose another "
        "split.by."
    )


def test_day_is_from_6_to_18_h_by_the_clock_of_the_recorder():
    hours = ["05:59", "06:00", "17:59", "18:00", "00:00", "12:00"]
    zones = ["", "Z", "+10:00", "", "", ""]
    recordings, annotations = corpus([[1]] * 6)
    starts = [f"2021-01-{17 + i // 3}T{hour}:00{zone}" for i, (hour, zone) in enumerate(zip(hours, zones, strict=True))]
    recordings["start_time"] = starts
    found = split((recordings, annotations), folds=2, by="daypart")
    assert recordings_tested(found) == {1: {"g01_r0", "g02_r0", "g05_r0"}, 2: {"g00_r0", "g03_r0", "g04_r0"}}
    assert found.groupby("fold")["part"].first().tolist() == ["day", "night"]
    dated = split((recordings, annotations), folds=2, by="date")
    assert dated.groupby("fold")["part"].first().tolist() == ["2021-01-17", "2021-01-18"]
    assert recordings_tested(dated)[1] == {"g00_r0", "g01_r0", "g02_r0"}


def test_folds_must_be_as_many_as_the_values():
    tables = placed([[1]] * 6, ["c", "a", "b", "a", "b", "c"])
    with pytest.raises(DataError) as error:
        split(tables, folds=5, by="site")
    assert str(error.value) == (
        "config: split.folds is 5, but the labelled recordings have 3 sites (a, b, c); set split.folds to 3, or "
        "choose another split.by."
    )
    many = placed([[1]] * 30, [f"s{g:02d}" for g in range(30)])
    with pytest.raises(DataError, match=r"30 sites \(s00, .*, s19, and 10 more\); set split.folds to 30"):
        split(many, folds=2, by="site")
    with pytest.raises(DataError, match=r"all labelled recordings have the site a, so split\.by: site leaves none"):
        split(placed([[1]] * 4, "aaaa"), folds=2, by="site")


def test_the_same_seed_gives_the_same_parts_in_whatever_order_the_tables_are():
    tables = placed([[3], [2], [5], [1], [2], [4], [2], [1]], "abababab")
    first = split(tables, folds=2, by="site")
    shuffled = tuple(t.sample(frac=1, random_state=3) for t in tables)
    assert first.equals(split(shuffled, folds=2, by="site"))
    assert any(not first.equals(split(tables, folds=2, by="site", seed=seed)) for seed in range(2, 12))


def test_shares_of_the_groups_have_no_part():
    assert split(corpus([[1]] * 4), folds=3)["part"].isna().all()


def test_a_given_split_and_a_value_to_split_by_exclude_each_other():
    with pytest.raises(DataError, match=r"gives a split, so split\.folds and split\.by must go"):
        split(corpus([[1], [1], [1]], given_splits=["train", "val", "test"]), folds=3, by="site")


def test_single_clips_cannot_be_split_by_site():
    values = {"corpus": {"root": "r", "targets": ["hum"]}, "split": {"folds": 4, "by": "site"}}
    datasets = {"plain": {}, "old_way": {"strategy": "clipwise_balanced"}}
    with pytest.raises(
        DataError, match=r"datasets\.old_way\.strategy: clipwise_balanced deals single clips, so no fold"
    ):
        parse_config(values | {"datasets": datasets})
    datasets["old_way"] = {"strategy": "proportional_by_tape"}
    assert parse_config(values | {"datasets": datasets}).split.by == "site"


def test_groups_to_test_on_by_name():
    tables = corpus([[4, 1], [3], [5], [2], [6]])
    found = split(tables, test_groups=["g03", "g04"], val_fraction=0.34)
    sides = found.set_index("recording_id")["split"]
    assert found["fold"].eq(1).all() and found["part"].isna().all()
    assert set(sides[sides == "test"].index) == {"g03_r0", "g04_r0"}
    assert sides["g00_r0"] == sides["g00_r1"]
    assert sorted(found[found["split"] != "test"].groupby("group")["split"].first()) == ["train", "train", "val"]
    alike = corpus([[3], [3], [3], [2], [6]])
    drawn = [split(alike, test_groups=["g03", "g04"], val_fraction=0.34, seed=seed) for seed in range(20)]
    assert len({found.query("split == 'val'")["group"].item() for found in drawn}) == 3


def test_groups_to_test_on_that_cannot_be():
    tables = corpus([[1], [1], [1]])
    with pytest.raises(DataError, match=r"test_groups names g7, but the groups of the .* are g00, g01, g02; correct"):
        split(tables, test_groups=["g7", "g01"])
    with pytest.raises(DataError, match="leaves fewer than two groups"):
        split(tables, test_groups=["g00", "g01"])
    with pytest.raises(DataError, match=r"gives a split, so split\.test_groups must go"):
        split(corpus([[1], [1], [1]], given_splits=["train", "val", "test"]), test_groups=["g01"])
    values = {"corpus": {"root": "r", "targets": ["hum"]}, "split": {"test_groups": ["g01"]}}
    with pytest.raises(DataError, match="folds and test_groups exclude each other"):
        parse_config(values | {"split": {"test_groups": ["g01"], "folds": 4}})
    for dataset, what in (
        ({"strategy": "random"}, "strategy: random"),
        ({"fractions": [0.5, 0.25, 0.25]}, "fractions"),
    ):
        with pytest.raises(DataError, match=rf"datasets\.other\.{what} and split\.test_groups exclude each other"):
            parse_config(values | {"datasets": {"other": dataset}})


def test_parts_in_words():
    found = split(placed([[1]] * 6, ["c", "a", "b", "a", "b", "c"]), folds=3, by="site")
    assert parts_in_words(found) == "fold 1 tests a, fold 2 tests b, fold 3 tests c"
    assert parts_in_words(split(corpus([[1]] * 4), folds=3)) == ""
