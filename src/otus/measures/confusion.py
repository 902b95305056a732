"""Which label was annotated and which was selected: one matrix over all labels of a layer."""

import pandas as pd

from otus.matching import Intervals, Pairs, admissible_pairs, most_pairs
from otus.measures.evidence import TestedLayer
from otus.tables import table

#: Stands for the label of what is not there: the selection of a miss, the annotation of a false alarm.
NOTHING = "nothing"

#: How a row of `matches` is found again in the other table: its recording as one fold tested it.
_PLACE = ["fold", "recording_id"]


def confusion_rows(layer: TestedLayer) -> pd.DataFrame:
    """Return the table `confusion` of a layer at its chosen operating point and the IoU that decides.

    A hit under its own label is a pair. What is left, misses and false alarms of different labels, is paired across
    labels at the same IoU, as many as possible. What is left then was annotated and nothing selected, or the other way
    round. So every annotation and every selection counts once. One row per cell that is not empty, sorted.
    """
    hits = layer.matches.loc[layer.matches["outcome"] == "hit", "label"]
    misses = layer.matches[layer.matches["outcome"] == "miss"].reset_index(drop=True)
    alarms = layer.matches[layer.matches["outcome"] == "false_alarm"].reset_index(drop=True)
    pairs = _pairs_across(misses, alarms, layer.iou)
    cells = pd.concat(
        [
            pd.DataFrame({"annotated": hits, "selected": hits}),
            pd.DataFrame(
                {
                    "annotated": misses["label"].to_numpy()[[a for a, _ in pairs]],
                    "selected": alarms["label"].to_numpy()[[s for _, s in pairs]],
                }
            ),
            pd.DataFrame({"annotated": misses["label"].drop(index=[a for a, _ in pairs]), "selected": NOTHING}),
            pd.DataFrame({"annotated": NOTHING, "selected": alarms["label"].drop(index=[s for _, s in pairs])}),
        ],
        ignore_index=True,
    )
    counts = cells.astype(str).value_counts(["annotated", "selected"]).rename("n").reset_index()
    rows = counts.sort_values(["annotated", "selected"], ignore_index=True)
    return table("confusion", rows.assign(model=layer.model, layer=layer.layer, iou=layer.iou, leaky=layer.leaky))


def _pairs_across(misses: pd.DataFrame, alarms: pd.DataFrame, iou: float) -> list[tuple[int, int]]:
    """The row numbers of misses and false alarms that are one and the same sound under different labels."""
    found: list[tuple[int, int]] = []
    calls, selections = Intervals.of(misses), Intervals.of(alarms)
    annotated, selected = misses["label"].to_numpy(), alarms["label"].to_numpy()
    alarms_at = alarms.groupby(_PLACE).indices
    for place, own in sorted(misses.groupby(_PLACE).indices.items()):
        others = alarms_at.get(place)
        if others is None:
            continue
        near = admissible_pairs(calls.at(own), selections.at(others), iou)
        across = annotated[own][near.annotation] != selected[others][near.selection]
        pairs = most_pairs(Pairs(near.annotation[across], near.selection[across], near.iou[across]))
        found += zip(own[pairs.annotation].tolist(), others[pairs.selection].tolist(), strict=True)
    return found
