"""The leader board: which rows, in which order, with which ranks, and as text for the terminal."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.report.leaderboard import TIES, deciding_iou, leaderboard, leaderboard_text
from otus.tables import table


def metric(model="dense", f1=0.78, layer="cnn", width=0.1, **more):
    row = {"model": model, "layer": layer, "fold": "pooled", "split": "test", "label": "boobook", "iou": 0.4}
    row |= {"role": "chosen", "operating_point": "selected", "selected": True, "n_recordings": 33}
    row |= {"n_gt": 49, "n_pred": 46, "tp": 37, "fp": 9, "fn": 12, "precision": 0.804, "recall": 0.755, "f1": f1}
    if f1 is not None:
        row |= {"f1_low": f1 - width, "f1_high": f1 + width}
    return row | {"false_alarms_per_hour": 32.7, "leaky": False, "note": None} | more


def difference(one, other, low, high, **more):
    """Of two rows, named by model or by (model, layer)."""
    (model, layer), (other_model, other_layer) = (n if isinstance(n, tuple) else (n, "cnn") for n in (one, other))
    names = {"model": model, "layer": layer, "other_model": other_model, "other_layer": other_layer}
    bounds = {"difference": (low + high) / 2, "difference_low": low, "difference_high": high}
    return names | {"label": "boobook", "iou": 0.4, "measure": "f1"} | bounds | more


def ranks(rows, differences=()):
    board = leaderboard(table("metrics", rows), table("differences", list(differences)))
    return dict(zip(board["model"], board["rank"], strict=True))


def text_of(rows, differences=()):
    return leaderboard_text(table("metrics", rows), table("differences", list(differences)), "results/report.html")


def test_headline_rows_are_pooled_test_rows_of_the_chosen_point_at_the_first_iou():
    rows = [metric(layer="cnn+rf", f1=0.71), metric(f1=0.78), metric("easy", 0.99, iou=0.1)]
    rows += [metric("fold", 0.9, fold="1"), metric("val", 0.9, split="val"), metric("best", 0.9, selected=False)]
    board = leaderboard(table("metrics", rows))
    assert deciding_iou(table("metrics", rows)) == 0.4
    assert list(zip(board["layer"], board["f1"], strict=True)) == [("cnn", 0.78), ("cnn+rf", 0.71)]
    assert leaderboard(table("metrics", [])).empty


def test_labels_stand_together_and_what_pools_them_first():
    rows = [metric("a", f1, label=label) for label, f1 in (("owl", 0.9), ("crow", 0.5), ("micro", 0.7))]
    rows += [metric("b", f1, label=label) for label, f1 in (("owl", 0.8), ("crow", 0.6), ("micro", 0.6))]
    board = leaderboard(table("metrics", [*rows, metric("leaky", 0.99, leaky=True, label="micro")]))
    assert board["label"].tolist() == ["micro", "micro", "crow", "crow", "owl", "owl", "micro"]
    assert board["model"].tolist() == ["a", "b", "b", "a", "a", "b", "leaky"]


def test_a_paired_difference_decides_before_the_intervals_do():
    rows = [metric("a", 0.80), metric("b", 0.75), metric("c", 0.74)]
    assert ranks(rows) == {"a": "=1", "b": "=1", "c": "=1"}, "intervals overlap"
    assert ranks(rows, [difference("a", "b", 0.01, 0.09)]) == {"a": "=1", "b": "3", "c": "=1"}
    assert ranks(rows, [difference("b", "a", -0.09, -0.01)]) == {"a": "=1", "b": "3", "c": "=1"}, "either way"
    apart = [difference("a", name, 0.01, 0.09) for name in "bc"]
    assert ranks(rows, apart) == {"a": "1", "b": "=2", "c": "=2"}
    assert ranks(rows, [*apart, difference("b", "c", 0.001, 0.02)]) == {"a": "1", "b": "2", "c": "3"}


def test_a_paired_difference_that_holds_nothing_ties_rows_whose_intervals_are_apart():
    rows = [metric("a", 0.8, width=0.01), metric("b", 0.7, width=0.01)]
    assert ranks(rows) == {"a": "1", "b": "2"}
    assert ranks(rows, [difference("a", "b", -0.01, 0.2)]) == {"a": "=1", "b": "=1"}
    assert ranks(rows, [difference("a", "b", 0.0, 0.2)]) == {"a": "=1", "b": "=1"}, "0 is held"


@pytest.mark.parametrize("other", [{"measure": "recall"}, {"iou": 0.1}, {"label": "owl"}, {"other_layer": "cnn+rf"}])
def test_differences_of_something_else_tell_nothing(other):
    rows = [metric("a", 0.8), metric("b", 0.75)]
    assert ranks(rows, [difference("a", "b", 0.01, 0.09, **other)]) == {"a": "=1", "b": "=1"}


def test_the_layers_of_a_model_are_ranked_apart():
    rows = [metric("a", 0.8, layer="cnn+rf"), metric("a", 0.7)]
    board = leaderboard(
        table("metrics", rows), table("differences", [difference(("a", "cnn+rf"), ("a", "cnn"), 0.05, 0.15)])
    )
    assert board["rank"].tolist() == ["1", "2"]


def test_without_any_interval_nothing_is_tied():
    rows = [metric(name, f1, f1_low=None, f1_high=None) for name, f1 in (("a", 0.8), ("b", 0.8))]
    nothing = difference("a", "b", np.nan, np.nan)
    assert ranks(rows, [nothing]) == {"a": "1", "b": "2"}


def test_leaky_rows_and_rows_without_an_f1_have_no_rank():
    rows = [metric("dealt", 0.95, leaky=True), metric("honest", 0.4), metric("mute", None)]
    board = leaderboard(table("metrics", rows))
    assert board["model"].tolist() == ["honest", "mute", "dealt"]
    assert board["rank"].tolist() == ["1", "", ""]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3)), min_size=1, max_size=8),
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=12),
)
def test_ranks_are_those_of_a_competition(values, apart):
    rows = [metric(f"m{i}", f1, width=width) for i, (f1, width) in enumerate(values)]
    board = leaderboard(
        table("metrics", rows), table("differences", [difference(f"m{i}", f"m{j}", 0.1, 0.2) for i, j in apart])
    )
    numbers = [int(rank.lstrip("=")) for rank in board["rank"]]
    for rank, number in zip(board["rank"], numbers, strict=True):
        assert rank.startswith("=") == (numbers.count(number) > 1)
        assert number == 1 + sum(n < number for n in numbers), "as many are before it as its rank says"
    firsts = [numbers.index(n) for n in sorted(set(numbers))]
    assert firsts == sorted(firsts) and firsts[0] == 0, "a later rank begins further down"


def test_the_text_marks_ties_and_says_in_one_line_what_they_are():
    lines = text_of([metric("a", 0.80), metric("b", 0.75), metric("c", 0.1)]).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["rank", "=1", "=1", "3"]
    assert lines[4] == TIES and len(TIES) <= 100
    assert TIES not in text_of([metric("a", 0.80), metric("c", 0.1)])


def test_the_text_marks_leaky_models_and_puts_them_last():
    rows = [metric("dealt-" + "x" * 60, 0.95, layer=layer, leaky=True) for layer in ("cnn", "cnn+rf")]
    text = text_of([*rows, metric("honest-" + "x" * 60, 0.4)])
    lines = text.splitlines()
    assert [line.split()[1][:4] for line in lines[1:4]] == ["hone", "deal", "deal"]
    assert [line.split()[0] for line in lines[1:4]] == ["1", "-", "-"]
    assert ["leaky" in line for line in lines[1:4]] == [False, True, True] and "cnn+rf, leaky" in text
    assert "A leaky model learned from clips of the very recordings" in text and max(map(len, lines)) <= 100
    assert "leaky" not in text_of([metric()])


def test_the_text_is_aligned_and_narrow():
    rows = [
        metric("grouped-" + "x" * 60 + "-fold", f1_high=0.88, f1_low=0.66),
        metric(f1=0.5, tp=None, note="only one group"),
        metric("フクロウ", None, recall=None, note="only one group"),
    ]
    rows = [row | {"label": "Ninox \x1b[31mboobook"} for row in rows]
    lines = text_of(rows).splitlines()
    assert lines[0].split()[:5] == ["rank", "model", "layer", "label", "F1"]
    assert "1  groupe…x" in lines[1] and "-fold  cnn" in lines[1]
    assert "0.78 [0.66, 0.88]" in lines[1] and "37/9/12" in lines[1] and lines[1].endswith("32.7    33")
    assert "-/9/12" in lines[2]
    assert lines[3].split()[:3] == ["-", "フクロウ", "cnn"]
    assert lines[4].startswith("Note: only one group (dense cnn Ninox ?[31mboobook, フクロウ")
    assert lines[-1] == "Report: results/report.html"
    assert max(map(len, lines)) <= 100 and "\x1b" not in "".join(lines)
    assert lines[1].index("cnn") == lines[2].index("cnn") == lines[3].index("cnn") + 4  # four wide characters


def test_the_text_has_every_note_once_with_all_rows_that_it_is_about():
    few, thin = "only 4 groups", "fold 1 boobook: no forest, cnn selections (thin ground)"
    lines = text_of([metric("a", 0.8, layer="cnn+rf", note=f"{few}; {thin}"), metric("a", 0.7, note=few)]).splitlines()
    notes = [line for line in lines if line.startswith("Note: ")]
    assert notes == [f"Note: {few} (a cnn+rf boobook, a cnn boobook)", f"Note: {thin} (a cnn+rf boobook)"]


def test_the_text_without_results():
    text = text_of([])
    assert text.startswith("No test results") and text.endswith("Report: results/report.html\n")


def test_the_leader_board_needs_no_heavy_package():
    heavy = ("matplotlib", "jinja2", "torch", "scipy")
    code = f"import sys, otus.report.leaderboard; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
