"""A prediction job and everything that can happen to it: killed, full disk, files that vanish, errors that pass."""

import contextlib
import errno
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from training_corpus import after, never, single_threaded, small_files_only

from otus.audio import AudioFile, inspect
from otus.chunks import make_chunks
from otus.config import ChunkSettings, DenseResnetSettings
from otus.errors import DataError, MissingPartError, StageError
from otus.frontend import Frontend
from otus.inference import ShardModel, parts, predict_shard, reading, shard, steps
from otus.inference.reading import Request, read_ahead
from otus.inference.scorer import Scorer
from otus.models import build_network
from otus.models.card import ModelCard
from otus.scores import read_scores
from otus.stopping import StoppedError
from otus.tables import table

RATE = 8000
SMALL = DenseResnetSettings(channels=4, temporal_channels=8, dilations=[1, 2], frequency_blocks=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


def make_corpus(folder, *, count=6, seconds=1.5, rate=RATE, suffix="wav"):
    """Recordings of noise r0, r1 ...; and their table."""
    rows = []
    for i in range(count):
        path = folder / f"r{i}.{suffix}"
        soundfile.write(path, 0.1 * np.random.default_rng(i).standard_normal(round(seconds * rate)), rate)
        info = inspect(path)
        rows.append(
            {
                "recording_id": f"r{i}",
                "path": path.name,
                "group": f"r{i}",
                "duration_s": info.duration_s,
                "n_samples": info.n_samples,
                "sample_rate": info.sample_rate,
                "channels": 1,
                "subtype": info.subtype,
                "sha256": "0",
                "labelled": True,
                "readable": True,
            }
        )
    return folder, table("recordings", rows)


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path)


def make_model(folder, fold=1, *, skip=(), high_hz=4000.0, **numbers):
    torch.manual_seed(fold)
    net = build_network(SMALL, bands=16, n_classes=1).eval()
    card = ModelCard(
        model="m",
        fold=fold,
        architecture="dense_resnet",
        members=1,
        network={},
        frontend=Frontend(**{"sample_rate": RATE, "hop_samples": 80, "n_fft": 256, "bands": 16} | numbers,
                          low_hz=0.0, high_hz=high_hz, scale="linear"),
        classes=["hum"],
        context_frames=net.context_frames,
        inference="dense",
        objective="frame",
        window_frames=1,
        median_call_s=0.4,
        short_call_s=0.2,
        training_data_sha256="0",
        training={},
        data={},
        best_epochs=[1],
        seed=1,
        versions={},
    )  # fmt: skip
    scorer = Scorer(net, card, torch.device("cpu"), precision="float32")
    resume = folder / f"resume{fold}"
    return ShardModel(f"m fold {fold}", scorer, str(fold), set(skip), folder / f"{fold}.scores.parquet", resume)


def predict(corpus, models, *, chunk_s=0.5, allowed=0.0, **more):
    """Predict; `more` replaces what is usual."""
    root, recordings = corpus
    chunks = make_chunks(recordings, ChunkSettings(chunk_s=chunk_s))
    usual = {"readers": 1, "retries": 2, "stop": never, "progress": lambda line: None, "pause": lambda seconds: None}
    return predict_shard(root, chunks, recordings, models, max_failed_fraction=allowed, **(usual | more))


class Notes:
    """A journal that keeps its records."""

    def __init__(self):
        self.records = []

    def write(self, event, **fields):
        self.records.append((event, fields))

    def of(self, event):
        return [fields for name, fields in self.records if name == event]


@pytest.fixture
def whole(corpus, tmp_path_factory):
    """The scores (bytes) of an uninterrupted run of two folds."""
    folder = tmp_path_factory.mktemp("whole")
    models = [make_model(folder, 1, skip={"r5"}), make_model(folder, 2, skip={"r0"})]
    predict(corpus, models)
    return [model.scores_path.read_bytes() for model in models]


