"""From the tables of a fold to its networks and their card; what the job of a fold leaves behind."""

import dataclasses
import json
import runpy
import signal
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from training_corpus import (
    CPU,
    RECURRENT,
    SETTINGS,
    after,
    clip_row,
    make_corpus,
    make_recording,
    make_tables,
    never,
    plus,
    single_threaded,
    store,
    weights,
)

from otus.devices import choose_device
from otus.errors import DataError, MissingPartError, StageError
from otus.models.card import load_card, load_model, save_model
from otus.stopping import StoppedError
from otus.tables import write_table
from otus.telemetry.summary import read_journal
from otus.training import loop, train_fold
from otus.training.cuts import counted_frames
from otus.training.material import read_material

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_model.py"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def fit_fold(corpus, folder, tables, *, stop=never, targets=("hum",), settings=SETTINGS, **changes):
    lines = []
    trained = train_fold(
        corpus[0][0].path.parent,
        tables,
        model="m",
        fold=1,
        targets=list(targets),
        settings=settings.model_copy(update={"members": 2, "epochs": 2, **changes}),
        iou=0.4,
        seed=3,
        resume_folder=folder,
        stop=stop,
        progress=lines.append,
    )
    return trained, lines


@pytest.fixture(scope="module")
def whole_fold(corpus, tmp_path_factory):
    return fit_fold(corpus, tmp_path_factory.mktemp("fold"), make_tables(corpus))[0]


def material_of(corpus, tables):
    return read_material(corpus[0][0].path.parent, tables, ["hum"])


def by_id(recordings):
    return {r.recording_id: r for r in recordings}


# Networks, their card, and what is resumed


# Two networks, each two epochs of three batches.
@pytest.mark.parametrize("calls", [2, 8, 9, 16])
def test_a_stopped_ensemble_ends_the_same_and_finished_networks_are_left_alone(
    corpus, whole_fold, tmp_path, monkeypatch, calls
):
    tables, whole = make_tables(corpus), whole_fold
    with pytest.raises(StoppedError, match=rf"member{1 + (calls > 8)}\.pt"):
        fit_fold(corpus, tmp_path / "resume", tables, stop=after(calls))
    steps, real = [], loop._one_batch
    monkeypatch.setattr(loop, "_one_batch", lambda *args: steps.append(1) or real(*args))
    resumed, lines = fit_fold(corpus, tmp_path / "resume", tables)
    assert len(steps) == 12 - (calls - 1) // 4 * 3 - (calls - 1) % 4
    assert lines[1].startswith("network 1 of 2: resuming after epoch")
    assert torch.equal(weights(whole), weights(resumed))
    assert (whole.card, whole.records, whole.validation) == (resumed.card, resumed.records, resumed.validation)


def test_a_balanced_clip_objective_with_a_small_memory_resumes_the_same(corpus, tmp_path):
    tables = make_tables(corpus)
    how = {"settings": RECURRENT, "objective": "clip", "balance": "both", "cache_mb": 0}
    whole, _ = fit_fold(corpus, tmp_path / "whole", tables, **how)
    for calls in (3, 5, 2, 9):
        with pytest.raises(StoppedError):
            fit_fold(corpus, tmp_path / "resume", tables, stop=after(calls), **how)
    resumed, _ = fit_fold(corpus, tmp_path / "resume", tables, **how)
    assert torch.equal(weights(whole), weights(resumed)) and whole.records == resumed.records


@pytest.mark.parametrize("change", ["clips", "targets", "rate", "balance"])
def test_what_changes_the_training_starts_it_anew(corpus, tmp_path, change):
    tables = make_tables(corpus)
    with pytest.raises(StoppedError):
        fit_fold(corpus, tmp_path, tables, stop=after(2))
    changed = {
        "clips": {"tables": dataclasses.replace(tables, clips=tables.clips.iloc[1:])},
        "targets": {"targets": ["hum", "buzz"]},
        "rate": {"optimisation": SETTINGS.optimisation.model_copy(update={"learning_rate": 0.001})},
        "balance": {"balance": "groups"},
    }[change]
    with pytest.raises(StoppedError):
        fit_fold(corpus, tmp_path, changed.pop("tables", tables), stop=after(2), **changed)
    _, lines = fit_fold(corpus, tmp_path, tables)
    assert lines[1].endswith("is the state of another training: starting anew")


def test_the_networks_of_a_fold_differ_and_each_has_its_records(whole_fold):
    first, second = whole_fold.network.members
    assert not torch.equal(first.logits.weight, second.logits.weight)
    assert [(r["member"], r["epoch"]) for r in whole_fold.records] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert not whole_fold.network.training


