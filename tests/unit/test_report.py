"""The report: what it says, what it shows, and that no name in it can do harm."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
from tests.unit.report_content import (
    NASTY,
    Page,
    curve_rows,
    empty,
    leakage_rows,
    make_content,
    match_rows,
    metric,
    noise_report,
    written,
)

from otus.config.settings import ReportSettings
from otus.report.figures import counts_svg, precision_recall_svg
from otus.report.leaderboard import leaderboard
from otus.report.learning import histories_of_fold
from otus.report.page import write_report
from otus.tables import table


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return make_content(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def words(content):
    """Without pictures, which take their time."""
    return replace(content, settings=ReportSettings(examples=0))


@pytest.fixture(scope="module")
def html(content, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("out") / "report.html"
    write_report(path, content)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_headline_says_what_was_measured_on_what(page):
    assert (
        "F1 0.78 [0.66, 0.88] on 49 annotated boobook calls in 33 recordings (0.28 h, 4 groups), "
        "each scored by a model that never saw it." in page.text
    )
    assert "cross-validated over 2 folds, found 37 of 49 calls (recall 0.76 [0.60, 0.85])" in page.text
    for fact in ("Boobook & friends: detector report", "2024-05-01", "abc123def456"):
        assert fact in page.text


def test_names_are_escaped_everywhere(html, page):
    assert NASTY in page.text  # as words
    assert "<img src=x" not in html and "<script" not in html and "<b>frog" not in html
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert {a["src"].split(";")[0] for a in page.of("img")} == {"data:image/png"}


def test_nothing_is_loaded_from_elsewhere(html, page):
    links = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "xlink:href", "poster", "data")]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not page.of("script") and not page.of("link") and not page.of("iframe")
    assert "url(http" not in html and "@import" not in html
    anchors = {a["href"][1:] for a in page.of("a")}
    assert anchors <= {a["id"] for _, a in page.tags if "id" in a}


def test_ids_are_unique_and_figures_point_to_their_own(page):
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["xlink:href"][1:] for a in page.of("use")} <= set(ids)


def test_examples_have_pictures_and_sounds_and_a_missing_recording_a_sentence(page):
    # four of each outcome; of five in four recordings one is in the recording that is not there
    assert len(page.of("figure", class_="example")) == 12
    assert len(page.of("img")) == 9 and len(page.of("audio")) == 9
    assert page.text.count("This recording could not be read for the report: site/gone.wav") == 3
    assert "Hits: 4 of 5" in page.text and "Misses: 4 of 5" in page.text


def test_no_absolute_path_reaches_the_page(html, content):
    assert str(content.corpus_root) not in html


def test_quarantine_is_cut_with_a_count_and_failed_chunks_are_told(page):
    assert "10 more rows are in quarantine.csv" in page.text
    assert "Not scored: 1 chunk (1 failed, 3 ok)." in page.text


def test_worst_recording_comes_first_and_only_once(page):
    text = page.text[page.text.index("Recording by recording") :]
    assert text.index("site/gone.wav") < text.index(NASTY) < text.index("site/b.wav") < text.index("site/a.wav")
    assert "most errors first (4 rows)" in text


def test_validation_stands_beside_test(page):
    text = page.text[page.text.index("dense, cnn+rf, boobook.") :]
    assert "0.95 [0.83, 1.05] 11 0.75 [0.63, 0.85] 24 −0.20" in text


def test_two_writes_are_identical(html, content, tmp_path):
    write_report(tmp_path / "again.html", content)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html
    assert [p.name for p in tmp_path.iterdir()] == ["again.html"]


def test_a_matplotlibrc_changes_nothing_and_is_left_alone(content):
    import matplotlib as mpl

    before = precision_recall_svg(content.curves, content.metrics)
    with mpl.rc_context({"font.size": 30}):
        assert precision_recall_svg(content.curves, content.metrics) == before
        assert mpl.rcParams["font.size"] == 30


def test_default_report_stays_below_6_mb(content, tmp_path):
    rng = np.random.default_rng(2)
    soundfile.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(30 * 96000), 96000, subtype="PCM_16")
    recordings = table("recordings", [{"recording_id": "long", "path": "long.wav", "readable": True}])
    rows = [
        {**row, "recording_id": "long", "start_s": 3.0 + i, "end_s": 6.0 + i, "fold": 1}
        for i, row in enumerate([*match_rows().to_dict("records")] * 2)
        if i < 20
    ]
    sound = replace(
        content,
        corpus_root=tmp_path,
        recordings=recordings,
        matches=table("matches", rows),
        settings=ReportSettings(examples=ReportSettings().examples // 3),
        low_hz=None,
        high_hz=None,
    )
    page = written(tmp_path, sound)
    assert len(page.of("audio")) == 6
    assert (tmp_path / "report.html").stat().st_size < 6_000_000 / 3
    assert "Recorded at 96 kHz; the sound here ends at 24 kHz." in page.text


def test_empty_tables_give_a_page_that_says_so(content, tmp_path):
    page = written(tmp_path, empty(content))
    for words in ("No test results", "There are no annotations", "Nothing was left out", "No chunk was scored"):
        assert words in page.text
    assert not page.of("img") and not page.of("svg")


def test_no_matches_no_sound_and_no_forest(content, tmp_path):
    metrics = content.metrics[content.metrics["layer"].eq("cnn")]
    page = written(tmp_path, replace(content, metrics=metrics, matches=table("matches", [])))
    assert "no rows for a layer +rf" in page.text
    assert "Hits: 0 of 0" in page.text and "The model misses no annotation" in page.text
    silent = written(tmp_path, replace(content, settings=ReportSettings(examples=2, audio=False)))
    assert not silent.of("audio") and len(silent.of("figure", class_="example")) == 6
    none = written(tmp_path, replace(content, settings=ReportSettings(examples=0)))
    assert not none.of("figure", class_="example")


def test_undefined_f1_and_its_note(words, tmp_path):
    nothing = dict.fromkeys(("f1", "f1_low", "f1_high", "precision", "recall", "false_alarms_per_hour"), None)
    row = metric(n_gt=0, n_pred=0, tp=0, fp=0, fn=0, note="no annotation <in> the test recordings", **nothing)
    page = written(tmp_path, replace(words, metrics=table("metrics", [row])))
    assert "F1 could not be computed on 0 annotated boobook calls" in page.text
    assert "No annotation <in> the test recordings." in page.text
    assert "nan" not in page.text.lower().split()


def test_several_labels_lead_with_all_of_them(words, tmp_path):
    labels = [("boobook", 0.9), ("frog $x$ <i>", 0.5), ("micro", 0.7)]
    metrics = table("metrics", [metric(label=label, f1=f1, n_gt=60) for label, f1 in labels])
    curves = pd.concat([curve_rows([("dense", "cnn")], label) for label, _ in labels])
    page = written(tmp_path, replace(words, metrics=metrics, curves=curves))
    assert "F1 0.70 [0.58, 0.80] on 60 annotated calls of 2 labels" in page.text
    assert "frog $x$ <i>" in page.text and not page.of("i", class_="x")
    svg = precision_recall_svg(curves, metrics)
    assert svg.count(">recall<") == 3 and "frog $x$ &lt;i&gt;" in svg


def test_curves_need_pooled_test_points(content):
    assert precision_recall_svg(curve_rows().iloc[:0], content.metrics) == ""
    assert precision_recall_svg(curve_rows().assign(split="val"), content.metrics) == ""
    assert counts_svg(content.metrics_per_recording.iloc[:0]) == ""


def test_curves_keep_the_best_models(content):
    names = [(f"m{i}", "cnn") for i in range(10)]
    metrics = table("metrics", [metric(model=m, f1=0.5 + i / 100) for i, (m, _) in enumerate(names)])
    svg = precision_recall_svg(curve_rows(names), metrics)
    assert "m9, cnn" in svg and "m2, cnn" in svg and "m1, cnn" not in svg


# Leaky models


def both_kinds(**leak_free):
    """A leaky model with a better F1 beside a leak-free one, each with a forest."""
    rows = [metric(model="dealt", layer=layer, f1=0.95, leaky=True, note="leaky: x") for layer in ("cnn", "cnn+rf")]
    return table("metrics", [*rows, metric(model="honest", **({"f1": 0.4} | leak_free))])


@pytest.mark.parametrize("f1", [0.4, None])
def test_a_leaky_model_is_never_the_best_beside_a_leak_free_one(words, tmp_path, f1):
    metrics = both_kinds(f1=f1)
    assert leaderboard(metrics)["model"].tolist() == ["honest", "dealt", "dealt"]
    page = written(tmp_path, replace(words, metrics=metrics, curves=curve_rows([("dealt", "cnn"), ("honest", "cnn")])))
    assert "Model honest (cnn" in page.text and "Model dealt" not in page.text
    assert "each scored by a model that never saw it." in page.text


def test_leaky_models_are_marked_wherever_they_are_named(words, tmp_path):
    curves = pd.concat([curve_rows([("dealt", "cnn")]).assign(leaky=True), curve_rows([("honest", "cnn")])])
    page = written(tmp_path, replace(words, metrics=both_kinds(), curves=curves))
    board = page.text[page.text.index("Leader board A row is") : page.text.index("Precision and recall")]
    assert board.count("dealt (leaky)") == board.count("dealt") > 2
    assert "A leaky model learned from clips of the very recordings that it is tested on." in board
    assert "honest (leaky)" not in page.text
    assert "Models marked leaky are the exception" in page.text
    svg = precision_recall_svg(curves, both_kinds())
    assert "dealt, cnn (leaky)" in svg and "honest, cnn<" in svg


def test_pages_without_leaky_models_do_not_speak_of_them(page):
    assert "leaky" not in page.text


def test_a_page_of_leaky_models_only_says_so_first(words, tmp_path):
    metrics = table("metrics", [metric(model="dealt", leaky=True, note="leaky: clips of one recording")])
    page = written(tmp_path, replace(words, metrics=metrics))
    assert "never saw" not in page.text[: page.text.index("Leader board A row is")]
    assert "scored by a model that learned from other clips of the same recordings (leaky)." in page.text
    assert "tested on clips that were held out" in page.text


def test_per_recording_rows_are_the_pooled_ones(words, tmp_path):
    rows = words.metrics_per_recording
    parts = rows.assign(n_gt=rows["n_gt"].where(rows["fold"] == "pooled", 77))
    page = written(tmp_path, replace(words, metrics_per_recording=parts))
    assert " 77 " not in page.text[page.text.index("Recording by recording") :]


def test_leakage_is_told_per_variant_and_fold(words, tmp_path):
    both = pd.concat([leakage_rows("random", shared=3, folds=(1,)), leakage_rows("grouped")])
    page = written(tmp_path, replace(words, leakage=both))
    text = page.text[page.text.index("What stands on two sides") :]
    assert "grouped (2 folds): no group, recording, copy of a recording or extract of one raw recording" in text
    most = "groups 3, recordings 3, contents 3, raw recordings 3"
    assert f"random (1 fold): leaky. The most that two sides share: {most}." in text
    assert "random 1 recording: <i>a</i> 3 3 3 3 0" in text and "grouped 2 – 0 0 0 0 0" in text
    assert "Fold by fold (3 rows)" in text
    none = written(tmp_path, replace(words, leakage=table("leakage", [])))
    assert "No dataset variant was checked." in none.text


def test_contents_that_were_not_compared_are_not_called_clean(words, tmp_path):
    leakage = leakage_rows("grouped").assign(shared_contents=pd.array([None] * 6, dtype="Int64"))
    text = written(tmp_path, replace(words, leakage=leakage)).text
    assert "grouped (2 folds): no group, recording or extract of one raw recording stands on two sides" in text
    assert "whether recordings are copies of each other was not compared" in text
    assert "copy of a recording" not in text


def test_noise_is_told_per_variant(words, page, tmp_path):
    assert "grouped: 90 noise clips wanted, 90 found, all in labelled recordings." in page.text
    for phrase in ("raw recordings that nobody", "false alarm of", "confuser is no", "hard negatives"):
        assert phrase not in page.text
    selections = {"used": 3, "over the limit": 8, "unreadable": 0}
    full = noise_report(wanted=20, mined=12, mined_raw=4, unmet=4, false_alarms=3, confusers_left_out=5,
                        unrated_calls=6, selections=selections)  # fmt: skip
    both = {"quiet <b>": full, "grouped": noise_report(wanted=1, mined=1)}
    text = written(tmp_path, replace(words, noise=both)).text
    text = text[text.index("Noise to learn from") : text.index("Quarantine", text.index("Noise to learn from"))]
    assert text.index("grouped: 1 noise clip wanted") < text.index("quiet <b>: 20 noise clips wanted, 16 found")
    for phrase in ("4 or 25.0 % in raw recordings that nobody has labelled", "4 not found", "3 false alarms",
                  "5 labelled confusers", "6 calls whose quality", "left out: over the limit 8."):  # fmt: skip
        assert phrase in text
    none = written(tmp_path, replace(words, noise={}))
    assert "There is no dataset variant." in none.text


def test_labels_that_are_unknown_are_told_apart(words, tmp_path):
    rows = words.annotations.assign(label=words.annotations["label"].replace("<b>frog</b>", "unknown"))
    page = written(tmp_path, replace(words, annotations=rows))
    assert "unknown left out 1 1" in page.text


def histories(fold, best, epochs=4):
    records = [{"epoch": e, "loss": 1 / e, "learning_rate": 0.1, "detection": e / 10} for e in range(1, epochs + 1)]
    return histories_of_fold(fold, records, [best])


def test_learning_curves_are_folded_model_by_model(tmp_path, words):
    trained = {"dense": [*histories("1", 3), *histories("2", 4)], "<i>wide</i>": histories("1", 2), "taken": []}
    page = written(tmp_path, replace(words, learning=trained))
    assert {"href": "#learning"} in page.of("a")
    assert "Best epochs: fold 1: 3 of 4; fold 2: 4 of 4." in page.text and "<i>wide</i>" in page.text
    text = (tmp_path / "report.html").read_text()
    section = text[text.index('<section id="learning">') :].partition("</section>")[0]
    assert (section.count("<details>"), section.count("<svg")) == (2, 2), "none for what was not trained"
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert 'id="learning"' not in (written(tmp_path, words), (tmp_path / "report.html").read_text())[1]


def test_model_cards_are_named_and_a_click_opens_them(tmp_path, words):
    page = written(tmp_path, replace(words, model_cards={"dense": "models/dense/model_card.md"}))
    assert [a["href"] for a in page.of("a") if not a["href"].startswith("#")] == ["models/dense/model_card.md"]
    assert "Model cards, in the folder of this report: dense" in page.text
