"""The report: one HTML file that holds everything that it shows, for a person and for a paper's supplement."""

from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

import otus
from otus.atomic import write_text
from otus.clipfiles.verdicts import noise_sentences
from otus.layout import render_page
from otus.report import gain, results
from otus.report.classes import class_tables, measures
from otus.report.confusion import confusion_table, taken_for_another
from otus.report.content import ReportContent
from otus.report.densities import estimates
from otus.report.differences import board_differences
from otus.report.examples import Example, View, choose_examples, draw_example, marks_of
from otus.report.features import explanations
from otus.report.figures import MAX_CURVES, counts_svg, precision_recall_svg
from otus.report.inputs import what_went_in
from otus.report.leaderboard import LEAKY, TIES, at_iou, deciding_iou, leaderboard
from otus.report.leakage import leakage_sentences, leakage_table
from otus.report.learning import best_epochs_in_words, model_svg
from otus.report.recordings import best_recordings, recordings_table
from otus.report.reliability import reliability_svg, reliability_table
from otus.report.results import MOST_TABLES
from otus.report.spread import spreads
from otus.report.strata import missing_strata, strata_rows, strata_svg, strata_table
from otus.report.thresholds import rates_table, threshold_tables
from otus.report.tuning import tuned_points, tuning_table
from otus.tables import FILTERED, MICRO

_MOST_VERDICTS = 12

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


def write_report(path: str | Path, content: ReportContent) -> None:
    """Write the report to `path`, atomically: HTML without scripts that shows nothing of another file.

    It names the model cards, which a click opens. The same content gives the same bytes.
    """
    write_text(path, render_page(__package__, _view(content)))


def _view(content: ReportContent) -> dict[str, Any]:
    """What the templates show, as text and tables."""
    board = leaderboard(content.metrics, content.differences)
    best = results.best_row(board)
    return {
        "corpus": content.corpus,
        "facts": [
            ("Date", content.date),
            ("Otus", otus.__version__),
            ("Seed", str(content.seed)),
            ("Config", content.config_digest),
        ],
        "best": f"{results.model_name(best)}, {best['layer']}" if best is not None else None,
        "iou": f"{deciding_iou(content.metrics) or 0.0:g}",
        "several_labels": bool(board["label"].eq(MICRO).any()),
        "leaky": LEAKY if board["leaky"].any() else None,
        "by": content.by,
        "across": "folds" if content.by == "group" else f"{content.by}s",
        **_headline(content, best),
        **_board(content, board, best),
        **_forest(content, board),
        **_kinds_of_calls(content, board, best),
        **_points(content, board),
        **_probabilities(content, board),
        "model_cards": content.model_cards,
        "learning": [
            (model, Markup(model_svg(own, f"learning{number}-")), best_epochs_in_words(own))
            for number, (model, own) in enumerate(content.learning.items())
            if any(one.records for one in own)
        ],
        **_recordings(content, best),
        "examples": _examples(content, best),
        "leakage_verdicts": leakage_sentences(content.leakage),
        "leakage": leakage_table(content.leakage),
        "noise": [(dataset, noise_sentences(content.noise[dataset])) for dataset in sorted(content.noise)],
        **what_went_in(content),
    }


def _headline(content: ReportContent, best: dict[str, Any] | None) -> dict[str, Any]:
    if best is None:
        return {"headline": None, "chosen_by": "", "notes": []}
    return {
        "headline": results.headline(best, content.metrics, content.by),
        "chosen_by": results.chosen_by(content.evaluation, content.targets),
        "notes": results.own_notes(best, gain.reasons(content.forests)),
    }


def _board(content: ReportContent, board: pd.DataFrame, best: dict[str, Any] | None) -> dict[str, Any]:
    """The leader board and what is known of the differences between its rows."""
    differences, difference_notes = board_differences(content.differences, content.metrics, board)
    return {
        "board": results.board_table(board),
        "board_cut": len(board) > MOST_TABLES,
        "ties": TIES if any(str(rank).startswith("=") for rank in board["rank"]) else "",
        "external": bool(board["layer"].str.startswith("external").any()),
        "filtered": bool(board["layer"].str.endswith(FILTERED).any()),
        "timing": results.timing_table(board),
        "differences": differences,
        "difference_notes": difference_notes,
        "other_notes": results.other_notes(board, best, gain.reasons(content.forests)) if best is not None else [],
    }


def _forest(content: ReportContent, board: pd.DataFrame) -> dict[str, Any]:
    """What the forests change, and what they look at."""
    gains = gain.verdicts(content.differences, content.metrics, board, content.forests, content.evaluation)
    explained = explanations(content.importances, content.dependence, list(dict.fromkeys(board["model"])))
    pairs = content.importances[["model", "label"]].drop_duplicates()
    return {
        "gains": gains[:_MOST_VERDICTS],
        "gains_left_out": max(0, len(gains) - _MOST_VERDICTS),
        "gain_table": gain.gain_table(content.differences, content.metrics, board),
        "other_kinds": gain.other_kinds(content.forests),
        "explanations": explained,
        "explanations_left_out": max(0, len(pairs) - len(explained)) if explained else 0,
    }


def _kinds_of_calls(content: ReportContent, board: pd.DataFrame, best: dict[str, Any] | None) -> dict[str, Any]:
    """Every measure label by label, and which calls are found or taken for others."""
    strata = strata_rows(content.strata, content.metrics, best)
    label = best["label"] if best is not None else ""
    return {
        "class_tables": class_tables(content.metrics_per_class, content.metrics, board, content.evaluation),
        "measures": measures(content.evaluation),
        "strata": strata_table(strata),
        "strata_figure": Markup(strata_svg(strata, label)),
        "strata_missing": missing_strata(strata, label),
        "confusion": confusion_table(content.confusion, content.metrics, best),
        "taken_for_another": taken_for_another(content.confusion, content.metrics, best) if best is not None else 0,
    }


def _points(content: ReportContent, board: pd.DataFrame) -> dict[str, Any]:
    """Validation beside test, and thresholds that nobody chose."""
    models = len(board[["model", "layer"]].drop_duplicates())
    return {
        "curves": Markup(precision_recall_svg(content.curves, content.metrics)),  # matplotlib escapes the names in it
        "curves_left_out": max(0, models - MAX_CURVES),
        "folds": results.fold_tables(content.metrics, board),
        "spreads": spreads(content.metrics, board, content.by),
        "tuning": tuning_table(content.metrics, board),
        "tuned_points": tuned_points(content.metrics, board),
        "thresholds": threshold_tables(content.metrics, board),
        "rates": rates_table(content.recall_at_rates, content.metrics, board),
    }


def _probabilities(content: ReportContent, board: pd.DataFrame) -> dict[str, Any]:
    names = list(dict.fromkeys(board["model"]))
    return {
        "reliability": reliability_table(content.reliability, names),
        "reliability_figure": Markup(reliability_svg(content.reliability, names)),
    }


def _recordings(content: ReportContent, best: dict[str, Any] | None) -> dict[str, Any]:
    """Counts per recording: estimated, and those of the selections as they are."""
    rows = best_recordings(content.metrics_per_recording, content.metrics, best)
    counts = estimates(content.densities, best)
    return {
        "counts": counts,
        "count_figure": Markup(counts_svg(rows)),
        "per_recording": recordings_table(rows, content.recordings),
    }


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
