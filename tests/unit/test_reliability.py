"""Whether probabilities hold: bins, the table of all models, the figure and the section of the report."""

import re
import xml.etree.ElementTree as ET
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from otus.columns import SCHEMAS
from otus.measures.reliability import BINS, reliability_bins, reliability_rows, wilson_interval
from otus.report.content import ReportContent
from otus.report.page import write_report
from otus.report.reliability import reliability_svg, reliability_table
from otus.tables import table, write_table


def drawn(n, seed=0):
    """Probabilities that hold, and hits drawn with them."""
    random = np.random.default_rng(seed)
    probability = random.random(n)
    return probability, random.random(n) < probability


def test_bins_hold_the_counts_the_means_and_the_brier_score():
    bins = reliability_bins(np.array([0.0, 0.05, 0.1, 0.95, 1.0]), np.array([False, True, False, True, True]))
    assert bins["bin_low"].tolist() == [0.0, 0.1, 0.9]
    assert bins["bin_high"].tolist() == [0.1, 0.2, 1.0]
    assert bins["n"].tolist() == [2, 1, 2]
    assert bins["mean_probability"].tolist() == pytest.approx([0.025, 0.1, 0.975])
    assert bins["hit_share"].tolist() == [0.5, 0.0, 1.0]
    assert bins["brier_score"].tolist() == pytest.approx([(0.95**2) / 2, 0.01, 0.05**2 / 2])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(arrays(float, n, elements=st.floats(0, 1)), arrays(bool, n))))
def test_bins_lose_nothing(case):
    probability, hit = case
    bins = reliability_bins(probability, hit)
    n = bins["n"]
    assert n.sum() == len(hit) and (n > 0).all() and len(bins) <= BINS
    assert (bins["n"] * bins["hit_share"]).sum() == pytest.approx(hit.sum())
    assert np.average(bins["brier_score"], weights=n) == pytest.approx(np.mean((probability - hit) ** 2))
    assert (bins["mean_probability"] >= bins["bin_low"] - 1e-9).all()
    assert (bins["mean_probability"] <= bins["bin_high"] + 1e-9).all()
    assert (bins["hit_share_low"] <= bins["hit_share"] + 1e-9).all()
    assert (bins["hit_share_high"] >= bins["hit_share"] - 1e-9).all()


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (3, 10), (0, 50), (50, 50), (499, 1000)])
def test_wilson_interval_is_that_of_scipy(successes, n):
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high))


def test_nothing_known_is_any_share():
    assert wilson_interval(0, 0) == (0.0, 1.0)


# the table


def selections(model, label, probability, hit, **more):
    n = len(hit)
    row = {"layer": "cnn", "fold": np.arange(n) % 3 + 1, "split": "test", "leaky": False, "selected": True}
    ids = [f"{model}{label}{i}" for i in range(n)]
    found = {"selection_id": ids, "recording_id": "r", "start_s": 0.0, "end_s": 1.0, "model": model, "label": label}
    return table("selections", pd.DataFrame(found | row | {"probability": probability, "hit": hit} | more))


def test_only_test_selections_of_the_network_with_a_probability_count():
    probability, hit = drawn(300)
    wanted = selections("m", "hum", probability, hit)
    others = [
        selections("m", "hum", probability, ~hit, split="val"),
        selections("m", "hum", probability, ~hit, layer="cnn+rf"),
        selections("n", "hum", np.nan, hit),
    ]
    found = reliability_rows(pd.concat([wanted, *others]), ["hum"])
    expected = reliability_bins(probability, hit)
    pd.testing.assert_frame_equal(found[list(expected)], expected, check_dtype=False)
    assert set(found["model"]) == {"m"} and set(found["label"]) == {"hum"}
    assert found["n"].sum() == 300, "all folds together"


def test_several_labels_have_rows_of_all_together_and_leaky_models_are_marked():
    (p1, h1), (p2, h2) = drawn(100, 1), drawn(50, 2)
    parts = [selections(m, name, p, h) for m in "mn" for name, p, h in (("hum", p1, h1), ("cluck", p2, h2))]
    parts[2:] = [part.assign(leaky=True) for part in parts[2:]]
    found = reliability_rows(pd.concat(parts), ["hum", "cluck"])
    n = found.groupby(["model", "label"])["n"].sum()
    assert n.to_dict() == {(m, k): v for m in "mn" for k, v in {"cluck": 50, "hum": 100, "micro": 150}.items()}
    assert (found["leaky"] == (found["model"] == "n")).all()


