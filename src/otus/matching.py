"""Truth against selections, within one recording and one label: which may be a pair, and which pairs are taken.

Which may be a pair: those of enough intersection over union here, those of close onsets and offsets in
`otus.collars`. Which are taken, one to one: as many as possible (`most_pairs`), or call by call as the ANIMAL-SPOT
pipelines for alpacas did (`match_greedily`).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]

#: IoU is compared with this much slack, so that 0.4 in floating point counts as 0.4.
IOU_SLACK = 1e-9


@dataclass(frozen=True)
class Intervals:
    """Start and end in seconds; end > start."""

    start_s: Reals
    end_s: Reals

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Intervals":
        """Return those of a table with start_s and end_s."""
        return cls(rows["start_s"].to_numpy(dtype=float), rows["end_s"].to_numpy(dtype=float))

    def __len__(self) -> int:
        return len(self.start_s)

    def at(self, rows: Indices) -> "Intervals":
        """Return those of these numbers."""
        return Intervals(self.start_s[rows], self.end_s[rows])


@dataclass(frozen=True)
class Pairs:
    """Pairs of an annotation and a selection by index, with their intersection over union."""

    annotation: Indices
    selection: Indices
    iou: Reals

    def __len__(self) -> int:
        return len(self.iou)


def admissible_pairs(annotations: Intervals, selections: Intervals, iou: float) -> Pairs:
    """Return every pair whose intersection over union is at least `iou` (inclusive), in no particular order.

    For pairs strictly above a threshold, as in DCASE task 5, pass the threshold plus twice IOU_SLACK.
    """
    order = np.argsort(selections.start_s, kind="stable")
    starts, ends = selections.start_s[order], selections.end_s[order]
    # No selection of a pair is longer than the annotation / iou, so few have to be looked at besides a long one.
    longest = float((ends - starts).max(initial=0.0))
    reach = np.minimum((annotations.end_s - annotations.start_s) / max(iou - IOU_SLACK, IOU_SLACK), longest)
    first = np.searchsorted(starts, annotations.start_s - reach - IOU_SLACK, side="left")
    last = np.searchsorted(starts, annotations.end_s, side="left")
    a, s = pairs_of_ranges(first, last)
    shared = np.minimum(annotations.end_s[a], ends[s]) - np.maximum(annotations.start_s[a], starts[s])
    joint = np.maximum(annotations.end_s[a], ends[s]) - np.minimum(annotations.start_s[a], starts[s])
    value = np.maximum(shared, 0.0) / joint
    keep = (value >= iou - IOU_SLACK) & (shared > 0)
    return Pairs(a[keep], order[s[keep]].astype(np.int64), value[keep])


def pairs_of_ranges(first: Indices, last: Indices) -> tuple[Indices, Indices]:
    """Return (row, member) for every member of first[row]:last[row], row by row; an empty range has none."""
    counts = np.maximum(last - first, 0)
    row = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return row.astype(np.int64), (np.repeat(first, counts) + within).astype(np.int64)


def match(annotations: Intervals, selections: Intervals, iou: float) -> Pairs:
    """Return a one-to-one matching with as many pairs as possible and, among those, the largest sum of IoU.

    Maximum bipartite matching as in DCASE task 5 (mir_eval), here with an inclusive threshold. Sorted by annotation.
    """
    return most_pairs(admissible_pairs(annotations, selections, iou))


def most_pairs(pairs: Pairs) -> Pairs:
    """Return the largest one-to-one subset of `pairs` and, among those, one of largest sum of IoU; by annotation.

    Solved as a sparse assignment in which every annotation may also stay alone at a cost of 2, while a pair costs
    1 - IoU / (number of annotations + 1), so that no sum of IoU can outweigh a pair.
    """
    alone = _unrivalled(pairs)
    rivals = np.flatnonzero(~alone)
    chosen = np.flatnonzero(alone)
    if len(rivals):
        rows, a = np.unique(pairs.annotation[rivals], return_inverse=True)
        columns, s = np.unique(pairs.selection[rivals], return_inverse=True)
        n, m = len(rows), len(columns)
        cost = np.concatenate([1.0 - pairs.iou[rivals] / (n + 1), np.full(n, 2.0)])
        position = np.concatenate([a, np.arange(n)]), np.concatenate([s, m + np.arange(n)])
        _, taken = min_weight_full_bipartite_matching(csr_array((cost, position), shape=(n, m + n)))
        chosen = np.concatenate([chosen, rivals[taken[a] == s]])
    chosen = chosen[np.argsort(pairs.annotation[chosen], kind="stable")]
    return Pairs(pairs.annotation[chosen], pairs.selection[chosen], pairs.iou[chosen])


def _unrivalled(pairs: Pairs) -> NDArray[np.bool_]:
    """Whether neither the annotation nor the selection of a pair is in another one."""
    annotation, selection = pairs.annotation, pairs.selection
    return np.asarray((np.bincount(annotation)[annotation] == 1) & (np.bincount(selection)[selection] == 1))


def match_greedily(annotations: Intervals, selections: Intervals, iou: float) -> Pairs:
    """Return the pairs that the old alpaca evaluator finds: each annotation takes the best selection that is left.

    Annotations come in order of onset; the best has the largest IoU, and of equals it is the one that starts first.
    The threshold is compared without slack. Never more pairs than `match`, and fewer where a call takes what another
    one needed. Sorted by annotation.
    """
    pairs = admissible_pairs(annotations, selections, iou)
    turn, start = _ranks(annotations.start_s), _ranks(selections.start_s)
    order = np.lexsort((start[pairs.selection], -pairs.iou, turn[pairs.annotation]))
    served: set[int] = set()
    gone: set[int] = set()
    chosen = []
    for i in order[pairs.iou[order] >= iou].tolist():
        a, s = int(pairs.annotation[i]), int(pairs.selection[i])
        if a not in served and s not in gone:
            served.add(a)
            gone.add(s)
            chosen.append(i)
    index = np.array(chosen, dtype=np.int64)
    index = index[np.argsort(pairs.annotation[index], kind="stable")]
    return Pairs(pairs.annotation[index], pairs.selection[index], pairs.iou[index])


def _ranks(start_s: Reals) -> Indices:
    """The place of each interval in order of onset; of equals, the one that is listed first comes first."""
    place = np.empty(len(start_s), dtype=np.int64)
    place[np.argsort(start_s, kind="stable")] = np.arange(len(start_s))
    return place


def hits_in_order(annotations: Intervals, selections: Intervals, order: Indices, iou: float) -> NDArray[np.bool_]:
    """Return, per selection, whether adding it in `order` enlarges the maximum matching (see `hits_among`)."""
    return hits_among(admissible_pairs(annotations, selections, iou), order)


def hits_among(pairs: Pairs, order: Indices) -> NDArray[np.bool_]:
    """Return, per selection, whether adding it in `order` (all selections) enlarges the maximum matching of `pairs`.

    The sets of selections that can be matched are the independent sets of a transversal matroid, so for every
    prefix of `order` the number of True is the size of the maximum matching of that prefix: one pass gives the
    true positives at every threshold when `order` is by falling score.
    """
    hits = np.zeros(len(order), dtype=bool)
    alone = _unrivalled(pairs)
    hits[pairs.selection[alone]] = True  # nobody else wants either
    choices: dict[int, list[int]] = {}
    for a, s in zip(pairs.annotation[~alone].tolist(), pairs.selection[~alone].tolist(), strict=True):
        choices.setdefault(s, []).append(a)
    owner: dict[int, int] = {}
    held: dict[int, int] = {}
    exhausted: set[int] = set()
    contested = np.zeros(len(order), dtype=bool)
    contested[pairs.selection[~alone]] = True
    for s in order[contested[order]].tolist():
        hits[s] = _augment(s, choices, owner, held, exhausted)
    return hits


def _augment(
    start: int, choices: dict[int, list[int]], owner: dict[int, int], held: dict[int, int], exhausted: set[int]
) -> bool:
    """Search an augmenting path from the selection `start` (Kuhn's algorithm) and take it if there is one.

    `owner` maps annotations to selections, `held` is its inverse. What a vain search has seen leads nowhere for any
    later one either, because its owners have no other choices: it is `exhausted` for good.
    """
    came_from: dict[int, int] = {}
    stack = [start]
    while stack:
        selection = stack.pop()
        for annotation in choices[selection]:
            if annotation in came_from or annotation in exhausted:
                continue
            came_from[annotation] = selection
            if annotation not in owner:
                _hand_on(annotation, came_from, owner, held)
                return True
            stack.append(owner[annotation])
    exhausted.update(came_from)
    return False


def _hand_on(free: int, came_from: dict[int, int], owner: dict[int, int], held: dict[int, int]) -> None:
    """Give `free` to the selection that reached it, what that one held to the one before, and so on."""
    annotation: int | None = free
    while annotation is not None:
        taker = came_from[annotation]
        owner[annotation], held[taker], annotation = taker, annotation, held.get(taker)
