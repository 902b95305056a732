"""Chunked scoring, items, failures, stopping and going on."""

import hashlib
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from animal_spot_checkpoint import checkpoint
from safetensors.torch import save
from test_windowed_inference import NARROW, converted, scene
from training_corpus import after, never, single_threaded, small_files_only

from otus.audio import AudioInfo, inspect, sha256
from otus.chunks import make_chunks
from otus.config import ChunkSettings, CrnnSettings, DenseResnetSettings, Resnet18Settings
from otus.errors import MissingPartError, StageError
from otus.frontend import Frontend
from otus.inference import ShardModel, parts, predict_shard, shard
from otus.inference.dense import frames_of_chunk
from otus.inference.scorer import Scorer
from otus.models import WindowMean, build_network, resnet18
from otus.models.card import ModelCard
from otus.scores import read_scores
from otus.selections import NO_WINDOW
from otus.stopping import StoppedError
from otus.tables import table

SETTINGS = {
    "dense_resnet": DenseResnetSettings(channels=4, temporal_channels=8, dilations=[1, 2, 4], frequency_blocks=1),
    "crnn": CrnnSettings(channels=[4], temporal_channels=8, dilations=[1, 2], recurrent_channels=4),
}


def make_card(frontend, net):
    return ModelCard(
        model="m",
        fold=1,
        architecture="dense_resnet",
        members=1,
        network={},
        frontend=frontend,
        classes=["hum"],
        context_frames=net.context_frames,
        inference="dense" if net.block_frames is None else "blocks",
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
    )


def network(kind="dense_resnet", seed=0):
    torch.manual_seed(seed)
    return build_network(SETTINGS[kind], bands=16, n_classes=1).eval()


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for name, rate, seconds in (("a", 22_050, 7.3), ("b", 16_000, 5.0), ("c", 48_000, 3.01)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(int(rate * seconds)), rate)
        info = inspect(path)
        rows.append(
            {
                "recording_id": name,
                "path": path.name,
                "group": name,
                "duration_s": info.duration_s,
                "n_samples": info.n_samples,
                "sample_rate": rate,
                "channels": 1,
                "sha256": sha256(path),
                "labelled": True,
                "readable": True,
            }
        )
    return tmp_path, table("recordings", rows)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


def predict(
    corpus,
    out,
    *,
    chunk_s,
    context_s=4.0,
    skip=(),
    allowed=0.0,
    frontend=None,
    net=None,
    seed=0,
    lines=None,
    **more,
):
    root, recordings = corpus
    chunks = make_chunks(recordings, ChunkSettings(chunk_s=chunk_s, context_s=context_s))
    model = shard_model(out, frontend=frontend, net=net, seed=seed, skip=skip)
    settings = {"max_failed_fraction": allowed, "readers": 1, "retries": 0, "stop": never}
    progress = (lambda line: None) if lines is None else lines.append
    (result,) = predict_shard(root, chunks, recordings, [model], progress=progress, **(settings | more))
    return chunks, result


def shard_model(out, *, frontend=None, net=None, seed=0, skip=()):
    net = net or network(seed=seed)
    card = make_card(frontend or Frontend(16_000, 160, 512, 16, 0.0, 8000.0, "mel"), net)
    weights = save({name: value.contiguous() for name, value in net.state_dict().items()})
    return ShardModel(
        name=out.stem,
        scorer=Scorer(net, card, torch.device("cpu"), precision="float32", batch=None),
        identity=hashlib.sha256(weights).hexdigest(),
        skip=set(skip),
        scores_path=out,
        resume_folder=out.parent / f"{out.stem}.resume",
    )