def test_without_probabilities_the_table_is_empty(tmp_path):
    found = reliability_rows(selections("m", "hum", np.nan, np.ones(20, dtype=bool)), ["hum"])
    assert len(found) == 0
    write_table(tmp_path / "r.parquet", "reliability", found, csv=tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text().startswith("model,label,bin_low,bin_high,n,mean_probability,hit_share")


# figure, table and section of the report


@pytest.fixture(scope="module")
def reliability():
    parts = [
        selections("good", "hum", *drawn(400, 3)),
        selections("good", "cluck", *drawn(100, 4)),
        selections("bad", "hum", np.full(200, 0.85), np.arange(200) < 50),
    ]
    return reliability_rows(pd.concat(parts), ["hum", "cluck"])


def test_table_says_how_far_the_probabilities_are_off(reliability):
    shown = reliability_table(reliability, ["bad", "good"])
    rows = {(row[0], row[1]): row[2:] for row in shown.rows}
    assert list(rows) == [("bad", "micro"), ("bad", "hum"), ("good", "micro"), ("good", "cluck"), ("good", "hum")]
    assert rows["bad", "hum"][:2] == ["200", "50"]
    brier, constant, error = (float(text) for text in rows["bad", "hum"][2:])
    assert brier == pytest.approx(0.25 * 0.15**2 + 0.75 * 0.85**2, abs=1e-3)
    assert constant == pytest.approx(0.25 * 0.75, abs=1e-3)
    assert error == pytest.approx(0.6, abs=1e-3)
    assert float(rows["good", "hum"][4]) < 0.08 and float(rows["good", "hum"][2]) < float(rows["good", "hum"][3])
    assert reliability_table(table("reliability", []), ["good"]) is None


def test_figure_has_a_panel_per_model_and_is_the_same_every_time(reliability):
    one, again = (reliability_svg(reliability, ["good", "bad"]) for _ in range(2))
    assert one == again
    ET.fromstring(one)
    assert one.count("share of hits") == 2 and ">good<" in one and ">bad<" in one
    assert reliability_svg(reliability, ["bad"]).count("share of hits") == 1
    assert reliability_svg(reliability, []) == reliability_svg(table("reliability", []), ["good"]) == ""


def test_figure_shows_all_labels_together_and_no_more_models_than_can_be_read(reliability):
    bad = reliability[reliability["model"].eq("bad")]
    many = pd.concat([bad.assign(model=f"m{i}") for i in range(12)])
    assert reliability_svg(many, sorted(set(many["model"]))).count("share of hits") == 8
    micro = reliability_svg(reliability, ["good"])
    others = reliability[reliability["label"].ne("micro")].assign(hit_share=0.0, n=1)
    pooled = reliability[reliability["label"].eq("micro")]
    assert reliability_svg(pd.concat([others, pooled]), ["good"]) == micro


def report(folder, reliability):
    """The text of a report that has a leader board and nothing else."""
    names = {field.name for field in fields(ReportContent)} & set(SCHEMAS) - {"metrics", "reliability", "leakage"}
    row = {"layer": "cnn", "fold": "pooled", "split": "test", "label": "hum", "iou": 0.4, "selected": True}
    board = [row | {"model": model, "f1": f1, "leaky": False} for model, f1 in (("<i>bad", 0.2), ("good", 0.8))]
    content = ReportContent(
        corpus="c",
        corpus_root=folder,
        date="today",
        seed=1,
        config_digest="abc",
        targets=("hum",),
        metrics=table("metrics", board),
        reliability=reliability,
        leakage=table("leakage", []),
        noise={},
        **{name: table(name, []) for name in names},
    )
    write_report(folder / "report.html", content)
    return Path(folder, "report.html").read_text()


def test_report_has_a_section_with_figure_and_table(reliability, tmp_path):
    named = reliability.assign(model=reliability["model"].replace("bad", "<i>bad"))
    page = report(tmp_path, named)
    section = page[page.index('<section id="probabilities">') : page.index('<section id="examples">')]
    assert section.count("<svg") == 1 and 'href="#probabilities"' in page
    assert section.index(">good<") < section.index("&lt;i&gt;bad"), "best first, and names are escaped"
    assert "<i>bad" not in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "no figure takes the marks of another"


def test_report_without_probabilities_says_why(tmp_path):
    page = report(tmp_path, table("reliability", []))
    assert "Selections have no probability: evaluation.calibration is none" in page
