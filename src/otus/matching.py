"""Truth against selections, within one recording and one label: one-to-one, maximum, IoU at or above a threshold."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]

#: IoU is compared with this much slack, so that 0.4 in floating point counts as 0.4.
IOU_SLACK = 1e-9


@dataclass(frozen=True)
class Intervals:
    """Start and end in seconds; end > start."""

    start_s: Reals
    end_s: Reals

    def __len__(self) -> int:
        return len(self.start_s)


@dataclass(frozen=True)
class Pairs:
    """Pairs of an annotation and a selection by index, with their intersection over union."""

    annotation: Indices
    selection: Indices
    iou: Reals

    def __len__(self) -> int:
        return len(self.iou)


def admissible_pairs(annotations: Intervals, selections: Intervals, iou: float) -> Pairs:
    """Return every pair whose intersection over union is at least `iou` (inclusive), in no particular order."""
    order = np.argsort(selections.start_s, kind="stable")
    starts, ends = selections.start_s[order], selections.end_s[order]
    longest = float((ends - starts).max(initial=0.0))
    first = np.searchsorted(starts, annotations.start_s - longest, side="left")
    last = np.searchsorted(starts, annotations.end_s, side="left")
    counts = np.maximum(last - first, 0)
    a = np.repeat(np.arange(len(annotations)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    s = np.repeat(first, counts) + within
    shared = np.minimum(annotations.end_s[a], ends[s]) - np.maximum(annotations.start_s[a], starts[s])
    joint = np.maximum(annotations.end_s[a], ends[s]) - np.minimum(annotations.start_s[a], starts[s])
    value = np.maximum(shared, 0.0) / joint
    keep = (value >= iou - IOU_SLACK) & (shared > 0)
    return Pairs(a[keep].astype(np.int64), order[s[keep]].astype(np.int64), value[keep])


def match(annotations: Intervals, selections: Intervals, iou: float) -> Pairs:
    """Return a one-to-one matching with as many pairs as possible and, among those, the largest sum of IoU.

    Maximum bipartite matching as in DCASE task 5 (mir_eval), here with an inclusive threshold; solved as an
    assignment within each connected component, where a pair weighs 1 + IoU / (number of annotations + 1), so
    that no sum of IoU can outweigh a pair.
    """
    pairs = admissible_pairs(annotations, selections, iou)
    n, m = len(annotations), len(selections)
    if len(pairs) == 0:
        return pairs
    graph = coo_array((np.ones(len(pairs)), (pairs.annotation, pairs.selection + n)), shape=(n + m, n + m))
    _, component = connected_components(graph, directed=False)
    of_pair = component[pairs.annotation]
    chosen: list[int] = []
    for members in np.split(np.argsort(of_pair, kind="stable"), np.flatnonzero(np.diff(np.sort(of_pair))) + 1):
        rows, a = np.unique(pairs.annotation[members], return_inverse=True)
        columns, s = np.unique(pairs.selection[members], return_inverse=True)
        weight = np.zeros((len(rows), len(columns)))
        index = np.full(weight.shape, -1)
        weight[a, s] = 1.0 + pairs.iou[members] / (len(rows) + 1)
        index[a, s] = members
        best = index[linear_sum_assignment(weight, maximize=True)]
        chosen.extend(best[best >= 0].tolist())
    chosen.sort()
    return Pairs(pairs.annotation[chosen], pairs.selection[chosen], pairs.iou[chosen])


def hits_in_order(annotations: Intervals, selections: Intervals, order: Indices, iou: float) -> NDArray[np.bool_]:
    """Return, per selection, whether adding it in `order` enlarges the maximum matching.

    The sets of selections that can be matched are the independent sets of a transversal matroid, so for every
    prefix of `order` the number of True is the size of the maximum matching of that prefix: one pass gives the
    true positives at every threshold when `order` is by falling score.
    """
    pairs = admissible_pairs(annotations, selections, iou)
    choices: list[list[int]] = [[] for _ in range(len(selections))]
    for a, s in zip(pairs.annotation.tolist(), pairs.selection.tolist(), strict=True):
        choices[s].append(a)
    owner: dict[int, int] = {}
    held: dict[int, int] = {}
    hits = np.zeros(len(selections), dtype=bool)
    for s in order.tolist():
        hits[s] = _augment(s, choices, owner, held)
    return hits


def _augment(start: int, choices: list[list[int]], owner: dict[int, int], held: dict[int, int]) -> bool:
    """Search an augmenting path from the selection `start` (Kuhn's algorithm) and take it if there is one.

    `owner` maps annotations to selections, `held` is its inverse.
    """
    came_from: dict[int, int] = {}
    stack = [start]
    while stack:
        selection = stack.pop()
        for annotation in choices[selection]:
            if annotation in came_from:
                continue
            came_from[annotation] = selection
            if annotation not in owner:
                _hand_on(annotation, came_from, owner, held)
                return True
            stack.append(owner[annotation])
    return False


def _hand_on(free: int, came_from: dict[int, int], owner: dict[int, int], held: dict[int, int]) -> None:
    """Give `free` to the selection that reached it, what that one held to the one before, and so on."""
    annotation: int | None = free
    while annotation is not None:
        taker = came_from[annotation]
        owner[annotation], held[taker], annotation = taker, annotation, held.get(taker)
