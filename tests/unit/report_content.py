"""What a report is made from, by hand: one model, four recordings, names that could do harm."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from otus.config.settings import ReportSettings
from otus.report.content import ReportContent
from otus.report.page import write_report
from otus.tables import table

NASTY = "<img src=x onerror=alert(1)>.wav"
RATE = 16000
PATHS = {"a": "site/a.wav", "b": "site/b.wav", "nasty": NASTY, "gone": "site/gone.wav"}
#: Tables that many sections can do without.
MEASURES = (
    "metrics_per_class",
    "recall_at_rates",
    "strata",
    "differences",
    "confusion",
    "densities",
    "importances",
    "dependence",
    "reliability",
)


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
        "role": "chosen",
        "operating_point": "selected",
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
        rows += [metric(layer=layer, selected=False, role="fixed", threshold=t, f1=0.6) for t in (0.3, 0.5)]
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


def write_recordings(root: Path) -> None:
    """Write calls every two seconds into three of the four recordings; the fourth one is gone."""
    rng = np.random.default_rng(1)
    t = np.arange(6 * RATE) / RATE
    calls = ((t % 2 > 0.5) & (t % 2 < 0.9)) * np.sin(2 * np.pi * 900 * t)
    for name in ("site/a.wav", "site/b.wav", NASTY):
        (root / name).parent.mkdir(exist_ok=True)
        soundfile.write(root / name, 0.1 * calls + 0.005 * rng.standard_normal(len(t)), RATE, subtype="PCM_16")


def recording_rows():
    rows = [
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
    return table("recordings", rows)


def per_recording_rows():
    rows = [
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
    return table("metrics_per_recording", rows)


def quarantine_rows():
    rows = [
        {"kind": "annotation", "path": "t.txt", "row": i, "reason": "zero length", "remedy": "Give it a length."}
        for i in range(60)
    ]
    return table("quarantine", rows)


def item_rows():
    rows = [{"chunk_id": f"c{i}", "recording_id": "a", "shard": 0, "status": "ok"} for i in range(3)]
    failed = {"error_class": "DataError", "error": "<script>x</script>"}
    return table("items", [*rows, {"chunk_id": "c9", "recording_id": "b", "shard": 0, "status": "failed"} | failed])


def make_content(root: Path) -> ReportContent:
    """A run of one model with a forest, whose corpus lies in `root`; the tables of measures are empty."""
    write_recordings(root)
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
        recordings=recording_rows(),
        annotations=annotation_rows(),
        quarantine=quarantine_rows(),
        metrics=metrics_rows(),
        metrics_per_recording=per_recording_rows(),
        curves=curve_rows(),
        matches=pd.concat([match_rows(), *not_shown]),
        **{name: table(name, []) for name in MEASURES},
        items=item_rows(),
        leakage=leakage_rows("grouped"),
        noise={"grouped": noise_report(wanted=90, mined=90)},
        settings=ReportSettings(examples=4),
        window_s=0.02,
        low_hz=200.0,
        high_hz=4000.0,
    )


def written(tmp_path: Path, content: ReportContent) -> Page:
    write_report(tmp_path / "report.html", content)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def unadorned(content: ReportContent, metrics: pd.DataFrame, **more) -> ReportContent:
    """The content with these metrics, without pictures."""
    nothing = {name: table(name, []) for name in ("curves", "matches", "metrics_per_recording")}
    return replace(content, **(nothing | {"metrics": metrics, "settings": ReportSettings(examples=0)} | more))


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
        *MEASURES,
    )
    return replace(content, **{name: table(name, []) for name in names})


def section(page: Page, first: str, then: str) -> str:
    """The text from the heading `first` to the heading `then`."""
    start = page.text.index(first, page.text.index("What went in Methods"))
    return page.text[start : page.text.index(then, start + len(first))]
