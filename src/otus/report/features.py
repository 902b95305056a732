"""What a forest looks at: importance of its features on groups that it never saw, and what their values mean."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from otus.layout import Table
from otus.report.figures import COLOURS, FAINT, INK, as_svg, house_style
from otus.report.results import amount, cell
from otus.tables import POOLED

_MOST_FEATURES = 15
_MOST_PANELS = 6
_MOST_FORESTS = 6  # of one model and label each
_PANELS_A_ROW = 3
_TITLE_CHARACTERS = 30


@dataclass(frozen=True)
class Explanation:
    """What the forests of one model and label look at: two figures (SVG or empty), and what never helped.

    `judged`: whether an interval could be given at all; without one nothing is known of what helps.
    """

    title: str
    basis: str
    importance: Markup
    dependence: Markup
    table: Table
    judged: bool
    never: tuple[str, ...]


def explanations(importances: pd.DataFrame, dependence: pd.DataFrame, models: Sequence[str]) -> list[Explanation]:
    """Return an explanation per model (in that order) and label, at most six; none without a forest.

    Taken are the rows over all folds. A feature never helped if neither the interval over all folds nor that of any
    one lies above 0; without any interval none is said to.
    """
    found: list[Explanation] = []
    for model in models:
        own = importances[importances["model"].eq(model)]
        for label in sorted(own["label"].unique()):
            rows = own[own["label"].eq(label)]
            if rows["fold"].eq(POOLED).any() and len(found) < _MOST_FORESTS:
                curves = dependence[dependence["model"].eq(model) & dependence["label"].eq(label)]
                several = own["label"].nunique() > 1
                found.append(_explanation(rows, curves, f"{model}, {label}" if several else model, len(found)))
    return found


def _explanation(rows: pd.DataFrame, curves: pd.DataFrame, title: str, number: int) -> Explanation:
    pooled = rows[rows["fold"].eq(POOLED)]
    pooled = pooled.sort_values(["drop", "feature"], ascending=[False, True], kind="stable")
    helped = set(rows.loc[rows["helps"].eq(True), "feature"])
    judged = bool(rows["drop_low"].notna().any())
    never = tuple(feature for feature in sorted(pooled["feature"].unique()) if judged and feature not in helped)
    top = pooled.head(_MOST_FEATURES)
    first = pooled.iloc[0]
    basis = (
        f"{cell(first['n_hits'], 0)} hits and {cell(first['n_false_alarms'], 0)} false alarms of "
        f"{amount(first['n_groups'], 'group')} that the forests never saw"
        f"{'' if pd.isna(first['drop_low']) else ', with 95 % intervals'}"
    )
    return Explanation(
        title,
        basis,
        Markup(importance_svg(top, f"importance{number}-")),  # matplotlib escapes the names in it
        Markup(dependence_svg(curves, f"dependence{number}-")),
        _table(top, len(pooled) - len(top)),
        judged,
        never,
    )


def _table(top: pd.DataFrame, left_out: int) -> Table:
    body = [
        [
            str(row["feature"]),
            _with_bounds(row["drop"], row["drop_low"], row["drop_high"]),
            cell(row["out_of_bag"], 3),
            cell(row["impurity"], 3),
        ]
        for row in top.to_dict("records")
    ]
    columns = ["Feature", "Loss of AP on unseen groups", "Out of bag", "Impurity"]
    return Table(columns, body, text_columns=1, left_out=left_out, rest="forest/<model>/importances.parquet")


def _with_bounds(value: float, low: float, high: float) -> str:
    text = cell(value, 3)
    return text if pd.isna(low) or pd.isna(high) else f"{text} [{cell(low, 3)}, {cell(high, 3)}]".replace("-", "−")


def importance_svg(top: pd.DataFrame, prefix: str) -> str:
    """Return an <svg> of the loss of average precision per feature with its interval, the largest on top.

    Filled bars help for certain (the interval lies above 0). `prefix` makes its ids unique. Empty text without a row.
    """
    if top.empty:
        return ""
    with house_style():
        figure = Figure(figsize=(6.6, 0.8 + 0.24 * len(top)), layout="constrained")
        axes = figure.add_subplot()
        rows = top.iloc[::-1]
        places, drops = np.arange(len(rows)), rows["drop"].to_numpy(dtype=float)
        sure = rows["helps"].eq(True).to_numpy(dtype=bool)
        colours = [COLOURS[0] if one else FAINT for one in sure]
        axes.barh(places, drops, height=0.62, color=colours, alpha=0.8, linewidth=0)
        low, high = (rows[f"drop_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        axes.hlines(places, low, high, color=INK, lw=0.9)
        axes.axvline(0.0, color=FAINT, lw=0.8)
        axes.set_yticks(places, [textwrap.shorten(str(name), 40, placeholder="…") for name in rows["feature"]])
        axes.set(xlabel="loss of average precision when the feature is shuffled", ylim=(-0.6, len(rows) - 0.4))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return as_svg(figure, prefix)


def dependence_svg(curves: pd.DataFrame, prefix: str) -> str:
    """Return an <svg> with a panel per feature, the most important first: probability of a hit against the value.

    The band holds 90 % of the folds. Empty text without a row.
    """
    ranks = curves.dropna(subset=["probability"]).drop_duplicates("feature").sort_values(["rank", "feature"])
    features = list(ranks["feature"])[:_MOST_PANELS]
    if not features:
        return ""
    columns = min(_PANELS_A_ROW, len(features))
    lines = -(-len(features) // columns)
    with house_style():
        figure = Figure(figsize=(2.75 * columns + 0.3, 2.1 * lines + 0.2), layout="constrained")
        axes: Axes | None = None
        for i, feature in enumerate(features):
            axes = figure.add_subplot(lines, columns, i + 1, sharey=axes)
            _dependence_panel(axes, curves[curves["feature"].eq(feature)].sort_values("value", kind="stable"))
            axes.set_title(textwrap.shorten(str(feature), _TITLE_CHARACTERS, placeholder="…"), fontsize=9)
            if i % columns == 0:
                axes.set_ylabel("probability of a hit")
        return as_svg(figure, prefix)


def _dependence_panel(axes: Axes, rows: pd.DataFrame) -> None:
    x, y = rows["value"].to_numpy(dtype=float), rows["probability"].to_numpy(dtype=float)
    low, high = (rows[f"probability_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
    axes.fill_between(x, low, high, color=COLOURS[0], alpha=0.22, linewidth=0)
    axes.plot(x, y, color=COLOURS[0], lw=1.4, marker="." if len(rows) == 1 else None)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
