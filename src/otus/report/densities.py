"""How well the number of calls in a recording can be estimated from the selections alone."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from otus.layout import Table
from otus.report.figures import COLOURS, FAINT, as_svg, house_style
from otus.report.results import Row, amount, as_sentence, cell

_MOST_PANELS = 4
_MOST_DOTS = 300  # per panel; more of them in an SVG make the page slow


@dataclass(frozen=True)
class Estimates:
    """A figure (SVG), what it shows in a sentence (empty with several labels), the numbers behind it, and notes."""

    figure: Markup
    sentence: str
    table: Table
    notes: tuple[str, ...]
    thinned: bool


def estimates(densities: pd.DataFrame, best: Row | None) -> Estimates | None:
    """Return what the best layer's estimates of calls per recording are worth; None if there is none.

    Labels with the most calls come first; the figure has at most four.
    """
    if best is None:
        return None
    rows = densities[densities["model"].eq(best["model"]) & densities["layer"].eq(best["layer"])]
    notes = tuple(dict.fromkeys(as_sentence(note) for note in rows["note"].dropna() if note))
    rows = rows.dropna(subset=["calls"]).sort_values(["label", "recording_id", "fold"], kind="stable")
    if rows.empty:
        return None
    calls = rows.groupby("label")["n_gt"].sum()
    labels = sorted(calls.index, key=lambda label: (-int(calls[label]), str(label)))
    by_label = [(str(label), rows[rows["label"].eq(label)]) for label in labels]
    return Estimates(
        Markup(densities_svg([(label if len(by_label) > 1 else "", own) for label, own in by_label[:_MOST_PANELS]])),
        _sentence(rows) if len(by_label) == 1 else "",
        Table(
            [
                "Label",
                "Recordings",
                "Annotated calls",
                "Estimated calls",
                "Selections",
                "Inside the interval",
                "Correlation",
            ],
            [_cells(own, label) for label, own in by_label],
            text_columns=1,
        ),
        notes,
        any(len(own) > _MOST_DOTS for _, own in by_label[:_MOST_PANELS]),
    )


def densities_svg(by_label: list[tuple[str, pd.DataFrame]]) -> str:
    """Return an SVG with a panel per label: estimated against annotated calls per recording, with 95 % intervals."""
    columns = min(2, len(by_label))
    lines = -(-len(by_label) // columns)
    with house_style():
        figure = Figure(figsize=(3.9 * columns + 0.3, 3.7 * lines + 0.1), layout="constrained")
        for i, (title, rows) in enumerate(by_label):
            axes = figure.add_subplot(lines, columns, i + 1)
            kept = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST_DOTS)).round().astype(int))
            _panel(axes, rows.sort_values(["n_gt", "recording_id"], kind="stable").iloc[kept], title)
        return as_svg(figure, "density-")


def inside(rows: pd.DataFrame) -> tuple[int, int]:
    """Return of how many recordings the annotated number lies inside the interval, and how many have one."""
    known = rows.dropna(subset=["calls_low", "calls_high"])
    within = known["n_gt"].ge(known["calls_low"]) & known["n_gt"].le(known["calls_high"])
    return int(within.sum()), len(known)


def correlation(rows: pd.DataFrame) -> float:
    """Return Pearson's correlation of estimated and annotated calls, NaN with fewer than three or constant numbers."""
    x, y = rows["n_gt"].to_numpy(dtype=float), rows["calls"].to_numpy(dtype=float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _sentence(rows: pd.DataFrame) -> str:
    within, known = inside(rows)
    if known == 0:
        share = "No recording has an interval"
    else:
        share = (
            f"Of {amount(known, 'recording')} with an interval, {within} ({100 * within / known:.0f} %) hold as many "
            "calls as it says"
        )
    related = correlation(rows)
    alike = "" if np.isnan(related) else f"; estimated and annotated numbers correlate by {cell(related)}"
    return f"{share}{alike}."


def _cells(rows: pd.DataFrame, label: str) -> list[str]:
    within, known = inside(rows)
    share = f"{within} of {known}"
    sums = [cell(rows["n_gt"].sum(), 0), cell(rows["calls"].sum(), 0), cell(rows["n_pred"].sum(), 0)]
    return [label, str(len(rows)), *sums, share, cell(correlation(rows))]


def _panel(axes: Axes, rows: pd.DataFrame, title: str) -> None:
    x, y = rows["n_gt"].to_numpy(dtype=float), rows["calls"].to_numpy(dtype=float)
    low, high = (rows[f"calls_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
    top = max(1.0, float(np.nanmax(np.concatenate([x, y, high])))) * 1.06 + 0.5
    axes.plot([0, top], [0, top], color=FAINT, lw=0.8, ls="--", zorder=1)
    axes.vlines(x, low, high, color=COLOURS[0], lw=1.0, alpha=0.45, zorder=2)
    axes.plot(x, y, "o", ms=4.5, mew=0, color=COLOURS[0], alpha=0.8, zorder=3)
    axes.set(xlim=(-0.5, top), ylim=(-0.5, top), xlabel="annotated calls", ylabel="estimated calls", aspect="equal")
    axes.set_title(title, fontsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