def two_folds(folder):
    return [make_model(folder, 1, skip={"r5"}), make_model(folder, 2, skip={"r0"})]


# Several models in one job


def test_folds_together_give_what_each_gives_alone_and_decode_every_chunk_once(corpus, whole, tmp_path, monkeypatch):
    decoded, real = [], AudioFile._decode
    monkeypatch.setattr(
        AudioFile, "_decode", lambda self, a, b: decoded.append((self._path, b - a)) or real(self, a, b)
    )
    results = predict(corpus, two_folds(tmp_path / "both"), readers=3)
    assert sum(n for _, n in decoded) == 6 * 1.5 * RATE, "the medians come from the samples that are scored"
    for model, result, expected in zip(two_folds(tmp_path / "alone"), results, whole, strict=True):
        (alone,) = predict(corpus, [model])
        assert model.scores_path.read_bytes() == expected
        assert (tmp_path / "both" / model.scores_path.name).read_bytes() == expected
        pd.testing.assert_frame_equal(alone.items.drop(columns="wall_s"), result.items.drop(columns="wall_s"))
        assert result.items["status"].value_counts().to_dict() == {"ok": 15, "skipped": 3}
    assert whole[0] != whole[1]


def test_folds_with_one_front_end_share_its_spectrogram(corpus, tmp_path, monkeypatch):
    made, real = [], Scorer.features
    monkeypatch.setattr(Scorer, "features", lambda self, *args: made.append(self.card.fold) or real(self, *args))
    models = [make_model(tmp_path, 1), make_model(tmp_path, 2), make_model(tmp_path, 3, high_hz=3000.0)]
    predict(corpus, models)
    assert made.count(1) == made.count(3) == 18 and made.count(2) == 0
    alone = make_model(tmp_path / "alone", 2)
    predict(corpus, [alone])
    assert alone.scores_path.read_bytes() == models[1].scores_path.read_bytes()


def test_folds_at_different_sample_rates_are_read_together(corpus, tmp_path):
    models = [make_model(tmp_path, 1), make_model(tmp_path, 2, sample_rate=6000, hop_samples=60, high_hz=3000.0)]
    predict(corpus, models)
    alone = make_model(tmp_path / "alone", 2, sample_rate=6000, hop_samples=60, high_hz=3000.0)
    predict(corpus, [alone])
    assert alone.scores_path.read_bytes() == models[1].scores_path.read_bytes()


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("readers", [1, 3])
def test_neither_chunks_nor_readers_nor_stops_change_a_bit(tmp_path, monkeypatch, suffix, readers):
    """Resampled, and with pieces shorter than a chunk."""
    corpus = make_corpus(tmp_path, count=2, seconds=20.0, rate=32_000, suffix=suffix)
    usual = make_model(tmp_path / "usual")
    predict(corpus, [usual], chunk_s=1000.0)
    monkeypatch.setattr(steps, "_PIECE_SAMPLES", 50_000)
    for name, chunk_s in (("pieces", 1000.0), ("chunks", 3.7)):
        monkeypatch.setattr(steps, "_UNIT_SAMPLES", 1)
        model = make_model(tmp_path / name)
        if name == "chunks":
            for _ in range(3):
                with pytest.raises(StoppedError):
                    predict(corpus, [model], chunk_s=chunk_s, readers=readers, stop=after(2))
        predict(corpus, [model], chunk_s=chunk_s, readers=readers)
        expected, _, _ = read_scores([usual.scores_path], only={"r0", "r1"})
        found, _, _ = read_scores([model.scores_path], only={"r0", "r1"})
        assert all(np.array_equal(found[r], expected[r]) for r in expected)


def test_a_fold_that_is_finished_is_not_scored_again_beside_one_that_is_not(corpus, whole, tmp_path, monkeypatch):
    models = two_folds(tmp_path)
    predict(corpus, models)
    for path in models[1].resume_folder.iterdir():
        path.unlink()
    scored, real = [], Scorer.score
    monkeypatch.setattr(Scorer, "score", lambda self, *args: scored.append(self.card.fold) or real(self, *args))
    predict(corpus, two_folds(tmp_path))
    assert scored == [2] * 15
    assert [model.scores_path.read_bytes() for model in models] == whole


