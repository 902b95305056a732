"""The report across folds: how much the result differs from fold to fold, or from site to site."""

import numpy as np
import pandas as pd
import pytest
from tests.unit.report_content import make_content, metric, unadorned, written

from otus.report.leaderboard import leaderboard
from otus.report.results import fold_tables
from otus.report.spread import spreads
from otus.tables import table


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return make_content(tmp_path_factory.mktemp("corpus"))


def across_rows(f1_of, **more):
    """The pooled row, and a test row per fold beside a validation row and rows that are not to be shown."""
    rows = [metric(f1=0.6, **more)]
    for fold, f1 in enumerate(f1_of, start=1):
        own = {"fold": str(fold), "f1": f1, "part": f"site <{fold}>", "n_groups": 3, **more}
        rows.append(metric(n_gt=0 if f1 is None else 10 * fold, false_alarms_per_hour=float(fold), **own))
        rows += [metric(**own | {"split": "val", "f1": 0.99}), metric(**own | {"iou": 0.9, "f1": 0.01})]
        rows.append(metric(**own | {"selected": False, "f1": 0.02}))
    return table("metrics", rows)


def across(page, what):
    start = page.text.index(f"Across {what} Every fold")
    return page.text[start : page.text.index("Fixed thresholds", start)]


def test_folds_stand_below_each_other_with_their_spread(content, tmp_path):
    page = written(tmp_path, unadorned(content, across_rows([0.5, 0.8, 0.62])))
    text = across(page, "folds")
    assert "dense, cnn, boobook. F1 lies between 0.50 (site <1>) and 0.80 (site <2>); its standard deviation" in text
    assert "over 3 folds is 0.15." in text
    assert "1 3 10 0.50 [0.38, 0.60] 1.0 2 3 20 0.80 [0.68, 0.90] 2.0 3 3 30 0.62 [0.50, 0.72] 3.0" in text
    assert "Lowest 0.50 1.0 Highest 0.80 3.0 Standard deviation 0.15 1.0" in text
    assert "Site" not in text and "0.99" not in text and "0.01" not in text
    assert {"href": "#across"} in page.of("a")


def test_folds_of_sites_have_their_names(content, tmp_path):
    page = written(tmp_path, unadorned(content, across_rows([0.5, 0.8]), by="site"))
    text = across(page, "sites")
    assert "Every fold tests everything of one site, with a network that was trained and validated on other" in text
    assert "Fold Site Groups Annotated calls F1 False alarms/h 1 site <1> 3 10 0.50" in text
    assert "Lowest 0.50 1.0" in text
    assert "cross-validated over 2 folds that test one site each" in page.text
    assert not page.of("site")


def test_a_fold_without_calls_is_left_out_of_the_spread_of_f1(content, tmp_path):
    rows = across_rows([0.5, None, 0.7])
    rows.loc[rows["n_gt"] == 0, "f1"] = 0.0  # false alarms only
    text = across(written(tmp_path, unadorned(content, rows)), "folds")
    assert "between 0.50 (site <1>) and 0.70 (site <3>)" in text
    assert "over 2 folds is 0.14; 1 without annotated calls left out." in text
    assert "2 3 0 – 2.0" in text and "Lowest 0.50 1.0 Highest 0.70 3.0" in text
    none = across(written(tmp_path, unadorned(content, across_rows([None, None]))), "folds")
    assert "No fold has annotated calls." in none and "Lowest – 1.0" in none
    one = across(written(tmp_path, unadorned(content, across_rows([0.5, None]))), "folds")
    assert "its standard deviation over 1 folds is –" not in one and "Only one fold has annotated calls" in one


def test_a_fold_without_calls_has_no_f1_that_could_be_held_against_validation():
    rows = across_rows([0.5, None])
    rows.loc[rows["n_gt"] == 0, "f1"] = 0.0  # false alarms only
    (shown,) = fold_tables(rows, leaderboard(rows))
    assert [row[-3:] for row in shown.rows[:2]] == [["0.50 [0.38, 0.60]", "10", "−0.49"], ["–", "0", "–"]]


def test_many_folds_are_folded_up(content, tmp_path):
    def shown_at_once(n):
        spread = spreads(across_rows(np.linspace(0.3, 0.9, n)), leaderboard(across_rows([0.5])), "date")
        return not spread[0].collapsed

    assert shown_at_once(12) and not shown_at_once(13)
    page = written(tmp_path, unadorned(content, across_rows(np.linspace(0.3, 0.9, 13)), by="date"))
    text = across(page, "dates")
    assert "between 0.30 (site <1>) and 0.90 (site <13>)" in text and "Fold by fold" in text
    assert text.index(" 2 site <2>") < text.index(" 10 site <10>"), "by number"


def test_every_row_of_the_leader_board_has_its_spread_the_best_first(content, tmp_path):
    parts = [across_rows([0.5, 0.7], label=label, layer=layer) for layer in ("cnn", "cnn+rf")
             for label in ("boobook", "frog", "micro")]  # fmt: skip
    metrics = pd.concat(parts)
    best = metrics["layer"].eq("cnn+rf") & metrics["label"].eq("micro") & metrics["fold"].eq("pooled")
    metrics.loc[best, "f1"] = 0.65
    found = spreads(metrics, leaderboard(metrics), "group")
    assert len(found) == 6 and found[0].title == "dense, cnn+rf, all labels (micro)"
    assert "The same for 5 more" in across(written(tmp_path, unadorned(content, metrics)), "folds")


def test_a_single_split_has_no_spread(content, tmp_path):
    page = written(tmp_path, unadorned(content, across_rows([0.5])))
    assert "Across" not in page.text and not page.of("section", id="across")
