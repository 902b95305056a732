"""How many calls a recording holds, told from its selections alone: the detector as a counter on unlabelled tape.

After Navine, Denton, Weldy and Hart (2024, "All thresholds barred"): not the selections above a threshold are counted,
but every selection with the probability that it is a call, by bins of the detector's confidence (the calibrated
probability, or that of the forest); added are the calls that no selection finds. What a selection of a bin is worth
comes from recordings of other groups, never from the truth of the recording itself.

    calls = sum over bins of (selections x hits per selection) x (1 + calls missed per call found)

A recording in which nothing is found still has the misses per hour of other recordings of that kind.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.bootstrap import group_draws
from otus.config import EvaluationSettings
from otus.measures.evidence import TestedLayer
from otus.seeds import derive_seed
from otus.tables import table

Reals = NDArray[np.float64]
Counts = NDArray[np.int64]

#: Fewer other groups than this tell no interval.
LEAST_GROUPS = 3

#: Borders between the bins of probability, about equally far apart in log odds. Selections without a probability have
#: two bins of their own: those that are not at the chosen operating point, and those that are.
_EDGES = np.array([0.02, 0.1, 0.3, 0.7, 0.9])
_BINS = len(_EDGES) + 3

#: Misses that a resample may have beyond those of its recordings: that others have shown none does not prove that there
#: is none (half an event, after Jeffreys).
_UNSEEN = 0.5

#: Groups are left out one by one; if they are more than this, in so many lots, of which each holds few groups.
_MOST_LOTS = 200

#: The widest spread between recordings that is believed: of log odds, and of misses per hit (relative).
_WIDEST = 3.0


@dataclass(frozen=True)
class _Searched:
    """Recordings as one fold each tested them, a row each, with the selections of one label by bin.

    `n_found` selections, `n_hits` hits among them, and mean `probability` (NaN without) have a column per bin; `misses`
    are the calls that no selection finds.
    """

    names: pd.DataFrame
    groups: NDArray[np.str_]
    hours: Reals
    n_gt: Counts
    n_pred: Counts
    misses: Reals
    n_found: Reals
    n_hits: Reals
    probability: Reals

    def sums(self) -> Reals:
        """What others learn from, a row per recording (see `_Learnt.of`)."""
        hits, hours = self.n_hits.sum(axis=1), self.hours
        told = hits > 0
        rest = [hits, self.misses * told, hours * ~told, self.misses * ~told, hours]
        return np.concatenate([self.n_found, self.n_hits, np.stack(rest, axis=1)], axis=1)


@dataclass(frozen=True)
class _Learnt:
    """What other recordings tell: selections and hits by bin, misses per hit where there are hits, else per hour.

    Once, or once per resample of their groups (first axis).
    """

    n_found: Reals
    n_hits: Reals
    misses_per_hit: Reals
    misses_per_hour: Reals

    @classmethod
    def of(cls, sums: Reals, unseen: float = 0.0) -> "_Learnt":
        """Return what sums over recordings of `_Searched.sums` tell, with so many more misses of either kind."""
        hits, beside, hours_alone, alone, hours = np.moveaxis(sums[..., 2 * _BINS :], -1, 0)
        per_hour = _rate(alone, hours_alone) + _rate(np.full_like(hours, unseen), hours)
        return cls(sums[..., :_BINS], sums[..., _BINS : 2 * _BINS], _rate(beside + unseen, hits), per_hour)

    def worth(self, probability: Reals) -> Reals:
        """Return hits per selection by bin, for selections of a mean probability by bin (NaN without).

        That probability counts as one more selection, so that a bin that others hardly fill leans on it.
        """
        overall = (self.n_hits.sum(axis=-1) + 0.5) / (self.n_found.sum(axis=-1) + 1.0)
        prior = np.where(np.isnan(probability), overall[..., None], probability)
        return np.asarray((self.n_hits + prior) / (self.n_found + 1.0))


@dataclass(frozen=True)
class _Spread:
    """How much recordings differ beyond chance: standard deviation of the log odds of a hit, and relative variances
    of the misses per hit and per hour.
    """

    log_odds: float
    misses_per_hit: float
    misses_per_hour: float


def density_rows(folds: Sequence[TestedLayer], settings: EvaluationSettings, seed: int) -> pd.DataFrame:
    """Return the table `densities`: for every label and test recording how many calls it holds, with a 95 % interval.

    `folds` are those of one layer, without the one of all together. n_gt is the truth, for comparison alone; calls is
    the estimate from the selections. The interval holds the number of calls of a recording, not only its expectation:
    it resamples the other groups and adds the noise of the recording and the spread between recordings. It is null
    with fewer than three other groups, or if these have no hit (then calls is null, too); the note says so. More than
    200 groups are left out in 200 lots: a recording then learns from the groups of the other lots.
    """
    parts = []
    for label in folds[0].labels if folds else ():
        searched = _searched(folds, label)
        parts.append(searched.names.assign(label=label, **_estimates(searched, settings.bootstrap, seed, label)))
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if len(frame) == 0:
        return table("densities", [])
    for name in ("calls", "calls_low", "calls_high"):
        frame[name.replace("calls", "calls_per_hour")] = frame[name] / frame["hours"].where(frame["hours"] > 0)
    return table("densities", frame)


def _searched(folds: Sequence[TestedLayer], label: str) -> _Searched:
    """Count, for every recording of every fold, what was found of a label and what was there."""
    parts = []
    for fold in folds:
        index = pd.Index(fold.recordings["recording_id"])
        found = fold.selections[fold.selections["label"] == label]
        calls = fold.calls[fold.calls["label"] == label]
        probability = found["probability"].to_numpy(dtype=float)
        at = index.get_indexer(found["recording_id"])
        bins = _bins(probability, found["selected"].to_numpy(dtype=bool))
        hit = found["hit"].to_numpy(dtype=bool)
        n_found, n_hits, summed = (np.zeros((len(index), _BINS)) for _ in range(3))
        np.add.at(n_found, (at, bins), 1.0)
        np.add.at(n_hits, (at, bins), hit)
        np.add.at(summed, (at, bins), probability)
        n_gt = np.bincount(index.get_indexer(calls["recording_id"]), minlength=len(index))
        n_pred = np.bincount(at, weights=found["selected"].to_numpy(dtype=float), minlength=len(index))
        names = fold.recordings[["recording_id", "group"]].assign(
            model=fold.model, layer=fold.layer, fold=int(fold.fold), leaky=fold.leaky
        )
        with np.errstate(invalid="ignore"):
            mean = summed / n_found
        hours = fold.recordings["duration_s"].to_numpy(dtype=float) / 3600.0
        parts.append((names, hours, n_gt, n_pred.astype(np.int64), n_found, n_hits, mean))
    names = pd.concat([part[0] for part in parts], ignore_index=True)
    hours, n_gt, n_pred, n_found, n_hits, mean = (
        np.concatenate(column) for column in list(zip(*parts, strict=True))[1:]
    )
    groups = names["group"].to_numpy(dtype=str)
    misses = np.maximum(n_gt - n_hits.sum(axis=1), 0.0)
    return _Searched(names, groups, hours, n_gt, n_pred, misses, n_found, n_hits, mean)


def _bins(probability: Reals, selected: NDArray[np.bool_]) -> Counts:
    """The bin of each selection."""
    without = len(_EDGES) + 1 + selected
    return np.asarray(np.where(np.isnan(probability), without, np.searchsorted(_EDGES, probability, side="right")))


def _estimates(searched: _Searched, bootstrap: int, seed: int, label: str) -> dict[str, object]:
    """The columns of numbers and notes for the recordings of one label, group by group, or lot by lot."""
    draws = group_draws(searched.groups, n=bootstrap, seed=derive_seed(seed, label))
    sums = searched.sums()
    total, resampled = sums.sum(axis=0), draws.sums(sums, searched.groups)
    of_group = draws.totals(sums, searched.groups)
    lot = np.arange(len(draws.groups)) % _MOST_LOTS
    lot_of_row = lot[np.searchsorted(draws.groups, searched.groups)]
    calls, low, high = (np.full(len(sums), math.nan) for _ in range(3))
    notes: list[str | None] = [None] * len(sums)
    n_others = len(draws.groups) - 1
    places = list(zip(searched.names["fold"].astype(str), searched.names["recording_id"].astype(str), strict=True))
    for number in range(min(len(draws.groups), _MOST_LOTS)):
        own, left_out = lot_of_row == number, lot == number
        learnt = _Learnt.of(total - of_group[left_out].sum(axis=0))
        many = _Learnt.of(resampled - draws.weights[:, left_out] @ of_group[left_out], _UNSEEN)
        spread = _spread(searched, ~own, learnt)
        for row in np.flatnonzero(own).tolist():
            notes[row] = _note(n_others, learnt)
            if learnt.n_hits.sum() > 0:
                calls[row] = _expected(searched, row, learnt)
            if notes[row] is None and bootstrap:
                rng = np.random.default_rng(derive_seed(seed, label, *places[row]))
                drawn = _drawn(searched, row, many, spread, rng)
                low[row], high[row] = np.percentile(drawn, [2.5, 97.5], method="inverted_cdf")
    counts = {"hours": searched.hours, "n_gt": searched.n_gt, "n_pred": searched.n_pred}
    return counts | {"calls": calls, "calls_low": low, "calls_high": high, "note": notes}


def _note(n_others: int, learnt: _Learnt) -> str | None:
    """Why there is no interval."""
    if learnt.n_hits.sum() == 0:
        return "the other groups have no hit: what a selection is worth is unknown"
    if n_others < LEAST_GROUPS:
        return f"only {n_others} other group{'s' * (n_others != 1)}: {LEAST_GROUPS} are needed for an interval"
    return None


def _expected(searched: _Searched, row: int, learnt: _Learnt) -> float:
    """The number of calls to be expected in a recording."""
    n_found, share = searched.n_found[row], learnt.worth(searched.probability[row])
    nothing = float(np.prod((1.0 - share) ** n_found))
    alone = nothing * float(learnt.misses_per_hour) * float(searched.hours[row])
    return float((n_found * share).sum()) * (1.0 + float(learnt.misses_per_hit)) + alone


def _spread(searched: _Searched, others: NDArray[np.bool_], learnt: _Learnt) -> _Spread:
    """How much the other recordings differ, by the method of moments: variance beyond what chance makes."""
    n_found, share = searched.n_found[others], learnt.worth(searched.probability[others])
    hits, misses, hours = searched.n_hits[others].sum(axis=1), searched.misses[others], searched.hours[others]
    chance = (n_found * share * (1.0 - share)).sum(axis=1)
    told = hits > 0
    beside, alone = learnt.misses_per_hit * hits, learnt.misses_per_hour * hours
    return _Spread(
        log_odds=math.sqrt(_beyond(hits - (n_found * share).sum(axis=1), chance, chance)),
        misses_per_hit=_beyond((misses - beside)[told], (beside * (1.0 + learnt.misses_per_hit))[told], beside[told]),
        misses_per_hour=_beyond((misses - alone)[~told], alone[~told], alone[~told]),
    )


def _beyond(error: Reals, chance: Reals, per_unit: Reals) -> float:
    """The variance of a factor that is beyond chance, given errors, their variance by chance and their sensitivity."""
    units = float((per_unit**2).sum())
    return min(max(0.0, float((error**2 - chance).sum()) / units), _WIDEST**2) if units > 0.0 else 0.0


def _drawn(searched: _Searched, row: int, many: _Learnt, spread: _Spread, rng: np.random.Generator) -> Reals:
    """Numbers of calls of one recording, one per resample of the other groups."""
    held = searched.n_found[row] > 0
    share = np.clip(many.worth(searched.probability[row])[:, held], 1e-9, 1.0 - 1e-9)
    n = len(share)
    # The mean over the shifts stays the share itself (the logistic curve as a normal one, MacKay 1992).
    odds = np.log(share / (1.0 - share)) * math.sqrt(1.0 + math.pi / 8.0 * spread.log_odds**2)
    shifted = 1.0 / (1.0 + np.exp(-odds - spread.log_odds * rng.standard_normal((n, 1))))
    hits = rng.binomial(searched.n_found[row, held].astype(np.int64), shifted).sum(axis=1)
    per_hit = many.misses_per_hit * _factor(spread.misses_per_hit, n, rng)
    per_hour = many.misses_per_hour * _factor(spread.misses_per_hour, n, rng)
    beside = rng.negative_binomial(np.maximum(hits, 1), 1.0 / (1.0 + per_hit))
    alone = rng.poisson(per_hour * searched.hours[row])
    return np.asarray(hits + np.where(hits > 0, beside, alone), dtype=np.float64)


def _factor(variance: float, n: int, rng: np.random.Generator) -> Reals:
    """Random factors of mean 1."""
    return rng.gamma(1.0 / variance, variance, n) if variance > 0.0 else np.ones(n)


def _rate(count: Reals, per: Reals) -> Reals:
    """count / per; 0 where there is nothing to count in."""
    return np.asarray(np.divide(count, per, out=np.zeros_like(per), where=per > 1e-12))