@pytest.mark.parametrize("settings", [SETTINGS, RECURRENT], ids=["dense_resnet", "crnn"])
@pytest.mark.parametrize("goal", ["frame", "clip"])
def test_a_trained_fold_comes_back_from_its_files(corpus, tmp_path, settings, goal):
    trained, lines = fit_fold(corpus, tmp_path, make_tables(corpus), settings=settings, objective=goal)
    card, recurrent = trained.card, settings is RECURRENT
    assert (card.architecture, card.objective) == (settings.architecture, goal)
    assert card.inference == ("blocks" if recurrent else "dense")
    assert card.context_frames == trained.network.context_frames
    assert card.window_frames == (round(card.median_call_s / card.frontend.hop_s) if goal == "clip" else 1)
    assert card.data["train"] == {"recordings": 3, "hours": pytest.approx(18 / 3600, abs=1e-5), "calls": {"hum": 6}}
    assert card.data["val"]["calls"] == {"hum": 2}
    assert card.median_call_s == pytest.approx(0.5) and len(card.best_epochs) == card.members == 2
    assert "3 recordings with 6 calls to train on, 2 to validate" in lines[0] and settings.architecture in lines[0]
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", trained.network, card)
    again, read = load_model(tmp_path / "m.safetensors", tmp_path / "card.json", CPU)
    assert read == card and type(again) is type(trained.network)
    x = torch.randn(1, card.frontend.bands, 200)
    torch.testing.assert_close(again(x), trained.network(x), atol=1e-5, rtol=0)  # weights are ordered differently
    assert torch.equal(weights(trained), torch.cat([v.flatten().double() for v in again.state_dict().values()]))


def test_a_validation_of_all_networks_together(corpus, tmp_path, whole_fold):
    assert set(whole_fold.validation) == {"detection", "f1", "average_precision"}
    one, _ = fit_fold(corpus, tmp_path, make_tables(corpus), members=1)
    best = one.records[one.card.best_epochs[0] - 1]
    assert one.validation == {k: best[k] for k in one.validation}


@pytest.mark.parametrize("available", [True, False])
def test_a_gpu_that_is_not_there_is_said(monkeypatch, available):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device("cpu") == CPU
    assert choose_device("auto") == torch.device("cuda" if available else "cpu")
    if available:
        assert choose_device("cuda") == torch.device("cuda")
    else:
        with pytest.raises(MissingPartError, match="cuda is set but no GPU is visible; use device: auto or cpu"):
            choose_device("cuda")


# Sides that are parts of recordings, unknown intervals, raw recordings


def test_whole_recordings_count_from_end_to_end(corpus):
    material = material_of(corpus, make_tables(corpus))
    for found, own in ((material.train, corpus[0]), (material.val, corpus[1])):
        for recording, before in zip(found, own, strict=True):
            np.testing.assert_array_equal(recording.start_s, before.start_s)
            frontend = store([recording]).frontend
            assert counted_frames(recording, frontend, 0, frontend.n_frames(recording.info)).all()
            assert not recording.clips_only


def test_training_sees_the_train_time_of_a_recording_and_validation_the_val_time(corpus):
    tables = make_tables(corpus)
    whole = tables.splits["recording_id"] == "t0"
    first = tables.splits[whole].assign(end_sample=2 * 8000)
    second = tables.splits[whole].assign(start_sample=2 * 8000, split="val")
    tables = dataclasses.replace(tables, splits=pd.concat([tables.splits[~whole], second, first], ignore_index=True))
    material = material_of(corpus, tables)
    train, val = by_id(material.train), by_id(material.val)
    assert train["t0"].start_s.tolist() == [1.0] and val["t0"].start_s.tolist() == [3.0]
    assert train["t0"].side.hold(np.array([1.9, 2.0])).tolist() == [True, False]
    assert val["t0"].side.hold(np.array([1.9, 2.0, 99.0])).tolist() == [False, True, True]
    assert len(train) == 3 and len(val) == 3


def test_a_call_of_another_side_that_reaches_into_train_time_is_no_noise(corpus):
    tables = make_tables(corpus)
    border = int(3.2 * 8000)  # the call lasts from 3.0 to 3.6 s
    whole = tables.splits["recording_id"] == "t0"
    parts = [
        tables.splits[whole].assign(end_sample=border),
        tables.splits[whole].assign(start_sample=border, split="test"),
    ]
    tables = dataclasses.replace(tables, splits=pd.concat([tables.splits[~whole], *parts], ignore_index=True))
    recording = by_id(material_of(corpus, tables).train)["t0"]
    assert recording.start_s.tolist() == [1.0]
    centres = np.array([2.99, 3.01, 3.19, 3.21])
    assert recording.unknown.hold(centres).tolist() == [False, True, True, True]


