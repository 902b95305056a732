"""The report: one HTML file that holds everything that it shows, for a person and for a paper's supplement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

import otus
from otus.atomic import write_text
from otus.clipfiles.verdicts import noise_sentences
from otus.config import UNKNOWN
from otus.config.settings import ReportSettings
from otus.report import results
from otus.report.examples import Example, View, choose_examples, draw_example, marks_of
from otus.report.figures import MAX_CURVES, counts_svg, precision_recall_svg
from otus.report.leaderboard import LEAKY, MICRO, POOLED, at_iou, deciding_iou, leaderboard
from otus.report.leakage import leakage_sentences, leakage_table
from otus.report.learning import History, best_epochs_in_words, model_svg
from otus.report.reliability import reliability_svg, reliability_table
from otus.report.results import Table, amount, cell
from otus.report.spread import spreads

_FIRST_ROWS = 50  # of quarantine and of failed chunks
_FIRST_RECORDINGS = 200

_OUTCOMES = (
    (
        "hit",
        "Hits",
        "Selections that match an annotation, evenly spaced over their scores, surest first.",
        "The model has no hit.",
    ),
    (
        "false_alarm",
        "False alarms",
        "Selections that match no annotation, highest score first, one of each recording before the second of any.",
        "The model has no false alarm.",
    ),
    (
        "miss",
        "Misses",
        "Annotations that no selection matches, longest first, one of each recording before the second of any.",
        "The model misses no annotation.",
    ),
)


@dataclass(frozen=True)
class ReportContent:
    """Everything that the report is made from; the tables are those of otus.tables, all models one below the other
    (`leakage`: all dataset variants). `noise` holds the noise.json of every dataset variant by its name, `learning` the
    trainings of every model, `model_cards` the path of each model's card from the report; `by` is split.by of the
    config.

    `date` is printed as it is given. `window_s`, `low_hz` and `high_hz` set the spectrograms of the examples
    (None = 512 samples, 0 Hz, half the sample rate).
    """

    corpus: str
    corpus_root: Path
    date: str
    seed: int
    config_digest: str
    targets: tuple[str, ...]
    recordings: pd.DataFrame
    annotations: pd.DataFrame
    quarantine: pd.DataFrame
    metrics: pd.DataFrame
    metrics_per_recording: pd.DataFrame
    curves: pd.DataFrame
    matches: pd.DataFrame
    reliability: pd.DataFrame
    items: pd.DataFrame
    leakage: pd.DataFrame
    noise: Mapping[str, Mapping[str, Any]]
    by: str = "group"
    learning: Mapping[str, Sequence[History]] = field(default_factory=dict)
    model_cards: Mapping[str, str] = field(default_factory=dict)
    settings: ReportSettings = field(default_factory=ReportSettings)
    window_s: float | None = None
    low_hz: float | None = None
    high_hz: float | None = None


def write_report(path: str | Path, content: ReportContent) -> None:
    """Write the report to `path`, atomically: HTML without scripts that shows nothing of another file.

    It names the model cards, which a click opens. The same content gives the same bytes.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(resources.files(__package__).joinpath("page.html").read_text("utf-8"))
    write_text(path, template.render(_view(content)))


def _view(content: ReportContent) -> dict[str, Any]:
    """What the template shows, as text and tables."""
    board = leaderboard(content.metrics)
    best = results.best_row(board)
    per_recording = _per_recording(content, best)
    curves = precision_recall_svg(content.curves, content.metrics)
    models = len(board[["model", "layer"]].drop_duplicates())
    names = list(dict.fromkeys(board["model"]))
    return {
        "corpus": content.corpus,
        "facts": [
            ("Date", content.date),
            ("Otus", otus.__version__),
            ("Seed", str(content.seed)),
            ("Config", content.config_digest),
        ],
        "headline": results.headline(best, content.metrics, content.by) if best is not None else None,
        "best": f"{results.model_name(best)}, {best['layer']}" if best is not None else None,
        "iou": f"{deciding_iou(content.metrics) or 0.0:g}",
        "notes": results.notes(board),
        "board": results.board_table(board),
        "external": bool(board["layer"].eq("external").any()),
        "leaky": LEAKY if board["leaky"].any() else None,
        "timing": results.timing_table(board),
        "forest": results.forest_table(board),
        "by": content.by,
        "across": "folds" if content.by == "group" else f"{content.by}s",
        "spreads": spreads(content.metrics, board, content.by),
        "folds": results.fold_tables(content.metrics, board),
        "thresholds": results.threshold_tables(content.metrics, board),
        "reliability": reliability_table(content.reliability, names),
        "reliability_figure": Markup(reliability_svg(content.reliability, names)),
        "curves": Markup(curves),  # drawn by matplotlib, which escapes the names in it
        "curves_left_out": max(0, models - MAX_CURVES),
        "model_cards": content.model_cards,
        "learning": [
            (model, Markup(model_svg(own, f"learning{number}-")), best_epochs_in_words(own))
            for number, (model, own) in enumerate(content.learning.items())
            if any(one.records for one in own)
        ],
        "counts": Markup(counts_svg(per_recording)),
        "per_recording": _recordings_table(content, per_recording),
        "examples": _examples(content, best),
        "leakage_verdicts": leakage_sentences(content.leakage),
        "leakage": leakage_table(content.leakage),
        "noise": [(dataset, noise_sentences(content.noise[dataset])) for dataset in sorted(content.noise)],
        **_what_went_in(content),
    }


