"""Fitting, judging by group, the search among candidates, thinning, and the choice of the filter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.ensemble import HistGradientBoostingClassifier

from otus.config import ChoiceSettings, ForestSettings
from otus.config.forest import Candidate
from otus.criterion import chance, merit
from otus.forest import choose_filter, choose_threshold, fit_estimator, fit_fold, hit_probability
from otus.forest.choosing import Fitting
from otus.forest.estimators import thinned
from otus.forest.fitting import simplest_good

SMALL = ForestSettings(trees=20, min_samples_leaf=2)
KINDS = {
    "forest": SMALL,
    "boosting": ForestSettings(kind="boosting", trees=20, min_samples_leaf=2),
    "logistic": ForestSettings(kind="logistic", penalty=1.0),
}
F1 = ChoiceSettings()


def rows(n=120, n_groups=6, seed=0):
    """Rows of which column 0 tells hits apart and column 1 the group."""
    random = np.random.default_rng(seed)
    hits = np.arange(n) % 2 == 0
    groups = np.array([f"g{index}" for index in (np.arange(n) // 2) % n_groups])
    features = random.normal(size=(n, 4))
    features[:, 0] += 3 * hits
    features[:, 1] = (np.arange(n) // 2) % n_groups
    return features, hits, groups


def f1(probability, hits, n_gt, threshold):
    keep = probability >= threshold
    return 2 * np.sum(hits & keep) / (np.sum(keep) + n_gt)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_separable_rows_are_told_apart(settings):
    features, hits, groups = rows()
    judged, judged_hits, _ = rows(seed=1)
    result = fit_fold(features, hits, groups, judged, settings=settings, seed=3)
    assert result.reason == ""
    assert np.mean((result.inner_probability > 0.5) == hits) > 0.85
    assert np.mean((result.probability > 0.5) == judged_hits) > 0.85
    assert ((result.probability >= 0) & (result.probability <= 1)).all()


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_what_is_not_known_does_not_matter_much(settings):
    features, hits, groups = rows()
    random = np.random.default_rng(4)
    features[random.random(features.shape) < 0.1] = np.nan
    features = np.column_stack([features, np.full(len(features), np.nan), np.full(len(features), 7.0)])
    judged = np.vstack([features[:40], np.full((2, 6), np.nan)])
    result = fit_fold(features, hits, groups, judged, settings=settings, seed=3)
    assert np.isfinite(result.probability).all() and np.isfinite(result.inner_probability).all()
    assert np.mean((result.inner_probability > 0.5) == hits) > 0.8


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_same_seed_same_probabilities(settings):
    features, hits, groups = rows()
    first, second = (fit_fold(features, hits, groups, features[:9], settings=settings, seed=2**62 + 1) for _ in "ab")
    np.testing.assert_array_equal(first.inner_probability, second.inner_probability)
    np.testing.assert_array_equal(first.probability, second.probability)


def test_other_seed_other_forest():
    features, hits, groups = rows()
    first, other = (fit_fold(features, hits, groups, features[:9], settings=SMALL, seed=seed) for seed in (1, 2))
    assert (first.inner_probability != other.inner_probability).any()


def test_inner_probability_never_saw_its_group():
    # A group's rows share one value and one class, so a forest that saw the group knows the answer, and one that
    # did not knows nothing.
    groups = np.repeat(np.arange(30), 8)
    hits = np.repeat(np.random.default_rng(5).permutation(30) % 2 == 0, 8)
    features = np.repeat(np.random.default_rng(6).normal(size=(30, 1)), 8, axis=0)
    result = fit_fold(features, hits, groups, features, settings=SMALL, seed=1)
    assert np.mean((result.probability > 0.5) == hits) == 1
    assert np.mean((result.inner_probability > 0.5) == hits) < 0.75
    assert all(len(set(result.inner_fold[groups == group])) == 1 for group in range(30))


@pytest.mark.parametrize(
    ("hits", "groups", "words"),
    [
        ([True, False] * 10, ["a"] * 20, "10 hits and 10 false alarms in 1 group."),
        ([True] * 4 + [False] * 16, list("ab") * 10, "4 hits and 16 false alarms in 2 groups"),
        ([True] * 16 + [False] * 4, list("ab") * 10, "16 hits and 4 false alarms in 2 groups"),
        ([True] * 10 + [False] * 10, ["a"] * 10 + ["b"] * 10, "leaves only hits or only false alarms to fit on"),
        (
            [True] * 19 + [False],
            list("ab") * 10,
            "5 false alarms are needed: there are 19 hits and 1 false alarm in 2 groups",
        ),
        ([], [], "0 hits and 0 false alarms in 0 groups"),
    ],
)
def test_refuses_with_a_reason(hits, groups, words):
    features = np.random.default_rng(0).normal(size=(len(hits), 3))
    result = fit_fold(features, hits, groups, np.zeros((2, 3)), settings=SMALL, seed=1)
    assert result.forest is None and result.candidate is None
    assert words in result.reason
    for values, n in ((result.inner_probability, len(hits)), (result.probability, 2)):
        assert values.shape == (n,) and np.isnan(values).all()
    assert (result.inner_fold == -1).all()


def test_two_groups_with_both_kinds_suffice():
    features, hits, _ = rows(24)
    groups = ["a"] * 12 + ["b"] * 12
    result = fit_fold(features, hits, groups, features, settings=SMALL, seed=1)
    assert result.reason == "" and np.isfinite(result.inner_probability).all()


def test_hits_in_few_of_many_groups():
    features, hits, _ = rows(60)
    groups = np.array([f"g{index % 15}" for index in range(60)])
    hits = np.isin(groups, ["g3", "g9"]) & (np.arange(60) < 50)
    result = fit_fold(features, hits, groups, features, settings=SMALL, seed=1)
    assert result.reason == "" and np.isfinite(result.inner_probability).all()


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_no_rows_to_judge(settings):
    features, hits, groups = rows()
    result = fit_fold(features, hits, groups, np.empty((0, 4)), settings=settings, seed=1)
    assert result.probability.shape == (0,)
    assert hit_probability(result.forest, np.empty((0, 4))).shape == (0,)


def test_lengths_must_agree():
    features, hits, groups = rows()
    with pytest.raises(ValueError, match="groups"):
        fit_fold(features, hits, groups[1:], features, settings=SMALL, seed=1)


def test_boosting_of_our_own_says_what_scikit_learn_says():
    features, hits, _ = rows()
    features[::7, 0] = np.nan
    candidate = Candidate(30, 2, None, None, "balanced")
    kept = fit_estimator("boosting", candidate, features, hits, 5)
    foreign = HistGradientBoostingClassifier(
        max_iter=30,
        min_samples_leaf=2,
        class_weight="balanced",
        learning_rate=0.05,
        max_leaf_nodes=8,
        early_stopping=False,
        random_state=5,
    ).fit(features, hits.astype(int))
    others = np.random.default_rng(9).normal(size=(500, 4)) * 3
    others[np.random.default_rng(8).random(others.shape) < 0.2] = np.nan
    np.testing.assert_allclose(hit_probability(kept, others), foreign.predict_proba(others)[:, 1], rtol=1e-12)


# The search


def test_candidates_are_every_combination_simplest_first():
    settings = ForestSettings(
        trees=[300, 100], min_samples_leaf=[2, 8], negatives_per_hit=[None, 3], class_weight=["none", "balanced"]
    )
    found = settings.candidates()
    assert len(found) == 16 == len(set(found))
    assert found[0] == Candidate(100, 8, None, 3.0, "none") and found[-1] == Candidate(300, 2, None, None, "balanced")
    assert settings.grown_trees == 5 * 8 * 400 + 300
    logistic = ForestSettings(kind="logistic", penalty=[1, 10])
    assert [c.penalty for c in logistic.candidates()] == [10.0, 1.0] and logistic.grown_trees == 0


def test_a_single_value_is_a_list_of_one():
    settings = ForestSettings(trees=50, min_samples_leaf=2, negatives_per_hit=None, class_weight="none")
    assert settings.candidates() == [Candidate(50, 2, None, None, "none")]
    assert ForestSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "logistic", "trees": 100}, "trees is set, but kind: logistic"),
        ({"time_of_day": True, "features": "alpaca"}, "time_of_day is no feature of alpaca"),
        ({"kind": "logistic", "min_samples_leaf": [1, 2]}, "min_samples_leaf is set, but kind: logistic"),
        ({"kind": "boosting", "penalty": 1}, "penalty is set, but kind: boosting"),
        ({"penalty": 1}, "penalty is set, but kind: forest"),
        ({"trees": []}, "at least 1 item"),
        ({"trees": 3}, "greater than or equal to 10"),
        ({"negatives_per_hit": 0}, "greater than 0"),
    ],
)
def test_what_does_nothing_is_refused(given, words):
    with pytest.raises(ValidationError, match=words):
        ForestSettings(**given)


def test_one_standard_error_rule():
    better = [0.9, 0.7, 0.8, 0.6]
    assert simplest_good(np.array([[0.8, 0.6, 0.7, 0.5], better])) == 1, "always worse by as much"
    assert simplest_good(np.array([[0.9, 0.9, 0.5, 0.6], better])) == 0, "worse in one fold only"
    assert simplest_good(np.array([better, [0.9, 0.7, 0.8, 0.6]])) == 0
    assert simplest_good(np.array([[np.nan, 0.5], [0.1, 0.6]])) == 1, "one fold tells"
    assert simplest_good(np.array([[np.nan, np.nan], [0.1, np.nan]])) == 0
    assert simplest_good(np.zeros((3, 0))) == 0


def test_the_search_finds_what_tells_and_no_row_chooses_for_itself():
    # Leaves of 60 cannot tell anything here; leaves of 2 can.
    features, hits, groups = rows(n=100, n_groups=10)
    settings = ForestSettings(trees=10, min_samples_leaf=[2, 60])
    result = fit_fold(features, hits, groups, features, settings=settings, seed=1)
    assert result.candidate.min_samples_leaf == 2
    own = result.inner_fold == 0
    swapped = np.where(own, ~hits, hits)  # what this fold would choose changes; its probabilities' candidate does not
    other = fit_fold(features, swapped, groups, features, settings=settings, seed=1)
    np.testing.assert_array_equal(result.inner_fold, other.inner_fold)
    np.testing.assert_array_equal(result.inner_probability[own], other.inner_probability[own])


def test_false_alarms_are_thinned_where_they_are_most():
    group = np.repeat([0, 1, 2, 3], [100, 30, 6, 4])
    hit = np.zeros(140, dtype=bool)
    hit[::14] = True
    kept = thinned(hit, group, 3.0, 1)
    assert (np.diff(kept) > 0).all() and hit[kept].sum() == hit.sum() == 10
    left = np.bincount(group[kept][~hit[kept]], minlength=4)
    alarms = np.bincount(group[~hit], minlength=4)
    assert left.sum() == 30 and (left <= alarms).all()
    assert (left[2:] == alarms[2:]).all() and abs(left[0] - left[1]) <= 1
    np.testing.assert_array_equal(kept, thinned(hit, group, 3.0, 1))
    assert (kept != thinned(hit, group, 3.0, 2)).any()
    assert len(thinned(hit, group, None, 1)) == len(thinned(hit, group, 99.0, 1)) == 140
    assert (~hit[thinned(hit, group, 0.01, 1)]).sum() == 5


def test_thinned_rows_are_those_of_the_forest():
    features, hits, groups = rows(n=400, n_groups=10)
    hits &= np.arange(400) % 10 == 0
    features[:, 0] = np.where(hits, 3.0, 0.0) + np.random.default_rng(0).normal(size=400)
    settings = ForestSettings(trees=10, negatives_per_hit=2, min_samples_leaf=2)
    result = fit_fold(features, hits, groups, features, settings=settings, seed=1)
    assert len(result.fitted_rows) == 3 * hits.sum() and set(np.flatnonzero(hits)) <= set(result.fitted_rows)
    assert np.isfinite(result.inner_probability).all(), "also those that were not fitted on are judged"


# The threshold


def test_threshold_lies_between_separated_kinds():
    probability = np.array([0.1, 0.2, 0.2, 0.8, 0.9] * 40)
    assert choose_threshold(probability, probability > 0.5, 80, 1.0, F1) == pytest.approx(0.5)


def test_threshold_is_low_if_all_are_hits():
    probability = np.linspace(0.3, 0.9, 1000)
    threshold = choose_threshold(probability, np.ones(1000, dtype=bool), 1000, 1.0, F1)
    assert f1(probability, np.ones(1000, dtype=bool), 1000, threshold) > 0.99


def test_recall_counts_annotations_that_were_never_hit():
    # 100 hits are surer than all else; 100 more come only together with 260 false alarms.
    probability = np.array([0.9] * 100 + [0.5] * 360)
    hits = np.array([True] * 200 + [False] * 260)
    assert choose_threshold(probability, hits, 200, 1.0, F1) == pytest.approx(0.7)  # F1 is .67 there and .61 with all
    assert choose_threshold(probability, hits, 2000, 1.0, F1) <= 0.5  # F1 is .10 there and .16 with all


def test_accidents_do_not_choose_the_threshold():
    # One false alarm more or less among ten events: the middle of what is as good, not the accident's place.
    probability = np.array([0.05, 0.1, 0.12, 0.7, 0.75, 0.8, 0.82, 0.9, 0.92, 0.95])
    hits = probability > 0.5
    hits[5] = False
    assert 0.3 < choose_threshold(probability, hits, 7, 1.0, F1) < 0.7


def test_threshold_without_hits_keeps_everything():
    assert choose_threshold([], [], 5, 1.0, F1) == 0
    assert choose_threshold([0.4, 0.6], [False, False], 5, 1.0, F1) == 0


def test_threshold_between_neighbouring_floats():
    low = 0.5
    high = np.nextafter(low, 1)
    threshold = choose_threshold([low] * 50 + [high] * 50, [False] * 50 + [True] * 50, 50, 1.0, F1)
    assert low < threshold <= high


def test_threshold_refuses_nonsense():
    with pytest.raises(ValueError, match="finite"):
        choose_threshold([np.nan, 0.2], [True, False], 3, 1.0, F1)
    with pytest.raises(ValueError, match="2 hits but only 1"):
        choose_threshold([0.1, 0.2], [True, True], 1, 1.0, F1)


def events(min_size=1):
    return st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=min_size, max_size=60)


@given(events(), st.integers(0, 30))
def test_never_worse_than_no_filter_and_near_the_best(found, missed):
    probability = np.array([step / 20 for step, _ in found])
    hits = np.array([hit for _, hit in found])
    n_gt = int(hits.sum()) + missed
    threshold = choose_threshold(probability, hits, n_gt, 1.0, F1)
    assert 0 <= threshold <= 1
    if hits.any():
        reached = f1(probability, hits, n_gt, threshold)
        assert reached >= f1(probability, hits, n_gt, 0) - 1e-12
        assert reached >= max(f1(probability, hits, n_gt, t) for t in [0, *probability]) - chance(n_gt) - 1e-12


@given(events(), st.integers(0, 30), st.floats(0.5, 40.0))
def test_a_budget_that_can_be_kept_is_kept(found, missed, budget):
    probability = np.array([step / 20 for step, _ in found])
    hits = np.array([hit for _, hit in found])
    n_gt, choice = int(hits.sum()) + missed, ChoiceSettings(by="recall", false_alarms_per_hour=budget)
    threshold = choose_threshold(probability, hits, n_gt, 2.0, choice)
    if hits.any():
        alarms = [int((~hits & (probability >= t)).sum()) for t in sorted({0.0, *probability})]
        mine = int((~hits & (probability >= threshold)).sum())
        assert mine / 2.0 <= budget + 1e-6 if min(alarms) / 2.0 <= budget else mine == min(alarms)


def test_costs_move_the_threshold():
    probability = np.array([0.9] * 20 + [0.6] * 40 + [0.2] * 100)
    hits = np.array([True] * 20 + [True, False] * 20 + [False] * 90 + [True] * 10)

    def at(miss, alarm):
        choice = ChoiceSettings(by="cost", miss_cost=miss, false_alarm_cost=alarm)
        return choose_threshold(probability, hits, 50, 1.0, choice)

    assert at(1, 20) > 0.6 > at(2, 1) > 0.2 >= at(100, 1)


# The filter


def fitting(probability, hit, step=None, group=None, n_calls=None, n_folds=4, lead=None):
    """Rows of groups (each its own, if not given) that are dealt to inner folds in turn.

    A group has as many calls as hits; one more group without candidates has what is missing to `n_calls`.
    """
    group = np.arange(len(hit)) if group is None else np.asarray(group)
    n_groups = int(group.max()) + 1
    calls = np.bincount(group, weights=hit, minlength=n_groups + 1).astype(np.int64)
    calls[-1] = 0 if n_calls is None else n_calls - calls.sum()
    return Fitting(
        np.asarray(probability, dtype=float),
        np.ones(len(hit)) if step is None else np.asarray(step, dtype=float),
        np.zeros(len(hit)) if lead is None else np.asarray(lead, dtype=float),
        np.asarray(hit, dtype=bool),
        group,
        calls,
        np.full(n_groups + 1, 2.5 / (n_groups + 1)),
        np.append(np.arange(n_groups) % n_folds, -1),
    )


def test_a_filter_that_tells_apart_is_used():
    random = np.random.default_rng(1)
    hit = random.random(200) < 0.4
    probability = np.clip(0.3 + 0.4 * hit + random.normal(0, 0.1, 200), 0, 1)
    chosen = choose_filter(fitting(probability, hit), F1)
    assert chosen.reason == "" and chosen.step == 1.0 and 0.4 < chosen.threshold < 0.6
    assert chosen.alone == pytest.approx(2 * hit.sum() / (200 + hit.sum()))
    assert chosen.filtered > 0.95


def test_a_filter_of_luck_is_not_used():
    # The best of many thresholds on chance alone looks better than no filter; strangers' thresholds do not.
    random = np.random.default_rng(1)
    used, looks_better = 0, 0
    for _ in range(100):
        hit, probability = random.random(40) < 0.35, random.random(40)
        n_gt = int(hit.sum()) + 2
        chosen = choose_filter(fitting(probability, hit, n_folds=5, n_calls=n_gt), F1)
        looks_better += f1(probability, hit, n_gt, chosen.threshold) > chosen.alone + chance(n_gt)
        used += not chosen.reason
        if chosen.reason:
            assert (
                f"F1 {chosen.filtered:.2f} with it and F1 {chosen.alone:.2f} without, on {n_gt} calls" in chosen.reason
            )
    assert looks_better >= 10 and used <= looks_better / 3


def test_a_gain_that_differs_from_group_to_group_is_not_used():
    # In most groups the probability tells hits apart, in the others it is turned round.
    random = np.random.default_rng(3)
    group = np.repeat(np.arange(10), 16)
    hit = random.random(160) < 0.45
    good = np.where(hit, 0.8, 0.3) + random.uniform(-0.3, 0.3, 160)
    mixed = np.where(np.isin(group, [0, 1]), 1.1 - good, good)
    assert choose_filter(fitting(good, hit, group=group), F1).reason == ""
    chosen = choose_filter(fitting(mixed, hit, group=group), F1)
    assert chosen.reason and chosen.filtered > chosen.alone + 2 * chance(int(hit.sum()))


def test_all_calls_in_one_group_tell_too_little():
    group = np.repeat(np.arange(5), 20)
    hit = (group == 2) & (np.arange(100) % 2 == 0)
    assert choose_filter(fitting(np.where(hit, 0.9, 0.1), hit, group=group), F1).reason


def test_a_filter_may_look_below_the_threshold_of_the_layer_before():
    hit = np.array([True, False] * 100)
    step = np.where(np.arange(200) < 100, 1.0, 0.3)
    chosen = choose_filter(fitting(np.where(hit, 0.9, 0.1), hit, step), F1)
    assert chosen.reason == "" and chosen.step == 0.0 and chosen.filtered == 1.0 and chosen.alone == pytest.approx(0.5)


def test_a_filter_is_judged_by_the_criterion():
    # It drops four of five hits, and nearly all false alarms: bad F1, but the budget is kept.
    hit = np.array([True] * 100 + [False] * 100)
    probability = np.where(hit & (np.arange(200) % 5 == 0), 0.9, 0.4)
    assert choose_filter(fitting(probability, hit), F1).reason
    budget = ChoiceSettings(by="recall", false_alarms_per_hour=1.0)
    chosen = choose_filter(fitting(probability, hit), budget)
    assert chosen.reason == "" and chosen.filtered == pytest.approx(0.2) and chosen.alone < 0
    assert float(merit(budget, 100, 200, 100, 2.5)) == pytest.approx(chosen.alone)
    useless = choose_filter(fitting(np.full(200, 0.5), hit), budget)
    assert "40.0 times the budget of false alarms with it and 40.0 times" in useless.reason


@pytest.mark.parametrize("per_hour", [8.0, 120.0], ids=["a budget that is broken", "a budget that is not used up"])
def test_under_a_budget_a_filter_of_luck_is_not_used(per_hour):
    # Dropping at random keeps the one, and random candidates below the threshold use up the other; so does a threshold.
    random = np.random.default_rng(2)
    budget = ChoiceSettings(by="recall", false_alarms_per_hour=per_hour)
    used, gains = 0, 0
    for _ in range(30):
        hit = random.random(300) < 0.4
        lead = random.normal(np.where(hit, 1.0, -0.5), 1.0)
        step = np.where(lead >= 0, 1.0, np.clip(1 + lead / 1.5, 0, 1))
        rows = fitting(random.random(300), hit, step, np.arange(300) % 10, lead=lead, n_folds=5)
        chosen = choose_filter(rows, budget)
        own = step >= 1
        gains += chosen.filtered > float(merit(budget, hit[own].sum(), own.sum(), hit.sum(), 2.5)) + 0.05
        used += not chosen.reason
    assert gains >= 10 and used <= 1


def test_under_a_budget_a_filter_must_be_better_than_another_threshold():
    random = np.random.default_rng(4)
    hit, group = random.random(400) < 0.4, np.arange(400) % 10
    lead = random.normal(np.where(hit, 1.5, 0.5), 0.8)
    budget = ChoiceSettings(by="recall", false_alarms_per_hour=20.0)
    same = choose_filter(fitting(1 / (1 + np.exp(-lead)), hit, group=group, lead=lead), budget)
    assert same.reason and same.filtered == pytest.approx(same.alone)
    assert choose_filter(fitting(np.where(hit, 0.9, 0.1), hit, group=group, lead=lead), budget).reason == ""
