"""The summary page of the inventory: one HTML file that holds everything that it shows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import otus
from otus.fingerprint import walk
from otus.inventory.flags import flag_kinds
from otus.inventory.recorded_hours import draw_calendar
from otus.inventory.recordings import shown
from otus.layout import Table, render_page

#: Rows of a listing that are shown; the number of the others is said.
_FIRST_ROWS = 200
#: Upper edges of the bars of the recordings' lengths (s).
_LENGTHS_S = (0.1, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 4 * 3600, 12 * 3600, 24 * 3600)

_KINDS = {
    "folder": "Folders that may not be opened",
    "recording": "Audio files left out",
    "duplicate": "Copies of other recordings",
    "cutout": "Cut-out calls, read as annotations",
    "unlabelled": "Recordings that are not labelled",
    "table": "Annotation files, or all rows of a recording in one",
    "row": "Rows of annotation files",
    "dropped": "Rows that the label map drops",
    "sheet": "Rows of the recordings sheet",
}


def inventory_page(
    corpus: str,
    recordings: pd.DataFrame,
    annotations: pd.DataFrame,
    annotation_files: pd.DataFrame,
    quarantine: pd.DataFrame,
    others: Iterable[str],
) -> str:
    """Return the page as HTML, from the tables of an inventory (see otus.tables) and the files that it did not take.

    `corpus` is the title, `others` are paths below the root that no glob took. The page has no scripts and no
    reference to another file; the same content gives the same text.
    """
    readable = recordings[recordings["readable"].eq(True)]
    per_recording = annotations.groupby("recording_id").size()
    readable = readable.assign(calls=readable["recording_id"].map(per_recording).fillna(0).astype(int))
    suffixes = Counter(_suffix(path) for path in others)
    view = {
        "corpus": corpus,
        "version": otus.__version__,
        "headline": _headline(recordings, readable, annotations),
        "facts": _facts(recordings, readable, annotation_files, quarantine),
        "labels": _labels(annotations, recordings),
        "calendar": draw_calendar(readable),
        "undated": int(readable["start_time"].isna().sum()),
        "sites": _places(readable, "site") if readable["site"].notna().any() else None,
        "groups": _places(readable, "group") if readable["group"].nunique() < len(readable) else None,
        "lengths": _lengths(readable),
        "formats": _formats(readable),
        "flag_kinds": _flag_kinds(readable),
        "flagged": _flagged(readable),
        "quarantine": _quarantine(quarantine),
        "files": _files(annotation_files),
        "file_sums": _file_sums(annotation_files),
        "other_files": _counts(suffixes, ["Suffix", "Files"]),
        "n_other_files": suffixes.total(),
    }
    return render_page(__package__, view)


def other_files(
    root: Path, recordings: pd.DataFrame, annotation_files: pd.DataFrame, quarantine: pd.DataFrame
) -> list[str]:
    """Return the paths below `root` that stand in none of the tables. Raises DataError if `root` is no folder."""
    taken = {*recordings["path"], *annotation_files["path"], *quarantine["path"]}
    return [path for path in (shown(file.path) for file in walk(root)) if path not in taken]


def _headline(recordings: pd.DataFrame, readable: pd.DataFrame, annotations: pd.DataFrame) -> dict[str, str]:
    labelled = readable[readable["labelled"].eq(True)]
    lost = len(recordings) - len(readable)
    where = f"{annotations['recording_id'].nunique()} of them" if len(labelled) else "none of them"
    detail = (
        f"in {_amount(readable['group'].nunique(), 'group')}. {len(labelled)} of the recordings ({_hours(labelled)} h) "
        f"are labelled: {_amount(len(annotations), 'annotation')} of "
        f"{_amount(annotations['label'].nunique(), 'label')} in {where}."
    )
    unreadable = f" {_amount(lost, 'more file')} cannot be read." if lost else ""
    return {"figure": f"{_amount(len(readable), 'recording')}, {_hours(readable)} h", "detail": detail + unreadable}


def _facts(
    recordings: pd.DataFrame, readable: pd.DataFrame, annotation_files: pd.DataFrame, quarantine: pd.DataFrame
) -> list[tuple[str, str]]:
    began = readable["start_time"].dropna()
    rates = sorted({int(rate) for rate in readable["sample_rate"].dropna()})
    facts = [
        ("Sites", str(readable["site"].nunique() or "–")),
        ("Recorders", str(readable["recorder"].nunique() or "–")),
        ("First and last day", f"{began.min()[:10]} – {began.max()[:10]}" if len(began) else "–"),
        ("Sample rates", ", ".join(f"{rate / 1000:g} kHz" for rate in rates) or "–"),
        ("Annotation files", str(len(annotation_files))),
        ("With flags", str(int(readable["flags"].notna().sum()))),
        ("Duplicates", str(int(quarantine["kind"].eq("duplicate").sum()))),
        ("In quarantine", str(len(quarantine))),
    ]
    if recordings["parent"].notna().any():
        raw = recordings["parent"].dropna()
        facts.append(("Extracts", f"{len(raw)} of {raw.nunique()} raw recordings"))
    return facts


def _labels(annotations: pd.DataFrame, recordings: pd.DataFrame) -> Table | None:
    if annotations.empty:
        return None
    groups = dict(zip(recordings["recording_id"], recordings["group"], strict=True))
    known = annotations.assign(
        length_s=annotations["end_s"] - annotations["start_s"], group=annotations["recording_id"].map(groups)
    )
    counts = known.groupby("label").size()
    body, bars = [], []
    for label in sorted(counts.index, key=lambda label: (-counts[label], label))[:_FIRST_ROWS]:
        rows = known[known["label"].eq(label)]
        low, high = rows["low_hz"].min() / 1000, rows["high_hz"].max() / 1000
        lengths = " / ".join(f"{rows['length_s'].quantile(q):.3g}" for q in (0.05, 0.5, 0.95))
        numbers = [len(rows), rows["recording_id"].nunique(), rows["group"].nunique(), f"{rows['length_s'].sum():.1f}"]
        band = "–" if pd.isna(low) or pd.isna(high) else f"{low:.1f}–{high:.1f}"
        body.append([str(label), *map(str, numbers), lengths, band])
        bars.append(len(rows) / counts.max())
    columns = ["Label", "Annotations", "Recordings", "Groups", "Sum (s)", "Length 5 / 50 / 95 % (s)", "Band (kHz)", ""]
    return Table(columns, body, 1, left_out=len(counts) - len(body), bars=bars)


def _places(readable: pd.DataFrame, column: str) -> Table:
    """Recordings, hours and calls of each site or group, those with the most hours first."""
    named = readable.assign(place=readable[column].fillna("no " + column), labelled=readable["labelled"].eq(True))
    named["labelled_s"] = named["duration_s"].where(named["labelled"], 0.0)
    sums = named.groupby("place").agg(
        recordings=("path", "size"),
        duration_s=("duration_s", "sum"),
        labelled_s=("labelled_s", "sum"),
        calls=("calls", "sum"),
        first=("start_time", "min"),
        last=("start_time", "max"),
    )
    sums = sums.sort_index().sort_values("duration_s", ascending=False, kind="stable")
    body = [
        [
            str(place),
            _date(row["first"]),
            _date(row["last"]),
            str(row["recordings"]),
            f"{row['duration_s'] / 3600:.2f}",
            f"{row['labelled_s'] / 3600:.2f}",
            str(row["calls"]),
        ]
        for place, row in sums.head(_FIRST_ROWS).iterrows()
    ]
    bars = list(sums["duration_s"].head(_FIRST_ROWS) / max(float(sums["duration_s"].max()), 1e-9)) if len(sums) else []
    columns = [column.capitalize(), "First day", "Last day", "Recordings", "Hours", "Labelled (h)", "Annotations", ""]
    return Table(columns, body, 3, path_column=0, left_out=len(sums) - len(body), bars=bars)


def _lengths(readable: pd.DataFrame) -> Table:
    """How many recordings are how long."""
    edges = [0.0, *_LENGTHS_S, float("inf")]
    bins = pd.cut(readable["duration_s"].astype(float), edges, right=True, labels=False)
    counts = bins.value_counts().sort_index()
    shown = range(int(counts.index.min()), int(counts.index.max()) + 1) if len(counts) else range(0)
    body = [[_between(edges[i], edges[i + 1]), str(int(counts.get(i, 0)))] for i in shown]
    bars = [counts.get(i, 0) / counts.max() for i in shown]
    return Table(["Length", "Recordings", ""], body, 1, bars=bars)


def _between(low_s: float, high_s: float) -> str:
    if not low_s:
        return f"up to {_span(high_s)}"
    return f"more than {_span(low_s)}" if high_s == float("inf") else f"{_span(low_s)} to {_span(high_s)}"


def _span(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"


def _formats(readable: pd.DataFrame) -> Table:
    keys = ["sample_rate", "channels", "subtype"]
    sums = readable.groupby(keys)["duration_s"].agg(["size", "sum"]).sort_values("sum", ascending=False, kind="stable")
    body = [
        [f"{rate / 1000:g} kHz", str(channels), subtype, str(int(row["size"])), f"{row['sum'] / 3600:.2f}"]
        for (rate, channels, subtype), row in sums.head(_FIRST_ROWS).iterrows()
    ]
    columns = ["Sample rate", "Channels", "Samples", "Recordings", "Hours"]
    return Table(columns, body, 3, left_out=len(sums) - len(body))


def _flag_kinds(readable: pd.DataFrame) -> Table | None:
    kinds = Counter(kind for flags in readable["flags"].dropna() for kind in flag_kinds(flags))
    return _counts(kinds, ["Flag", "Recordings"])


def _flagged(readable: pd.DataFrame) -> Table | None:
    flagged = readable[readable["flags"].notna()]
    if flagged.empty:
        return None
    body = [
        [
            row["path"],
            row["flags"],
            _number(row["peak_dbfs"], 1),
            _number(row["rms_dbfs"], 1),
            _number(100 * row["clipped_share"], 2),
            _number(100 * row["silent_share"], 1),
        ]
        for row in flagged.head(_FIRST_ROWS).to_dict("records")
    ]
    columns = ["Recording", "Flags", "Peak (dBFS)", "RMS (dBFS)", "Clipped (%)", "Digital silence (%)"]
    return Table(columns, body, 2, path_column=0, prose_from=1, left_out=len(flagged) - len(body))


def _quarantine(quarantine: pd.DataFrame) -> list[dict[str, Any]]:
    """What was left out, kind by kind, with reasons."""
    kinds = sorted(set(quarantine["kind"]), key=lambda kind: (list(_KINDS).index(kind) if kind in _KINDS else 99, kind))
    sections = []
    for kind in kinds:
        rows = quarantine[quarantine["kind"].eq(kind)]
        body = [
            [str(row["path"]), _number(row["row"], 0, ""), str(row["reason"]), str(row["remedy"])]
            for row in rows.head(_FIRST_ROWS).to_dict("records")
        ]
        n_rows = int(rows["n_rows"].sum())
        stands_for = f", {_amount(n_rows, 'annotation row')}" if n_rows else ""
        title = f"{_KINDS.get(kind, kind)}: {_amount(len(rows), 'entry')}{stands_for}"
        columns = ["File", "Row", "Why", "What to do"]
        table = Table(columns, body, 4, path_column=0, prose_from=2, left_out=len(rows) - len(body))
        sections.append({"title": title, "table": table})
    return sections


def _files(annotation_files: pd.DataFrame) -> Table | None:
    """The account of each annotation file, those with rows in quarantine first."""
    if annotation_files.empty:
        return None
    ordered = annotation_files.sort_values(["n_quarantined", "path"], ascending=[False, True])
    counts = ["n_rows", "n_annotations", "n_views", "n_quarantined"]
    body = [
        [row["path"], row["format"], *(str(row[name]) for name in counts)]
        for row in ordered.head(_FIRST_ROWS).to_dict("records")
    ]
    columns = ["File", "Format", "Rows", "Annotations", "Further views", "In quarantine"]
    return Table(columns, body, 2, path_column=0, left_out=len(ordered) - len(body))


def _file_sums(annotation_files: pd.DataFrame) -> Table | None:
    if annotation_files.empty:
        return None
    counts = ["n_rows", "n_annotations", "n_views", "n_quarantined"]
    sums = annotation_files.groupby("format")[counts].sum().assign(files=annotation_files.groupby("format").size())
    body = [[str(kind), *(str(row[name]) for name in ("files", *counts))] for kind, row in sums.iterrows()]
    return Table(["Format", "Files", "Rows", "Annotations", "Further views", "In quarantine"], body, 1)


def _counts(counts: "Counter[str]", columns: Sequence[str]) -> Table | None:
    body = [[name, str(count)] for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    left_out = max(0, len(body) - _FIRST_ROWS)
    return Table(columns, body[:_FIRST_ROWS], 1, left_out=left_out) if body else None


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2]
    return f".{name.rpartition('.')[2].lower()}" if "." in name else "none"


def _amount(n: int, noun: str) -> str:
    """E.g. '1 recording', '3 recordings', '2 entries'."""
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun[:-1]}ies" if noun.endswith("ry") else f"{n:,} {noun}s"


def _hours(rows: pd.DataFrame) -> str:
    return f"{rows['duration_s'].sum() / 3600:,.2f}"


def _date(value: Any) -> str:
    return "–" if pd.isna(value) else str(value)[:10]


def _number(value: Any, digits: int, missing: str = "–") -> str:
    return missing if pd.isna(value) else f"{round(value, digits) + 0.0:.{digits}f}"