NETWORKS = {
    "dense_resnet": network("dense_resnet"),
    "crnn": network("crnn"),
    "windows of a crnn": WindowMean(network("crnn"), 31).eval(),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_chunked_and_unchunked_scores_agree(corpus, tmp_path, kind):
    net = NETWORKS[kind]
    predict(corpus, tmp_path / "whole.parquet", chunk_s=1000, net=net)
    predict(corpus, tmp_path / "parts.parquet", chunk_s=0.7, context_s=0.0, net=net)
    whole, classes, hop_s = read_scores([tmp_path / "whole.parquet"], only={"a", "b", "c"})
    parts, _, _ = read_scores([tmp_path / "parts.parquet"], only={"a", "b", "c"})
    assert classes == ["hum"] and hop_s == 0.01
    for recording_id, logits in whole.items():
        assert logits.std() > 1e-3
        if net.block_frames is None:
            np.testing.assert_allclose(parts[recording_id], logits, atol=1e-4)
        else:
            np.testing.assert_array_equal(parts[recording_id], logits, "to the last bit")


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 250_000])
def test_chunks_share_out_the_frames_of_a_recording(rate):
    frontend = Frontend(16_000, 160, 512, 16, 0.0, 8000.0, "mel")
    for n_samples in (1, 79, rate, 3 * rate + 17):
        info = AudioInfo(n_samples, rate, 1, "PCM_16")
        borders = sorted({0, n_samples // 3, n_samples // 2, n_samples})
        ranges = [frames_of_chunk(a, b, info, frontend) for a, b in itertools.pairwise(borders)]
        assert ranges[0].start == 0 and ranges[-1].end == frontend.n_frames(info)
        assert all(a.end == b.start for a, b in itertools.pairwise(ranges))


def test_every_chunk_is_one_item_and_training_recordings_are_skipped(corpus, tmp_path):
    chunks, result = predict(corpus, tmp_path / "s.parquet", chunk_s=1.0, skip={"b"})
    assert sorted(result.items["chunk_id"]) == sorted(chunks["chunk_id"])
    assert set(result.items.loc[result.items["recording_id"] == "b", "status"]) == {"skipped"}
    assert result.audio_s == pytest.approx(7.3 + 3.01, abs=1e-3)


def test_a_vanished_recording_is_a_failed_item_while_the_others_go_on(corpus, tmp_path):
    root, _ = corpus
    (root / "b.wav").write_bytes(b"RIFFgarbage")
    _, result = predict(corpus, tmp_path / "s.parquet", chunk_s=2.0, allowed=0.5)
    failed = result.items[result.items["status"] == "failed"]
    assert set(failed["recording_id"]) == {"b"} and failed["error"].str.contains("b.wav").all()
    scores, _, _ = read_scores([tmp_path / "s.parquet"], only={"a", "c"})
    assert set(scores) == {"a", "c"}


def test_too_many_failures_fail_the_job_and_leave_no_scores(corpus, tmp_path):
    root, _ = corpus
    (root / "b.wav").unlink()
    with pytest.raises(StageError, match=r"max_failed_fraction.*b\.wav"):
        predict(corpus, tmp_path / "s.parquet", chunk_s=2.0)
    assert not [p for p in tmp_path.iterdir() if "parquet" in p.name]


def test_scores_that_are_not_finite_are_failures(corpus, tmp_path):
    broken = network()
    with torch.no_grad():
        broken.logits.bias.fill_(float("nan"))
    _, result = predict(corpus, tmp_path / "s.parquet", chunk_s=100.0, allowed=1.0, net=broken)
    assert set(result.items["error_class"]) == {"FloatingPointError"}


def test_scores_do_not_depend_on_the_context_of_the_chunks(corpus, tmp_path):
    """Not even those of a network that sees more than the chunks bring."""
    net = WindowMean(network("dense_resnet"), 500).eval()
    found = []
    for name, context_s in (("none", 0.0), ("usual", 4.0)):
        predict(corpus, tmp_path / f"{name}.parquet", chunk_s=1.0, context_s=context_s, net=net)
        found.append(read_scores([tmp_path / f"{name}.parquet"], only={"a", "b", "c"})[0])
    assert set(found[0]) == {"a", "b", "c"}
    for recording_id, logits in found[0].items():
        np.testing.assert_array_equal(logits, found[1][recording_id])


def test_items_are_a_table(corpus, tmp_path):
    _, result = predict(corpus, tmp_path / "s.parquet", chunk_s=2.0)
    pd.testing.assert_frame_equal(result.items, table("items", result.items))


def steady(items):
    """What the items of two runs must agree on."""
    return items.drop(columns=["wall_s", "attempt"])


@pytest.fixture
def whole(corpus, tmp_path):
    """Scores (bytes) and items of an uninterrupted run over nine chunks."""
    _, result = predict(corpus, tmp_path / "whole.parquet", chunk_s=2.0)
    assert len(result.items) == 9 and set(result.items["attempt"]) == {1}
    return (tmp_path / "whole.parquet").read_bytes(), result


def assert_same(whole, path, result):
    pd.testing.assert_frame_equal(steady(result.items), steady(whole[1].items))
    assert result.audio_s == whole[1].audio_s
    assert path.read_bytes() == whole[0]


def names(out):
    return sorted(p.name for p in (out.parent / f"{out.stem}.resume").iterdir())


@pytest.mark.parametrize("calls", range(1, 9))
def test_a_stopped_prediction_goes_on_and_ends_with_the_same_files(corpus, whole, tmp_path, calls):
    out, lines = tmp_path / "s.parquet", []
    with pytest.raises(StoppedError, match=f"after {calls} of 9 chunks; the state is saved in .*s.resume and the next"):
        predict(corpus, out, chunk_s=2.0, stop=after(calls))
    assert not out.exists() and names(out) == ["part-00001.json", "part-00001.parquet"]
    _, result = predict(corpus, out, chunk_s=2.0, lines=lines)
    assert lines[0] == f"resuming after {calls} of 9 chunks" and lines[-1].startswith("9 of 9 chunks")
    assert_same(whole, out, result)
    assert set(result.items["attempt"]) == {1}


def test_a_prediction_stopped_after_every_chunk_ends_with_the_same_files(corpus, whole, tmp_path):
    out = tmp_path / "s.parquet"
    for _ in range(8):
        with pytest.raises(StoppedError):
            predict(corpus, out, chunk_s=2.0, stop=after(1))
    _, result = predict(corpus, out, chunk_s=2.0, stop=after(1))
    assert len(names(out)) == 18
    assert_same(whole, out, result)


def test_a_part_is_finished_after_some_time_and_holds_no_skipped_chunk(corpus, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_PART_S", 0.0)
    out = tmp_path / "s.parquet"
    predict(corpus, out, chunk_s=2.0)
    assert len(names(out)) == 18 and out.read_bytes() == whole[0]
    _, result = predict(corpus, tmp_path / "t.parquet", chunk_s=2.0, skip={"b"})
    assert len(names(tmp_path / "t.parquet")) == 12
    assert result.items["status"].value_counts().to_dict() == {"ok": 6, "skipped": 3}


def test_a_job_killed_between_the_scores_and_the_items_of_a_part(corpus, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_PART_S", 0.0)
    out, lines, calls, real = tmp_path / "s.parquet", [], itertools.count(1), parts.write_text

    def killed(*args):
        if next(calls) == 4:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(parts, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(corpus, out, chunk_s=2.0)
    assert len(names(out)) == 7
    (out.parent / "s.resume" / ".part-00005.parquet.tmp-123").write_bytes(b"PAR1")
    _, result = predict(corpus, out, chunk_s=2.0, lines=lines)
    assert lines[0].endswith("s.resume: part-00004 not taken over: incomplete")
    assert lines[1] == "resuming after 3 of 9 chunks"
    assert_same(whole, out, result)
    assert not [n for n in names(out) if "tmp" in n]


def test_a_job_killed_after_the_scores_file_makes_it_again(corpus, whole, tmp_path, monkeypatch):
    out = tmp_path / "s.parquet"
    predict(corpus, out, chunk_s=2.0)
    monkeypatch.setattr(Scorer, "score", None)
    for leftover in (True, False):
        if not leftover:
            out.unlink()
        _, result = predict(corpus, out, chunk_s=2.0)
        assert_same(whole, out, result)


DAMAGES = {
    "scores lost": lambda folder: (folder / "part-00002.parquet").unlink(),
    "scores cut": lambda folder: cut(folder / "part-00002.parquet"),
    "items cut": lambda folder: cut(folder / "part-00002.json"),
    "items empty": lambda folder: (folder / "part-00002.json").write_bytes(b""),
    "items garbage": lambda folder: (folder / "part-00002.json").write_bytes(bytes(range(256))),
    "items of another kind": lambda folder: (folder / "part-00002.json").write_text("[1, 2]"),
    "items without digest": lambda folder: (folder / "part-00002.json").write_text("{}"),
    "scores of another part": lambda folder: (folder / "part-00001.parquet").replace(folder / "part-00002.parquet"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_parts_are_said_and_scored_again(corpus, whole, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(parts, "_PART_S", 0.0)
    out, lines = tmp_path / "s.parquet", []
    with pytest.raises(StoppedError):
        predict(corpus, out, chunk_s=2.0, stop=after(4))
    DAMAGES[damage](out.parent / "s.resume")
    _, result = predict(corpus, out, chunk_s=2.0, lines=lines)
    lost = 2 if damage == "scores of another part" else 1
    assert "part-00002 not taken over: damaged" in lines[0]
    assert lines[1] == f"resuming after {4 - lost} of 9 chunks"
    assert_same(whole, out, result)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"chunk_s": 1.0}, {"skip": {"c"}}, {"frontend": Frontend(16_000, 160, 512, 16, 0, 4000, "mel")}],
)
def test_parts_of_another_run_are_not_taken_over(corpus, tmp_path, change):
    out, lines = tmp_path / "s.parquet", []
    with pytest.raises(StoppedError):
        predict(corpus, out, chunk_s=2.0, stop=after(4))
    changed = {"chunk_s": 2.0} | change
    _, result = predict(corpus, out, **changed, lines=lines)
    assert lines[0].endswith("part-00001 not taken over: of other recordings, chunks, weights or code")
    assert not any("resuming" in line for line in lines)
    _, fresh = predict(corpus, tmp_path / "fresh.parquet", **changed)
    assert_same(((tmp_path / "fresh.parquet").read_bytes(), fresh), out, result)


def test_parts_of_a_recording_that_was_replaced_are_not_taken_over(corpus, tmp_path):
    out, lines = tmp_path / "s.parquet", []
    with pytest.raises(StoppedError):
        predict(corpus, out, chunk_s=2.0, stop=after(4))
    root, recordings = corpus
    altered = recordings.assign(sha256=["0", *recordings["sha256"][1:]])
    predict((root, altered), out, chunk_s=2.0, lines=lines)
    assert "of other recordings" in lines[0]


def test_failed_chunks_are_tried_again_and_the_attempts_counted(corpus, whole, tmp_path, monkeypatch):
    out, good = tmp_path / "s.parquet", (tmp_path / "b.wav").read_bytes()
    (tmp_path / "b.wav").write_bytes(b"RIFFgarbage")
    for attempt in (1, 2):
        lines = []
        with pytest.raises(StageError, match="3 of 9 chunks failed"):
            predict(corpus, out, chunk_s=2.0, lines=lines)
        assert not out.exists()
        assert lines[-1].startswith("9 of 9") and ("resuming after 6 of 9 chunks" in lines) == (attempt == 2)
    _, tolerant = predict(corpus, out, chunk_s=2.0, allowed=0.5)
    failed = tolerant.items[tolerant.items["status"] == "failed"]
    assert set(failed["attempt"]) == {3} and set(failed["recording_id"]) == {"b"}
    (tmp_path / "b.wav").write_bytes(good)
    scored, real = [], Scorer.score
    monkeypatch.setattr(Scorer, "score", lambda *args, **kwargs: scored.append(1) or real(*args, **kwargs))
    _, result = predict(corpus, out, chunk_s=2.0)
    assert len(scored) == 3
    assert_same(whole, out, result)
    attempts = result.items.groupby("recording_id")["attempt"].unique().map(list).to_dict()
    assert attempts == {"a": [1], "b": [4], "c": [1]}


def test_a_part_that_another_job_altered_is_refused(corpus, tmp_path, monkeypatch):
    out, real = tmp_path / "s.parquet", shard._refuse_too_many_failures

    def meddled(*args):
        cut(tmp_path / "s.resume" / "part-00001.parquet")
        real(*args)

    monkeypatch.setattr(shard, "_refuse_too_many_failures", meddled)
    with pytest.raises(StageError, match=r"part-00001\.parquet: altered meanwhile"):
        predict(corpus, out, chunk_s=2.0)
    assert not out.exists()


@pytest.mark.parametrize("most_bytes", [100, 2500, 5500])
def test_a_full_disk_is_one_sentence_and_finished_parts_stay(corpus, whole, tmp_path, monkeypatch, most_bytes):
    out = tmp_path / "s.parquet"
    with pytest.raises(StoppedError):
        predict(corpus, out, chunk_s=2.0, stop=after(4))
    kept = names(out)
    with small_files_only(most_bytes), pytest.raises(MissingPartError, match=r"s.*parquet: .*MB free on.* start again"):
        predict(corpus, out, chunk_s=2.0)
    assert names(out)[:2] == kept and not out.exists()
    assert not list(tmp_path.rglob("*tmp-*"))
    _, result = predict(corpus, out, chunk_s=2.0)
    assert_same(whole, out, result)


def test_the_items_of_a_part_are_readable_text(corpus, tmp_path):
    predict(corpus, tmp_path / "s.parquet", chunk_s=2.0)
    content = json.loads((tmp_path / "s.resume" / "part-00001.json").read_text())
    assert content["chunks"][0]["rows"][0] == 0
    for earlier, later in itertools.pairwise(content["chunks"]):
        assert later["rows"][0] == sum(earlier["rows"])
    assert content["chunks"][0]["item"]["status"] == "ok"


def test_a_network_of_windows_goes_through_the_same_job(monkeypatch, tmp_path):
    """Also where a chunk ends in frames that no window belongs to, and beside a network of frames."""
    monkeypatch.setattr(resnet18, "_CHANNELS", NARROW)
    net, card = converted(tmp_path, [checkpoint(widths=NARROW)], Resnet18Settings())
    path = tmp_path / "a.wav"
    soundfile.write(path, scene(4.03, 16_000), 16_000, subtype="FLOAT")
    info = {"n_samples": inspect(path).n_samples, "sample_rate": 16_000, "channels": 1, "subtype": "FLOAT"}
    row = {"recording_id": "a", "path": "a.wav", "group": "a", "sha256": "0", "labelled": True, "readable": True}
    recordings, found = table("recordings", [row | info]), {}
    for name, chunk_s in (("whole", 100.0), ("parts", 0.31)):
        out = tmp_path / name
        windows = ShardModel(
            "windows", Scorer(net, card, torch.device("cpu")), "1", set(), out / "w.parquet", out / "w"
        )
        usual = {"max_failed_fraction": 0.0, "readers": 1, "retries": 0, "stop": never, "progress": print}
        chunks = make_chunks(recordings, ChunkSettings(chunk_s=chunk_s))
        both = predict_shard(tmp_path, chunks, recordings, [windows, shard_model(out / "f.parquet")], **usual)
        assert all(set(result.items["status"]) == {"ok"} for result in both)
        found[name] = [read_scores([out / f"{kind}.parquet"], only={"a"})[0]["a"] for kind in "wf"]
    for whole, cut_up in zip(*found.values(), strict=True):
        np.testing.assert_array_equal(whole, cut_up)
    assert (found["whole"][0] == NO_WINDOW).any() and (found["whole"][0] > NO_WINDOW).any()