def test_calls_and_intervals_whose_clips_are_unknown_are_not_learnt(corpus):
    tables = make_tables(corpus)
    faint = (tables.clips["recording_id"] == "t1") & (tables.clips["start_sample"] == 8000)
    clips = tables.clips.assign(**{"class": tables.clips["class"].mask(faint, "unknown")})
    clips.loc[faint, "start_sample"] -= 1  # cut at whole samples, one more or less
    strange = clip_row("t2", 5.0, 5.5, "unknown", "unknown")
    tables = plus(dataclasses.replace(tables, clips=clips), clips=[strange])
    material = material_of(corpus, tables)
    train = by_id(material.train)
    assert [train[k].start_s.tolist() for k in ("t0", "t1", "t2")] == [[1.0, 3.0], [3.1], [1.0, 3.2]]
    assert len(material.calls) == 5 and material.durations_s.tolist() == pytest.approx([0.5, 0.6, 0.5, 0.5, 0.4])
    assert train["t1"].unknown.hold(np.array([0.9, 1.2, 1.6])).tolist() == [False, True, False]
    assert train["t2"].unknown.hold(np.array([4.9, 5.2])).tolist() == [False, True]
    val = [clip_row("v0", 2.0, 2.4, "unknown", "hum", split="val")]
    assert material_of(corpus, plus(tables, clips=val)).val[0].start_s.tolist() == [2.0, 4.0]


def test_nothing_left_to_learn_is_said_in_one_sentence(corpus):
    tables = make_tables(corpus)
    for clips in (tables.clips.assign(**{"class": "unknown"}), tables.clips.assign(**{"class": "noise"})):
        with pytest.raises(DataError, match="no call of hum is left to learn on the train side; lower min_quality"):
            material_of(corpus, dataclasses.replace(tables, clips=clips))


@pytest.mark.parametrize("side", ["train", "val"])
def test_a_side_without_recordings_is_said(corpus, side):
    tables = make_tables(corpus)
    empty = dataclasses.replace(tables, splits=tables.splits[tables.splits["split"] != side])
    with pytest.raises(DataError, match=f"train: the fold has no {side} recordings; change the split"):
        material_of(corpus, empty)


def test_a_raw_recording_lends_its_noise_clips_and_nothing_else(corpus, tmp_path):
    raw = make_recording(corpus[0][0].path.parent, "raw", [(2.0, 5.0)], seconds=20.0, seed=33)
    tables = make_tables(corpus)
    facts = {f: getattr(raw.info, f) for f in ("duration_s", "n_samples", "sample_rate", "channels", "subtype")}
    row = {"recording_id": "raw", "path": raw.path.name, "sha256": "1", "labelled": False, **facts}
    noise = [clip_row("raw", a, a + 1.0, "noise", origin="mined_raw") for a in (7.0, 11.0)]
    noise.append(clip_row("raw", 15.0, 16.0, "noise", origin="mined_raw", split="val"))
    tables = plus(tables, recordings=[row], clips=noise)
    material = material_of(corpus, tables)
    assert [r.recording_id for r in material.train] == ["t0", "t1", "t2", "raw"]
    lent = material.train[3]
    assert len(lent.start_s) == 0 and lent.clips_only
    centres = np.array([2.5, 6.9, 7.1, 11.9, 12.1, 15.5])
    assert lent.side.hold(centres).tolist() == [False, False, True, True, False, False]
    assert not store(material.train).keep(3) and store(material.train).keep(0)
    assert [r.recording_id for r in material.val] == ["v0", "v1"]
    trained, lines = fit_fold(corpus, tmp_path / "resume", tables)
    assert "4 recordings with 6 calls" in lines[0] and all(np.isfinite(r["loss"]) for r in trained.records)
    assert trained.card.data["train"]["recordings"] == 3, "nobody has labelled the raw one"


@pytest.mark.parametrize("change", ["spans", "raw", "unknown"])
def test_a_training_belongs_to_its_spans_its_raw_recordings_and_what_is_unknown(corpus, change):
    tables = make_tables(corpus)
    noise = clip_row("raw", 1.0, 2.0, "noise", origin="mined_raw")
    tables = plus(tables, recordings=[{"recording_id": "raw", "sha256": "1"}], clips=[noise])
    tested = {"recording_id": "x", "fold": 1, "split": "test", "start_sample": 0, "end_sample": 5}
    unseen = plus(tables, splits=[tested], clips=[clip_row("x", 0.0, 1.0, "target", "hum", split="test")])
    assert unseen.digest() == tables.digest(), "what is only tested plays no part"
    if change == "spans":
        other = dataclasses.replace(tables, splits=tables.splits.assign(end_sample=tables.splits["end_sample"] - 1))
    elif change == "raw":
        recordings = tables.recordings.assign(sha256=tables.recordings["sha256"].replace("1", "2"))
        other = dataclasses.replace(tables, recordings=recordings)
    else:
        other = plus(tables, clips=[clip_row("t0", 1.0, 1.2, "unknown", "unknown")])
    assert other.digest() != tables.digest()


