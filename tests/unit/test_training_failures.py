"""What a training does when memory runs out, when it diverges, and when a recording cannot be read."""

import threading

import pytest
import torch
from torch import nn
from training_corpus import SETTINGS, after, fit, make_corpus, make_recording, objective_of, single_threaded, weights
from training_toys import Script, settings, train

from otus.errors import DataError, StageError
from otus.stopping import StoppedError
from otus.training import loop

NOT_EVEN_ONE = "not even one example at a time fits into memory; lower training.<name>.cut_frames or the size"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


class Hungry(nn.Module):
    """A line with dropout that runs out of memory with more than `most` examples, after the dropout was drawn.

    How many examples came at once is noted; an `error` may take the place of the usual one.
    """

    def __init__(self, most, error=None):
        super().__init__()
        torch.manual_seed(5)
        self.hidden, self.dropout, self.out = nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 1)
        self.most, self.error, self.sizes = most, error or torch.OutOfMemoryError("CUDA out of memory."), []

    def forward(self, x):
        self.sizes.append(len(x))
        hidden = self.dropout(self.hidden(x))
        if len(x) > self.most:
            raise self.error
        return self.out(hidden)


def plain(most):
    """The same without dropout: what comes out does not depend on how a batch is divided."""
    network = Hungry(most)
    network.dropout = nn.Identity()
    return network


def parts_said(lines):
    return [text for text in lines if "out of memory" in text]


@pytest.mark.parametrize(("most", "parts"), [(8, 1), (7, 2), (4, 2), (3, 4), (2, 4), (1, 8)])
def test_a_batch_that_does_not_fit_goes_through_in_parts_and_learns_the_same(tmp_path, most, parts):
    expected, _ = train(tmp_path / "whole", Script([0.1, 0.2, 0.3]), plain(100))
    network = plain(most)
    found, lines = train(tmp_path, Script([0.1, 0.2, 0.3]), network)
    assert [r["loss"] for r in found.records] == pytest.approx([r["loss"] for r in expected.records], rel=1e-6)
    torch.testing.assert_close(weights(found), weights(expected), rtol=1e-5, atol=1e-6)
    said = [f"out of memory: batches of 8 go through the network in {2**i} parts from now on;" for i in range(1, 4)]
    assert [text.split(" lower ")[0] for text in parts_said(lines)] == said[: parts.bit_length() - 1], "each once"
    assert network.sizes[-1] == 8 // parts


def test_a_batch_of_an_odd_size_is_divided_as_well(tmp_path):
    expected, _ = train(tmp_path / "whole", Script([0.1, 0.2, 0.3], size=7), plain(100))
    network = plain(2)
    found, _ = train(tmp_path, Script([0.1, 0.2, 0.3], size=7), network)
    assert network.sizes[:7] == [7, 4, 2, 2, 2, 1, 2]
    torch.testing.assert_close(weights(found), weights(expected), rtol=1e-5, atol=1e-6)


def test_memory_that_runs_out_does_not_move_the_random_numbers(tmp_path, monkeypatch):
    """The same as if the batches had gone through in parts from the start."""
    found, lines = train(tmp_path / "a", Script([0.1, 0.2, 0.3]), Hungry(4))
    assert len(parts_said(lines)) == 1
    real = loop._start

    def divided(*args, **named):
        state = real(*args, **named)
        state.parts = 2
        return state

    monkeypatch.setattr(loop, "_start", divided)
    expected, lines = train(tmp_path / "b", Script([0.1, 0.2, 0.3]), Hungry(4))
    assert not parts_said(lines)
    assert torch.equal(weights(found), weights(expected)) and found.records == expected.records


def test_a_resumed_training_knows_what_does_not_fit(tmp_path):
    expected, _ = train(tmp_path / "whole", Script([0.1, 0.2, 0.3]), Hungry(2))
    with pytest.raises(StoppedError):
        train(tmp_path, Script([0.1]), Hungry(2), stop=after(3))
    network = Hungry(2)
    found, lines = train(tmp_path, Script([0.1, 0.2, 0.3]), network)
    assert lines[0].startswith("resuming") and not parts_said(lines) and set(network.sizes) == {2}
    assert torch.equal(weights(found), weights(expected)) and found.records == expected.records


def test_an_example_that_does_not_fit_stops_the_training(tmp_path):
    network = Hungry(0)
    with pytest.raises(StageError, match=NOT_EVEN_ONE) as error:
        train(tmp_path, Script(), network)
    assert network.sizes == [8, 4, 2, 1] and "\n" not in str(error.value)
    network = Hungry(0)
    with pytest.raises(StageError, match=NOT_EVEN_ONE):
        train(tmp_path, Script(size=1), network)
    assert network.sizes == [1]


