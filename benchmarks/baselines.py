"""Two detectors without a network: a threshold on the energy in the calls' band, and gradient boosting on frames.

Both hear what a network hears (band powers in units of the recording's own medians) and give one logit per frame and
label, so that they are decoded, matched and judged like any model. They know no onsets.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from otus.audio import AudioInfo
from otus.config import DecodingSettings
from otus.evaluation import FoldScores
from otus.evaluation.calibration import fit_calibration
from otus.frontend import Frontend, band_medians, filter_bank, read_features
from otus.models.card import ModelCard
from otus.seeds import derive_seed
from otus.selections import decoding_grid, logit
from otus.sides import recordings_by_side, side_spans
from otus.smoothing import smooth
from otus.training import TrainingTables
from otus.training.cuts import counted_frames, frame_labels
from otus.training.material import Material, read_material

Reals = NDArray[np.float32]

#: Scores per label (labels, frames) of the input (bands, frames) of one recording.
Scorer = Callable[[Reals], Reals]

#: Stretches of frames before and after a frame, first and last, whose mean levels it is told with.
_CONTEXT = ((1, 1), (2, 3), (4, 7), (8, 15))

#: The energy is averaged over this share of the median call.
_SMOOTHING = 0.25

#: Logits are kept within this, and are its negative where nothing was learnt or nothing is known.
_FARTHEST = 15.0


@dataclass(frozen=True)
class TrainingFrames:
    """Input (bands, frames), truth (labels, frames) and which frames count, of every recording of the train side."""

    inputs: list[Reals]
    active: list[NDArray[np.bool_]]
    counted: list[NDArray[np.bool_]]

    def truth(self, label: int) -> NDArray[np.bool_]:
        """Return whether each frame that counts lies in a call of the label."""
        return np.concatenate([a[label, c] for a, c in zip(self.active, self.counted, strict=True)])

    def rows(self, of_input: Callable[[Reals], Reals]) -> Reals:
        """Return what `of_input` says (frames, ...) of the frames that count."""
        return np.concatenate([of_input(x)[c] for x, c in zip(self.inputs, self.counted, strict=True)])


def score_fold(
    root: Path, tables: TrainingTables, card: ModelCard, *, method: str, decoding: DecodingSettings, seed: int
) -> tuple[FoldScores, float, float]:
    """Train a baseline (energy or gradient_boosting) on the train side of a fold and score its val and test recordings.

    `card` is that of a network of the same fold: its front end, labels and durations of calls hold here, too. Returns
    the scores, and CPU and wall seconds of training. Raises DataError if there is nothing to train on.
    """
    torch.set_num_threads(1)
    frontend = card.frontend
    assert isinstance(frontend, Frontend)
    with threadpool_limits(1):
        cpu_s, wall_s = time.process_time(), time.monotonic()
        material = read_material(root, tables, card.classes)
        frames = training_frames(material, frontend, len(card.classes))
        if method == "energy":
            bands = [bands_of_calls(material.calls[material.calls["label"] == c], frontend) for c in card.classes]
            scorer = energy_scorer(frames, bands, round(_SMOOTHING * card.median_call_s / frontend.hop_s))
        else:
            scorer = boosting_scorer(frames, len(card.classes), seed)
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
        return _fold_scores(root, tables, card, frontend, scorer, decoding), cpu_s, wall_s


def training_frames(material: Material, frontend: Frontend, n_labels: int) -> TrainingFrames:
    """Return the frames of the labelled recordings of the train side."""
    inputs, active, counted = [], [], []
    for recording in material.train:
        if recording.clips_only:
            continue
        inputs.append(_input(recording.path, recording.info, frontend))
        n_frames = inputs[-1].shape[1]
        activity, _ = frame_labels(recording, frontend, n_labels, 0, n_frames, onset_frames=1)
        active.append(activity > 0)
        counted.append(counted_frames(recording, frontend, 0, n_frames) > 0)
    return TrainingFrames(inputs, active, counted)


def bands_of_calls(calls: pd.DataFrame, frontend: Frontend) -> NDArray[np.bool_]:
    """Return which bands of the front end lie between the median frequency limits of the calls.

    All of them, if fewer than 4 of 5 calls have limits or if no band lies between these.
    """
    everything = np.ones(frontend.bands, dtype=bool)
    limits = calls[["low_hz", "high_hz"]].dropna()
    if len(limits) == 0 or len(limits) < 0.8 * len(calls):
        return everything
    first, bank = filter_bank(frontend)
    peak_hz = (first + bank.argmax(dim=0).numpy()) * frontend.sample_rate / frontend.n_fft
    inside = (peak_hz >= limits["low_hz"].median()) & (peak_hz <= limits["high_hz"].median())
    return inside if inside.any() else everything


def energy_scorer(frames: TrainingFrames, bands: Sequence[NDArray[np.bool_]], width: int) -> Scorer:
    """Return a scorer by the power in the bands of each label, in units of the medians, averaged over `width` frames.

    A logistic curve of the level, fitted on the train side, gives the logit: 0 where a frame is as typical of a call
    as of the rest. It never falls, and so decides what the thresholds of the grid mean, not which frame scores higher.
    """

    def level(features: Reals, label: int) -> Reals:
        return smooth(np.log(np.exp(features[bands[label]], dtype=np.float64).mean(axis=0)), width)

    curves = []
    for label in range(len(bands)):
        truth = frames.truth(label)
        fitted = fit_calibration(frames.rows(partial(level, label=label)), truth, "platt")
        if fitted.slope is None or fitted.intercept is None:
            curves.append((0.0, -_FARTHEST))
        else:
            curves.append((fitted.slope, fitted.intercept - logit(float(truth.mean()))))

    def score(features: Reals) -> Reals:
        return np.stack([a * level(features, label) + b for label, (a, b) in enumerate(curves)])

    return score


def boosting_scorer(frames: TrainingFrames, n_labels: int, seed: int) -> Scorer:
    """Return a scorer by gradient boosting, a binary classifier of frames for each label."""
    rows = frames.rows(in_context)
    classifiers: list[HistGradientBoostingClassifier | None] = []
    for label in range(n_labels):
        truth = frames.truth(label)
        if truth.all() or not truth.any():
            classifiers.append(None)
            continue
        state = derive_seed(seed, "gradient_boosting", label) % 2**32
        classifier = HistGradientBoostingClassifier(
            max_iter=200, max_leaf_nodes=15, l2_regularization=1.0, early_stopping=False, random_state=state
        )
        classifiers.append(classifier.fit(rows, truth))

    def score(features: Reals) -> Reals:
        here = in_context(features)
        nothing = np.full(len(here), -_FARTHEST)
        return np.stack([nothing if c is None else c.decision_function(here) for c in classifiers])

    return score


def in_context(features: Reals) -> Reals:
    """Return what a classifier is told of each frame, (frames, bands * 9), given the input (bands, frames).

    Its own levels, and the mean levels of 1, 2, 4 and 8 frames before and after, further and further away. Beyond the
    recording everything is at its median.
    """
    n_frames, farthest = features.shape[1], _CONTEXT[-1][1]
    padded = np.pad(features, ((0, 0), (farthest + 1, farthest)))
    total = np.cumsum(padded, axis=1, dtype=np.float64)
    here = np.arange(n_frames) + farthest
    parts = [features]
    for near, far in _CONTEXT:
        for first, last in ((-far, -near), (near, far)):
            parts.append((total[:, here + last + 1] - total[:, here + first]) / (far - near + 1))
    return np.concatenate(parts).T.astype(np.float32)


def _input(path: Path, info: AudioInfo, frontend: Frontend) -> Reals:
    """The network's input (bands, frames) for a whole recording."""
    medians = band_medians(path, info, frontend)
    return read_features(path, info, frontend, 0, frontend.n_frames(info), medians, torch.device("cpu")).numpy()


