"""From the peak score of a selection to the probability that it is a hit, fitted on validation selections alone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]
Method = Literal["platt", "temperature", "isotonic", "none"]

#: Fewer hits or fewer false alarms than this do not tell a probability.
MIN_PER_CLASS = 5

#: Fewer selections than this give an isotonic curve of a few coarse steps.
MIN_ISOTONIC = 200

_STEPS = 100
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Calibration:
    """How a peak logit becomes a probability, and the `n` selections (`n_hits` of them hits) that it was fitted on.

    platt and temperature: 1 / (1 + exp(-(slope * peak + intercept))), where temperature has the intercept 0 and its
    slope is 1 / temperature; isotonic: straight lines between `knots` (peak logits, rising) with the probabilities
    `values`, level beyond them. none: no probability. `reason` says why it is not what was asked for, or is of no use.
    """

    method: Method
    n: int
    n_hits: int
    reason: str = ""
    slope: float | None = None
    intercept: float | None = None
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()


def fit_calibration(peak: Reals, hit: Mask, method: Method) -> Calibration:
    """Return the calibration by `method` of selections, given the peak logit of each and whether it is a hit.

    With fewer than five hits or five false alarms the method is none; with fewer than 200 selections platt stands in
    for isotonic. The slope is never negative: a louder selection is no less probable.
    """
    n, n_hits = len(hit), int(hit.sum())
    if method == "none":
        return Calibration("none", n, n_hits)
    for count, what in ((n_hits, "hits"), (n - n_hits, "false alarms")):
        if count < MIN_PER_CLASS:
            return Calibration("none", n, n_hits, f"only {count} {what} on validation, {MIN_PER_CLASS} are needed")
    if method == "isotonic" and n >= MIN_ISOTONIC:
        return _isotonic(peak, hit)
    reasons = [f"isotonic needs {MIN_ISOTONIC} selections, validation has {n}"] if method == "isotonic" else []
    used: Method = "platt" if reasons else method
    slope, intercept = _logistic(peak, hit, with_intercept=used == "platt")
    if slope == 0.0:
        reasons.append("on validation, hits do not have higher scores than false alarms")
    return Calibration(used, n, n_hits, "; ".join(reasons), slope, intercept)


def calibrated(calibration: Calibration, peak: Reals) -> Reals:
    """Return the probability of a hit for each peak logit; NaN if the method is none."""
    if calibration.method == "none":
        return np.full(len(peak), np.nan)
    if calibration.method == "isotonic":
        return np.asarray(np.interp(peak, calibration.knots, calibration.values))
    if calibration.slope is None or calibration.intercept is None:
        raise ValueError(f"calibration {calibration.method} without slope and intercept")
    return _sigmoid(calibration.slope * peak + calibration.intercept)


def _isotonic(peak: Reals, hit: Mask) -> Calibration:
    """The rising step function with the least squared error, as scikit-learn interpolates it."""
    from sklearn.isotonic import IsotonicRegression  # takes a second to import

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(peak, hit.astype(float))
    knots, values = (tuple(float(x) for x in part) for part in (fitted.X_thresholds_, fitted.y_thresholds_))
    return Calibration("isotonic", len(hit), int(hit.sum()), knots=knots, values=values)


def _logistic(peak: Reals, hit: Mask, *, with_intercept: bool) -> tuple[float, float]:
    """Slope and intercept of the logistic curve through the regularised targets of Platt (1999).

    The targets (n+ + 1) / (n+ + 2) and 1 / (n- + 2) keep the slope finite where hits and false alarms do not overlap.
    Newton's method with step halving on peaks in units of their own spread.
    """
    n_hits, n_misses = int(hit.sum()), int((~hit).sum())
    target = np.where(hit, (n_hits + 1) / (n_hits + 2), 1 / (n_misses + 2))
    centre = float(peak.mean()) if with_intercept else 0.0
    spread = float(np.sqrt(np.mean((peak - centre) ** 2))) or 1.0
    columns = [(peak - centre) / spread, np.ones(len(peak))] if with_intercept else [peak / spread]
    rows = np.stack(columns, axis=1)
    weights = _newton(rows, target)
    if weights[0] < 0.0:
        weights = np.zeros(len(weights))
        if with_intercept:
            weights[1] = np.log(target.sum() / (len(target) - target.sum()))
    slope = float(weights[0]) / spread
    return slope, (float(weights[1]) - slope * centre if with_intercept else 0.0)


def _newton(rows: Reals, target: Reals) -> Reals:
    """The weights with the least cross-entropy of sigmoid(rows @ weights) to the targets; the problem is convex."""
    weights = np.zeros(rows.shape[1])
    loss = _cross_entropy(rows @ weights, target)
    for _ in range(_STEPS):
        probability = _sigmoid(rows @ weights)
        gradient = rows.T @ (probability - target)
        curvature = (rows * (probability * (1.0 - probability))[:, None]).T @ rows
        step = np.linalg.solve(curvature + 1e-12 * np.eye(len(weights)), gradient)
        size = 1.0
        while size > _TOLERANCE and _cross_entropy(rows @ (weights - size * step), target) > loss:
            size /= 2
        weights = weights - size * step
        before, loss = loss, _cross_entropy(rows @ weights, target)
        if before - loss <= _TOLERANCE * len(target):
            break
    return weights


def _cross_entropy(logits: Reals, target: Reals) -> float:
    return float(np.sum(np.logaddexp(0.0, logits) - target * logits))


def _sigmoid(logits: Reals) -> Reals:
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))
