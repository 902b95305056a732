"""How good a network is on the validation recordings, as a detector: selections matched against annotations."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from otus.matching import Intervals
from otus.metrics import average_precision, curve
from otus.selections import DecodingPoint, decode
from otus.sides import judge_on_side
from otus.training.cuts import FeatureStore

#: Frames that the network scores at once.
_BLOCK_FRAMES = 4096


@dataclass(frozen=True)
class Validation:
    """Detection on validation recordings: best F1 over thresholds and average precision (both mean over labels)."""

    f1: float
    average_precision: float

    @property
    def detection(self) -> float:
        """The number that early stopping watches: the mean of both, which moves less by chance than either."""
        return (self.f1 + self.average_precision) / 2


def validate(
    network: nn.Module,
    store: FeatureStore,
    *,
    context_frames: int,
    points: list[DecodingPoint],
    iou: float,
    n_classes: int,
) -> Validation:
    """Score every recording of `store` and return the detection quality at the best of the decoding points.

    Selections count whose midpoint lies on the side of their recording; no hit that is mostly unknown is a false alarm.
    """
    device = next(network.parameters()).device
    network.eval()
    scores = [score_store(network, store, i, context_frames, device) for i in range(len(store.recordings))]
    f1s, precisions = [], []
    for target in range(n_classes):
        f1, precision = max(_detection(store, scores, target, n_classes, point, iou) for point in points)
        f1s.append(f1)
        precisions.append(precision)
    return Validation(float(np.mean(f1s)), float(np.mean(precisions)))


def score_store(
    network: nn.Module, store: FeatureStore, index: int, context_frames: int, device: torch.device
) -> np.ndarray:
    """Return the frame logits (2 * classes, frames) of one recording of the store."""
    n_frames = store.n_frames(index)
    pieces = []
    with torch.inference_mode():
        for start in range(0, n_frames, _BLOCK_FRAMES):
            end = min(start + _BLOCK_FRAMES, n_frames)
            first, last = max(0, start - context_frames), min(n_frames, end + context_frames)
            logits = network(store.read(index, first, last).unsqueeze(0).to(device))[0]
            pieces.append(logits[:, start - first : end - first].float().cpu().numpy())
    return np.concatenate(pieces, axis=1)


def _detection(
    store: FeatureStore, scores: list[np.ndarray], target: int, n_classes: int, point: DecodingPoint, iou: float
) -> tuple[float, float]:
    peaks, hits, n_gt = [], [], 0
    for recording, logits in zip(store.recordings, scores, strict=True):
        found = decode(logits[target], logits[n_classes + target], store.frontend.hop_s, point)
        own = recording.target == target
        truth = Intervals(recording.start_s[own], recording.end_s[own])
        peak, is_hit = judge_on_side(found, truth, recording.side, recording.unknown, iou)
        peaks.append(peak)
        hits.append(is_hit)
        n_gt += len(truth)
    points = curve(np.concatenate(peaks), np.concatenate(hits))
    if n_gt == 0 or len(points.tp) == 0:
        return 0.0, 0.0
    return float(points.f1(n_gt).max()), average_precision(points, n_gt)
