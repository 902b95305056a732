"""Figures of the report: precision-recall curves and counts as SVG, spectrograms as PNG, sound as WAV.

Everything is drawn through matplotlib's objects, never through pyplot, from its default settings and without
dates, so that the same tables give the same bytes.
"""

import contextlib
import io
import re
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from otus.report.leaderboard import at_iou, deciding_iou, leaderboard
from otus.tables import POOLED

#: Most lines in one precision-recall panel; the caption says so where more models were compared.
MAX_CURVES = 8

#: Of text and lines; replaced by the colour of the page's text, so that figures can be read in dark mode too.
INK = "#010203"

#: Of what is not to catch the eye, and of models, labels and the like, in their order.
FAINT = "#8a8f98"
COLOURS = ("#2b83c6", "#e07b00", "#12a06e", "#c9569c", "#a2702f", "#7a6fd0", "#cf4a3c", "#5b9aa0")
_MAX_POINTS = 500
_COLOUR_LEVELS = 32  # few grey levels keep the PNG small and are all that the eye can tell apart
_LEAST_RANGE_DB = 20.0


@dataclass(frozen=True)
class Mark:
    """An interval drawn on a spectrogram, in seconds of the recording; `focus` marks the one that it is about."""

    kind: Literal["selection", "annotation", "other"]
    start_s: float
    end_s: float
    low_hz: float | None = None
    high_hz: float | None = None
    focus: bool = False


_MARKS: dict[str, tuple[str, str, str]] = {
    "selection": ("#e05a00", "solid", "selection (detector)"),
    "annotation": ("#0064c8", "dashed", "annotation (person)"),
    "other": ("#7d3c98", "dotted", "other label"),
}


