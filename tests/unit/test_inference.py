"""Chunked scoring, items, failures."""

import itertools

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from otus.audio import AudioInfo, inspect, sha256
from otus.chunks import make_chunks
from otus.config import ChunkSettings, NetworkSettings
from otus.errors import StageError
from otus.frontend import Frontend
from otus.inference import predict_shard
from otus.inference.dense import frames_of_chunk
from otus.models import build_network
from otus.models.card import ModelCard
from otus.scores import read_scores
from otus.tables import table

SETTINGS = NetworkSettings(channels=4, temporal_channels=8, dilations=[1, 2, 4], frequency_blocks=1)


def make_card(frontend, context_frames):
    return ModelCard(
        "m",
        1,
        "dense_resnet",
        1,
        SETTINGS.model_dump(),
        frontend,
        ["hum"],
        context_frames,
        "dense",
        0.4,
        0.2,
        "0",
        {},
        [1],
        1,
        {},
    )


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


def predict(corpus, out, *, chunk_s, context_s=4.0, skip=(), allowed=0.0, frontend=None, net=None):
    root, recordings = corpus
    frontend = frontend or Frontend(16_000, 160, 512, 16, 0.0, 8000.0, "mel")
    torch.manual_seed(0)
    net = net or build_network("dense_resnet", bands=16, n_classes=1, settings=SETTINGS).eval()
    chunks = make_chunks(recordings, ChunkSettings(chunk_s=chunk_s, context_s=context_s))
    result = predict_shard(
        root,
        chunks,
        recordings,
        net,
        make_card(frontend, build_network("dense_resnet", bands=16, n_classes=1, settings=SETTINGS).context_frames),
        skip=set(skip),
        scores_path=out,
        device=torch.device("cpu"),
        max_failed_fraction=allowed,
        progress=lambda line: None,
    )
    return chunks, result


def test_chunked_and_unchunked_scores_agree(corpus, tmp_path):
    predict(corpus, tmp_path / "whole.parquet", chunk_s=1000)
    predict(corpus, tmp_path / "parts.parquet", chunk_s=0.7)
    whole, classes, hop_s = read_scores([tmp_path / "whole.parquet"], only={"a", "b", "c"})
    parts, _, _ = read_scores([tmp_path / "parts.parquet"], only={"a", "b", "c"})
    assert classes == ["hum"] and hop_s == 0.01
    for recording_id, logits in whole.items():
        assert logits.std() > 1e-3
        np.testing.assert_allclose(parts[recording_id], logits, atol=1e-4)


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
    class Broken(torch.nn.Module):
        def forward(self, x):
            return torch.full((1, 2, x.shape[-1]), float("nan"))

    _, result = predict(corpus, tmp_path / "s.parquet", chunk_s=100.0, allowed=1.0, net=Broken())
    assert set(result.items["error_class"]) == {"FloatingPointError"}


def test_chunks_with_too_little_context_are_refused(corpus, tmp_path):
    with pytest.raises(StageError, match=r"chunking\.context_s"):
        predict(corpus, tmp_path / "s.parquet", chunk_s=1.0, context_s=0.01)


def test_items_are_a_table(corpus, tmp_path):
    _, result = predict(corpus, tmp_path / "s.parquet", chunk_s=2.0)
    pd.testing.assert_frame_equal(result.items, table("items", result.items))
