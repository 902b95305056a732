"""What the report says of single measures: by label, by kind of call, of confusion and of counts."""

import numpy as np
import pytest
from tests.unit.report_content import make_content, metric, section, unadorned, written

from otus.config import EvaluationSettings
from otus.report.densities import correlation, estimates, inside
from otus.report.strata import strata_svg
from otus.tables import table

BEST = {"model": "dense", "layer": "cnn", "label": "boobook"}
SCORES = ("f1", "average_precision", "psds1", "psds2", "onset_f1", "onset_offset_f1", "segment_f1", "frame_f1")


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return make_content(tmp_path_factory.mktemp("corpus"))


def several_labels():
    return table(
        "metrics", [metric(label=label, f1=f1) for label, f1 in (("micro", 0.7), ("boobook", 0.8), ("frog", 0.5))]
    )


def class_row(label="boobook", layer="cnn", fold="pooled", first=0.5, **more):
    row = {"model": "dense", "layer": layer, "fold": fold, "label": label, "iou": 0.4, "n_labels": 1, "n_gt": 49}
    row |= {"n_groups": 4, "n_recordings": 33, "n_present": 12, "n_segments": 990, "n_frames": 99000, "leaky": False}
    for i, name in enumerate((*SCORES, "presence_f1")):
        value = first + i / 100
        row |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
    return row | more


def test_one_label_has_its_measures_below_each_other(content, tmp_path):
    rows = [
        class_row(),
        class_row(layer="cnn+rf", first=0.7),
        class_row(fold="1", first=0.1),
        class_row(iou=0.9, first=0),
    ]
    rows[0] |= {"psds1": None, "psds1_low": None, "psds1_high": None}
    settings = EvaluationSettings(collar_s=0.15, segment_s=2.0)
    metrics = table("metrics", [metric(), metric(layer="cnn+rf", f1=0.3)])
    full = unadorned(content, metrics, metrics_per_class=table("metrics_per_class", rows), evaluation=settings)
    text = section(written(tmp_path, full), "Every measure The same", "Which calls are found")
    assert "Measure What it judges Value On" in text and "Micro" not in text
    assert (
        "F1 one to one with an overlap (IoU) that suffices, as in the headline 0.50 [0.40, 0.60] 49 annotated calls"
        in text
    )
    assert (
        "onset within 150 ms 0.54" in text
        and "segments of 2 s: is there a call or not 0.56 [0.46, 0.66] 990 segments" in text
    )
    assert "times – 49 annotated calls" in text and "0.58 [0.48, 0.68] 33 recordings, 12 with the label" in text
    assert (
        text.index("dense, cnn, boobook.") < text.index("The same for 1 more") < text.index("dense, cnn+rf, boobook.")
    )
    assert "0.10 [" not in text, "no single fold"


@pytest.mark.parametrize("layer", ["cnn", "cnn+rf"])
def test_what_goes_through_all_thresholds_is_not_to_be_compared_between_layers(content, tmp_path, layer):
    rates = {"model": "dense", "layer": layer, "fold": "pooled", "label": "boobook", "iou": 0.4, "budget_per_hour": 10}
    rates |= {"n_gt": 49, "hours": 1.0, "n_groups": 4, "recall": 0.5, "leaky": False}
    page = written(
        tmp_path,
        unadorned(
            content,
            table("metrics", [metric(layer=layer)]),
            metrics_per_class=table("metrics_per_class", [class_row(layer=layer)]),
            recall_at_rates=table("recall_at_rates", [rates]),
        ),
    )
    behind = layer == "cnn+rf"
    assert ("not against the layer before it" in section(page, "Every measure The same", "Which calls")) == behind
    assert ("Of a layer +rf only the candidates" in section(page, "Recall at a given rate", "Probabilities")) == behind