def _per_recording(content: ReportContent, best: dict[str, Any] | None) -> pd.DataFrame:
    """The rows of metrics_per_recording of the best model and layer, one per test recording and label."""
    rows = at_iou(content.metrics_per_recording, "iou", deciding_iou(content.metrics))
    if best is None:
        return rows.iloc[:0]
    rows = rows[rows["model"].eq(best["model"]) & rows["layer"].eq(best["layer"]) & rows["selected"].eq(True)]
    return rows[rows["split"].eq("test") & rows["fold"].eq(POOLED) & rows["label"].ne(MICRO)]


def _recordings_table(content: ReportContent, rows: pd.DataFrame) -> Table | None:
    if rows.empty:
        return None
    rows = rows.assign(errors=rows["fp"] + rows["fn"])
    rows = rows.sort_values(["errors", "fn", "recording_id", "label"], ascending=[False, False, True, True])
    paths = dict(zip(content.recordings["recording_id"], content.recordings["path"], strict=True))
    several = rows["label"].nunique() > 1
    body = []
    for row in rows.head(_FIRST_RECORDINGS).to_dict("records"):
        names = [str(paths.get(row["recording_id"], row["recording_id"])), cell(row["group"])]
        counts = [cell(row[name], 0) for name in ("n_gt", "n_pred", "tp", "fp", "fn")]
        label = [cell(row["label"])] if several else []
        body.append([*names, *label, cell(row["duration_s"], 0), *counts, cell(row["f1"])])
    columns = ["Recording", "Group", *(["Label"] if several else []), "Length (s)"]
    columns += ["Annotated", "Selections", "Hits", "False alarms", "Misses", "F1"]
    return Table(columns, body, text_columns=3 if several else 2, path_column=0, left_out=len(rows) - len(body))


def _examples(content: ReportContent, best: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The galleries of the best model and layer; none if there are no results or no example is wanted."""
    if best is None or content.settings.examples == 0:
        return []
    matches = at_iou(content.matches, "iou_threshold", deciding_iou(content.metrics))
    matches = matches[matches["model"].eq(best["model"]) & matches["layer"].eq(best["layer"])]
    matches = matches[matches["split"].eq("test")]
    selections = matches[matches["outcome"].isin(["hit", "false_alarm"])]
    recordings = {str(row["recording_id"]): row for row in content.recordings.to_dict("records")}
    view = View(content.window_s, content.low_hz, content.high_hz, content.settings.audio)
    galleries = []
    for outcome, title, caption, none in _OUTCOMES:
        shown: list[Example] = []
        for row in choose_examples(matches, outcome, content.settings.examples):
            marks = marks_of(row, selections, content.annotations)
            recording = recordings.get(str(row["recording_id"]))
            known = {str(key): value for key, value in recording.items()} if recording else None
            shown.append(draw_example(row, known, content.corpus_root, marks, view))
        total = int(matches["outcome"].eq(outcome).sum())
        galleries.append(
            {"key": outcome, "title": title, "caption": caption, "none": none, "shown": shown, "total": total}
        )
    return galleries


def _what_went_in(content: ReportContent) -> dict[str, Any]:
    """Recordings, labels, and everything that was left out, with its reason."""
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
            quarantine, ["kind", "path", "row", "reason", "remedy"], ["Kind", "File", "Row", "Why", "What to do"]
        ),
        "items": ", ".join(f"{n} {cell(status)}" for status, n in statuses.items()),
        "failed": _listing(
            failed.to_dict("records"),
            ["chunk_id", "recording_id", "status", "error_class", "error"],
            ["Chunk", "Recording", "Status", "Error", "What it said"],
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


def _listing(rows: Sequence[dict[Any, Any]], names: Sequence[str], columns: Sequence[str]) -> Table | None:
    """The first rows as text."""
    if not rows:
        return None
    body = [[cell(row[name], 0) for name in names] for row in rows[:_FIRST_ROWS]]
    return Table(list(columns), body, text_columns=len(columns), path_column=1, left_out=len(rows) - len(body))
