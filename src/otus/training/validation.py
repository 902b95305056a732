"""How good a network is on the validation recordings, as a detector: selections matched against annotations."""

import numpy as np

from otus.dense import FrameRange, score_stretch
from otus.matching import Intervals
from otus.metrics import average_precision, curve
from otus.models import FrameNetwork
from otus.selections import DecodingPoint, decode
from otus.sides import judge_on_side
from otus.training.cuts import FeatureStore
from otus.training.objectives import Judgement


def validate(
    network: FrameNetwork,
    store: FeatureStore,
    *,
    points: list[DecodingPoint],
    iou: float,
    n_classes: int,
) -> Judgement:
    """Score every recording of `store` and return how good that is, see `judge_scores`."""
    network.eval()
    scores = [score_store(network, store, i) for i in range(len(store.recordings))]
    return judge_scores(scores, store, points=points, iou=iou, n_classes=n_classes)


def judge_scores(
    scores: list[np.ndarray], store: FeatureStore, *, points: list[DecodingPoint], iou: float, n_classes: int
) -> Judgement:
    """Return best F1 and average precision, at the best of the decoding points, of the logits of every recording.

    Both are means over labels. `detection`, the number that early stopping watches, is the mean of both, which moves
    less by chance than either. Selections count whose midpoint lies on the side of their recording; no hit that is
    mostly unknown is a false alarm.
    """
    best = []
    for target in range(n_classes):
        found = [_detection(store, scores, target, n_classes, point, iou) for point in points]
        best.append(max(found, key=sum))
    f1, average_precision = (float(np.mean(values)) for values in zip(*best, strict=True))
    return {"detection": (f1 + average_precision) / 2, "f1": f1, "average_precision": average_precision}


def score_store(network: FrameNetwork, store: FeatureStore, index: int) -> np.ndarray:
    """Return the frame logits (2 * classes, frames) of one recording of the store."""
    n_frames = store.n_frames(index)
    return score_stretch(
        network,
        lambda first, last: store.read(index, first, last),
        FrameRange(0, n_frames),
        n_frames=n_frames,
        outside=store.frontend.outside,
    )


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