# Errors of reading


def test_a_file_deleted_mid_run_is_a_failed_item_and_the_others_go_on(corpus, tmp_path, monkeypatch):
    root, _ = corpus
    real = AudioFile.__init__

    def vanishing(self, path):
        if Path(path).name == "r3.wav":
            (root / "r3.wav").unlink(missing_ok=True)
        real(self, path)

    monkeypatch.setattr(AudioFile, "__init__", vanishing)
    model, journal = make_model(tmp_path), Notes()
    (result,) = predict(corpus, [model], allowed=0.2, journal=journal)
    failed = result.items[result.items["status"] == "failed"]
    assert failed["recording_id"].tolist() == ["r3"] * 3 and set(failed["error_class"]) == {"FileNotFoundError"}
    assert failed["error"].tolist() == [f"{root / 'r3.wav'}: cannot be read (No such file or directory)."] * 3
    assert set(failed["attempt"]) == {1}, "not tried again"
    assert set(read_scores([model.scores_path], only={"r0", "r1", "r2", "r4", "r5"})[0]) == {
        "r0",
        "r1",
        "r2",
        "r4",
        "r5",
    }
    ended = journal.of("item_end")
    assert [e["status"] for e in ended].count("failed") == 3 and len(ended) == 18
    assert journal.of("plan") == [{"items_total": 18, "audio_s": 9.0, "items_done": 0}]


def failing(monkeypatch, name, error, times):
    """The first `times` openings of a file fail; return the list of all openings."""
    opened, real = [], os.open

    def open_(path, *args, **named):
        if str(path).endswith(name):
            opened.append(str(path))
            if len(opened) <= times:
                raise error
        return real(path, *args, **named)

    monkeypatch.setattr("otus.audio.os.open", open_)
    return opened


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN])
def test_an_error_that_passes_is_tried_again_with_growing_pauses(corpus, whole, tmp_path, monkeypatch, number):
    failing(monkeypatch, "r2.wav", OSError(number, os.strerror(number)), 3)
    pauses, models, journal = [], two_folds(tmp_path), Notes()
    results = predict(corpus, models, retries=3, pause=pauses.append, journal=journal)
    assert pauses == [1.0, 2.0, 4.0]
    assert [model.scores_path.read_bytes() for model in models] == whole
    attempts = results[0].items.set_index("chunk_id")["attempt"]
    assert attempts["r2_k00000"] == 4 and attempts.drop("r2_k00000").eq(1).all()
    assert max(e["attempt"] for e in journal.of("item_end")) == 4


def test_an_error_that_does_not_pass_fails_the_item_after_the_last_attempt(corpus, tmp_path, monkeypatch):
    opened = failing(monkeypatch, "r2.wav", OSError(errno.EIO, os.strerror(errno.EIO)), 99)
    (result,) = predict(corpus, [make_model(tmp_path)], retries=1, allowed=0.5)
    failed = result.items[result.items["status"] == "failed"]
    assert set(failed["attempt"]) == {2} and set(failed["error_class"]) == {"OSError"}
    assert failed["error"].iloc[0].endswith("r2.wav: cannot be read (Input/output error; tried 2 times).")
    assert len(opened) == 2, "all of a short recording comes with its band medians"
    monkeypatch.undo()
    (result,) = predict(corpus, [make_model(tmp_path)])
    assert result.items.set_index("chunk_id").loc["r2_k00000", "attempt"] == 3