def test_the_order_of_the_tables_changes_nothing(corpus):
    tables = make_tables(corpus)
    backwards = dataclasses.replace(
        tables, **{n: getattr(tables, n).iloc[::-1] for n in ("recordings", "annotations", "clips", "splits")}
    )
    one, other = material_of(corpus, tables), material_of(corpus, backwards)
    for side in ("train", "val"):
        for a, b in zip(getattr(one, side), getattr(other, side), strict=True):
            assert a.recording_id == b.recording_id and a.start_s.tolist() == b.start_s.tolist()


# The job


class Places:
    """Any output or input of a job: a file of that name in the folder."""

    def __init__(self, folder, suffix=""):
        self.folder, self.suffix = folder, suffix

    def __getattr__(self, name):
        return str(self.folder / f"{name}{self.suffix}")

    __getitem__ = __getattr__


def job(corpus, folder, **changes):
    """What Snakemake gives to the script, for a fold whose tables are written to the folder."""
    for name, rows in vars(make_tables(corpus)).items():
        write_table(folder / f"{name}.parquet", name, rows)
    settings = SETTINGS.model_copy(update={"members": 1, "epochs": 2, **changes})
    params = {"root": str(corpus[0][0].path.parent), "targets": ["hum"], "iou": 0.4, "seed": 1}
    params["telemetry"] = str(folder / "telemetry" / "train_model" / "d-t.fold1.jsonl")
    return types.SimpleNamespace(
        input=Places(folder, ".parquet"),
        output=Places(folder / "out"),
        log=[str(folder / "log")],
        params=types.SimpleNamespace(**params, training=settings.model_dump(mode="json")),
        wildcards=types.SimpleNamespace(dataset="d", training="t", fold="1"),
        rule="train_model",
        resources={"mem_mb": 4000, "runtime": 60},
        threads=1,
    )


def told(folder):
    """The events of the job's journal, each with its status or how far it was."""
    events = read_journal(folder / "telemetry" / "train_model" / "d-t.fold1.jsonl")
    work = [e for e in events if e["event"] not in ("sample", "heartbeat")]
    return [(e["event"], e["status"] if e["event"] == "run_end" else e.get("items_done")) for e in work]


@pytest.fixture
def quietly(monkeypatch):
    """The script takes over signals, warnings and uncaught errors: they are given back."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(snakemake):
    runpy.run_path(str(SCRIPT), init_globals={"snakemake": snakemake})


def left_in(folder):
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


def test_the_job_of_a_fold_writes_a_model_and_deletes_the_state(corpus, tmp_path, quietly):
    run(job(corpus, tmp_path))
    left = left_in(tmp_path / "out")
    assert {"weights", "card", "metrics", "best"} <= left and "resume" not in left
    card, _ = load_card(tmp_path / "out" / "card")
    best = json.loads((tmp_path / "out" / "best").read_text())
    assert best["best_epochs"] == card.best_epochs and card.model == "d-t" and 0 <= best["f1"] <= 1
    records = [json.loads(line) for line in (tmp_path / "out" / "metrics").read_text().splitlines()]
    assert [(r["member"], r["epoch"]) for r in records] == [(1, 1), (1, 2)]
    assert told(tmp_path) == [("run_start", None), ("plan", 0), ("epoch", 1), ("epoch", 2), ("run_end", "ok")]


def test_a_job_that_diverges_leaves_no_model(corpus, tmp_path, quietly):
    diverging = SETTINGS.optimisation.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(StageError, match=r"the (gradient of the )?loss is") as error:
        run(job(corpus, tmp_path, optimisation=diverging))
    assert left_in(tmp_path / "out") <= {"resume"}
    sys.excepthook(error.type, error.value, error.tb)  # what Python calls before it exits with 1
    assert told(tmp_path) == [("run_start", None), ("plan", 0), ("run_end", "failed")]
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert "FAILED: training: the " in last and "lower training.<name>.optimisation.learning_rate" in last


def test_a_stopped_job_leaves_its_state_and_no_model(corpus, tmp_path, quietly, monkeypatch):
    monkeypatch.setattr("otus.stopping.stop_on_signals", lambda: after(6))
    with pytest.raises(StoppedError):
        run(job(corpus, tmp_path))
    assert left_in(tmp_path / "out") == {"resume"}
    monkeypatch.undo()
    run(job(corpus, tmp_path))
    assert "resuming after epoch 1 of 2 and 1 batches of the next" in (tmp_path / "log").read_text()
    assert {"weights", "card", "metrics", "best"} <= left_in(tmp_path / "out")
    stopped = [("run_start", None), ("plan", 0), ("epoch", 1), ("run_end", "stopped")]
    assert told(tmp_path) == [*stopped, ("run_start", None), ("plan", 1), ("epoch", 2), ("run_end", "ok")]
