"""What the report says of operating points: how they were chosen, what others would give, and who leads by how much."""

import pytest
from tests.unit.report_content import make_content, metric, section, unadorned, written

from otus.config import ChoiceSettings, EvaluationSettings
from otus.report.results import signed
from otus.tables import table


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return make_content(tmp_path_factory.mktemp("corpus"))


def point(role, name, f1, **more):
    return metric(role=role, selected=False, operating_point=name, f1=f1, **more)


def difference(model, other, low, high, label="boobook", **more):
    row = {"model": model, "layer": "cnn", "other_model": other, "other_layer": "cnn", "label": label, "iou": 0.4}
    row |= {"measure": "f1", "n_recordings": 33, "n_groups": 5, "value": 0.7, "other_value": 0.78, "p_value": 0.0004}
    row |= {"difference": -0.08, "difference_low": low, "difference_high": high, "leaky": False, "note": None}
    return row | more


def test_the_headline_says_by_what_its_point_was_chosen(content, tmp_path):
    page = written(tmp_path, unadorned(content, table("metrics", [metric()])))
    assert "The operating point was chosen on validation groups by the best F1." in page.text
    assert "compare F1 all the same" not in page.text
    budget = ChoiceSettings(by="recall", false_alarms_per_hour=2)
    cost = ChoiceSettings(by="cost", miss_cost=3, false_alarm_cost=1)
    settings = EvaluationSettings(choice=budget, choice_of={"boobook": cost, "frog": ChoiceSettings()})
    page = written(tmp_path, unadorned(content, table("metrics", [metric()]), evaluation=settings))
    assert (
        "chosen on validation groups by the best recall with at most 2 false alarms per hour; for boobook by the least "
        "cost (3 per miss, 1 per false alarm). Ranks, differences and the gap between validation and test compare F1 "
        "all the same." in page.text
    )
    assert "for frog" not in page.text, "no target"


def test_degenerate_truth_is_told_beside_the_headline_and_of_other_rows_below_the_board(content, tmp_path):
    few = "only 2 groups: the interval says next to nothing"
    rows = [metric(note=f"{few}; no recording without calls"), metric("other", f1=0.5, note=f"{few}; forest <b>")]
    page = written(tmp_path, unadorned(content, table("metrics", rows)))
    top = page.text[: page.text.index("Leader board A row is")]
    assert "Only 2 groups: the interval says next to nothing. No recording without calls." in top
    board = section(page, "Leader board A row is", "What the forest changes")
    assert "other cnn boobook: forest <b>" in board and "only 2 groups" not in board, "said already"


def test_ties_and_differences_stand_with_the_leader_board(content, tmp_path):
    metrics = table("metrics", [metric("a", f1=0.78), metric("b", f1=0.7), metric("c", f1=0.3)])
    note = "only 5 groups: the p-value cannot be below 0.062"
    known = [difference("b", "a", -0.2, 0.04, p_value=0.3, note=note), difference("a", "c", 0.1, 0.3)]
    known += [difference("a", "b", 0.5, 0.6, iou=0.1), difference("b", "c", 0.0, 0.1, note="of no row shown")]
    page = written(tmp_path, unadorned(content, metrics, differences=table("differences", known)))
    board = section(page, "Leader board A row is", "What the forest changes")
    assert "=1 a cnn" in board and "=1 b cnn" in board and "3 c cnn" in board and "Rank: rows with the same" in board
    assert "b cnn 0.70 0.78 −0.08 [−0.20, +0.04] 0.30 5" in board
    assert "c cnn 0.78 0.70 +0.08 [−0.30, −0.10] < 0.001 5" in board, "turned round"
    assert "Only 5 groups: the p-value cannot be below 0.062." in board and "of no row shown" not in board
    alone = section(written(tmp_path, unadorned(content, metrics)), "Leader board A row is", "What the forest changes")
    assert "No difference between rows was tested" in alone


def test_a_long_board_is_cut_with_a_count(content, tmp_path):
    notes = [None, *["few calls"] * 69]
    metrics = table("metrics", [metric(f"m{i:03d}", f1=0.9 - i / 1000, note=notes[i]) for i in range(70)])
    page = written(tmp_path, unadorned(content, metrics))
    board = section(page, "Leader board A row is", "What the forest changes")
    assert "m006 cnn boobook and 63 more: few calls" in board
    assert "m059" in board and "m060" not in board and "10 more rows are in metrics.csv." in board
    assert "The first twelve rows of the leader board; metrics.csv has all." in page.text


def test_tuning_stands_beside_the_result_and_is_no_result(content, tmp_path):
    grid = [point("grid", f"off0.{i:02d}", 0.5 + i / 1000, threshold=0.3) for i in range(30)]
    fixed = [point("fixed", "0.30", 0.6, threshold=0.3), point("fixed", "0.50", 0.85, threshold=0.5)]
    best = point("best", "0.50", 0.85, note="chosen on the test recordings themselves: tuning, not performance")
    page = written(tmp_path, unadorned(content, table("metrics", [metric(), *grid, *fixed, best])))
    assert "F1 0.78 [0.66, 0.88] on 49" in page.text, "the headline is the chosen point"
    text = section(page, "Tuning is not performance The result", "Fixed thresholds")
    assert "dense cnn boobook chosen decoding at 0.50 0.78 [0.66, 0.88] 0.85 +0.07" in text
    assert (
        text.index("chosen decoding at 0.50 46 37") < text.index("chosen decoding at 0.30 46") < text.index("off0.29")
    )
    assert "off0.12" in text and "off0.11" not in text and "12 more rows are in metrics.csv." in text
    thresholds = section(page, "Fixed thresholds For comparison", "Probabilities")
    assert "off0" not in thresholds and "0.3 46 37 9 12 0.80 0.76 0.60" in thresholds, "role fixed alone"


def test_without_other_points_tuning_is_one_sentence(content, tmp_path):
    page = written(tmp_path, unadorned(content, table("metrics", [metric()])))
    assert "Tuning is not performance No point beside the chosen one was evaluated." in page.text
    assert "No fixed thresholds were evaluated. Recall at given rates of false alarms was not measured." in page.text


def test_recall_at_rates_has_a_column_per_budget(content, tmp_path):
    def rate(budget, recall, **more):
        row = {"model": "dense", "layer": "cnn", "fold": "pooled", "label": "boobook", "iou": 0.4, "n_gt": 49}
        row |= {"budget_per_hour": budget, "hours": 0.275, "n_groups": 4, "recall": recall}
        return row | {"recall_low": recall - 0.1, "recall_high": recall + 0.1, "leaky": False} | more

    rates = [rate(100.0, 0.8), rate(0.5, 0.2), rate(0.5, 0.99, fold="1"), rate(0.5, 0.98, iou=0.9)]
    full = unadorned(content, table("metrics", [metric()]), recall_at_rates=table("recall_at_rates", rates))
    text = section(written(tmp_path, full), "Recall at a given rate of false alarms The", "Probabilities")
    assert "Recall at 0.5/h Recall at 100/h" in text
    assert "dense cnn boobook 0.20 [0.10, 0.30] 0.80 [0.70, 0.90] 49 0.28 4" in text
    assert "0.99" not in text and "0.98" not in text


@pytest.mark.parametrize(
    ("value", "text"), [(0.044, "+0.04"), (-0.1, "−0.10"), (-0.001, "0.00"), (0.0, "0.00"), (None, "–")]
)
def test_signs(value, text):
    assert signed(value) == text