def test_several_labels_have_rows_and_micro_and_macro_stand_last(content, tmp_path):
    labels = ("micro", "macro", "frog <b>", "boobook")
    rows = [
        class_row(label, first=0.5 + i / 10, n_labels=2 if "m" in label[0] else 1) for i, label in enumerate(labels)
    ]
    page = written(tmp_path, unadorned(content, several_labels(), metrics_per_class=table("metrics_per_class", rows)))
    text = section(page, "Every measure The same", "Which calls are found")
    first = text[: text.index("Segment F1")]
    assert (
        first.index(" boobook 0.80")
        < first.index("frog <b> 0.70")
        < first.index("micro 0.50")
        < first.index("macro, 2 labels")
    )
    assert "0.85 [0.75, 0.95] 49 4" in first, "n beside the calls' measures"
    assert "0.88 [0.78, 0.98] 990 99000 12" in text[text.index("Segment F1") :]
    html = (tmp_path / "report.html").read_text()
    assert "0.50\n[0.40, 0.60]" in html, "the interval stands below the value"


def test_many_labels_keep_micro_and_macro(content, tmp_path):
    rows = [class_row(f"l{i:03d}") for i in range(100)] + [class_row("macro", n_labels=100), class_row("micro")]
    page = written(tmp_path, unadorned(content, several_labels(), metrics_per_class=table("metrics_per_class", rows)))
    text = section(page, "Every measure The same", "Which calls are found")
    assert "l057" in text and "l058" not in text and "macro, 100 labels" in text
    assert "42 more rows are in metrics_per_class.csv." in text


def stratum(stratum, name, recall, n=10, label="boobook", **more):
    row = {"model": "dense", "layer": "cnn", "label": label, "iou": 0.4, "stratum": stratum, "bin": name, "n_gt": n}
    row |= {"n_groups": 3, "tp": 5, "fn": 5, "fp": 2, "recall": recall, "leaky": False, "onset_error_median_s": -0.02}
    if recall is not None:
        row |= {"recall_low": recall - 0.1, "recall_high": recall + 0.1}
    return row | more


def test_strata_show_n_and_what_is_not_known(content, tmp_path):
    rows = [stratum("quality", "faint <i>", 0.4, 7), stratum("duration", "below 1 s", 0.6, 30, precision=0.9)]
    rows += [stratum("duration", "1 s and more", None, 0), stratum("duration", "x", 0.9, 5, layer="cnn+rf")]
    page = written(tmp_path, unadorned(content, table("metrics", [metric()]), strata=table("strata", rows)))
    text = section(page, "Which calls are found Recall", "Precision and recall")
    assert "Nothing is known by signal-to-noise ratio." in text
    assert "faint <i> (n 7)" in text and "below 1 s (n 30)" in text and "1 s and more (n 0)" in text
    assert "boobook duration below 1 s 0.60 [0.50, 0.70] 0.90 −20 – 30 5 5 2 3" in text and " x " not in text
    assert not page.of("i", class_="x") and len(page.of("svg")) == 1


def test_strata_of_all_labels_together_lead(content, tmp_path):
    rows = [stratum("duration", f"of {label}", 0.5, label=label) for label in ("boobook", "micro")]
    page = written(tmp_path, unadorned(content, several_labels(), strata=table("strata", rows)))
    text = section(page, "Which calls are found Recall", "Confusion")
    assert "of micro (n 10)" in text and "of boobook (n 10)" not in text, "one figure, of all labels"
    assert text.index("all labels (micro) duration of micro") < text.index("boobook duration of boobook")


def test_no_strata_is_one_sentence(content, tmp_path):
    page = written(tmp_path, unadorned(content, table("metrics", [metric()])))
    assert "Which calls are found No calls were counted apart by quality" in page.text
    assert strata_svg(table("strata", [stratum("snr", "x", None)]), "boobook") == ""


def cells(*rows):
    named = [dict(zip(("annotated", "selected", "n"), row, strict=True)) for row in rows]
    return table("confusion", [row | {"model": "dense", "layer": "cnn", "iou": 0.4, "leaky": False} for row in named])


