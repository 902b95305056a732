"""The label map of the config: merge, rename and drop labels."""

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

from otus.annotations.text import one_line

#: Label or glob of labels -> another label, or None: the rows are dropped.
LabelMap = Mapping[str, str | None]


def mapped_label(label: str, labels: LabelMap) -> str | None:
    """Return what `labels` makes of `label`: another label, None if its rows are dropped, itself if nothing fits.

    An entry that is the label itself comes before globs; of these the first that fits decides. Case matters.
    """
    entries = {one_line(entry): target for entry, target in labels.items()}
    if label not in entries:
        entry = next((entry for entry in entries if fnmatchcase(label, entry)), None)
        if entry is None:
            return label
        label = entry
    target = entries[label]
    return None if target is None else one_line(target)


def idle_entries(labels: LabelMap, seen: Collection[str]) -> list[str]:
    """Return the entries of `labels` that fit none of the labels in `seen`, in their order."""
    return [
        entry
        for entry in labels
        if one_line(entry) not in seen and not any(fnmatchcase(label, one_line(entry)) for label in seen)
    ]
