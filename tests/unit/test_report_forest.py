"""What the report says of forests: the verdict, the numbers behind it, and what they look at."""

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.report_content import make_content, metric, section, unadorned, written

from otus.config import EvaluationSettings
from otus.report.features import dependence_svg, explanations, importance_svg
from otus.report.gain import AT_EQUAL_RECALL, other_kinds, verdicts
from otus.report.leaderboard import leaderboard
from otus.tables import table


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return make_content(tmp_path_factory.mktemp("corpus"))


def pair(model="dense", label="boobook", alone="cnn", f1=(0.71, 0.78), **more):
    filtered = f"{alone}+rf"
    return [metric(model, layer, label=label, f1=one, **more) for layer, one in zip((alone, filtered), f1, strict=True)]


def difference(low, high, measure="f1", values=(0.78, 0.71), model="dense", alone="cnn", **more):
    row = {"model": model, "layer": f"{alone}+rf", "other_model": model, "other_layer": alone, "label": "boobook"}
    row |= {"iou": 0.4, "measure": measure, "n_recordings": 33, "n_groups": 12, "p_value": 0.01, "leaky": False}
    row |= {"value": values[0], "other_value": values[1], "difference": values[0] - values[1]}
    return row | {"difference_low": low, "difference_high": high} | more


def alarms(low, high, values=(10.0, 25.0), **more):
    return difference(low, high, AT_EQUAL_RECALL, values, **more)


def verdict(differences, metrics=None, forests=None, **choice):
    metrics = table("metrics", pair() if metrics is None else metrics)
    known = table("differences", differences)
    evaluation = EvaluationSettings.model_validate(choice)
    found = verdicts(known, metrics, leaderboard(metrics, known), forests or {}, evaluation)
    assert len(found) == 1
    return found[0]


def test_a_forest_helps_only_if_interval_and_test_agree():
    helps = verdict([difference(0.02, 0.12)])
    assert helps.verdict == "The forest helps: F1 0.78 instead of 0.71 (+0.07 [+0.02, +0.12], p 0.010, 12 groups)."
    assert not helps.warning
    doubtful = verdict([difference(0.02, 0.12, p_value=0.07)])
    assert doubtful.verdict.startswith("No difference could be shown: F1 0.78 instead of 0.71")
    assert "The interval leaves out 0, but the test does not bear it out." in doubtful.verdict
    open_ = verdict([difference(-0.02, 0.12, p_value=0.01)])
    assert open_.verdict.startswith("No difference could be shown") and "bear it out" not in open_.verdict
    assert verdict([difference(0.02, 0.12, p_value=None)]).verdict.startswith("The forest helps"), "no test, no veto"


def test_a_forest_that_does_harm_says_what_to_use():
    harm = verdict([difference(-0.2, -0.03, values=(0.6, 0.71)), alarms(3.0, 9.0, (31.0, 25.0))])
    assert harm.warning and harm.verdict.startswith(
        "The forest does harm: F1 0.60 instead of 0.71 (−0.11 [−0.20, −0.03]"
    )
    assert "; use the layer cnn. At equal recall 31.0 false alarms per hour instead of 25.0." in harm.verdict


def test_f1_is_no_verdict_where_something_else_was_chosen_by():
    rows = [difference(-0.2, -0.03, values=(0.6, 0.71)), alarms(3.0, 9.0, (31.0, 25.0))]
    budget = {"by": "recall", "false_alarms_per_hour": 10}
    for choice in ({"choice": budget}, {"choice_of": {"boobook": budget}}):
        beside = verdict(rows, **choice)
        assert not beside.warning
        assert beside.verdict == (
            "F1 0.60 instead of 0.71 (−0.11 [−0.20, −0.03], p 0.010, 12 groups). The operating points were not chosen "
            "by F1: compare hits and false alarms in the table. At equal recall 31.0 false alarms per hour instead of "
            "25.0."
        )


def test_fewer_false_alarms_at_equal_recall_are_help_too():
    found = verdict([difference(-0.02, 0.12), alarms(-20.0, -5.0)])
    assert found.verdict.startswith(
        "The forest helps where both find the same calls: At equal recall 10.0 false alarms per hour instead of 25.0."
    )
    assert "In F1 no difference" in found.verdict
    chance = verdict([difference(-0.02, 0.12), alarms(-20.0, 5.0)])
    assert "At equal recall 10.0 false alarms per hour instead of 25.0, which may be chance." in chance.verdict
    assert chance.verdict.startswith("No difference could be shown")


