"""Nothing is lost: every file and every annotation row that was found stands in exactly one table."""

from collections import Counter
from collections.abc import Iterable

import pandas as pd

from otus.errors import StageError


def check_audio_files(found: Iterable[str], recordings: pd.DataFrame, quarantine: pd.DataFrame) -> None:
    """Raise StageError unless each audio file found is a recording, a duplicate, or in quarantine for its name.

    `found` are the paths as tables show them.
    """
    left_out = quarantine[quarantine["kind"].isin(["cutout", "duplicate", "recording"])]["path"]
    nameless = left_out[~left_out.isin(recordings["path"])]
    _compare(Counter(found), Counter([*recordings["path"], *nameless]), "audio file")


def check_annotation_files(
    found: Iterable[str], files: pd.DataFrame, annotations: pd.DataFrame, quarantine: pd.DataFrame
) -> None:
    """Raise StageError unless each row of each annotation file is an annotation, a further view or in quarantine."""
    _compare(Counter(found), Counter(files["path"]), "annotation file")
    kept, left_out = Counter(annotations["source_file"]), quarantine.groupby("path")["n_rows"].sum().to_dict()
    for row in files.to_dict("records"):
        path, n_rows, n_views = row["path"], row["n_rows"], row["n_views"]
        counts = (kept[path], left_out.get(path, 0))
        if counts != (row["n_annotations"], row["n_quarantined"]) or n_rows != sum(counts) + n_views:
            raise StageError(
                f"the inventory does not add up: {path} has {n_rows} rows, of which {counts[0]} are annotations, "
                f"{n_views} further views and {counts[1]} in quarantine; please report this with that file."
            )
    if not set(kept) <= set(files["path"]):
        raise StageError("the inventory does not add up: annotations come from a file that was not read.")


def _compare(found: "Counter[str]", told: "Counter[str]", what: str) -> None:
    if found != told:
        path = min((found - told) | (told - found))
        raise StageError(
            f"the inventory does not add up: the {what} {path} was found {found[path]} times and stands in the tables "
            f"{told[path]} times; please report this."
        )
