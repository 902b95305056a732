"""Made-up scores and calls for tests of the evaluation."""

import numpy as np

from otus.evaluation import operating
from otus.evaluation.operating import ScoredRecording, judge_recording
from otus.matching import Intervals
from otus.selections import DecodingPoint

HOP_S = 0.1
N_FRAMES = 300
GRID = [DecodingPoint(off, 1.0, 0.0, 0.0, 0.2) for off in (0.3, 0.5)]


def bumps(starts, lengths, heights, n=N_FRAMES):
    """Logits of -6 with a rectangle of some height for every selection that shall be found."""
    activity = np.full(n, -6.0, dtype=np.float32)
    for start, length, height in zip(starts, lengths, heights, strict=True):
        activity[start : start + length] = height
    return activity


def one_threshold(*offs, merge="threshold", window=1):
    return [DecodingPoint(off, 1.0, 0.0, 0.0, 0.2, merge, window) for off in offs]


def recording(heights, is_call, grid=GRID, off_by=0):
    """A scored recording with one detection every 20 frames, some of which are calls."""
    starts = np.arange(len(heights)) * 20 + 5
    activity = bumps(starts, [10] * len(starts), heights, n=20 * len(starts) + 20)
    calls = (starts[np.asarray(is_call, dtype=bool)] + off_by) * HOP_S
    truth = Intervals(calls, calls + 10 * HOP_S)
    return ScoredRecording(activity, np.full(len(activity), -9.0), HOP_S, grid, truth, len(activity) * HOP_S)


def validation_hits(recordings, decoding, iou):
    return operating.validation_hits([judge_recording(one, iou) for one in recordings], decoding)