def _fold_scores(
    root: Path,
    tables: TrainingTables,
    card: ModelCard,
    frontend: Frontend,
    scorer: Scorer,
    decoding: DecodingSettings,
) -> FoldScores:
    """The logits of the val and test recordings, as otus.evaluation takes those of a network."""
    facts = tables.recordings.set_index("recording_id")
    sides = recordings_by_side(tables.splits, facts["sample_rate"])
    scored = sides[sides["split"] != "train"].assign(part=tables.splits["part"].iloc[0]).reset_index(drop=True)
    logits = {}
    for recording_id in scored["recording_id"].unique():
        row = facts.loc[recording_id]
        info = AudioInfo(int(row["n_samples"]), int(row["sample_rate"]), int(row["channels"]), str(row["subtype"]))
        found = np.clip(scorer(_input(root / row["path"], info, frontend)), -_FARTHEST, _FARTHEST)
        onsets = np.full_like(found, -_FARTHEST)
        logits[recording_id] = np.concatenate([found, onsets]).astype(np.float32)
    return FoldScores(
        fold=card.fold,
        classes=card.classes,
        recordings=scored,
        logits=logits,
        frame_hop_s=frontend.hop_s,
        grid=decoding_grid(decoding, median_call_s=card.median_call_s, short_call_s=card.short_call_s),
        spans={side: side_spans(tables.splits, facts["sample_rate"], side) for side in ("val", "test")},
        leaky=bool(tables.splits["leaky"].any()),
    )
