"""From peak scores to probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from otus.evaluation.calibration import Calibration, calibrated, fit_calibration

METHODS = ["platt", "temperature", "isotonic"]


def drawn(n, slope=1.0, intercept=0.0, seed=0, spread=3.0):
    """Peaks, and hits drawn with the probability that slope and intercept give."""
    random = np.random.default_rng(seed)
    peak = random.normal(0, spread, n)
    return peak, random.random(n) < 1 / (1 + np.exp(-(slope * peak + intercept)))


def test_platt_finds_the_slope_and_the_intercept_that_hits_were_drawn_with():
    fitted = fit_calibration(*drawn(20_000, 0.5, -1.0), "platt")
    assert (fitted.method, fitted.n, fitted.reason) == ("platt", 20_000, "")
    assert fitted.slope == pytest.approx(0.5, rel=0.05)
    assert fitted.intercept == pytest.approx(-1.0, rel=0.05)


def test_temperature_finds_the_slope_and_leaves_a_logit_of_0_at_one_half():
    fitted = fit_calibration(*drawn(20_000, 0.4), "temperature")
    assert fitted.slope == pytest.approx(0.4, rel=0.05)
    assert calibrated(fitted, np.zeros(1)) == pytest.approx(0.5)


@pytest.mark.parametrize("method", ["platt", "temperature"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_fit_is_the_minimum_that_another_program_finds(method, scale):
    peak, hit = drawn(150, 0.8, 0.7, seed=3)
    n_hits, n_misses = hit.sum(), (~hit).sum()
    target = np.where(hit, (n_hits + 1) / (n_hits + 2), 1 / (n_misses + 2))

    def loss(weights):
        z = weights[0] * peak + (weights[1] if method == "platt" else 0.0)
        return np.sum(np.logaddexp(0, z) - target * z)

    best = minimize(loss, np.zeros(2 if method == "platt" else 1), method="BFGS", options={"gtol": 1e-9}).x
    fitted = fit_calibration(peak * scale, hit, method)
    assert fitted.slope * scale == pytest.approx(best[0], rel=1e-4)
    assert fitted.intercept == pytest.approx(best[1] if method == "platt" else 0.0, rel=1e-4)


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_hits_and_false_alarms_that_do_not_overlap_give_finite_slopes_and_no_certainty(method):
    peak = np.concatenate([np.linspace(1, 2, 10), np.linspace(-2, -1, 10)])
    fitted = fit_calibration(peak, peak > 0, method)
    probability = calibrated(fitted, peak)
    assert np.isfinite(fitted.slope)
    assert probability.min() > 0 and probability.max() < 1
    assert probability[:10].min() > 0.5 > probability[10:].max()
    assert probability[:10].mean() == pytest.approx(11 / 12, abs=0.03), "the regularised targets of Platt"


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_scores_that_tell_the_contrary_give_a_constant(method):
    peak, hit = drawn(100, -1.0, seed=2)
    fitted = fit_calibration(peak, hit, method)
    probability = calibrated(fitted, peak)
    assert fitted.slope == 0.0
    assert "do not have higher scores" in fitted.reason
    expected = hit.mean() if method == "platt" else 0.5
    assert probability == pytest.approx(np.full(100, expected), abs=0.02)


def test_equal_scores_give_the_share_of_hits():
    hit = np.arange(40) < 10
    fitted = fit_calibration(np.full(40, 2.5), hit, "platt")
    assert calibrated(fitted, np.array([2.5])) == pytest.approx(0.25, abs=0.02)


def test_isotonic_is_that_of_scikit_learn_and_level_beyond_what_it_saw():
    peak, hit = drawn(300, 1.0, seed=4)
    fitted = fit_calibration(peak, hit, "isotonic")
    assert fitted.method == "isotonic" and fitted.slope is None and fitted.reason == ""
    new = np.linspace(-20, 20, 500)
    reference = IsotonicRegression(out_of_bounds="clip").fit(peak, hit.astype(float))
    np.testing.assert_allclose(calibrated(fitted, new), reference.predict(new), atol=1e-12)
    assert calibrated(fitted, np.array([-1e3, 1e3])).tolist() == [fitted.values[0], fitted.values[-1]]


@pytest.mark.parametrize(("n", "method"), [(199, "platt"), (200, "isotonic")])
def test_isotonic_needs_200_selections(n, method):
    peak, hit = drawn(n, 1.0)
    fitted = fit_calibration(peak, hit, "isotonic")
    assert fitted.method == method
    if method == "platt":
        assert fitted.reason == "isotonic needs 200 selections, validation has 199"
        plain = fit_calibration(peak, hit, "platt")
        assert (fitted.slope, fitted.intercept) == (plain.slope, plain.intercept)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("hits", "false_alarms", "reason"),
    [
        (4, 300, "only 4 hits on validation, 5 are needed"),
        (300, 4, "only 4 false alarms on validation, 5 are needed"),
        (0, 0, "only 0 hits on validation, 5 are needed"),
    ],
)
def test_too_few_hits_or_false_alarms_give_no_probability_but_a_reason(method, hits, false_alarms, reason):
    hit = np.arange(hits + false_alarms) < hits
    fitted = fit_calibration(np.linspace(4, -4, len(hit)), hit, method)
    assert fitted == Calibration("none", len(hit), hits, reason)
    assert np.isnan(calibrated(fitted, np.zeros(3))).all()


def test_five_of_each_are_enough():
    peak = np.array([2.0, 1.5, 1.0, 0.5, -0.5, 0.0, -1.0, -1.5, -2.0, 0.7])
    fitted = fit_calibration(peak, np.arange(10) < 5, "platt")
    assert fitted.method == "platt" and fitted.n_hits == 5


def test_none_was_asked_for():
    fitted = fit_calibration(*drawn(50), "none")
    assert (fitted.method, fitted.reason) == ("none", "")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 400), st.sampled_from(METHODS), st.floats(0.01, 50))
def test_probabilities_lie_between_0_and_1_and_rise_with_the_score(seed, n, method, spread):
    peak, hit = drawn(n, 1.0, seed=seed, spread=spread)
    fitted = fit_calibration(peak, hit, method)
    again = fit_calibration(peak, hit, method)
    assert fitted == again
    if fitted.method == "none":
        return
    probability = calibrated(fitted, np.sort(np.append(peak, [-1e6, 1e6])))
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (np.diff(probability) >= -1e-12).all()