def poisoned(root, kind):
    path = root / "r2.wav"
    if kind == "garbage":
        path.write_bytes(b"RIFFgarbage")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "shorter":
        soundfile.write(path, np.zeros(100), RATE)
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["garbage", "empty", "shorter", "folder", "missing"])
def test_poison_is_not_tried_again(corpus, tmp_path, kind):
    root, _ = corpus
    poisoned(root, kind)
    pauses = []
    (result,) = predict(corpus, [make_model(tmp_path)], allowed=0.5, pause=pauses.append)
    failed = result.items[result.items["status"] == "failed"]
    assert set(failed["recording_id"]) == {"r2"} and set(failed["attempt"]) == {1} and pauses == []
    assert failed["error"].str.contains("r2.wav").all() and failed["error"].str.endswith(".").all()
    if kind == "shorter":
        assert (
            failed["error"].str.contains("has changed since the inventory, from 12000 samples at 8000 Hz to 100").all()
        )


def test_a_disk_that_fails_while_decoding_is_told_from_a_damaged_file(corpus, monkeypatch):
    root, _ = corpus
    with AudioFile(root / "r0.wav") as file:
        monkeypatch.setattr("otus.audio.os.pread", lambda *args: (_ for _ in ()).throw(OSError(errno.ESTALE, "stale")))
        file._file.close()
        file._file = soundfile.SoundFile(root / "r1.wav", "r+")
        file._file.truncate(50)
        with pytest.raises(OSError, match="stale"):
            file.read(0, 1000)
        monkeypatch.undo()
        with pytest.raises(DataError, match=r"r0\.wav: only \d+ of 1000 samples could be decoded"):
            file.read(0, 1000)


def test_reading_ahead_is_bounded_and_leaves_no_thread(corpus, tmp_path, monkeypatch):
    root, _ = corpus
    info = inspect(root / "r0.wav")
    asked = []

    def requests():
        for i in range(100):
            asked.append(i)
            yield [Request(root / f"r{i % 6}.wav", info, ((RATE, 0, 1000),))]

    before = threading.active_count()
    answers = read_ahead(requests(), readers=2, retries=0, pinned=False)
    next(answers)
    assert len(asked) == 2 * reading._AHEAD + 1
    answers.close()
    assert threading.active_count() == before


# Errors of scoring


def test_a_score_that_is_not_finite_is_an_error_of_its_item_alone(corpus, tmp_path, monkeypatch):
    real = Scorer._frame_scores

    def scores(self, frontend, features, frames, info):
        found = real(self, frontend, features, frames, info)
        if self.card.fold == 1 and frames.start == 50:
            found[0, 3] = np.nan
        return found

    monkeypatch.setattr(Scorer, "_frame_scores", scores)
    models = [make_model(tmp_path, 1), make_model(tmp_path, 2)]
    one, two = predict(corpus, models, allowed=0.5)
    failed = one.items[one.items["status"] == "failed"]
    assert failed["chunk_id"].tolist() == [f"r{i}_k00001" for i in range(6)]
    assert set(failed["error_class"]) == {"FloatingPointError"} and set(two.items["status"]) == {"ok"}
    assert np.isfinite(pd.read_parquet(models[0].scores_path)["hum"]).all()
    assert len(pd.read_parquet(models[0].scores_path)) == 6 * 100


@pytest.mark.parametrize("fits", [500, 200])
def test_memory_that_runs_out_halves_what_is_scored_and_says_so(corpus, tmp_path, monkeypatch, fits):
    usual, less, journal = make_model(tmp_path / "usual"), make_model(tmp_path / "less"), Notes()
    predict(corpus, [usual], chunk_s=100.0)
    real = Scorer.features

    def features(self, stretch, frames, info, profile):
        if len(frames) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, stretch, frames, info, profile)

    monkeypatch.setattr(Scorer, "features", features)
    corpus = make_corpus(tmp_path, count=1, seconds=20.0)
    if fits < 256:
        with pytest.raises(StageError, match="memory ran out at the spectrogram of 250 frames"):
            predict(corpus, [less], chunk_s=100.0, journal=journal)
        return
    predict(corpus, [less], chunk_s=100.0, journal=journal)
    assert [fields["batch_size"] > 0 for fields in journal.of("oom_backoff")] == [True] * 3
    monkeypatch.undo()
    predict(corpus, [usual], chunk_s=100.0)
    assert less.scores_path.read_bytes() == usual.scores_path.read_bytes()