def precision_recall_svg(curves: pd.DataFrame, metrics: pd.DataFrame) -> str:
    """Return an SVG with a panel per label: precision against recall over all thresholds on pooled test recordings.

    One line per model and layer (at most MAX_CURVES, the best ones), a dot at the operating point that was chosen
    on validation groups, thin lines of equal F1. Empty text if there is no curve to draw.
    """
    points = at_iou(curves, "iou", deciding_iou(metrics))
    points = points[points["fold"].eq(POOLED) & points["split"].eq("test")].dropna(subset=["precision", "recall"])
    if points.empty:
        return ""
    board = leaderboard(metrics)
    labels = list(dict.fromkeys([*board["label"], *points["label"]]))
    labels = [label for label in labels if points["label"].eq(label).any()]
    lines = list(dict.fromkeys([*_pairs(board), *_pairs(points)]))[:MAX_CURVES]
    marks = dict.fromkeys(points.loc[points["leaky"].eq(True), "model"], " (leaky)")
    models = list(dict.fromkeys(model for model, _ in lines))
    columns = min(2, len(labels))
    rows = -(-len(labels) // columns)
    with house_style():
        legend_in = 0.25 * len(lines) + 0.25
        figure = Figure(figsize=(3.9 * columns + 0.3, 3.7 * rows + legend_in), layout="constrained")
        for i, label in enumerate(labels):
            axes = figure.add_subplot(rows, columns, i + 1)
            _precision_recall_panel(axes, str(label) if len(labels) > 1 else "")
            for model, layer in lines:
                style = _line_style(models.index(model), layer)
                of_label = points["label"].eq(label) & points["model"].eq(model) & points["layer"].eq(layer)
                _curve(axes, points[of_label], style)
                chosen = board[board["label"].eq(label) & board["model"].eq(model) & board["layer"].eq(layer)]
                axes.plot(
                    chosen["recall"], chosen["precision"], "o", ms=7, color=style["color"], mec=INK, mew=0.8, zorder=4
                )
        handles = [
            Line2D([], [], label=f"{m}, {y}{marks.get(m, '')}", **_line_style(models.index(m), y)) for m, y in lines
        ]
        handles.append(Line2D([], [], ls="", marker="o", color=FAINT, mec=INK, label="operating point chosen"))
        figure.legend(handles=handles, loc="outside lower left", ncols=1 if columns == 1 else 2, frameon=False)
        return as_svg(figure, "curve-")


def counts_svg(per_recording: pd.DataFrame) -> str:
    """Return an SVG of detected against annotated calls, one dot per number pair, its area the recordings there.

    `per_recording` has the columns recording_id, n_gt and n_pred; rows of one recording are added up. Empty text
    if there is no row.
    """
    if per_recording.empty:
        return ""
    counts = per_recording.groupby("recording_id")[["n_gt", "n_pred"]].sum()
    pairs = counts.value_counts().sort_index()
    x, y = pairs.index.get_level_values(0), pairs.index.get_level_values(1)
    with house_style():
        figure = Figure(figsize=(4.2, 3.9), layout="constrained")
        axes = figure.add_subplot()
        top = max(1, int(counts.to_numpy().max())) * 1.08 + 0.5
        axes.plot([0, top], [0, top], color=FAINT, lw=0.8, ls="--", zorder=1)
        axes.scatter(x, y, s=26 * np.sqrt(pairs.to_numpy()), color=COLOURS[0], alpha=0.75, linewidths=0, zorder=2)
        axes.set(xlim=(-0.5, top), ylim=(-0.5, top), xlabel="annotated calls", ylabel="selections", aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        return as_svg(figure, "count-")


def spectrogram_png(
    samples: NDArray[np.float32],
    sample_rate: int,
    *,
    start_s: float,
    marks: Sequence[Mark] = (),
    window_s: float | None = None,
    low_hz: float | None = None,
    high_hz: float | None = None,
) -> bytes:
    """Return a PNG of the power spectrogram (0 dB = a full-scale tone), dark for loud, with its marks and a legend.

    `start_s` is where `samples` begin in the recording. Without `window_s` the analysis window has 512 samples;
    without limits the axis goes from 0 to half the sample rate. Raises ValueError if there are no samples.
    """
    if len(samples) == 0:
        raise ValueError("no samples to draw")
    window = max(16, round(window_s * sample_rate)) if window_s else 512
    level_db = _power_db(np.asarray(samples, dtype=np.float64), window)
    nyquist = sample_rate / 2
    low, high = max(0.0, low_hz or 0.0), min(nyquist, high_hz or nyquist)
    if high <= low:  # the recording has nothing in the band of the model
        low, high = 0.0, nyquist
    bins_hz = np.linspace(0.0, nyquist, len(level_db))
    shown = level_db[(bins_hz >= low) & (bins_hz <= high)]
    top = float(shown.max(initial=-200.0))
    floor = min(float(np.median(shown)) if shown.size else top, top - _LEAST_RANGE_DB)  # half of it is background
    end_s = start_s + len(samples) / sample_rate
    with house_style():
        figure = Figure(figsize=(4.9, 2.3), facecolor="white")
        axes = figure.add_axes((0.105, 0.185, 0.785, 0.7))
        image = axes.imshow(
            level_db,
            origin="lower",
            aspect="auto",
            extent=(start_s, end_s, 0.0, nyquist / 1000),
            cmap=mpl.colormaps["gray_r"].resampled(_COLOUR_LEVELS),
            vmin=floor,
            vmax=top,
        )
        axes.set(xlim=(start_s, end_s), ylim=(low / 1000, high / 1000), xlabel="time (s)", ylabel="frequency (kHz)")
        axes.xaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
        bar = figure.colorbar(image, cax=figure.add_axes((0.905, 0.185, 0.018, 0.7)), ticks=MaxNLocator(nbins=4))
        bar.ax.set_title("dB", fontsize=8, loc="left", pad=3)
        _draw_marks(figure, axes, marks)
        return _png(figure)


def wav_bytes(samples: NDArray[np.float32], sample_rate: int) -> bytes:
    """Return `samples` as a 16-bit mono WAV file, raised so that its loud moments reach 70 % of full scale.

    Sound that is louder already keeps its level. The level is the 99.9 % quantile of the absolute samples, so
    that one click does not keep a faint call inaudible.
    """
    centred = np.asarray(samples, dtype=np.float64)
    centred = centred - centred.mean() if len(centred) else centred
    loud = float(np.quantile(np.abs(centred), 0.999)) if len(centred) else 0.0
    gain = max(1.0, 0.7 / loud) if loud > 0 else 1.0
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(np.clip(centred * gain, -1.0, 1.0) * 32767).astype("<i2").tobytes())
    return out.getvalue()


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Draw from matplotlib's own defaults, whatever the user's matplotlibrc says, and put the settings back."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.hashsalt": "otus",
                "svg.fonttype": "none",
                "text.parse_math": False,
                "figure.facecolor": "none",
                "axes.facecolor": "none",
                "font.size": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.linewidth": 0.7,
                **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
            }
        )
        yield


