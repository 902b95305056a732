"""Frame scores do not depend on how a recording is cut, nor on who asks: validation or prediction."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from training_corpus import FRONTEND, RECURRENT, TCN, new_network, single_threaded

from otus import dense
from otus.dense import FrameRange, score_stretch
from otus.errors import StageError
from otus.models import Ensemble, FrameNetwork, WindowMean


class Echo(FrameNetwork):
    """A network whose frames see so many frames before and after: their sum is the score."""

    def __init__(self, context_frames, block_frames=None):
        super().__init__()
        self.context_frames, self.block_frames = context_frames, block_frames
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.batches = [], []

    def forward(self, x):
        self.seen.append(x.shape[-1])
        self.batches.append(len(x))
        width = 2 * self.context_frames + 1
        total = torch.nn.functional.conv1d(x[:, :1], torch.ones(1, 1, width), padding=self.context_frames)
        return total.repeat(1, 2, 1)


NETWORKS = {
    "tcn": new_network(TCN).eval(),
    "dense_resnet": new_network().eval(),
    "crnn": new_network(RECURRENT).eval(),
    "two crnn": Ensemble([new_network(RECURRENT, seed=s) for s in (1, 2)]).eval(),
    "windows of a dense_resnet": WindowMean(new_network(), 30).eval(),
    "windows of a crnn": WindowMean(new_network(RECURRENT), 31).eval(),
}
N_FRAMES = 2500
INPUT = torch.randn(FRONTEND.bands, N_FRAMES, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


def scores(network, start=0, end=N_FRAMES, n_frames=N_FRAMES, **how):
    def read(first, last):
        assert 0 <= first < last <= n_frames, "nothing outside the recording is read"
        return INPUT[:, first:last]

    return score_stretch(network, read, FrameRange(start, end), n_frames=n_frames, outside=0.0, **how)


@pytest.fixture(scope="module")
def whole():
    return {name: scores(network) for name, network in NETWORKS.items()}


@pytest.mark.parametrize("name", NETWORKS)
@examples(max_examples=8, deadline=None)
@given(borders=st.lists(st.integers(1, N_FRAMES - 1), max_size=4, unique=True))
def test_scores_do_not_depend_on_the_borders_of_chunks(whole, name, borders):
    cut = [0, *sorted(borders), N_FRAMES]
    found = np.concatenate([scores(NETWORKS[name], a, b) for a, b in itertools.pairwise(cut)], axis=1)
    assert found.std() > 1e-3
    np.testing.assert_array_equal(found, whole[name], "to the last bit")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_frames", [1, 2, 3, 63, 1023, 1024, 1025])
def test_recordings_of_any_length_have_a_score_for_every_frame(name, n_frames):
    found = scores(NETWORKS[name], 0, n_frames, n_frames)
    assert found.shape == (2, n_frames) and np.isfinite(found).all()
    last = scores(NETWORKS[name], n_frames - 1, n_frames, n_frames)
    np.testing.assert_array_equal(last, found[:, -1:])


def test_long_stretches_go_through_the_network_in_pieces():
    network = Echo(7)
    expected = scores(network)
    assert network.seen == [1031, 1038, 459], "1024 frames on a CPU, with context where there is a recording"
    network.seen.clear()
    np.testing.assert_allclose(scores(network, at_once=400), expected, atol=1e-4)
    assert network.seen == [407, 414, 414, 414, 414, 414, 107]


def test_blocks_go_through_the_network_side_by_side():
    network = Echo(10, 64)
    expected = scores(network, 70, 900)
    assert network.batches == [1] * 14
    network.batches.clear()
    np.testing.assert_array_equal(scores(network, 70, 900, at_once=300), expected)
    assert network.batches == [4, 4, 4, 4], "whole groups of four blocks, from frame 0 on"
    assert set(network.seen) == {84}


@pytest.mark.parametrize(("block", "batches", "seen"), [(None, [1, 1], [38, 90]), (64, [1, 2], [78, 78])])
def test_a_gpu_gets_no_more_than_it_needs(monkeypatch, block, batches, seen):
    network, piece = Echo(7, block), dense._piece
    expected = scores(network, 1000, 1100, at_once=1024)
    network.seen.clear()
    network.batches.clear()
    monkeypatch.setattr(dense, "_piece", lambda *args: piece(*args[:-1], torch.device("cuda")))
    np.testing.assert_allclose(scores(network, 1000, 1100, at_once=1024), expected, atol=1e-5)
    assert (network.batches, network.seen) == (batches, seen)


class Full(Echo):
    """Runs out of memory with more than `most` frames."""

    def __init__(self, most, error, block_frames=None):
        super().__init__(7, block_frames)
        self.most, self.error = most, error

    def forward(self, x):
        logits = super().forward(x)
        if x.shape[-1] > self.most:
            raise self.error
        return logits


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_stretch_that_does_not_fit_is_scored_in_smaller_pieces(error):
    network, told = Full(700, error), []
    np.testing.assert_allclose(scores(network, on_less=told.append), scores(Echo(7)), atol=1e-4)
    assert network.seen == [1031, 519, 526, 526, 526, 459]
    assert told == [512]


@pytest.mark.parametrize(("most", "block"), [(200, None), (70, 64)])
def test_what_cannot_be_smaller_is_said(most, block):
    network = Full(most, NO_MEMORY[0], block)
    with pytest.raises(StageError, match=r"^memory ran out while \d+ frames were scored, .* fewer at a time;[^\n]*$"):
        scores(network)
    assert len(network.seen) == (3 if block is None else 1)


def test_an_error_of_another_kind_is_not_hidden():
    with pytest.raises(RuntimeError, match="shapes"):
        scores(Full(9, RuntimeError("shapes cannot be multiplied")))


@examples(max_examples=40, deadline=None)
@given(start=st.integers(0, N_FRAMES - 1), length=st.integers(1, 900), context=st.integers(0, 40))
def test_every_frame_is_scored_at_its_place_and_with_its_context(start, length, context):
    end = min(N_FRAMES, start + length)
    expected = np.convolve(INPUT[0].double().numpy(), np.ones(2 * context + 1), mode="same")[start:end]
    for block in (None, 64, 256):
        found = scores(Echo(context, block), start, end)
        assert found.shape == (2, end - start)
        np.testing.assert_allclose(found, [expected, expected], atol=1e-4)


def test_blocks_start_at_multiples_of_their_length_and_are_always_whole():
    network = Echo(10, 64)
    scores(network, 100, 200)
    assert network.seen == [84, 84, 84], "frames 64 to 255 with their context"
    network.seen.clear()
    scores(network, 0, 5, n_frames=5)
    assert network.seen == [84]
