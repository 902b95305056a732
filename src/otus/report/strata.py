"""Which calls are found: recall by quality, duration and SNR, as a figure and as a table."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from otus.layout import Table
from otus.report.figures import COLOURS, FAINT, INK, as_svg, house_style
from otus.report.leaderboard import at_iou, deciding_iou, with_interval
from otus.report.results import DASH, MOST_ROWS, Row, cell, label_name, milliseconds
from otus.tables import MICRO

#: The strata in the order of the page, and their names there.
STRATA = {"quality": "quality", "duration": "duration", "snr": "signal-to-noise ratio"}

_MOST_BINS = 12  # of one stratum in the figure


def strata_rows(strata: pd.DataFrame, metrics: pd.DataFrame, best: Row | None) -> pd.DataFrame:
    """Return the rows of the best layer, all labels together first; no row without a best layer."""
    if best is None:
        return strata.iloc[:0]
    rows = at_iou(strata, "iou", deciding_iou(metrics))
    rows = rows[rows["model"].eq(best["model"]) & rows["layer"].eq(best["layer"]) & rows["stratum"].isin(STRATA)]
    return rows.assign(of_label=rows["label"].ne(MICRO)).sort_values(["of_label", "label"], kind="stable")


def strata_svg(rows: pd.DataFrame, label: str) -> str:
    """Return an SVG with a panel per stratum: recall in each bin with its interval, and how many calls are in it.

    `rows` are those of one layer, `label` says which are drawn. Empty text if there is none with a recall.
    """
    own = rows[rows["label"].eq(label)]
    parts = [own[own["stratum"].eq(name)].head(_MOST_BINS) for name in STRATA]
    panels = [(name, part) for name, part in zip(STRATA, parts, strict=True) if part["recall"].notna().any()]
    if not panels:
        return ""
    heights = [len(part) + 1.6 for _, part in panels]
    with house_style():
        figure = Figure(figsize=(6.2, 0.27 * sum(heights) + 0.35), layout="constrained")
        grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
        for i, (name, part) in enumerate(panels):
            axes = figure.add_subplot(grid[i])
            _panel(axes, part, STRATA[name])
            if i == len(panels) - 1:
                axes.set_xlabel("recall")
        return as_svg(figure, "strata-")


def strata_table(rows: pd.DataFrame) -> Table | None:
    """Return every bin of every label of one layer; None without a row."""
    body = [
        [
            label_name(row["label"]),
            STRATA[row["stratum"]],
            cell(row["bin"]),
            with_interval(row, "recall", DASH),
            with_interval(row, "precision", DASH),
            *(milliseconds(row[f"{edge}_error_median_s"]) for edge in ("onset", "offset")),
            *(cell(row[name], 0) for name in ("n_gt", "tp", "fn", "fp", "n_groups")),
        ]
        for row in rows.head(MOST_ROWS).to_dict("records")
    ]
    columns = ["Label", "By", "Calls", "Recall", "Precision", "Onset error (ms)", "Offset error (ms)"]
    columns += ["Annotated", "Hits", "Misses", "False alarms", "Groups"]
    left_out = len(rows) - len(body)
    return Table(columns, body, text_columns=3, left_out=left_out, rest="strata.csv") if body else None


def missing_strata(rows: pd.DataFrame, label: str) -> list[str]:
    """Return the names of the strata that nothing is known of."""
    known = set(rows.loc[rows["label"].eq(label), "stratum"])
    return [name for key, name in STRATA.items() if key not in known]


def _panel(axes: Axes, bins: pd.DataFrame, title: str) -> None:
    places = range(len(bins))
    for place, row in zip(places, bins.to_dict("records"), strict=True):
        if pd.isna(row["recall"]):
            continue
        if not pd.isna(row["recall_low"]):
            axes.hlines(place, row["recall_low"], row["recall_high"], color=COLOURS[0], lw=1.4, alpha=0.7)
        axes.plot(row["recall"], place, "o", ms=6, color=COLOURS[0], mec=INK, mew=0.5)
    names = [f"{bin_name} (n {cell(n, 0)})" for bin_name, n in zip(bins["bin"].astype(str), bins["n_gt"], strict=True)]
    axes.set_yticks(list(places), names)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(bins) - 0.4, -0.6))
    axes.set_title(f"by {title}", fontsize=9, loc="left")
    axes.grid(axis="x", color=FAINT, lw=0.4, alpha=0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
