"""Random corpora of events that are the same in every environment: what the fixtures of event metrics are made from.

Python's own generator is used because its numbers do not depend on the version of any package.
"""

import itertools
import math
import random

LABELS = ("a", "b", "c")
SCORES = tuple(round(0.1 * k, 1) for k in range(1, 10))


def precision_recall_f1(tp, n_pred, n_gt):
    """Precision, recall and F1 of counts; NaN where a denominator is zero."""
    pairs = ((tp, n_pred), (tp, n_gt), (2 * tp, n_pred + n_gt))
    return tuple(part / whole if whole else math.nan for part, whole in pairs)


def matching_case(seed):
    """Annotations and selections of one recording as (start_s, end_s), and an IoU threshold; often none of either."""
    rng = random.Random(seed)

    def intervals(most):
        starts = [rng.uniform(0, 8) for _ in range(rng.randrange(most))]
        return [(start, start + rng.uniform(0.2, 3)) for start in starts]

    return intervals(15), intervals(15), rng.choice([0.05, 0.2, 0.3, 0.4, 0.5, 0.8])


def corpus(seed):
    """Recordings with annotations, and selections with scores: a list of (name, duration_s, annotations, selections).

    An annotation is (start_s, end_s, label), a selection (start_s, end_s, label, score). Events of one label do not
    overlap, also not those of any score or more. Some recordings are empty, some selections have no annotation, some
    have the wrong label, and some calls are found in pieces.
    """
    rng = random.Random(seed)
    recordings = []
    for number in range(rng.randint(3, 7)):
        duration_s = rng.uniform(20, 60)
        calls = [call for label in LABELS for call in _calls(rng, label, duration_s)] if rng.random() < 0.85 else []
        found = [selection for call in calls for selection in _found(rng, call, duration_s)]
        found += [
            (*call, rng.choice(SCORES))
            for label in LABELS
            for call in _calls(rng, label, duration_s)
            if rng.random() < 0.5
        ]
        recordings.append((f"rec{number}", duration_s, calls, _disjoint(found)))
    return recordings


def _calls(rng, label, duration_s):
    time_s, calls = rng.uniform(0, 4), []
    while True:
        length_s = rng.choice([rng.uniform(0.1, 0.6), rng.uniform(0.5, 4)])
        if time_s + length_s > duration_s:
            return calls
        calls.append((time_s, time_s + length_s, label))
        time_s += length_s + rng.choice([rng.uniform(0.02, 0.3), rng.uniform(0.5, 8)])


def _found(rng, call, duration_s):
    start_s, end_s, label = call
    if rng.random() < 0.15:
        return []
    if rng.random() < 0.1:
        label = rng.choice(LABELS)
    spread = rng.choice([0.05, 0.3]) * (end_s - start_s) + rng.choice([0.0, 0.15])
    start_s = max(0.0, start_s + rng.uniform(-spread, spread))
    end_s = min(duration_s, end_s + rng.uniform(-spread, spread))
    cuts = sorted(rng.uniform(start_s, end_s) for _ in range(rng.choice([0, 0, 0, 1, 2]))) if end_s > start_s else []
    borders = [start_s, *cuts, end_s]
    return [(a, b, label, rng.choice(SCORES)) for a, b in itertools.pairwise(borders) if b > a + 0.01]


def _disjoint(found):
    """Leave out what overlaps an earlier selection of the same label."""
    kept, last = [], dict.fromkeys(LABELS, 0.0)
    for start_s, end_s, label, score in sorted(found):
        if start_s > last[label]:
            kept.append((start_s, end_s, label, score))
            last[label] = end_s
    return kept
