"""The page of a dataset variant: one HTML file that says what it is, whether it leaks and what is in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

import otus
from otus.clipfiles.verdicts import amount, noise_sentences
from otus.config import DatasetSettings
from otus.layout import Table, render_page

#: Rows of a table that are shown; the page stays below 2 MB however large the variant is.
MOST_ROWS = 200
_MOST_EXAMPLES = 20
_LONGEST_TEXT = 120
_NONE = "–"
_CHART = (720, 190)  # size of the histogram without its axis, in pixels


def dataset_page(statistics: Mapping[str, Any], leakage: pd.DataFrame, settings: DatasetSettings) -> str:
    """Return the page for `statistics` (the content of statistics.json), without references but to files beside it."""
    clips = statistics["clips"]
    counts = {row["class"]: row["clips"] for row in clips["class"]}
    verdicts = statistics["verdicts"]
    view = {
        "dataset": _cut(statistics["dataset"]),
        "facts": [
            ("Strategy", settings.strategy),
            ("Targets", _cut(", ".join(statistics["targets"]))),
            ("Folds", str(len(verdicts))),
            ("Otus", otus.__version__),
        ],
        "clips": ", ".join(f"{n} {kind}" for kind, n in counts.items()) or "none",
        "leaky": settings.leaky,
        "proved": all(verdict["proved"] for verdict in verdicts) and len(verdicts) > 0,
        "compared": not leakage["shared_contents"].isna().any(),
        "verdicts": verdicts,
        "most": MOST_ROWS,
        "leakage": _leakage_table(leakage),
        "settings": _settings_table(settings),
        "sides": _sides_table(statistics["sides"]),
        "lengths": [
            _lengths_table("Label", clips["label"], "label"),
            _lengths_table("Origin", clips["origin"], "origin"),
            _lengths_table("Quality", clips["quality"], "quality", other="label"),
        ],
        "chart": _chart(statistics["histogram"]),
        "groups": _groups_table(statistics["groups"], clips["group"]),
        "noise": noise_sentences(statistics["noise"]),
        "examples": [_cut(str(text)) for text in statistics["noise"]["examples"][:_MOST_EXAMPLES]],
        "unread": _unread_table(statistics["unread"]),
        "n_unread": amount(sum(row["clips"] for row in statistics["unread"]), "clip"),
        "files": statistics["files"],
    }
    return render_page(__package__, view)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int) -> Table:
    return Table(columns, rows[:MOST_ROWS], text_columns, left_out=max(0, len(rows) - MOST_ROWS))


def _leakage_table(leakage: pd.DataFrame) -> Table:
    names = ("shared_groups", "shared_recordings", "shared_contents", "shared_raw_recordings", "overlapping_clips")
    rows = []
    for row in leakage.sort_values(["fold", "side", "other_side"]).to_dict("records"):
        sides = f"{row['side']},\u00a0{row['other_side']}"
        rows.append([str(row["fold"]), sides, _text(row["example"]), *(_text(row[name]) for name in names)])
    columns = ["Fold", "Sides", "Example", "Groups", "Recordings", "Contents", "Raw recordings", "Overlapping clips"]
    return _table(columns, rows, 3)


def _settings_table(settings: DatasetSettings) -> Table:
    values = settings.model_dump(mode="json")
    fields = type(settings).model_fields
    rows = [[name, _text(values[name], missing="null"), fields[name].description or ""] for name in values]
    return _table(["Setting", "Value", "Meaning"], rows, 3)


def _sides_table(sides: Sequence[Mapping[str, Any]]) -> Table:
    named = any(row["part"] is not None for row in sides)
    rows = []
    for row in sides:
        fold = [str(row["fold"]), *([_text(row["part"])] if named else [])]
        counts = [str(row["groups"]), str(row["recordings"]), f"{row['hours']:.2f}"]
        clips = (text for kind in ("target", "noise", "unknown") for text in _clips_and_s(row, kind))
        rows.append([*fold, row["split"], *counts, *clips])
    columns = ["Fold", *(["It tests"] if named else []), "Side", "Groups", "Recordings", "Hours"]
    columns += ["Target clips", "s", "Noise clips", "s", "Left out", "s"]
    return _table(columns, rows, 3 if named else 2)


def _clips_and_s(row: Mapping[str, Any], kind: str) -> tuple[str, str]:
    return str(row[f"{kind}_clips"]), f"{row[f'{kind}_s']:.1f}"


def _lengths_table(title: str, found: Sequence[Mapping[str, Any]], key: str, *, other: str | None = None) -> Table:
    """Counts and lengths by class and `key`."""
    names = ["class", *([other] if other else []), key]
    rows = [
        [
            *(_text(row[name]) for name in names),
            str(row["clips"]),
            f"{row['total_s']:.1f}",
            *(_seconds(row[name]) for name in ("min_s", "median_s", "max_s")),
        ]
        for row in found
    ]
    columns = ["Class", *([other.capitalize()] if other else []), title, "Clips", "Total (s)", "Shortest (s)"]
    return _table([*columns, "Median (s)", "Longest (s)"], rows, len(names))


def _groups_table(groups: Sequence[Mapping[str, Any]], counts: Sequence[Mapping[str, Any]]) -> Table:
    clips: dict[str, dict[str, int]] = {}
    for row in counts:
        clips.setdefault(row["group"], {})[row["class"]] = row["clips"]
    folds = {fold for row in groups for split in ("train", "val", "test") for fold in row[split]}
    rows = []
    for row in groups:
        own = clips.get(row["group"], {})
        numbers = [str(row["recordings"]), *(str(own.get(kind, 0)) for kind in ("target", "noise", "unknown"))]
        rows.append([_cut(row["group"]), _sides_text(row, several=len(folds) > 1), *numbers])
    columns = ["Group", "Side", "Recordings", "Target clips", "Noise clips", "Left out"]
    return _table(columns, rows, 2)


def _sides_text(row: Mapping[str, Any], *, several: bool) -> str:
    """On which sides a group stands; with several folds, in which of them it validates and tests."""
    if not several:
        return ", ".join(split for split in ("train", "val", "test") if row[split])
    parts = (f"{split}: {', '.join(map(str, row[split]))}" for split in ("test", "val") if row[split])
    return _cut("; ".join(parts)) or "always train"


def _unread_table(unread: Sequence[Mapping[str, Any]]) -> Table:
    rows = [[_cut(row["path"]), _cut(row["reason"]), str(row["clips"])] for row in unread]
    return _table(["Recording", "Why", "Clips"], rows, 2)


def _chart(histogram: Mapping[str, Any]) -> dict[str, Any] | None:
    """Bars and ticks of the histogram of lengths, in pixels from the upper left; None without clips."""
    edges = histogram["edges_s"]
    if not edges:
        return None
    kinds = ("target", "noise", "unknown")
    totals = [sum(counts) for counts in zip(*(histogram[kind] for kind in kinds), strict=True)]
    width, height = _CHART[0] / len(totals), _CHART[1] / max(totals)
    bars = []
    for i in range(len(totals)):
        top = float(_CHART[1])
        for kind in kinds:
            tall = histogram[kind][i] * height
            top -= tall
            if tall:
                title = f"{_seconds(edges[i])} to {_seconds(edges[i + 1])} s: {histogram[kind][i]} {kind}"
                size = {"w": f"{width - 2:.1f}", "h": f"{tall:.1f}"}
                bars.append({"kind": kind, "x": f"{i * width + 1:.1f}", "y": f"{top:.1f}", "title": title, **size})
    ticks = [
        {"x": f"{i * width:.1f}", "text": f"{edges[i]:.2g}"} for i in range(0, len(edges), max(1, len(totals) // 6))
    ]
    shown = [kind for kind in kinds if any(histogram[kind])]
    return {"bars": bars, "ticks": ticks, "kinds": shown, "most": max(totals), "width": _CHART[0], "height": _CHART[1]}


def _seconds(value: float) -> str:
    """A length with three significant digits, in plain notation."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _text(value: Any, missing: str = _NONE) -> str:
    if value is None or (not isinstance(value, list | dict) and pd.isna(value)):
        return missing
    if isinstance(value, dict):
        return _cut(", ".join(f"{key}: {_text(v, missing)}" for key, v in value.items()))
    if isinstance(value, list):
        return _cut(", ".join(_text(v, missing) for v in value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return _cut(f"{value:g}" if isinstance(value, float) else str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