def test_what_did_not_fit_is_let_go_before_the_halves_are_scored(corpus, tmp_path, monkeypatch):
    real, first = Scorer.features, []

    def features(self, stretch, frames, info, profile):
        if not first:
            large = torch.zeros(10)
            first.append(weakref.ref(large))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert first[0]() is None
        return real(self, stretch, frames, info, profile)

    monkeypatch.setattr(Scorer, "features", features)
    (result,) = predict(make_corpus(tmp_path, count=1, seconds=5.0), [make_model(tmp_path)], chunk_s=100.0)
    assert result.items["status"].tolist() == ["ok"] and first[0]() is None


def test_networks_with_other_contexts_see_each_their_own_frames(tmp_path):
    # All frames are made of the whole recording's samples, so these tell nobody which frames there are.
    corpus = make_corpus(tmp_path, count=1, seconds=0.2)
    models = [make_model(tmp_path, fold, n_fft=4096) for fold in (1, 2)]
    models[1].scorer._network.context_frames += 3
    root, recordings = corpus
    chunks = make_chunks(recordings, ChunkSettings(chunk_s=0.08))
    usual = {"max_failed_fraction": 0.0, "readers": 1, "retries": 0, "stop": never, "progress": lambda line: None}
    found = []
    for several in (models, models[:1], models[1:]):
        predict_shard(root, chunks, recordings, several, **usual)
        found.append([model.scores_path.read_bytes() for model in several])
    assert found[0] == found[1] + found[2]


# Memory that a GPU copies from


def test_samples_for_a_gpu_are_pinned_by_the_readers(corpus, monkeypatch):
    root, _ = corpus
    request = Request(root / "r0.wav", inspect(root / "r0.wav"), ((RATE, 0, 1000),))
    threads, real = [], torch.Tensor.clone

    def pin_memory(self):
        threads.append(threading.current_thread().name)
        return real(self)

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    for pinned in (False, True):
        ((answer,),) = read_ahead([[request]], readers=1, retries=0, pinned=pinned)
        assert isinstance(answer.stretches[0].samples, torch.Tensor) == pinned
        np.testing.assert_array_equal(answer.stretches[0].samples, AudioFile(request.path).read(0, 1000))
    assert len(threads) == 1 and threads[0].startswith("reader-0")


def test_where_no_memory_is_pinned_samples_are_read_all_the_same(corpus, monkeypatch):
    root, _ = corpus
    request = Request(root / "r0.wav", inspect(root / "r0.wav"), ((RATE, 0, 1000),))

    def pin_memory(self):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    ((answer,),) = read_ahead([[request]], readers=1, retries=0, pinned=True)
    assert answer.error is None and len(answer.stretches[0].samples) == 1000


def test_samples_go_to_the_device_while_other_work_goes_on(corpus, tmp_path, monkeypatch):
    real, copies = torch.Tensor.to, []

    def to(self, *args, **named):
        if self.dim() == 1 and len(self) >= RATE:  # sound, not a window or medians
            copies.append((args, named))
        return real(self, *args, **named)

    monkeypatch.setattr(torch.Tensor, "to", to)
    predict(corpus, [make_model(tmp_path)], chunk_s=100.0)
    assert copies == [((torch.device("cpu"),), {"non_blocking": True})] * 6


