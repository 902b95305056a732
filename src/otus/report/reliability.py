"""Whether the probabilities of selections hold on test recordings: a figure and a table from table reliability."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from otus.layout import Table
from otus.report.figures import COLOURS, FAINT, MAX_CURVES, as_svg, house_style
from otus.report.results import cell, model_name
from otus.tables import MICRO

_COLUMNS = 3  # panels side by side
_TITLE_CHARACTERS = 36  # above one panel


def reliability_svg(reliability: pd.DataFrame, models: list[str]) -> str:
    """Return an SVG with a panel per model: share of hits against probability, a dot per bin with its interval.

    The panels are those of `models` that have bins, in that order, at most MAX_CURVES; all labels together where there
    are several. A larger dot stands for more selections. Empty text if there is nothing to draw.
    """
    rows = _headline_rows(reliability)
    shown = [model for model in models if rows["model"].eq(model).any()][:MAX_CURVES]
    if not shown:
        return ""
    columns = min(_COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    with house_style():
        figure = Figure(figsize=(2.9 * columns + 0.3, 3.0 * lines + 0.2), layout="constrained")
        for i, model in enumerate(shown):
            axes = figure.add_subplot(lines, columns, i + 1)
            own = rows[rows["model"].eq(model)].sort_values("bin_low", kind="stable")
            _panel(axes, own, model_name(own.iloc[0]) if len(shown) > 1 else "")
        return as_svg(figure, "reliability-")


def reliability_table(reliability: pd.DataFrame, models: list[str]) -> Table | None:
    """Return how far the probabilities are off, a row per model (in the order of `models`) and label; None if empty."""
    body = []
    for model in models:
        own = reliability[reliability["model"].eq(model)]
        for label in sorted(own["label"].unique(), key=lambda name: (name != MICRO, name)):
            bins = own[own["label"].eq(label)]
            n, share = bins["n"].to_numpy(dtype=float), bins["hit_share"].to_numpy(dtype=float)
            off = np.abs(bins["mean_probability"].to_numpy(dtype=float) - share)
            overall = float(np.average(share, weights=n))
            body.append(
                [
                    model_name(bins.iloc[0]),
                    label,
                    cell(n.sum(), 0),
                    cell((n * share).sum(), 0),
                    cell(np.average(bins["brier_score"], weights=n), 3),
                    cell(overall * (1 - overall), 3),
                    cell(np.average(off, weights=n), 3),
                ]
            )
    columns = ["Model", "Label", "Selections", "Hits", "Brier score", "Brier score of a constant", "Calibration error"]
    return Table(columns, body, text_columns=2) if body else None


def _headline_rows(reliability: pd.DataFrame) -> pd.DataFrame:
    pooled = reliability[reliability["label"].eq(MICRO)]
    return pooled if len(pooled) else reliability


def _panel(axes: Axes, bins: pd.DataFrame, title: str) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, lw=0.8, ls="--", zorder=1)
    x, y = bins["mean_probability"].to_numpy(dtype=float), bins["hit_share"].to_numpy(dtype=float)
    low, high = (bins[f"hit_share_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
    n = bins["n"].to_numpy(dtype=float)
    axes.vlines(x, low, high, color=COLOURS[0], lw=1.0, alpha=0.6, zorder=2)
    axes.plot(x, y, color=COLOURS[0], lw=0.8, alpha=0.6, zorder=2)
    axes.scatter(x, y, s=12 + 90 * n / n.sum(), color=COLOURS[0], linewidths=0, zorder=3)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_title(textwrap.fill(title, _TITLE_CHARACTERS), fontsize=9)
    axes.set(xlabel="probability", ylabel="share of hits")
