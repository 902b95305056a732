"""Differences between layers and between models, with intervals and p-values."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_corpus import SETTINGS, by_chance, layer

from otus.measures.differences import count_differences, layer_differences
from otus.metrics import average_precision, curve
from otus.tables import table

MEASURES = ["f1", "precision", "recall", "false_alarms_per_hour"]
RANKED = ["average_precision", "false_alarms_per_hour_at_equal_recall"]


def rows_of(one, other, seed=1, **changed):
    return layer_differences(one, other, SETTINGS.model_copy(update=changed), seed).set_index(["label", "measure"])


def filtered(one, seed=0, share=0.5):
    """A layer behind a forest: other ranks between 0 and 1, some selections no longer selected."""
    random = np.random.default_rng(seed)
    hit = one.selections["hit"].to_numpy()
    rank = np.clip(random.normal(np.where(hit, 0.7, 0.4), 0.15), 0, 1)
    return replace(
        one, layer="cnn+rf", selections=one.selections.assign(rank=rank, rank_of_all=rank, selected=rank >= share)
    )


def counts(rows, *, model="a", layer_name="cnn", label="hum", fold=1, duration_s=60.0, group=None):
    """Counts per recording from (n_gt, n_pred, tp), each recording a group of its own."""
    frame = pd.DataFrame(rows, columns=["n_gt", "n_pred", "tp"])
    frame["recording_id"] = [f"r{i:03d}" for i in range(len(frame))]
    frame["group"] = group or [f"g{i:03d}" for i in range(len(frame))]
    keys = {"model": model, "layer": layer_name, "fold": fold, "split": "test", "label": label, "iou": 0.4}
    frame = frame.assign(**keys, operating_point="selected", threshold=0.5, selected=True, leaky=False)
    return table("counts", frame.assign(duration_s=duration_s))


def across(*parts, labels=("hum",), bootstrap=200, seed=1):
    return count_differences(pd.concat(parts, ignore_index=True), labels=labels, bootstrap=bootstrap, seed=seed)


def test_values_are_those_of_each_layer():
    one = by_chance(1, n_groups=10)
    behind = filtered(one)
    found = rows_of(behind, one)
    assert found.index.tolist() == [(label, m) for label in ("hum", "trill", "micro") for m in MEASURES + RANKED]
    for label, labels in (("hum", ["hum"]), ("trill", ["trill"]), ("micro", list(one.labels))):
        for column, result in (("value", behind), ("other_value", one)):
            own = result.selections[result.selections["label"].isin(labels)]
            chosen, n_gt = own[own["selected"]], int(result.calls["label"].isin(labels).sum())
            tp, n_pred = int(chosen["hit"].sum()), len(chosen)
            expected = [2 * tp / (n_pred + n_gt), tp / n_pred, tp / n_gt, (n_pred - tp) / result.hours]
            expected.append(average_precision(curve(own["rank"].to_numpy(), own["hit"].to_numpy()), n_gt))
            assert found.loc[label].loc[MEASURES + RANKED[:1], column].tolist() == pytest.approx(expected)
    np.testing.assert_allclose(found["difference"], found["value"] - found["other_value"])
    assert (found["difference_low"] <= found["difference"]).all()
    assert (found["difference"] <= found["difference_high"]).all()
    assert found["p_value"].between(0, 1).all()
    assert found[["layer", "other_layer"]].drop_duplicates().to_numpy().tolist() == [["cnn+rf", "cnn"]]
    assert found["n_groups"].eq(10).all()
    ranked = found.index.get_level_values("measure") == "average_precision"
    assert found.loc[~ranked, "note"].isna().all()
    assert found.loc[ranked, "note"].str.startswith("not like with like").all()
    assert rows_of(replace(one, layer="external"), one)["note"].isna().all(), "two that rank everything"


def alarms_at(result, n_hits):
    """False alarms when just so many calls are found."""
    own = result.selections.sort_values("rank", ascending=False)
    return int(np.argmax(own["hit"].cumsum().to_numpy() >= n_hits)) + 1 - n_hits


def test_false_alarms_at_equal_recall():
    one = by_chance(2, labels=("hum",))
    behind = filtered(one, share=0.6)
    row = rows_of(behind, one).loc[("hum", RANKED[1])]
    n_hits = int((behind.selections["selected"] & behind.selections["hit"]).sum())
    assert 0 < n_hits < one.selections["hit"].sum()
    assert row["value"] == pytest.approx(alarms_at(behind, n_hits) / one.hours)
    assert row["other_value"] == pytest.approx(alarms_at(one, n_hits) / one.hours)


def test_equal_recall_is_the_most_that_both_reach():
    calls = [("r00", 1, 2, "hum"), ("r00", 5, 6, "hum"), ("r01", 1, 2, "hum")]
    lost = [("r00", 1, 2, "hum", 3.0), ("r01", 30, 31, "hum", 2.0)]
    every = [(*call, 1.0) for call in calls] + [("r01", 40, 41, "hum", 5.0), ("r01", 50, 51, "hum", 0.5)]
    good, poor = layer(calls, every, ["a", "b"]), layer(calls, lost, ["a", "b"], layer="other")
    row = rows_of(good, poor).loc[("hum", RANKED[1])]
    assert (row["value"], row["other_value"]) == pytest.approx((30.0, 0.0)), "one call: one false alarm ranks higher"
    silent = rows_of(good, layer(calls, [], ["a", "b"], layer="none")).loc[("hum", RANKED[1])]
    assert math.isnan(silent["value"]), "nothing that both reach"


def test_a_layer_does_not_differ_from_itself():
    one = by_chance(3, n_groups=10)
    found = rows_of(one, replace(one, layer="twin"))
    assert (found[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert (found["p_value"] == 1).all()


def test_the_other_way_round_the_sign_changes():
    one = by_chance(4, n_groups=14)
    forth, back = rows_of(filtered(one), one), rows_of(one, filtered(one))
    for measure in (*MEASURES, "average_precision"):
        for label in ("hum", "trill", "micro"):
            a, b = forth.loc[(label, measure)], back.loc[(label, measure)]
            assert a["difference"] == pytest.approx(-b["difference"])
            assert (a["difference_low"], a["difference_high"]) == pytest.approx(
                (-b["difference_high"], -b["difference_low"])
            )
            assert a["p_value"] == pytest.approx(b["p_value"])


def exact_p(first, other, value):
    """The share of all swaps whose difference is as large, one by one."""
    differences = []
    for ways in itertools.product([False, True], repeat=len(first)):
        one = [b if way else a for a, b, way in zip(first, other, ways, strict=True)]
        two = [a if way else b for a, b, way in zip(first, other, ways, strict=True)]
        differences.append(abs(value(np.sum(one, axis=0)) - value(np.sum(two, axis=0))))
    true = abs(value(np.sum(first, axis=0)) - value(np.sum(other, axis=0)))
    return np.mean(np.array(differences) >= true - 1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 7))
def test_p_values_are_those_of_every_swap(seed, n_groups):
    random = np.random.default_rng(seed)
    n_gt = random.poisson(8, n_groups) + 1
    results = []
    for share in (0.7, 0.5):
        tp = random.binomial(n_gt, share)
        results.append(np.stack([n_gt, tp + random.poisson(2, n_groups), tp], axis=1))
    found = across(counts(results[0], model="a"), counts(results[1], model="b")).set_index("measure")
    swapped = found["model"].iloc[0] == "b"
    first, other = (results[1], results[0]) if swapped else results
    assert found.loc["recall", "p_value"] == pytest.approx(exact_p(first, other, lambda s: s[2] / s[0]))
    f1 = exact_p(first, other, lambda s: 2 * s[2] / (s[0] + s[1]))
    assert found.loc["f1", "p_value"] == pytest.approx(f1)


def two_alike(seed, n_groups):
    """Two models that are equally good, on the same calls."""
    random = np.random.default_rng(seed)
    n_gt = random.poisson(random.gamma(2.0, 6.0, n_groups))
    share = random.beta(6, 3, n_groups)
    parts = []
    for model in ("a", "b"):
        tp = random.binomial(n_gt, share)
        parts.append(counts(np.stack([n_gt, tp + random.poisson(3, n_groups), tp], axis=1), model=model))
    return across(*parts, bootstrap=150, seed=seed).set_index("measure")


def test_two_that_are_equally_good_rarely_seem_to_differ():
    found = pd.concat([two_alike(seed, 15) for seed in range(1000, 1060)]).loc[MEASURES].reset_index()
    held = (found["difference_low"] <= 0) & (found["difference_high"] >= 0)
    by_measure = found.assign(small=found["p_value"] < 0.1, held=held).groupby("measure")[["small", "held"]].mean()
    assert (by_measure["small"] < 0.2).all(), by_measure  # 0.1 is expected, or less where counts are tied
    assert by_measure["small"].mean() > 0.02, by_measure
    assert (by_measure["held"] > 0.88).all(), by_measure
    assert by_measure["held"].mean() > 0.92, by_measure


def test_a_clear_difference_is_told():
    n_gt = np.full(20, 20)
    good, poor = (np.stack([n_gt, n_gt, np.full(20, k)], axis=1) for k in (18, 9))
    poor[0, 2] = 12
    found = across(counts(good, model="good"), counts(poor, model="poor")).set_index("measure")
    assert found["model"].eq("good").all()
    assert found.loc["f1", "difference_low"] > 0
    assert found.loc["f1", "p_value"] == pytest.approx(1 / 201), "as small as 200 random swaps can tell"


def test_more_than_eight_results_are_compared_with_the_best():
    def some(n):
        return [counts([(10, 10, 9 - i)] * 4, model=f"m{i}") for i in range(n)]

    few = across(*some(8))
    assert len(few) == 28 * 4
    many = across(*some(9))
    assert len(many) == 8 * 4
    assert many["model"].eq("m0").all()
    assert many["other_model"].nunique() == 8
    best = counts([(10, 10, 10)] * 4, model="leaky").assign(leaky=True)
    beside = across(*some(9), best)
    assert len(beside) == 9 * 4
    assert (beside["model"].eq("m0") | beside["other_model"].eq("m0")).all(), "a leaky result is no yardstick"
    assert beside.loc[beside["other_model"] == "m0", "model"].eq("leaky").all()
    all_leaky = across(*(part.assign(leaky=True) for part in some(9)))
    assert all_leaky["model"].eq("m0").all()


def test_layers_of_one_model_are_not_compared_here():
    parts = [counts([(5, 5, 4)] * 4), counts([(5, 5, 3)] * 4, layer_name="cnn+rf"), counts([(5, 5, 2)] * 4, model="b")]
    found = across(*parts)
    assert len(found) == 2 * 4
    assert found["model"].eq("a").all()
    assert found["other_model"].eq("b").all()
    assert across(parts[0]).empty
    assert count_differences(table("counts", []), labels=["hum"], bootstrap=10, seed=1).empty


def test_only_what_both_tested_is_compared():
    one = counts([(5, 5, 4), (5, 5, 5), (5, 5, 0)], model="a")
    other = counts([(5, 5, 3), (5, 5, 2), (5, 5, 5)], model="b")
    other.loc[2, "duration_s"] = 30.0  # a part of the recording only
    found = across(one, other).set_index("measure")
    assert found["n_recordings"].eq(2).all()
    values = found.loc["recall", ["value", "other_value"]].tolist()
    assert sorted(values) == pytest.approx([0.5, 0.9])
    apart = across(one.iloc[:1], other.iloc[1:2])
    assert apart["n_recordings"].eq(0).all()
    assert apart[["value", "difference", "p_value"]].isna().all(axis=None)


def test_folds_and_labels_are_added_up_but_not_their_time():
    halves = [counts([(4, 4, 3)] * 6, fold=fold, label=label) for fold in (1, 2) for label in ("hum", "trill")]
    both = pd.concat(halves, ignore_index=True)
    found = across(both, both.assign(model="b", tp=2), labels=("hum", "trill")).set_index(["label", "measure"])
    row = found.loc[("micro", "false_alarms_per_hour")]
    assert row["value"] == pytest.approx(6 * 4 / (6 * 2 / 60)), "each fold tested its own minute"
    assert found.loc[("hum", "f1"), "value"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("n", "note"),
    [
        (1, "only 1 group: no interval can be given"),
        (4, "only 4 groups: the p-value cannot be below 0.12"),
        (10, None),
    ],
)
def test_few_groups_are_noted(n, note):
    found = across(counts([(9, 9, 8)] * n), counts([(9, 9, 5)] * n, model="b"))
    if note is None:
        assert found["note"].isna().all()
    else:
        assert found["note"].eq(note).all()
    if n == 1:
        assert found[["difference_low", "p_value"]].isna().all(axis=None)
        assert found.loc[found["measure"] == "f1", "difference"].item() == pytest.approx(1 / 3)


def test_leaky_results_are_noted():
    leaky = counts([(9, 9, 8)] * 12).assign(leaky=True)
    found = across(leaky, counts([(9, 9, 5)] * 12, model="b"))
    assert found["leaky"].all()
    assert found["note"].str.startswith("leaky").all()


@pytest.mark.parametrize("groups", [["a"], ["a", "b"], ["a", "b", "c"]])
@pytest.mark.parametrize("case", ["nothing", "no call", "no selection"])
def test_where_there_is_nothing_rows_are_defined(case, groups):
    calls = [] if case in ("nothing", "no call") else [("r00", 1, 2, "hum")]
    found = [("r00", 1, 2, "hum", 1.0)] if case == "no call" else []
    one = layer(calls, found, groups)
    rows = rows_of(one, layer(calls, [], groups, layer="other")).loc["hum"]
    assert rows.index.tolist() == MEASURES + RANKED
    assert math.isnan(rows.loc["recall", "difference"]) == (not calls)
    assert rows.loc["false_alarms_per_hour", "difference"] == pytest.approx(60 * len(found) / len(groups))


def test_differences_do_not_depend_on_the_order_of_rows():
    random = np.random.default_rng(5)
    parts = [
        counts(np.stack([[9] * 15, random.poisson(7, 15) + 5, random.binomial(5, 0.8, 15)], axis=1), model=model)
        for model in ("a", "b", "c")
    ]
    shuffled = pd.concat(parts).sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(across(*parts), across(shuffled))
    assert (across(*parts, seed=2)["difference_low"] != across(*parts)["difference_low"]).any()