def test_without_groups_or_rows_nothing_is_claimed():
    one_group = verdict([difference(None, None, p_value=None), alarms(None, None, p_value=None)])
    assert one_group.verdict.startswith("No difference could be tested: F1 0.78 instead of 0.71")
    assert verdict([]).verdict == "Nothing is known of the difference."
    other_iou = verdict([difference(0.02, 0.12, iou=0.1)])
    assert other_iou.verdict == "Nothing is known of the difference."


def test_a_difference_may_stand_the_other_way_round():
    row = difference(0.02, 0.12)
    turned = row | {"layer": "cnn", "other_layer": "cnn+rf", "value": 0.71, "other_value": 0.78}
    turned |= {"difference": -0.07, "difference_low": -0.12, "difference_high": -0.02}
    assert verdict([turned]).verdict == verdict([row]).verdict


def fits(reasons, label="boobook", kind="forest"):
    return [{"fold": i, "label": label, "kind": kind, "reason": reason} for i, reason in enumerate(reasons, start=1)]


def test_folds_without_a_forest_are_told_with_their_reason():
    some = verdict([difference(0.02, 0.12)], forests={"dense": fits(["", "few hits", "few hits.", ""])})
    assert "No forest was used in 2 of 4 folds" in some.verdict and some.verdict.startswith("The forest helps")
    assert some.warning
    none = verdict([difference(0.0, 0.0, values=(0.7, 0.7))], forests={"dense": fits(["few hits"] * 2)})
    assert none.verdict == "No forest was used in 2 of 2 folds: few hits. The layer cnn+rf is the layer cnn."
    several = fits(["few hits", "one group"]) + fits(["", "few <b>"], "frog") + fits(["x", "x"], "newt")
    told = verdict([difference(0.02, 0.12)], forests={"dense": several}).verdict
    assert "No forest was used in 5 of 6 fits (2 folds, 3 labels). X. Few" in told
    assert told.endswith("There are other reasons, too.")


def test_reasons_that_differ_in_numbers_are_said_once():
    alike = [f"It is no better than chance allows: F1 0.6 with it, on {n} calls." for n in (80, 90)]
    known = [difference(-0.02, 0.12)]
    assert verdict(known, forests={"dense": fits([*alike, ""])}).verdict.endswith(
        "No forest was used in 2 of 3 folds: it is no better than chance allows."
    )
    one = verdict(known, forests={"dense": fits([alike[0], ""])}).verdict
    assert one.endswith("in 1 of 2 folds: it is no better than chance allows: F1 0.6 with it, on 80 calls.")
    assert verdict(known, forests={"dense": fits(["F1 is 0.", ""])}).verdict.endswith("of 2 folds: F1 is 0.")


def test_why_there_is_no_forest_is_not_said_beside_the_headline_too(content, tmp_path):
    note = "only 4 groups; fold 1 boobook: no forest, cnn selections (thin ground)"
    metrics = table("metrics", [row | {"note": note} for row in pair()])
    page = written(tmp_path, unadorned(content, metrics, forests={"dense": fits(["thin ground", ""])}))
    assert "Only 4 groups." in page.text and page.text.count("thin ground") == 1


def test_the_section_has_verdicts_numbers_and_no_row_of_other_labels_in_front(content, tmp_path):
    rows = [row for label in ("boobook", "frog", "micro") for row in pair(label=label)]
    rows += pair("<i>ext", alone="external", f1=(0.4, 0.5), label="micro")
    known = [difference(0.02, 0.12, label="micro"), alarms(-20.0, -5.0, label="micro")]
    known += [
        difference(-0.3, -0.1, label="frog"),
        difference(0.05, 0.15, model="<i>ext", alone="external", label="micro"),
    ]
    page = written(tmp_path, unadorned(content, table("metrics", rows), differences=table("differences", known)))
    text = section(page, "What the forest changes", "Every measure")
    assert "dense. The forest helps: F1 0.78 instead of 0.71" in text and "does harm" not in text
    assert "<i>ext. The forest helps" in text and not page.of("i", class_="ext")
    assert "dense micro 0.71 [0.59, 0.81] 0.78 [0.66, 0.88] +0.07 [+0.02, +0.12] 0.010 25.0 10.0 37 → 37 9 → 9" in text
    assert "dense boobook 0.71 [0.59, 0.81] 0.78 [0.66, 0.88] – – – – 37 → 37" in text


def test_a_post_filter_that_is_no_forest_is_named():
    assert other_kinds({"a": fits([""])}) == other_kinds({}) == ""
    both = other_kinds({"a": fits(["", ""], kind="logistic"), "b": fits([""], kind="boosting"), "c": fits([""])})
    assert both.endswith("(+rf) is a set of gradient-boosted trees or a logistic regression.")