def test_what_runs_out_on_the_processor_is_memory_too(tmp_path):
    class Huge(nn.Linear):
        def forward(self, x):
            return super().forward(x) + (torch.empty(2**58).sum() if len(x) > 4 else 0.0)

    torch.manual_seed(5)
    _, lines = train(tmp_path, Script(), Huge(3, 1))
    assert len(parts_said(lines)) == 1


def test_an_error_that_has_nothing_to_do_with_memory_is_not_hidden(tmp_path):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(tmp_path, Script(), Hungry(3, RuntimeError("mat1 and mat2 shapes cannot be multiplied")))


class Normed(nn.Module):
    """With running statistics, which every part that goes through moves; the second part does not fit once."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.norm, self.out, self.sizes, self.seen = nn.BatchNorm1d(3), nn.Linear(3, 1), [], []

    def forward(self, x):
        self.sizes.append(len(x))
        self.seen.append(int(self.norm.num_batches_tracked))
        if self.sizes in ([8], [8, 4, 4]):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.out(self.norm(x))


def test_memory_that_runs_out_does_not_move_running_statistics(tmp_path):
    """As if the part that fitted, before one that did not, had never gone through."""
    network = Normed()
    train(tmp_path, Script([0.1], batches=1), network, how=settings(1))
    assert network.sizes == [8, 4, 4, 2, 2, 2, 2]
    assert network.seen == [0, 0, 1, 0, 1, 2, 3]


class Greedy(Script):
    """Fails in one of the things that the objective does."""

    def __init__(self, where, error):
        super().__init__()
        setattr(self, where, self.fail)
        self.error = error

    def fail(self, *_):
        raise self.error


@pytest.mark.parametrize("where", ["vary", "judge", "batches"])
def test_memory_that_runs_out_elsewhere_is_said_in_a_sentence(tmp_path, where):
    for error in (torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("x: can't allocate memory: y")):
        with pytest.raises(StageError, match=r"^training: the memory, .* does not suffice; lower [^\n]*batch_size"):
            train(tmp_path, Greedy(where, error))
    with pytest.raises(RuntimeError, match="shapes"):
        train(tmp_path, Greedy(where, RuntimeError("shapes")))


# Divergence


class Late(Script):
    """The loss of batch `number`, counted from 1 over all epochs, is multiplied with `factor`."""

    def __init__(self, number, factor, **more):
        super().__init__([0.1, 0.2, 0.3], **more)
        self.number, self.factor = number, factor

    def loss(self, network, batch):
        loss = super().loss(network, batch)
        return loss * self.factor if len(self.before_steps) == self.number else loss


@pytest.mark.parametrize(("factor", "word"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_loss_that_is_not_finite_names_epoch_batch_and_recordings(tmp_path, factor, word):
    with pytest.raises(StageError) as error:
        train(tmp_path, Late(6, factor, size=3))
    assert str(error.value) == (
        f"training: the loss is {word} in epoch 2, batch 3 (r0, r1, r2); lower "
        "training.<name>.optimisation.learning_rate, or look at these recordings."
    )
    with pytest.raises(StageError, match=r"\(r0, r1, r2, r3, r4 and 2 more\)"):
        train(tmp_path / "many", Late(1, factor))


def test_gradients_that_are_not_finite_stop_the_training_at_their_batch(tmp_path):
    """Else the weights would be no numbers from there on, and after the last batch nobody would notice."""

    class Root(Late):
        def loss(self, network, batch):
            edge = network.weight.sum() * 0.0 if len(self.before_steps) + 1 == self.number else 1.0 + 0 * batch.x.sum()
            return super().loss(network, batch) + torch.sqrt(edge)

    with pytest.raises(StageError, match=r"the gradient of the loss is (nan|inf) in epoch 3, batch 3 \(r0, r1\)"):
        train(tmp_path, Root(9, 1.0, size=2))


def test_a_training_that_diverged_does_not_go_on_past_the_batch(tmp_path):
    with pytest.raises(StageError, match="epoch 2, batch 1"):
        train(tmp_path, Late(4, float("nan")))
    with pytest.raises(StageError, match="epoch 2, batch 1"):
        train(tmp_path, Late(1, float("nan")))


def test_too_high_a_learning_rate_is_said_and_no_thread_is_left(tmp_path):
    corpus = make_corpus(tmp_path)
    how = SETTINGS.model_copy(update={"optimisation": settings(learning_rate=1e30).optimisation})
    with pytest.raises(StageError, match=r"in epoch 1, batch \d \(t[0-2].*; lower .*learning_rate"):
        fit(corpus, tmp_path / "r.pt", settings=how)
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]


def test_a_recording_that_cannot_be_read_is_named(tmp_path):
    train_side, val = make_corpus(tmp_path)
    broken = make_recording(tmp_path, "broken", [(1.0, 1.5)])
    broken.path.write_bytes(b"RIFFgarbage")
    corpus = [*train_side, broken], val
    with pytest.raises(DataError, match=r"broken\.wav"):
        fit(corpus, tmp_path / "r.pt", objective=objective_of(corpus))
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]
