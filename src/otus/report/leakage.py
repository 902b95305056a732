"""What stands on two sides of a split: the leakage table of all dataset variants, as sentences and as a table."""

import pandas as pd

from otus.layout import Table
from otus.report.results import amount, cell

_SHARED = {
    "shared_groups": "Groups",
    "shared_recordings": "Recordings",
    "shared_contents": "Contents",
    "shared_raw_recordings": "Raw recordings",
    "overlapping_clips": "Overlapping clips",
}


def leakage_sentences(leakage: pd.DataFrame) -> list[tuple[str, bool]]:
    """Return a sentence for every dataset variant, and whether something of it stands on two sides."""
    sentences = []
    for dataset, rows in leakage.groupby("dataset", sort=True):
        leaks = bool(rows["leaky"].any())
        most = [
            f"{name.lower()} {cell(rows[column].max(), 0)}" for column, name in _SHARED.items() if rows[column].any()
        ]
        said = f"leaky. The most that two sides share: {', '.join(most)}."
        if not leaks and rows["shared_contents"].isna().any():
            said = (
                "no group, recording or extract of one raw recording stands on two sides, and no clip overlaps a clip "
                "of another side; whether recordings are copies of each other was not compared (corpus.audio_check)."
            )
        elif not leaks:
            said = (
                "no group, recording, copy of a recording or extract of one raw recording stands on two sides, and no "
                "clip overlaps a clip of another side."
            )
        sentences.append((f"{dataset} ({amount(rows['fold'].nunique(), 'fold')}): {said}", leaks))
    return sentences


def leakage_table(leakage: pd.DataFrame) -> Table | None:
    """Return what the sides share, a row per dataset variant and fold; None if nothing is known."""
    body = []
    for (dataset, fold), rows in leakage.groupby(["dataset", "fold"], sort=True):
        examples = rows["example"].dropna()
        most = [cell(rows[name].max(), 0) for name in _SHARED]
        body.append([str(dataset), str(fold), cell(examples.iloc[0] if len(examples) else None), *most])
    columns = ["Dataset", "Fold", "For example", *_SHARED.values()]
    return Table(columns, body, text_columns=3, path_column=2) if body else None
