"""The report: what it says, what it shows, and that no name in it can do harm."""

import base64
import io
import subprocess
import sys
import wave
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from otus.config.settings import ReportSettings
from otus.report.examples import choose_examples
from otus.report.figures import Mark, counts_svg, precision_recall_svg, spectrogram_png, wav_bytes
from otus.report.leaderboard import deciding_iou, leaderboard, leaderboard_text
from otus.report.learning import histories_of_fold
from otus.report.page import ReportContent, write_report
from otus.report.spread import spreads
from otus.tables import table

NASTY = "<img src=x onerror=alert(1)>.wav"
RATE = 16000
PATHS = {"a": "site/a.wav", "b": "site/b.wav", "nasty": NASTY, "gone": "site/gone.wav"}


class Page(HTMLParser):
    """Tags with their attributes, and the text outside <style>."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._stack: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "style":
            self._stack.append(tag)

    def handle_endtag(self, tag):
        if self._stack and tag == "style":
            self._stack.pop()

    def handle_data(self, data):
        if not self._stack:
            self.words.append(data)

    def of(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and all(a.get(k.rstrip("_")) == v for k, v in wanted.items())]


def metric(model="dense", layer="cnn", fold="pooled", split="test", label="boobook", f1=0.78, **more):
    row = {
        "model": model,
        "layer": layer,
        "fold": fold,
        "split": split,
        "label": label,
        "iou": 0.4,
        "operating_point": "chosen",
        "threshold": 0.3,
        "selected": True,
        "n_recordings": 33,
        "n_groups": 4,
        "hours": 0.275,
        "n_gt": 49,
        "n_pred": 46,
        "tp": 37,
        "fp": 9,
        "fn": 12,
        "precision": 0.804,
        "precision_low": 0.7,
        "precision_high": 0.9,
        "recall": 0.755,
        "recall_low": 0.6,
        "recall_high": 0.85,
        "f1": f1,
        "f1_low": None if f1 is None else f1 - 0.12,
        "f1_high": None if f1 is None else f1 + 0.1,
        "average_precision": 0.8,
        "false_alarms_per_hour": 32.7,
        "onset_error_median_s": -0.012,
        "offset_error_median_s": 0.031,
        "leaky": False,
        "note": None,
    }
    return row | more


def metrics_rows():
    rows = [metric(layer="cnn", f1=0.71), metric(layer="cnn+rf", f1=0.78)]
    for layer, shift in (("cnn", 0.0), ("cnn+rf", 0.05)):
        for fold in ("1", "2"):
            rows.append(metric(layer=layer, fold=fold, split="val", f1=0.9 + shift, n_gt=11))
            rows.append(metric(layer=layer, fold=fold, f1=0.7 + shift, n_gt=24))
        rows += [metric(layer=layer, selected=False, threshold=t, f1=0.6) for t in (0.3, 0.5)]
    rows.append(metric(layer="cnn", f1=0.99, iou=0.1))  # an easier matching rule never leads the board
    return table("metrics", rows)


def curve_rows(pairs=(("dense", "cnn"), ("dense", "cnn+rf")), label="boobook"):
    recall = np.linspace(0.05, 0.95, 30)
    rows = [
        {
            "model": model,
            "layer": layer,
            "fold": "pooled",
            "split": "test",
            "label": label,
            "iou": 0.4,
            "threshold": 1 - r,
            "n_gt": 49,
            "n_pred": 50,
            "tp": 40,
            "precision": 1 - 0.4 * r**2,
            "recall": r,
        }
        for model, layer in pairs
        for r in recall
    ]
    return table("curves", rows)


def match_rows():
    rows = []
    for i, recording in enumerate(["a", "a", "b", "nasty", "gone"]):
        for j, outcome in enumerate(["hit", "false_alarm", "miss"]):
            rows.append(
                {
                    "model": "dense",
                    "layer": "cnn+rf",
                    "fold": 1,
                    "split": "test",
                    "recording_id": recording,
                    "label": "boobook",
                    "iou_threshold": 0.4,
                    "outcome": outcome,
                    "selection_id": None if outcome == "miss" else f"s{i}{j}",
                    "annotation_id": None if outcome == "false_alarm" else f"n{i}{j}",
                    "start_s": 0.5 + 2 * j,
                    "end_s": 0.9 + 2 * j + 0.05 * i,
                    "score": None if outcome == "miss" else 3.0 - i,
                    "iou": 0.7 if outcome == "hit" else None,
                }
            )
    return table("matches", rows)


def annotation_rows():
    rows = [
        {
            "annotation_id": row["annotation_id"],
            "recording_id": row["recording_id"],
            "start_s": row["start_s"] + 0.02,
            "end_s": row["end_s"],
            "low_hz": 400.0,
            "high_hz": 1600.0,
            "label": "boobook",
        }
        for row in match_rows().to_dict("records")
        if row["outcome"] != "false_alarm"
    ]
    other = {"annotation_id": "o", "recording_id": "a", "start_s": 2.5, "end_s": 3.0, "label": "<b>frog</b>"}
    return table("annotations", [*rows, other])


def leakage_rows(dataset, shared=0, folds=(1, 2)):
    pairs = [("train", "val"), ("train", "test"), ("val", "test")]
    names = ("groups", "recordings", "contents", "raw_recordings")
    rows = [
        {
            "dataset": dataset,
            "fold": fold,
            "side": one,
            "other_side": other,
            **{f"shared_{name}": shared for name in names},
            "overlapping_clips": 0,
            "example": "recording: <i>a</i>" if shared else None,
            "leaky": shared > 0,
        }
        for fold in folds
        for one, other in pairs
    ]
    return table("leakage", rows)


def noise_report(**values):
    names = (
        "wanted",
        "mined",
        "mined_raw",
        "false_alarms",
        "unmet",
        "recordings_without_room",
        "overlapping_noise",
        "duplicate_noise",
        "confusers_left_out",
        "unrated_calls",
    )
    return dict.fromkeys(names, 0) | {"selections": {}, "examples": [], **values}


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> ReportContent:
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(1)
    t = np.arange(6 * RATE) / RATE
    calls = ((t % 2 > 0.5) & (t % 2 < 0.9)) * np.sin(2 * np.pi * 900 * t)
    for name in ("site/a.wav", "site/b.wav", NASTY):
        (root / name).parent.mkdir(exist_ok=True)
        soundfile.write(root / name, 0.1 * calls + 0.005 * rng.standard_normal(len(t)), RATE, subtype="PCM_16")
    recordings = [
        {
            "recording_id": key,
            "path": path,
            "group": key,
            "duration_s": 6.0,
            "n_samples": 6 * RATE,
            "sample_rate": RATE,
            "labelled": True,
            "readable": True,
        }
        for key, path in PATHS.items()
    ]
    per_recording = [
        {
            "model": "dense",
            "layer": "cnn+rf",
            "fold": fold,
            "split": "test",
            "label": "boobook",
            "iou": 0.4,
            "selected": True,
            "recording_id": key,
            "group": key,
            "duration_s": 6.0,
            "n_gt": 2 + i,
            "n_pred": 2,
            "tp": 1,
            "fp": 1,
            "fn": 1 + i,
            "f1": 0.4,
        }
        for fold in ("1", "pooled")
        for i, key in enumerate(PATHS)
    ]
    quarantine = [
        {"kind": "annotation", "path": "t.txt", "row": i, "reason": "zero length", "remedy": "Give it a length."}
        for i in range(60)
    ]
    items = [{"chunk_id": f"c{i}", "recording_id": "a", "shard": 0, "status": "ok"} for i in range(3)]
    items.append(
        {
            "chunk_id": "c9",
            "recording_id": "b",
            "shard": 0,
            "status": "failed",
            "error_class": "DataError",
            "error": "<script>x</script>",
        }
    )
    # neither tuning, nor another layer, nor an easier rule may be shown as an example
    not_shown = [
        match_rows().assign(split="val"),
        match_rows().assign(layer="cnn"),
        match_rows().assign(iou_threshold=0.1),
    ]
    return ReportContent(
        corpus="Boobook & friends",
        corpus_root=root,
        date="2024-05-01",
        seed=7,
        config_digest="abc123def456",
        targets=("boobook",),
        recordings=table("recordings", recordings),
        annotations=annotation_rows(),
        quarantine=table("quarantine", quarantine),
        metrics=metrics_rows(),
        metrics_per_recording=table("metrics_per_recording", per_recording),
        curves=curve_rows(),
        matches=pd.concat([match_rows(), *not_shown]),
        reliability=table("reliability", []),
        items=table("items", items),
        leakage=leakage_rows("grouped"),
        noise={"grouped": noise_report(wanted=90, mined=90)},
        settings=ReportSettings(examples=4),
        window_s=0.02,
        low_hz=200.0,
        high_hz=4000.0,
    )


@pytest.fixture(scope="module")
def html(content, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("out") / "report.html"
    write_report(path, content)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def written(tmp_path: Path, content: ReportContent) -> Page:
    write_report(tmp_path / "report.html", content)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


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


def empty(content: ReportContent) -> ReportContent:
    names = (
        "recordings",
        "annotations",
        "quarantine",
        "metrics",
        "metrics_per_recording",
        "curves",
        "matches",
        "items",
        "leakage",
    )
    return replace(content, **{name: table(name, []) for name in names})


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


def test_undefined_f1_and_its_note(content, tmp_path):
    nothing = dict.fromkeys(("f1", "f1_low", "f1_high", "precision", "recall", "false_alarms_per_hour"), None)
    row = metric(n_gt=0, n_pred=0, tp=0, fp=0, fn=0, note="no annotation <in> the test recordings", **nothing)
    page = written(tmp_path, replace(content, metrics=table("metrics", [row])))
    assert "F1 could not be computed on 0 annotated boobook calls" in page.text
    assert "no annotation <in> the test recordings" in page.text
    assert "nan" not in page.text.lower().split()


def test_several_labels_lead_with_all_of_them(content, tmp_path):
    labels = [("boobook", 0.9), ("frog $x$ <i>", 0.5), ("micro", 0.7)]
    metrics = table("metrics", [metric(label=label, f1=f1, n_gt=60) for label, f1 in labels])
    curves = pd.concat([curve_rows([("dense", "cnn")], label) for label, _ in labels])
    page = written(tmp_path, replace(content, metrics=metrics, curves=curves))
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


# Choosing examples


def test_false_alarms_take_turns_between_recordings():
    chosen = choose_examples(match_rows(), "false_alarm", 4)
    assert [row["selection_id"] for row in chosen] == ["s01", "s21", "s31", "s41"]
    assert [row["selection_id"] for row in choose_examples(match_rows(), "false_alarm", 9)] == [
        "s01",
        "s11",
        "s21",
        "s31",
        "s41",
    ]


def test_misses_come_longest_first_and_do_not_depend_on_row_order():
    chosen = choose_examples(match_rows(), "miss", 2)
    assert [row["annotation_id"] for row in chosen] == ["n42", "n32"]
    shuffled = match_rows().sample(frac=1.0, random_state=3)
    assert [row["annotation_id"] for row in choose_examples(shuffled, "miss", 2)] == ["n42", "n32"]


def test_hits_span_the_scores():
    rows = match_rows().iloc[[0] * 40].reset_index(drop=True)
    rows["score"] = np.arange(40.0)
    rows["recording_id"] = [f"r{i % 3}" for i in range(40)]
    scores = [row["score"] for row in choose_examples(rows, "hit", 4)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] >= 30 and scores[-1] < 10
    assert choose_examples(rows, "hit", 0) == [] and choose_examples(rows.iloc[:0], "hit", 4) == []
    assert len(choose_examples(rows.iloc[:2], "hit", 6)) == 2


# Figures and sounds


@pytest.mark.parametrize("samples", [np.zeros(4000), np.ones(1), np.full(50, 1e-30)])
def test_spectrogram_of_silence_and_of_next_to_nothing(samples):
    png = spectrogram_png(samples.astype(np.float32), 8000, start_s=2.0, window_s=0.02, low_hz=9000.0, high_hz=12000.0)
    assert png.startswith(b"\x89PNG")


def test_spectrogram_shows_its_marks_and_refuses_nothing_at_all():
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    plain = spectrogram_png(noise, 8000, start_s=0.0)
    mark = Mark("selection", 0.2, 0.5, focus=True)
    marked = spectrogram_png(noise, 8000, start_s=0.0, marks=[mark])
    other = spectrogram_png(noise, 8000, start_s=0.0, marks=[replace(mark, kind="annotation")])
    assert len({plain, marked, other}) == 3
    elsewhere = replace(mark, start_s=5.0, end_s=6.0)
    assert spectrogram_png(noise, 8000, start_s=0.0, marks=[elsewhere]) == plain  # no legend for what is not to be seen
    with pytest.raises(ValueError, match="no samples"):
        spectrogram_png(noise[:0], 8000, start_s=0.0)


def test_spectrogram_puts_a_higher_tone_higher():
    def darkest_row(hz):
        tone = np.sin(2 * np.pi * hz * np.arange(8000) / 8000).astype(np.float32)
        picture = Image.open(io.BytesIO(spectrogram_png(tone, 8000, start_s=0.0))).convert("L")
        return np.asarray(picture)[:, 200:400].mean(axis=1)[60:-70].argmin() / picture.height

    low, middle, high = (darkest_row(hz) for hz in (1000, 2000, 3000))
    assert low > middle > high
    assert low - middle == pytest.approx(0.7 / 4, abs=0.02)  # the axis takes 70 % of the height for 4 kHz
    assert middle - high == pytest.approx(0.7 / 4, abs=0.02)


def test_wav_is_raised_but_never_lowered():
    def peak(scale):
        tone = (scale * np.sin(np.arange(8000) / 3)).astype(np.float32)
        with wave.open(io.BytesIO(wav_bytes(tone, 22050))) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22050)
            return np.abs(np.frombuffer(file.readframes(8000), "<i2")).max() / 32767

    assert peak(0.001) == pytest.approx(0.7, abs=0.01)
    assert peak(0.95) == pytest.approx(0.95, abs=0.01)
    assert peak(0.0) == 0.0
    assert len(wav_bytes(np.zeros(0, np.float32), 8000)) == 44


def test_sound_in_the_page_is_the_stretch_around_the_event(page):
    sounds = [base64.b64decode(a["src"].split(",")[1]) for a in page.of("audio")]
    with wave.open(io.BytesIO(sounds[0])) as file:
        assert file.getframerate() == RATE
        assert 1.5 < file.getnframes() / RATE < 2.6


# Leaky models


def both_kinds(**leak_free):
    """A leaky model with a better F1 beside a leak-free one, each with a forest."""
    rows = [metric(model="dealt", layer=layer, f1=0.95, leaky=True, note="leaky: x") for layer in ("cnn", "cnn+rf")]
    return table("metrics", [*rows, metric(model="honest", **({"f1": 0.4} | leak_free))])


@pytest.mark.parametrize("f1", [0.4, None])
def test_a_leaky_model_is_never_the_best_beside_a_leak_free_one(content, tmp_path, f1):
    metrics = both_kinds(f1=f1)
    assert leaderboard(metrics)["model"].tolist() == ["honest", "dealt", "dealt"]
    page = written(
        tmp_path, replace(content, metrics=metrics, curves=curve_rows([("dealt", "cnn"), ("honest", "cnn")]))
    )
    assert "Model honest (cnn" in page.text and "Model dealt" not in page.text
    assert "each scored by a model that never saw it." in page.text


def test_leaky_models_are_marked_wherever_they_are_named(content, tmp_path):
    curves = pd.concat([curve_rows([("dealt", "cnn")]).assign(leaky=True), curve_rows([("honest", "cnn")])])
    page = written(tmp_path, replace(content, metrics=both_kinds(), curves=curves))
    board = page.text[page.text.index("Leader board A row is") : page.text.index("Precision and recall")]
    assert board.count("dealt (leaky)") == board.count("dealt") > 2
    assert "A leaky model learned from clips of the very recordings that it is tested on." in board
    assert "honest (leaky)" not in page.text
    assert "Models marked leaky are the exception" in page.text
    svg = precision_recall_svg(curves, both_kinds())
    assert "dealt, cnn (leaky)" in svg and "honest, cnn<" in svg


def test_pages_without_leaky_models_do_not_speak_of_them(page):
    assert "leaky" not in page.text


def test_a_page_of_leaky_models_only_says_so_first(content, tmp_path):
    metrics = table("metrics", [metric(model="dealt", leaky=True, note="leaky: clips of one recording")])
    page = written(tmp_path, replace(content, metrics=metrics))
    assert "never saw" not in page.text[: page.text.index("Leader board A row is")]
    assert "scored by a model that learned from other clips of the same recordings (leaky)." in page.text
    assert "tested on clips that were held out" in page.text


def test_per_recording_rows_are_the_pooled_ones(content, tmp_path):
    rows = content.metrics_per_recording
    parts = rows.assign(n_gt=rows["n_gt"].where(rows["fold"] == "pooled", 77))
    page = written(tmp_path, replace(content, metrics_per_recording=parts))
    assert " 77 " not in page.text[page.text.index("Recording by recording") :]


def test_leakage_is_told_per_variant_and_fold(content, tmp_path):
    both = pd.concat([leakage_rows("random", shared=3, folds=(1,)), leakage_rows("grouped")])
    page = written(tmp_path, replace(content, leakage=both))
    text = page.text[page.text.index("What stands on two sides") :]
    assert "grouped (2 folds): no group, recording, copy of a recording or extract of one raw recording" in text
    most = "groups 3, recordings 3, contents 3, raw recordings 3"
    assert f"random (1 fold): leaky. The most that two sides share: {most}." in text
    assert "random 1 recording: <i>a</i> 3 3 3 3 0" in text and "grouped 2 – 0 0 0 0 0" in text
    assert "Fold by fold (3 rows)" in text
    none = written(tmp_path, replace(content, leakage=table("leakage", [])))
    assert "No dataset variant was checked." in none.text


def test_contents_that_were_not_compared_are_not_called_clean(content, tmp_path):
    leakage = leakage_rows("grouped").assign(shared_contents=pd.array([None] * 6, dtype="Int64"))
    text = written(tmp_path, replace(content, leakage=leakage)).text
    assert "grouped (2 folds): no group, recording or extract of one raw recording stands on two sides" in text
    assert "whether recordings are copies of each other was not compared" in text
    assert "copy of a recording" not in text


def test_noise_is_told_per_variant(content, page, tmp_path):
    assert "grouped: 90 noise clips wanted, 90 found, all in labelled recordings." in page.text
    for words in ("raw recordings that nobody", "false alarm of", "confuser is no", "hard negatives"):
        assert words not in page.text
    selections = {"used": 3, "over the limit": 8, "unreadable": 0}
    full = noise_report(wanted=20, mined=12, mined_raw=4, unmet=4, false_alarms=3, confusers_left_out=5,
                        unrated_calls=6, selections=selections)  # fmt: skip
    both = {"quiet <b>": full, "grouped": noise_report(wanted=1, mined=1)}
    text = written(tmp_path, replace(content, noise=both)).text
    text = text[text.index("Noise to learn from") : text.index("Quarantine", text.index("Noise to learn from"))]
    assert text.index("grouped: 1 noise clip wanted") < text.index("quiet <b>: 20 noise clips wanted, 16 found")
    for words in ("4 or 25.0 % in raw recordings that nobody has labelled", "4 not found", "3 false alarms",
                  "5 labelled confusers", "6 calls whose quality", "left out: over the limit 8."):  # fmt: skip
        assert words in text
    none = written(tmp_path, replace(content, noise={}))
    assert "There is no dataset variant." in none.text


def test_labels_that_are_unknown_are_told_apart(content, tmp_path):
    rows = content.annotations.assign(label=content.annotations["label"].replace("<b>frog</b>", "unknown"))
    page = written(tmp_path, replace(content, annotations=rows))
    assert "unknown left out 1 1" in page.text


# Across folds


def across_rows(f1_of, **more):
    """The pooled row, and a test row per fold beside a validation row and rows that are not to be shown."""
    rows = [metric(f1=0.6, **more)]
    for fold, f1 in enumerate(f1_of, start=1):
        own = {"fold": str(fold), "f1": f1, "part": f"site <{fold}>", "n_groups": 3, **more}
        rows.append(metric(n_gt=0 if f1 is None else 10 * fold, false_alarms_per_hour=float(fold), **own))
        rows += [metric(**own | {"split": "val", "f1": 0.99}), metric(**own | {"iou": 0.9, "f1": 0.01})]
        rows.append(metric(**own | {"selected": False, "f1": 0.02}))
    return table("metrics", rows)


def plain(content, metrics, **more):
    """The content with these metrics, without pictures."""
    nothing = {name: table(name, []) for name in ("curves", "matches", "metrics_per_recording")}
    return replace(content, metrics=metrics, **nothing, **more)


def across(page, what):
    start = page.text.index(f"Across {what} Every fold")
    return page.text[start : page.text.index("Fixed thresholds", start)]


def test_folds_stand_below_each_other_with_their_spread(content, tmp_path):
    page = written(tmp_path, plain(content, across_rows([0.5, 0.8, 0.62])))
    text = across(page, "folds")
    assert "dense, cnn, boobook. F1 lies between 0.50 (site <1>) and 0.80 (site <2>); its standard deviation" in text
    assert "over 3 folds is 0.15." in text
    assert "1 3 10 0.50 [0.38, 0.60] 1.0 2 3 20 0.80 [0.68, 0.90] 2.0 3 3 30 0.62 [0.50, 0.72] 3.0" in text
    assert "Lowest 0.50 1.0 Highest 0.80 3.0 Standard deviation 0.15 1.0" in text
    assert "Site" not in text and "0.99" not in text and "0.01" not in text
    assert {"href": "#across"} in page.of("a")


def test_folds_of_sites_have_their_names(content, tmp_path):
    page = written(tmp_path, plain(content, across_rows([0.5, 0.8]), by="site"))
    text = across(page, "sites")
    assert "Every fold tests everything of one site, with a network that was trained and validated on other" in text
    assert "Fold Site Groups Annotated calls F1 False alarms/h 1 site <1> 3 10 0.50" in text
    assert "Lowest 0.50 1.0" in text
    assert "cross-validated over 2 folds that test one site each" in page.text
    assert not page.of("site")


def test_a_fold_without_calls_is_left_out_of_the_spread_of_f1(content, tmp_path):
    rows = across_rows([0.5, None, 0.7])
    rows.loc[rows["n_gt"] == 0, "f1"] = 0.0  # false alarms only
    text = across(written(tmp_path, plain(content, rows)), "folds")
    assert "between 0.50 (site <1>) and 0.70 (site <3>)" in text
    assert "over 2 folds is 0.14; 1 without annotated calls left out." in text
    assert "2 3 0 – 2.0" in text and "Lowest 0.50 1.0 Highest 0.70 3.0" in text
    none = across(written(tmp_path, plain(content, across_rows([None, None]))), "folds")
    assert "No fold has annotated calls." in none and "Lowest – 1.0" in none
    one = across(written(tmp_path, plain(content, across_rows([0.5, None]))), "folds")
    assert "its standard deviation over 1 folds is –" not in one and "Only one fold has annotated calls" in one


def test_many_folds_are_folded_up(content, tmp_path):
    def shown_at_once(n):
        spread = spreads(across_rows(np.linspace(0.3, 0.9, n)), leaderboard(across_rows([0.5])), "date")
        return not spread[0].collapsed

    assert shown_at_once(12) and not shown_at_once(13)
    page = written(tmp_path, plain(content, across_rows(np.linspace(0.3, 0.9, 13)), by="date"))
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
    assert "The same for 5 more" in across(written(tmp_path, plain(content, metrics)), "folds")


def test_a_single_split_has_no_spread(content, tmp_path):
    page = written(tmp_path, plain(content, across_rows([0.5])))
    assert "Across" not in page.text and not page.of("section", id="across")


# The terminal


def test_the_terminal_marks_leaky_models_and_puts_them_last():
    rows = both_kinds()
    rows["model"] = rows["model"] + "-" + "x" * 60
    text = leaderboard_text(rows, "r.html")
    lines = text.splitlines()
    assert [line.split()[0][:4] for line in lines[1:4]] == ["hone", "deal", "deal"]
    assert ["leaky" in line for line in lines[1:4]] == [False, True, True] and "cnn+rf, leaky" in text
    assert "A leaky model learned from clips of the very recordings" in text and max(map(len, lines)) <= 100
    assert "leaky" not in leaderboard_text(metrics_rows(), "r.html")


def test_leaderboard_takes_headline_rows_of_the_first_iou():
    metrics = metrics_rows()
    board = leaderboard(metrics)
    assert deciding_iou(metrics) == 0.4
    assert list(zip(board["layer"], board["f1"], strict=True)) == [("cnn+rf", 0.78), ("cnn", 0.71)]
    assert leaderboard(metrics.iloc[:0]).empty


def test_leaderboard_text_is_aligned_and_narrow():
    rows = [
        metric(model="grouped-" + "x" * 60 + "-fold", label="Ninox \x1b[31mboobook"),
        metric(f1=0.5, tp=None, note="only one group"),
    ]
    rows.append(metric(model="フクロウ", f1=float("nan"), recall=None, note="only one group"))
    lines = leaderboard_text(table("metrics", rows), "results/report.html").splitlines()
    assert lines[0].split()[:4] == ["model", "layer", "label", "F1"]
    assert lines[1].startswith("grouped-…x") and "-fold  cnn" in lines[1]
    assert "0.78 [0.66, 0.88]" in lines[1] and "37/9/12" in lines[1] and lines[1].endswith("32.7    33")
    assert "-/9/12" in lines[2]
    assert lines[3].split()[:5] == ["フクロウ", "cnn", "boobook", "-", "0.80"]
    assert lines[4].startswith("Note: only one group (dense cnn boobook, フクロウ cnn boobook)")
    assert lines[-1] == "Report: results/report.html"
    assert max(map(len, lines)) <= 100 and "\x1b" not in "".join(lines)
    assert lines[1].index("cnn") == lines[2].index("cnn") == lines[3].index("cnn") + 4  # four wide characters


def test_leaderboard_text_without_results():
    text = leaderboard_text(table("metrics", []), "r.html")
    assert text.startswith("No test results") and text.endswith("Report: r.html\n")


def test_leaderboard_needs_no_heavy_package():
    code = (
        "import sys, otus.report.leaderboard; print([m for m in ('matplotlib', 'jinja2', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def histories(fold, best, epochs=4):
    records = [{"epoch": e, "loss": 1 / e, "learning_rate": 0.1, "detection": e / 10} for e in range(1, epochs + 1)]
    return histories_of_fold(fold, records, [best])


def test_learning_curves_are_folded_model_by_model(tmp_path, content):
    trained = {"dense": [*histories("1", 3), *histories("2", 4)], "<i>wide</i>": histories("1", 2), "taken": []}
    page = written(tmp_path, replace(content, learning=trained))
    assert {"href": "#learning"} in page.of("a")
    assert "Best epochs: fold 1: 3 of 4; fold 2: 4 of 4." in page.text and "<i>wide</i>" in page.text
    text = (tmp_path / "report.html").read_text()
    section = text[text.index('<section id="learning">') :].partition("</section>")[0]
    assert (section.count("<details>"), section.count("<svg")) == (2, 2), "none for what was not trained"
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert 'id="learning"' not in (written(tmp_path, content), (tmp_path / "report.html").read_text())[1]


def test_model_cards_are_named_and_a_click_opens_them(tmp_path, content):
    page = written(tmp_path, replace(content, model_cards={"dense": "models/dense/model_card.md"}))
    assert [a["href"] for a in page.of("a") if not a["href"].startswith("#")] == ["models/dense/model_card.md"]
    assert "Model cards, in the folder of this report: dense" in page.text