@pytest.mark.parametrize("kinds", [["cpu"], ["cpu", "cuda"]])
def test_memory_is_pinned_if_a_model_is_on_a_gpu(corpus, tmp_path, monkeypatch, kinds):
    models, asked = [make_model(tmp_path, fold) for fold in range(len(kinds))], []

    def read(wanted, *, pinned, **usual):
        asked.append(pinned)
        for model in models:  # which score on the CPU all the same
            model.scorer.device = torch.device("cpu")
        return read_ahead(wanted, pinned=False, **usual)

    for model, kind in zip(models, kinds, strict=True):
        model.scorer.device = torch.device(kind)
    monkeypatch.setattr(shard, "read_ahead", read)
    predict(corpus, models)
    assert asked == ["cuda" in kinds]


def test_a_smaller_batch_of_the_scorer_is_noted(corpus, tmp_path, monkeypatch):
    real = Scorer.score

    def score(self, *args):
        if self.batch > 10:
            self.batch = 10
        return real(self, *args)

    monkeypatch.setattr(Scorer, "score", score)
    journal = Notes()
    predict(corpus, [make_model(tmp_path)], journal=journal)
    assert journal.of("oom_backoff") == [{"batch_size": 10}]


def test_a_gpu_that_fails_stops_the_job_and_keeps_what_is_finished(corpus, whole, tmp_path, monkeypatch):
    real, count = Scorer.score, []

    def score(self, *args):
        count.append(1)
        if len(count) == 12:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore")
        return real(self, *args)

    monkeypatch.setattr(Scorer, "score", score)
    with pytest.raises(
        MissingPartError, match=r"the GPU failed \(CUDA error: unspecified launch failure\); start again"
    ):
        predict(corpus, two_folds(tmp_path))
    monkeypatch.undo()
    lines = []
    predict(corpus, two_folds(tmp_path), progress=lines.append)
    assert lines[0].startswith("resuming after ") and not lines[0].startswith("resuming after 0")
    assert [model.scores_path.read_bytes() for model in two_folds(tmp_path)] == whole


# Nothing lost, nothing doubled


def test_items_must_add_up_to_the_manifest(corpus, tmp_path, monkeypatch):
    real = parts.ShardParts.add
    monkeypatch.setattr(
        parts.ShardParts, "add", lambda self, item, *args: item["chunk_id"] == "r1_k00001" or real(self, item, *args)
    )
    with pytest.raises(StageError, match=r"m fold 1 has no item, or more than one, for 1 of 18 chunks.*r1_k00001"):
        predict(corpus, [make_model(tmp_path)])
    assert not list(tmp_path.glob("*.scores.parquet"))


def test_a_chunk_in_the_manifest_twice_is_refused(corpus, tmp_path):
    root, recordings = corpus
    chunks = make_chunks(recordings, ChunkSettings(chunk_s=0.5))
    doubled = pd.concat([chunks, chunks.iloc[[4]]], ignore_index=True)
    with pytest.raises(StageError, match="has no item, or more than one, for 1 of 19 chunks"):
        predict_shard(
            root, doubled, recordings, [make_model(tmp_path)], max_failed_fraction=0.0, readers=1, retries=0,
            stop=never, progress=lambda line: None,
        )  # fmt: skip
    assert not list(tmp_path.glob("*.scores.parquet"))


def test_frames_must_add_up_to_the_chunks(corpus, tmp_path, monkeypatch):
    real = parts.ShardParts.add
    monkeypatch.setattr(
        parts.ShardParts, "add", lambda self, item, first, logits: real(self, item, first, logits[:, :-1])
    )
    with pytest.raises(StageError, match="the scores of chunk r0_k00000 are not those of its 50 frames"):
        predict(corpus, [make_model(tmp_path)])
    assert not list(tmp_path.glob("*.scores.parquet"))


@pytest.mark.parametrize(("allowed", "refused"), [(0.4, True), (0.5, False)])
def test_chunks_that_are_skipped_make_no_room_for_failures(corpus, tmp_path, allowed, refused):
    root, _ = corpus
    (root / "r0.wav").unlink()
    model = make_model(tmp_path, skip={"r2", "r3", "r4", "r5"})  # leaves r0, which fails, and r1
    with pytest.raises(StageError, match="3 of 6 chunks failed") if refused else contextlib.nullcontext():
        predict(corpus, [model], allowed=allowed)
    assert model.scores_path.exists() != refused