def test_no_forest_is_one_sentence(content, tmp_path):
    page = written(tmp_path, unadorned(content, table("metrics", [metric()])))
    assert section(page, "What the forest changes", "Every measure").strip() == (
        "What the forest changes There are no rows for a layer +rf: no forest was judged."
    )


# Features


def importance_rows(n=20, folds=("1", "pooled"), **more):
    rows = []
    for fold in folds:
        for i in range(n):
            drop = 0.2 - 0.02 * i
            row = {"model": "dense", "layer": "cnn+rf", "label": "boobook", "fold": fold, "feature": f"f{i:02d} <b>"}
            row |= {"n_groups": 9, "n_hits": 40, "n_false_alarms": 21, "drop": drop, "drop_low": drop - 0.1}
            row |= {"drop_high": drop + 0.1, "helps": drop > 0.1, "out_of_bag": 0.3, "impurity": 0.05, "leaky": False}
            rows.append(row | more)
    return table("importances", rows)


def dependence_rows(features=8, **more):
    rows = [
        {
            "model": "dense",
            "layer": "cnn+rf",
            "label": "boobook",
            "feature": f"f{i:02d}",
            "rank": i + 1,
            "n_folds": 2,
            "share_below": share,
            "value": 10 * share,
            "probability": share,
            "probability_low": share / 2,
            "probability_high": share,
        }
        | more
        for i in range(features)
        for share in np.linspace(0.05, 0.95, 5)
    ]
    return table("dependence", rows)


def test_features_are_ranked_over_all_folds_and_what_never_helped_is_listed(content, tmp_path):
    importances = importance_rows()
    in_one_fold = importances["fold"].eq("1") & importances["feature"].eq("f19 <b>")
    importances.loc[in_one_fold, "helps"] = True
    full = unadorned(content, table("metrics", pair()), importances=importances, dependence=dependence_rows())
    page = written(tmp_path, full)
    text = section(page, "What the forests of dense look at", "Every measure")
    assert "on 40 hits and 21 false alarms of 9 groups that the forests never saw, with 95 % intervals. Blue" in text
    assert "f00 <b> 0.200 [0.100, 0.300] 0.300 0.050" in text
    assert "5 more rows are in forest/<model>/importances.parquet." in text
    assert "Never helped, in no fold and not over all of them: f05 <b>, f06 <b>" in text
    never = text[text.index("Never helped") :]
    assert "f04" not in never and "f18 <b>" in never and "f19" not in never
    assert not page.of("b", class_="x") and len(page.of("svg")) == 2
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_figures_of_features_hold_what_is_most_important():
    importances = importance_rows(3, ("pooled",))
    svg = importance_svg(importances, "p-")
    assert "f00 &lt;b&gt;" in svg and ' id="p-' in svg and "currentColor" in svg
    assert importance_svg(importances.iloc[:0], "p-") == "" and dependence_svg(dependence_rows(0), "p-") == ""
    curves = dependence_svg(dependence_rows(8), "p-")
    assert "f05" in curves and "f06" not in curves, "six panels"
    assert dependence_svg(dependence_rows(1).assign(probability=np.nan), "p-") == ""
    assert "f00" in dependence_svg(dependence_rows(1).iloc[:1], "p-"), "one value is a dot"


def test_explanations_follow_the_leader_board_and_are_limited():
    by_label = [importance_rows(2, label=label, model=model) for model in ("a", "b") for label in "wxyz"]
    together = table("importances", [row for rows in by_label for row in rows.to_dict("records")])
    found = explanations(together, table("dependence", []), ["b", "a"])
    assert [one.title for one in found] == ["b, w", "b, x", "b, y", "b, z", "a, w", "a, x"]
    assert not found[0].dependence and found[0].importance
    assert explanations(together[together["fold"].eq("1")], table("dependence", []), ["a"]) == []
    assert explanations(together, table("dependence", []), ["none"]) == []


def test_missing_bounds_are_left_out(content, tmp_path):
    importances = importance_rows(2).assign(drop_low=np.nan, drop_high=np.nan, helps=False, out_of_bag=np.nan)
    page = written(tmp_path, replace(unadorned(content, table("metrics", pair())), importances=importances))
    assert "of 9 groups that the forests never saw. Too few groups for intervals: which features help" in page.text
    text = section(page, "What the forests of dense look at", "Every measure")
    assert "never helped" not in text.lower() and "Every feature helped" not in text and "Blue" not in text
    assert "f00 <b> 0.200 – 0.050" in text and "nan" not in text
