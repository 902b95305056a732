"""A model at work: what it reads, what it sees, and scores that do not depend on how a recording is cut."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from training_corpus import FRONTEND, RATE, RECURRENT, RESNET, TCN, make_recording, new_network, single_threaded, store

from otus.audio import AudioFile, AudioInfo
from otus.dense import FrameRange
from otus.errors import StageError
from otus.frontend import Frontend, band_medians, read_features
from otus.inference.scorer import Scorer, Stretch
from otus.models import Ensemble, Tcn, WindowMean, build_network
from otus.models.card import ModelCard
from otus.training.validation import score_store

CPU = torch.device("cpu")
OTHER_RATE = Frontend(11_025, 110, 512, 16, 0.0, 5000.0, "mel")
NETWORKS = {
    "tcn": Ensemble([new_network(TCN, seed=s) for s in (1, 2)]).eval(),
    "dense_resnet": new_network().eval(),
    "crnn": new_network(RECURRENT).eval(),
    "windows of a tcn": WindowMean(new_network(TCN), 30).eval(),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return make_recording(tmp_path_factory.mktemp("scorer"), "a", [(0.1, 0.3), (12.0, 12.5)], seconds=14.0)


def card(frontend=FRONTEND, architecture="tcn", **more):
    facts = {
        "model": "m",
        "fold": 1,
        "architecture": architecture,
        "members": 1,
        "network": {},
        "frontend": frontend,
        "classes": ["hum"],
        "context_frames": 0,
        "inference": "dense",
        "objective": "frame",
        "window_frames": 1,
        "median_call_s": 0.4,
        "short_call_s": 0.2,
        "training_data_sha256": "0",
        "training": {},
        "data": {},
        "best_epochs": [1],
        "seed": 1,
        "versions": {},
    }
    return ModelCard(**facts | more)


def stretch_of(file, rate, start, end):
    return Stretch(file.read_at_rate(start, end, rate), start, rate)


def profile_of(scorer, file):
    reads = scorer.profile_reads(file.info)
    return scorer.profile([stretch_of(file, scorer.sample_rate, *r) for r in reads], file.info)


def scored(scorer, path, borders=(), more=0):
    """Logits of a recording cut at these samples; each stretch holds `more` samples than are needed on either side."""
    with AudioFile(path) as file:
        info, profile, pieces = file.info, profile_of(scorer, file), []
        for start, end in itertools.pairwise([0, *sorted(borders), info.n_samples]):
            frames = scorer.frames(start, end, info)
            first, last = scorer.reads(frames, info)
            stretch = stretch_of(file, scorer.sample_rate, max(0, first - more), last + more)
            pieces.append(scorer.score(stretch, frames, info, profile))
    return np.concatenate(pieces, axis=1)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("frontend", [FRONTEND, OTHER_RATE], ids=["own rate", "another rate"])
@examples(max_examples=5, deadline=None)
@given(borders=st.lists(st.integers(1, 14 * RATE - 1), max_size=4, unique=True), more=st.integers(0, 3000))
def test_scores_do_not_depend_on_how_a_recording_is_cut(recording, name, frontend, borders, more):
    scorer = Scorer(NETWORKS[name], card(frontend), CPU)
    whole = scored(scorer, recording.path)
    assert whole.shape == (2, frontend.n_frames(recording.info))
    assert whole[0].std() > 1e-3
    assert np.array_equal(scored(scorer, recording.path, borders, more), whole)


@pytest.mark.parametrize("name", NETWORKS)
def test_validation_and_prediction_agree(recording, name):
    found = scored(Scorer(NETWORKS[name], card(), CPU), recording.path)
    expected = score_store(NETWORKS[name], store([recording], budget=0), 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # normalisation is folded into convolutions


@pytest.mark.parametrize("seconds", [0.004, 0.02, 0.5])
def test_short_recordings(tmp_path, seconds):
    short = make_recording(tmp_path, "a", [], seconds=seconds)
    for network in NETWORKS.values():
        found = scored(Scorer(network, card(), CPU), short.path)
        assert found.shape == (2, FRONTEND.n_frames(short.info))
        assert np.isfinite(found).all()


def test_no_frames_are_no_scores(recording):
    scorer = Scorer(NETWORKS["tcn"], card(), CPU)
    nothing = Stretch(np.zeros(0, dtype=np.float32), 0, RATE)
    assert scorer.score(nothing, FrameRange(7, 7), recording.info, torch.ones(16)).shape == (2, 0)


def test_what_is_read_lies_in_the_recording():
    info = AudioInfo(14 * RATE, RATE, 1, "PCM_16")
    scorer = Scorer(NETWORKS["tcn"], card(), CPU)
    context = NETWORKS["tcn"].context_frames
    margin = (256 - 80) // 2
    assert scorer.reads(FrameRange(100, 200), info) == (
        (100 - context) * 80 - margin,
        (200 + context) * 80 + margin,
    )
    assert scorer.reads(FrameRange(0, 1400), info) == (0, 14 * RATE)
    blocks = Scorer(NETWORKS["crnn"], card(), CPU)
    around = NETWORKS["crnn"].context_frames
    assert blocks.reads(FrameRange(1100, 1101), info) == ((1024 - around) * 80 - margin, 14 * RATE)


def test_band_medians_are_those_of_training(tmp_path):
    scorer = Scorer(NETWORKS["tcn"], card(), CPU)
    for seconds, n_reads in ((3.0, 1), (125.0, 60)):
        found = make_recording(tmp_path, f"r{n_reads}", [(0.5, 1.5)], seconds=seconds)
        with AudioFile(found.path) as file:
            assert len(scorer.profile_reads(found.info)) == n_reads
            torch.testing.assert_close(
                profile_of(scorer, file), band_medians(found.path, found.info, FRONTEND), rtol=0, atol=0
            )


@pytest.mark.parametrize("frontend", [FRONTEND, OTHER_RATE], ids=["own rate", "another rate"])
def test_features_are_those_of_training_and_may_be_shared(recording, frontend):
    first, second = (Scorer(NETWORKS["tcn"], card(frontend), CPU) for _ in range(2))
    frames, context = FrameRange(300, 420), NETWORKS["tcn"].context_frames
    with AudioFile(recording.path) as file:
        info = file.info
        stretch = stretch_of(file, first.sample_rate, *first.reads(frames, info))
        profile = profile_of(first, file)
        features = first.features(stretch, frames, info, profile)  # from what gave the medians
        assert torch.equal(second.features(stretch, frames, info, profile), features)
        bounds = (300 - context, 420 + context)
        expected = read_features(recording.path, info, frontend, *bounds, profile, CPU)
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-3)
        assert np.array_equal(
            second.score(stretch, frames, info, profile, features), first.score(stretch, frames, info, profile)
        )


def test_medians_of_another_recording_are_not_mixed_up(tmp_path):
    scorer = Scorer(NETWORKS["tcn"], card(), CPU)
    found = [make_recording(tmp_path, name, [(0.1, 0.9)], seconds=2.0, seed=i) for i, name in enumerate("ab")]
    expected = [scored(scorer, one.path) for one in found]
    with AudioFile(found[0].path) as a, AudioFile(found[1].path) as b:
        profiles = [profile_of(scorer, file) for file in (a, b)]  # both before anything is scored
        for file, profile, alone in zip((a, b), profiles, expected, strict=True):
            frames = FrameRange(0, 200)
            stretch = stretch_of(file, RATE, *scorer.reads(frames, file.info))
            assert np.array_equal(scorer.score(stretch, frames, file.info, profile), alone)


def test_a_stretch_that_lacks_samples_is_refused(recording):
    scorer = Scorer(NETWORKS["tcn"], card(), CPU)
    short = Stretch(np.zeros(4000, dtype=np.float32), 8000, RATE)
    with pytest.raises(ValueError, match="are not in the stretch"):
        scorer.score(short, FrameRange(100, 200), recording.info, torch.ones(16))
    other = Stretch(np.zeros(14 * RATE, dtype=np.float32), 0, 2 * RATE)
    with pytest.raises(ValueError, match="at 8000 Hz are not in the stretch"):
        scorer.score(other, FrameRange(100, 200), recording.info, torch.ones(16))


def test_scores_that_are_no_numbers_are_an_error(recording):
    network = build_network(RESNET, bands=16, n_classes=1)
    with torch.no_grad():
        network.logits.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"^m: the network gave scores that are not finite\.$"):
        scored(Scorer(network, card(), CPU), recording.path)


def test_how_it_computes_is_said():
    tcn = Scorer(NETWORKS["tcn"], card(), CPU)
    assert (tcn.about, tcn.batch) == ("tcn, float32, batch 1024 frames", 64)
    assert Scorer(NETWORKS["tcn"], card(), CPU, batch=10).about == "tcn, float32, batch 160 frames"
    crnn = Scorer(NETWORKS["crnn"], card(architecture="crnn"), CPU, precision="bfloat16", batch=200)
    assert crnn.about == "crnn, bfloat16, batch 3072 frames"
    assert crnn.numerics == "cpu, bfloat16, 3072 frames"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("how", [{"precision": "bfloat16"}, {"batch": 200}])
def test_other_ways_to_compute_change_little_and_depend_on_no_cut(recording, name, how):
    scorer = Scorer(NETWORKS[name], card(), CPU, **how)
    whole = scored(scorer, recording.path)
    np.testing.assert_allclose(whole, scored(Scorer(NETWORKS[name], card(), CPU), recording.path), atol=0.1)
    assert np.array_equal(scored(scorer, recording.path, [30_001, 77_777]), whole)


def test_less_at_once_where_memory_runs_out(recording, monkeypatch):
    network, forward, most = NETWORKS["tcn"].members[0], Tcn.forward, 600
    expected = scored(Scorer(network, card(), CPU), recording.path)

    def crowded(self, x):
        if x.shape[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, x)

    monkeypatch.setattr(Tcn, "forward", crowded)
    scorer = Scorer(network, card(), CPU)
    np.testing.assert_allclose(scored(scorer, recording.path), expected, atol=1e-5)
    assert scorer.batch == 32
    most = 10
    with pytest.raises(StageError, match=r"^memory ran out while 256 frames were scored,"):
        scored(scorer, recording.path)