def test_too_many_failures_of_one_fold_publish_no_fold(corpus, tmp_path):
    root, _ = corpus
    (root / "r2.wav").unlink()
    models = [make_model(tmp_path, 1, skip={"r2"}), make_model(tmp_path, 2)]
    with pytest.raises(StageError, match="3 of 18 chunks failed with m fold 2, more than"):
        predict(corpus, models)
    assert not list(tmp_path.glob("*.scores.parquet"))


# The disk that is written to


def test_a_full_disk_keeps_what_is_finished(corpus, whole, tmp_path):
    models = two_folds(tmp_path)
    with pytest.raises(StoppedError):
        predict(corpus, models, stop=after(7))
    kept = sorted(path.name for path in models[0].resume_folder.iterdir())
    with small_files_only(1500), pytest.raises(MissingPartError, match=r"parquet: .*MB free on.* start again") as full:
        predict(corpus, models)
    assert full.value.exit_code == 5
    assert sorted(path.name for path in models[0].resume_folder.iterdir())[: len(kept)] == kept
    assert not list(tmp_path.rglob("*tmp-*")) and not list(tmp_path.glob("*.scores.parquet"))
    predict(corpus, models)
    assert [model.scores_path.read_bytes() for model in models] == whole


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a file system can be mounted by root only")
def test_a_file_system_that_is_really_full(corpus, whole, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20k", "none", str(small)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        models = two_folds(small)
        with pytest.raises(MissingPartError, match=r"the disk has no room for it \(.* MB free on .*small\)"):
            predict(corpus, models, stop=never)
        subprocess.run(["mount", "-o", "remount,size=2m", str(small)], check=True)
        predict(corpus, models)
        assert [model.scores_path.read_bytes() for model in models] == whole
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_read_only_folder_is_one_sentence(corpus, tmp_path, monkeypatch):
    real = Path.mkdir

    def mkdir(self, *args, **named):
        if self.name.startswith("resume"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return real(self, *args, **named)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(MissingPartError, match=r"the folder is read-only .* let it be written to") as refused:
        predict(corpus, [make_model(tmp_path / "x")])
    assert refused.value.exit_code == 5


# Killed


def at_work(root, out, recordings, begun):
    """The job of a process of its own. Every chunk becomes a part, and takes a moment."""
    torch.set_num_threads(1)
    parts._PART_S = 0.0
    real = Scorer.score

    def score(self, *args):
        begun.set()
        time.sleep(0.005)
        return real(self, *args)

    Scorer.score = score
    predict((root, recordings), two_folds(out), readers=2)


def killed_after(seconds, *job):
    """Start the job in a process, kill it so long after its work began; return whether it was still at work."""
    processes = multiprocessing.get_context("fork")
    begun = processes.Event()
    process = processes.Process(target=at_work, args=(*job, begun))
    process.start()
    begun.wait(20)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_and_double_nothing(corpus, whole, tmp_path):
    """Killed again and again, every job goes on where the last one fell; what has come to its end begins anew."""
    root, recordings = corpus
    moments, kills, ends = random.Random(0), 0, 0
    out = tmp_path / "out0"
    while kills < 20:
        if killed_after(moments.uniform(0.0, 0.3), root, out, recordings):
            kills += 1
            continue
        assert [model.scores_path.read_bytes() for model in two_folds(out)] == whole
        ends += 1
        assert ends < 40
        out = tmp_path / f"out{ends}"
    lines = []
    results = predict(corpus, two_folds(out), progress=lines.append)
    assert [model.scores_path.read_bytes() for model in two_folds(out)] == whole
    for result in results:
        assert result.items["chunk_id"].is_unique and set(result.items["status"]) == {"ok", "skipped"}
    assert not [path for path in out.rglob("*tmp-*") if path.parent != out], "no leftovers among the parts"
