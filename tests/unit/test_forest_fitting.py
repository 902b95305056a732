import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.config import ForestSettings
from otus.forest import choose_threshold, fit_fold, hit_probability, importances

SMALL = ForestSettings(trees=20)


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


def test_separable_rows_are_told_apart():
    features, hits, groups = rows()
    judged, judged_hits, _ = rows(seed=1)
    result = fit_fold(features, hits, groups, judged, settings=SMALL, seed=3)
    assert result.reason == ""
    assert np.mean((result.inner_probability > 0.5) == hits) > 0.85
    assert np.mean((result.probability > 0.5) == judged_hits) > 0.85
    ranked = importances(result.forest, ["tell", "group", "c", "d"])
    assert ranked[0][0] == "tell"
    assert [value for _, value in ranked] == sorted((value for _, value in ranked), reverse=True)
    assert sum(value for _, value in ranked) == pytest.approx(1)


def test_same_seed_same_probabilities_other_seed_others():
    features, hits, groups = rows()
    first, second, other = (
        fit_fold(features, hits, groups, features[:9], settings=SMALL, seed=seed) for seed in (2**62 + 1, 2**62 + 1, 8)
    )
    np.testing.assert_array_equal(first.inner_probability, second.inner_probability)
    np.testing.assert_array_equal(first.probability, second.probability)
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


@pytest.mark.parametrize(
    ("hits", "groups", "words"),
    [
        ([True, False] * 10, ["a"] * 20, "10 hits and 10 false alarms in 1 group,"),
        ([True] * 4 + [False] * 16, list("ab") * 10, "4 hits and 16 false alarms in 2 groups"),
        ([True] * 16 + [False] * 4, list("ab") * 10, "16 hits and 4 false alarms in 2 groups"),
        ([True] * 10 + [False] * 10, ["a"] * 10 + ["b"] * 10, "leaving groups out"),
        ([], [], "0 hits and 0 false alarms in 0 groups"),
    ],
)
def test_refuses_with_a_reason(hits, groups, words):
    features = np.random.default_rng(0).normal(size=(len(hits), 3))
    result = fit_fold(features, hits, groups, np.zeros((2, 3)), settings=SMALL, seed=1)
    assert result.forest is None
    assert words in result.reason
    assert result.inner_probability.shape == (len(hits),)
    assert np.isnan(result.inner_probability).all()
    assert result.probability.shape == (2,)
    assert np.isnan(result.probability).all()


def test_two_groups_with_both_kinds_suffice():
    features, hits, _ = rows(24)
    groups = ["a"] * 12 + ["b"] * 12
    result = fit_fold(features, hits, groups, features, settings=SMALL, seed=1)
    assert result.reason == ""
    assert np.isfinite(result.inner_probability).all()


def test_hits_in_few_of_many_groups():
    features, hits, _ = rows(60)
    groups = np.array([f"g{index % 15}" for index in range(60)])
    hits = np.isin(groups, ["g3", "g9"]) & (np.arange(60) < 50)
    result = fit_fold(features, hits, groups, features, settings=SMALL, seed=1)
    assert result.reason == ""
    assert np.isfinite(result.inner_probability).all()


def test_no_rows_to_judge():
    features, hits, groups = rows()
    result = fit_fold(features, hits, groups, np.empty((0, 4)), settings=SMALL, seed=1)
    assert result.probability.shape == (0,)
    assert hit_probability(result.forest, np.empty((0, 4))).shape == (0,)


def test_lengths_must_agree():
    features, hits, groups = rows()
    with pytest.raises(ValueError, match="groups"):
        fit_fold(features, hits, groups[1:], features, settings=SMALL, seed=1)


def test_threshold_lies_between_separated_kinds():
    probability = np.array([0.1, 0.2, 0.2, 0.8, 0.9] * 40)
    assert choose_threshold(probability, probability > 0.5, 80) == pytest.approx(0.5)


def test_threshold_is_low_if_all_are_hits():
    probability = np.linspace(0.3, 0.9, 1000)
    threshold = choose_threshold(probability, np.ones(1000, dtype=bool), 1000)
    assert f1(probability, np.ones(1000, dtype=bool), 1000, threshold) > 0.99


def test_recall_counts_annotations_that_were_never_hit():
    # 100 hits are surer than all else; 100 more come only together with 260 false alarms.
    probability = np.array([0.9] * 100 + [0.5] * 360)
    hits = np.array([True] * 200 + [False] * 260)
    assert choose_threshold(probability, hits, 200) == pytest.approx(0.7)  # F1 is .67 there and .61 with all
    assert choose_threshold(probability, hits, 2000) <= 0.5  # F1 is .10 there and .16 with all


def test_accidents_do_not_choose_the_threshold():
    # One false alarm more or less among ten events: the middle of what is as good, not the accident's place.
    probability = np.array([0.05, 0.1, 0.12, 0.7, 0.75, 0.8, 0.82, 0.9, 0.92, 0.95])
    hits = probability > 0.5
    hits[5] = False
    assert 0.3 < choose_threshold(probability, hits, 7) < 0.7


def test_threshold_without_hits_keeps_everything():
    assert choose_threshold([], [], 5) == 0
    assert choose_threshold([0.4, 0.6], [False, False], 5) == 0


def test_threshold_between_neighbouring_floats():
    low = 0.5
    high = np.nextafter(low, 1)
    threshold = choose_threshold([low] * 50 + [high] * 50, [False] * 50 + [True] * 50, 50)
    assert low < threshold <= high


def test_threshold_refuses_nonsense():
    with pytest.raises(ValueError, match="finite"):
        choose_threshold([np.nan, 0.2], [True, False], 3)
    with pytest.raises(ValueError, match="2 hits but only 1"):
        choose_threshold([0.1, 0.2], [True, True], 1)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60),
    st.integers(0, 30),
)
def test_never_worse_than_no_filter_and_near_the_best(events, missed):
    probability = np.array([step / 20 for step, _ in events])
    hits = np.array([hit for _, hit in events])
    n_gt = int(hits.sum()) + missed
    threshold = choose_threshold(probability, hits, n_gt)
    assert 0 <= threshold <= 1
    if hits.any():
        reached = f1(probability, hits, n_gt, threshold)
        assert reached >= f1(probability, hits, n_gt, 0) - 1e-12
        candidates = [0, *probability]
        scores = [f1(probability, hits, n_gt, value) for value in candidates]
        best = int(np.argmax(scores))
        keep = probability >= candidates[best]
        one_hit = 2 * (np.sum(hits & keep) - 1) / (keep.sum() - 1 + n_gt)
        # Ties of the best may differ in what a hit costs there; the smaller floor bounds both.
        assert reached >= min(scores[best] - 0.01, one_hit, 2 * scores[best] - 1) - 0.5 / max(1, keep.sum())
