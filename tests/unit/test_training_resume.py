"""A training that is killed, stopped or runs out of disk goes on and ends with the same weights and records."""

import dataclasses
import itertools
import threading

import pytest
import torch
from training_corpus import (
    CRNN,
    RECURRENT,
    SETTINGS,
    SMALL,
    TCN,
    after,
    fit,
    make_corpus,
    objective_of,
    positions,
    single_threaded,
    small_files_only,
    weights,
)

from otus.config import OptimisationSettings, TrainingSettings
from otus.errors import MissingPartError
from otus.stopping import StoppedError
from otus.training import loop
from otus.training.resume import read_resume, write_resume

ADAM = OptimisationSettings(method="adam", schedule="plateau", plateau_patience=0, learning_rate=0.01)
UNAVERAGED = OptimisationSettings(averaging=0.0)

#: Trainings that keep more than the usual state from batch to batch, or from epoch to epoch.
KINDS = {
    "tcn": TCN,
    "dense_resnet": SETTINGS,
    "crnn with a GRU": RECURRENT,
    "adam and plateau": TrainingSettings(architecture="crnn", crnn=CRNN, optimisation=ADAM, **SMALL),
    "validated every second epoch": RECURRENT.model_copy(update={"validate_every": 2}),
    "without average, float32": RECURRENT.model_copy(update={"optimisation": UNAVERAGED, "precision": "fp32"}),
    "clip objective": SETTINGS.model_copy(update={"objective": "clip"}),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """An uninterrupted training."""
    return fit(corpus, tmp_path_factory.mktemp("whole") / "r.pt")[0]


def same(one, other):
    return torch.equal(weights(one), weights(other)) and (one.records, one.best, one.best_epoch) == (
        other.records,
        other.best,
        other.best_epoch,
    )


def in_pieces(train):
    """Start a training again and again, each time for one batch or one epoch; return the result and the stops."""
    for stops in itertools.count():
        try:
            return train(), stops
        except StoppedError:
            assert not [t for t in threading.enumerate() if t.name == "prefetch"], "nobody reads on"


# Three epochs of three batches; a stop is asked for before each epoch and after each batch.
@pytest.mark.parametrize("calls", [1, 3, 4, 5, 12])
def test_a_stopped_training_ends_with_the_same_weights_and_records(corpus, whole, tmp_path, calls):
    epochs, batches = (calls - 1) // 4, (calls - 1) % 4
    with pytest.raises(StoppedError, match=rf"after {epochs} of 3 epochs; the state is saved in .*r\.pt and the next"):
        fit(corpus, tmp_path / "r.pt", stop=after(calls))
    resumed, lines = fit(corpus, tmp_path / "r.pt")
    assert lines[0] == f"resuming after epoch {epochs} of 3" + (
        f" and {batches} batches of the next" if batches else ""
    )
    assert same(whole, resumed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_stopped_after_every_batch_and_every_epoch_ends_the_same(corpus, tmp_path, kind):
    settings = KINDS[kind]
    expected, _ = fit(corpus, tmp_path / "whole.pt", settings=settings)
    (found, _), stops = in_pieces(lambda: fit(corpus, tmp_path / "r.pt", settings=settings, stop=after(2)))
    assert stops == 11  # nine batches, and before the second and the third epoch
    assert same(expected, found)


def test_balanced_clips_are_drawn_the_same_after_a_stop(corpus, tmp_path):
    train, _ = corpus
    clips = [dataclasses.replace(c, stratum=int(i == 0)) for i, c in enumerate(positions(train))]
    objectives = (objective_of(corpus, clips=clips) for _ in itertools.count())
    expected, _ = fit(corpus, tmp_path / "whole.pt", objective=next(objectives))
    (found, _), _ = in_pieces(lambda: fit(corpus, tmp_path / "r.pt", objective=next(objectives), stop=after(2)))
    assert same(expected, found)


def test_a_training_killed_at_any_moment_goes_on_from_what_is_on_the_disk(corpus, whole, tmp_path, monkeypatch):
    """SIGKILL leaves the state that was written last, and nothing else."""
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    states, real = [], loop.write_resume

    def kept(path, *rest):
        real(path, *rest)
        states.append(path.read_bytes())

    monkeypatch.setattr(loop, "write_resume", kept)
    assert same(whole, fit(corpus, tmp_path / "r.pt")[0]), "saving changes nothing"
    monkeypatch.setattr(loop, "write_resume", real)
    assert len(states) == 15  # before and after each of three epochs, and after each of its batches
    for number, state in enumerate(states[::3]):
        (tmp_path / f"{number}.pt").write_bytes(state)
        assert same(whole, fit(corpus, tmp_path / f"{number}.pt")[0])


def test_a_killed_training_loses_no_more_than_the_time_between_two_saves(corpus, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    objective, calls = objective_of(corpus), itertools.count(1)
    real = objective.loss

    def killed(*args):
        if next(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(objective, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(corpus, tmp_path / "r.pt", objective=objective)
    resumed, lines = fit(corpus, tmp_path / "r.pt")
    assert lines[0] == "resuming after epoch 1 of 3 and 2 batches of the next"
    assert same(whole, resumed)


def test_a_training_killed_in_a_validation_makes_that_again(corpus, whole, tmp_path, monkeypatch):
    objective, calls = objective_of(corpus), itertools.count(1)
    real = objective.judge

    def killed(network):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(network)

    monkeypatch.setattr(objective, "judge", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(corpus, tmp_path / "r.pt", objective=objective)
    resumed, lines = fit(corpus, tmp_path / "r.pt")
    assert lines[0] == "resuming after epoch 1 of 3"
    assert same(whole, resumed)


def test_recordings_beyond_the_memory_budget_do_not_change_a_resumed_training(corpus, tmp_path):
    budget = 2 * 2 * 16 * 600  # two of the three recordings fit into memory
    expected, _ = fit(corpus, tmp_path / "whole.pt", budget=budget)
    (found, _), _ = in_pieces(lambda: fit(corpus, tmp_path / "r.pt", budget=budget, stop=after(2)))
    assert same(expected, found)


def test_the_state_of_another_training_is_not_taken_over(corpus, tmp_path):
    fit(corpus, tmp_path / "r.pt", digest="one")
    _, lines = fit(corpus, tmp_path / "r.pt", digest="two")
    assert lines[0].endswith("r.pt is the state of another training: starting anew")
    assert lines[1].startswith("epoch 1/3")


def test_a_finished_training_is_not_trained_again(corpus, tmp_path, monkeypatch):
    first, _ = fit(corpus, tmp_path / "r.pt")
    monkeypatch.setattr(loop, "_one_epoch", None)
    again, lines = fit(corpus, tmp_path / "r.pt", stop=after(1))
    assert lines == ["resuming after epoch 3 of 3"]
    assert same(first, again)


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "last byte lost": lambda data: data[:-1],
    "a bit turned": lambda data: data[:9999] + bytes([data[9999] ^ 1]) + data[10000:],
    "garbage": lambda data: bytes(range(256)) * 40,
    "zeros": lambda data: bytes(len(data)),
    "without its first line": lambda data: data.partition(b"\n")[2],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_said_and_not_taken_over(tmp_path, damage):
    path, lines = tmp_path / "r.pt", []
    write_resume(path, "d", {"weights": torch.arange(5000.0)})
    assert torch.equal(read_resume(path, "d", lines.append)["weights"], torch.arange(5000.0)) and not lines
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert read_resume(path, "d", lines.append) is None
    assert lines == [f"{path} is damaged: starting anew"]


def test_a_training_with_a_damaged_state_starts_anew(corpus, whole, tmp_path):
    path = tmp_path / "r.pt"
    path.write_bytes(b"d\n")
    again, lines = fit(corpus, path)
    assert lines[0] == f"{path} is damaged: starting anew" and lines[1].startswith("epoch 1/3")
    assert same(whole, again)


def test_a_full_disk_keeps_the_state_that_was_saved_before(corpus, whole, tmp_path):
    path = tmp_path / "r.pt"
    with pytest.raises(StoppedError):
        fit(corpus, path, stop=after(3))
    before = path.read_bytes()
    with small_files_only(1000), pytest.raises(MissingPartError, match=r"r\.pt: .*MB free.*nothing that was finished"):
        fit(corpus, path, stop=after(3))
    assert path.read_bytes() == before and {p.name for p in tmp_path.glob("*r.pt*")} == {"r.pt"}
    resumed, lines = fit(corpus, path)
    assert lines[0] == "resuming after epoch 0 of 3 and 2 batches of the next"
    assert same(whole, resumed)