def _pairs(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(frame["model"], frame["layer"], strict=True))


def _line_style(model: int, layer: str) -> dict[str, Any]:
    """Colour tells the model, dashes the layer."""
    return {"color": COLOURS[model % len(COLOURS)], "ls": "-" if "+" in layer else (0, (4, 1.5)), "lw": 1.6}


def _precision_recall_panel(axes: Axes, title: str) -> None:
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title, aspect="equal")
    for f1 in (0.2, 0.4, 0.6, 0.8, 0.9):
        recall = f1 / 2 + np.geomspace(f1 / (2 - f1) - f1 / 2, 1 - f1 / 2, 60)  # dense where the line is steep
        axes.plot(recall, f1 * recall / (2 * recall - f1), color=FAINT, lw=0.5, zorder=1)
        axes.annotate(
            f"F1 {f1:g}",
            (1.02, f1 / (2 - f1)),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=FAINT,
            annotation_clip=False,
        )


def _curve(axes: Axes, points: pd.DataFrame, style: dict[str, Any]) -> None:
    ordered = points.sort_values("threshold", ascending=False, kind="stable")
    kept = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), _MAX_POINTS)).round().astype(int))
    thinned = ordered.iloc[kept]
    marker = "." if len(thinned) == 1 else None
    axes.plot(thinned["recall"], thinned["precision"], marker=marker, zorder=3, **style)


def _power_db(samples: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Hann-windowed power in dB of a full-scale tone, frequency x time, in 400 to 1200 columns; at least -120 dB."""
    columns = int(np.clip(2 * len(samples) // window, 400, 1200))
    padded = np.pad(samples, window // 2 + 1)
    starts = np.linspace(0, len(samples) - 1, min(columns, len(samples))).round().astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[starts]
    weights = np.hanning(window)
    power = (2 * np.abs(np.fft.rfft(frames * weights, axis=1)) / weights.sum()) ** 2
    return np.asarray(10 * np.log10(power.T + 1e-12))


def _draw_marks(figure: Figure, axes: Axes, marks: Sequence[Mark]) -> None:
    first_s, last_s = axes.get_xlim()
    marks = [mark for mark in marks if mark.end_s >= first_s and mark.start_s <= last_s]
    low_khz, high_khz = axes.get_ylim()
    height = high_khz - low_khz
    for mark in sorted(marks, key=lambda m: (m.focus, m.kind == "selection", m.start_s)):
        colour, dashes, _ = _MARKS[mark.kind]
        inset = 0.02 if mark.kind == "selection" else 0.06
        bottom, top = low_khz + inset * height, high_khz - inset * height
        if mark.low_hz is not None and mark.high_hz is not None and mark.high_hz > mark.low_hz:
            bottom, top = max(bottom, mark.low_hz / 1000), min(top, mark.high_hz / 1000)
        corner, length = (mark.start_s, bottom), mark.end_s - mark.start_s
        axes.add_patch(
            Rectangle(corner, length, top - bottom, fill=False, ec=colour, ls=dashes, lw=2.0 if mark.focus else 1.2)
        )
    kinds = [kind for kind in _MARKS if any(mark.kind == kind for mark in marks)]
    handles = [Rectangle((0, 0), 1, 1, fill=False, ec=_MARKS[k][0], ls=_MARKS[k][1], label=_MARKS[k][2]) for k in kinds]
    if handles:
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.105, 0.88),
            ncols=3,
            frameon=False,
            fontsize=8,
            handlelength=1.6,
            columnspacing=1.0,
            borderaxespad=0.2,
        )


def as_svg(figure: Figure, prefix: str) -> str:
    """Return the figure as an <svg> element for an HTML page, its ids made unique by `prefix`."""
    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    FigureCanvasSVG(figure).print_svg(out, metadata=nothing)  # type: ignore[no-untyped-call]
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", text)


def _png(figure: Figure) -> bytes:
    """The figure with a palette: a fifth of the bytes of full colour, which a spectrogram in grey does not need."""
    figure.set_dpi(150)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]
    out = io.BytesIO()
    reduced = picture.quantize(2 * _COLOUR_LEVELS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    reduced.putpalette([255 if value >= 250 else value for value in reduced.getpalette() or []])  # paper stays white
    reduced.save(out, "png", optimize=True)
    return out.getvalue()
