"""What went into the run: recordings, labels, and everything that was left out, with its reason."""

from collections.abc import Sequence
from typing import Any

from otus.config import UNKNOWN
from otus.layout import Table
from otus.report.content import ReportContent
from otus.report.results import amount, cell

_FIRST_ROWS = 50  # of quarantine and of failed chunks


def what_went_in(content: ReportContent) -> dict[str, Any]:
    """Return what inputs.html shows, as text and tables, by name."""
    recordings = content.recordings
    readable = recordings[recordings["readable"].eq(True)]
    rates = sorted({int(rate) for rate in readable["sample_rate"].dropna()})
    hours = float(readable["duration_s"].sum()) / 3600
    input_facts = [
        ("Recordings", f"{len(recordings)}, of which {len(readable)} readable"),
        ("With annotations read", f"{int(readable['labelled'].eq(True).sum())}"),
        ("Length of the readable ones", f"{cell(hours)} h"),
        ("Groups", str(readable["group"].nunique())),
        ("Sample rates", ", ".join(f"{rate / 1000:g} kHz" for rate in rates) or "–"),
    ]
    quarantine = content.quarantine.to_dict("records")
    kinds = content.quarantine["kind"].value_counts().sort_index()
    failed = content.items[content.items["status"].eq("failed")]
    statuses = content.items["status"].value_counts().sort_index()
    return {
        "input_facts": input_facts,
        "labels": _labels_table(content),
        "quarantine_counts": ", ".join(f"{cell(kind)}: {n}" for kind, n in kinds.items()),
        "quarantine": _listing(
            quarantine,
            ["kind", "path", "row", "reason", "remedy"],
            ["Kind", "File", "Row", "Why", "What to do"],
            "quarantine.csv",
        ),
        "items": ", ".join(f"{n} {cell(status)}" for status, n in statuses.items()),
        "failed": _listing(
            failed.to_dict("records"),
            ["chunk_id", "recording_id", "status", "error_class", "error"],
            ["Chunk", "Recording", "Status", "Error", "What it said"],
            "the tables of items",
        ),
        "n_failed": amount(len(failed), "chunk"),
    }


def _labels_table(content: ReportContent) -> Table | None:
    if content.annotations.empty:
        return None
    lengths = content.annotations.assign(length_s=content.annotations["end_s"] - content.annotations["start_s"])
    body = []
    for label, rows in lengths.groupby("label", sort=True):
        role = "target" if label in content.targets else "left out" if label == UNKNOWN else "other"
        spread = " / ".join(cell(rows["length_s"].quantile(q)) for q in (0.05, 0.5, 0.95))
        band = "–".join(cell(rows[side].agg(how) / 1000, 1) for side, how in (("low_hz", "min"), ("high_hz", "max")))
        known = "–" if rows[["low_hz", "high_hz"]].isna().to_numpy().all() else band
        body.append([str(label), role, str(len(rows)), str(rows["recording_id"].nunique()), spread, known])
    body.sort(key=lambda row: row[1] != "target")
    return Table(
        ["Label", "Role", "Annotations", "Recordings", "Length 5 / 50 / 95 % (s)", "Band (kHz)"], body, text_columns=2
    )


def _listing(rows: Sequence[dict[Any, Any]], names: Sequence[str], columns: Sequence[str], rest: str) -> Table | None:
    """The first rows as text."""
    if not rows:
        return None
    body = [[cell(row[name], 0) for name in names] for row in rows[:_FIRST_ROWS]]
    left_out = len(rows) - len(body)
    return Table(list(columns), body, text_columns=len(columns), path_column=1, left_out=left_out, rest=rest)