def test_confusion_is_a_matrix_with_nothing_last(content, tmp_path):
    matrix = cells(
        ("a <b>", "a <b>", 5), ("a <b>", "z", 2), ("z", "z", 9), ("z", "nothing", 4), ("nothing", "a <b>", 3)
    )  # fmt: skip
    text = section(
        written(tmp_path, unadorned(content, several_labels(), confusion=matrix)), "Confusion 2 calls", "Precision and"
    )
    assert "Annotated ↓, selected → z a <b> nothing all" in text, "most annotations first"
    assert "z 9 0 4 13 a <b> 2 5 0 7 nothing 0 3 3 all 11 8 4 23" in text
    assert "2 calls were selected under another label by dense, cnn." in text


def test_confusion_needs_several_labels(content, tmp_path):
    page = written(tmp_path, unadorned(content, table("metrics", [metric()]), confusion=cells(("a", "a", 5))))
    assert not page.of("section", id="confusion") and "Confusion" not in page.text
    empty = written(tmp_path, unadorned(content, several_labels()))
    assert "Confusion No selection and no call was counted by label." in empty.text


def test_confusion_of_many_labels_keeps_the_sums(content, tmp_path):
    many = cells(*[(f"l{i:02d}", f"l{i:02d}", 100 - i) for i in range(20)])
    page = written(tmp_path, unadorned(content, several_labels(), confusion=many))
    text = section(page, "Confusion No call was", "Precision and")
    assert "l14" in text and "l15" not in text and "5 more labels, with fewer calls, are in confusion.csv" in text
    assert text.rstrip().split(" more labels")[0].endswith("1810 5"), "the sum of all"


def density(recording, n_gt, calls, low, high, label="boobook", **more):
    row = {"model": "dense", "layer": "cnn", "fold": 1, "label": label, "recording_id": recording, "n_gt": n_gt}
    row |= {"group": recording, "n_pred": n_gt, "hours": 0.1, "calls": calls, "leaky": False, "note": None}
    return row | {"calls_low": low, "calls_high": high} | more


def test_counts_say_how_often_the_interval_is_right(content, tmp_path):
    rows = [density("a", 2, 2.4, 1, 4), density("b", 9, 6.0, 3, 8), density("c", 0, 0.5, 0, 2)]
    rows.append(density("d", 5, 5.0, None, None, note="only 2 other groups: 3 are needed for an interval"))
    page = written(tmp_path, unadorned(content, table("metrics", [metric()]), densities=table("densities", rows)))
    text = section(page, "Counts How many", "Examples")
    assert "Of 3 recordings with an interval, 2 (67 %) hold as many calls as it says" in text
    assert "correlate by 0.96." in text and "Only 2 other groups: 3 are needed for an interval." in text
    assert "boobook 4 16 14 16 2 of 3 0.96" in text and len(page.of("svg")) == 1


def test_counts_of_several_labels_have_a_row_each(content, tmp_path):
    rows = [
        density(r, n, n + 1.0, 0, 9, label) for label in ("frog", "<i>owl") for r, n in (("a", 1), ("b", 2), ("c", 4))
    ]
    rows += [density("d", 90, 80.0, 70, 100, "<i>owl"), density("e", 1, 1.0, 0, 2, layer="cnn+rf")]
    page = written(tmp_path, unadorned(content, several_labels(), densities=table("densities", rows)))
    text = section(page, "Counts How many", "Examples")
    assert "<i>owl 4 97 90 97 4 of 4 1.00 frog 3 7 10 7 3 of 3 1.00" in text and "boobook" not in text


def test_counts_without_an_estimate_are_one_sentence(content, tmp_path):
    unknown = table("densities", [density("a", 2, None, None, None, note="the other groups have no hit")])
    assert estimates(unknown, BEST) is None and estimates(unknown, None) is None
    page = written(tmp_path, unadorned(content, table("metrics", [metric()]), densities=unknown))
    assert "Counts The number of calls per recording was not estimated" in page.text


def test_bounds_belong_to_the_interval_and_constants_do_not_correlate():
    rows = table("densities", [density("a", 1, 1.0, 1, 1), density("b", 4, 1.0, 1, 4), density("c", 5, 1.0, 1, 4.9)])
    assert inside(rows) == (2, 3)
    assert np.isnan(correlation(rows)) and np.isnan(correlation(rows.head(2)))
