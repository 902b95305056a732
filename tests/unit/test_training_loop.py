"""The training loop: learning rates, the running average, which weights are kept, when it ends."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from training_corpus import RECURRENT, SETTINGS, TCN, after, fit, make_corpus, single_threaded, weights
from training_toys import CPU, Script, copied, line, settings, train

from otus.config import OptimisationSettings
from otus.models import FrameNetwork
from otus.stopping import StoppedError
from otus.training import loop


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("how", [TCN, SETTINGS, RECURRENT], ids=["tcn", "dense_resnet", "crnn"])
def test_training_learns_a_loud_tone_and_says_how_far_it_is(corpus, tmp_path, how):
    trained, lines = fit(corpus, tmp_path / "r.pt", settings=how.model_copy(update={"epochs": 12}))
    assert trained.best["f1"] > 0.8
    assert trained.best["detection"] == (trained.best["f1"] + trained.best["average_precision"]) / 2
    assert len(lines) == len(trained.records) and "epoch 1/12" in lines[0] and "s left" in lines[0]
    assert "average precision" in lines[0] and "detection" not in lines[0]
    assert trained.records[-1]["loss"] < trained.records[0]["loss"]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(corpus, tmp_path):
    first, second, third = (weights(fit(corpus, tmp_path / f"{i}.pt", seed=s)[0]) for i, s in enumerate((1, 1, 2)))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


# Learning rates


def rates(how, steps):
    """The learning rate of every step of a training."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=how.learning_rate)
    schedule = loop._schedule(optimiser, how, steps)
    found = []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return [*found, optimiser.param_groups[0]["lr"]]


@given(steps=st.integers(1, 60), warm_up=st.floats(0, 1))
def test_a_cosine_rises_from_a_low_rate_to_the_peak_and_falls_to_almost_nothing(steps, warm_up):
    found = rates(OptimisationSettings(learning_rate=0.5, warm_up=warm_up), steps)
    rise = warm_up * steps
    rising, falling = found[: math.floor(rise) + 1], found[math.ceil(rise) :]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
    assert all(0.5e-5 <= rate <= 0.5 for rate in found)
    if rise >= 1:
        assert found[0] == pytest.approx(0.5 * 0.04)
    if rise == round(rise):
        assert found[round(rise)] == pytest.approx(0.5)
    if rise <= steps - 1:
        assert found[-1] == pytest.approx(0.5e-5)


def test_the_steps_of_a_cosine_are_the_batches_of_all_epochs(tmp_path):
    trained, _ = train(tmp_path, Script(batches=3), how=settings(4, learning_rate=0.5, warm_up=0.5))
    found = [r["learning_rate"] for r in trained.records]
    assert found == pytest.approx([0.5 * (1 + 0.04) / 2, 0.5, 0.25, 0.0], abs=1e-4)


def test_a_plateau_lowers_the_rate_after_the_patience_and_not_before(tmp_path):
    how = settings(9, schedule="plateau", plateau_patience=2, plateau_factor=0.5, learning_rate=0.08)
    found = [0.3, 0.4, 0.4, 0.4005, 0.5, 0.5, 0.5, 0.5, 0.5]
    trained, _ = train(tmp_path, Script(found), how=how)
    # A gain of 0.0005 is none, but at the fifth epoch only two have gained nothing; at the eighth it is three.
    assert [r["learning_rate"] for r in trained.records] == pytest.approx([0.08] * 8 + [0.04])


def test_a_plateau_counts_validations_not_epochs(tmp_path):
    how = settings(8, validate_every=2, schedule="plateau", plateau_patience=1, learning_rate=0.08)
    trained, _ = train(tmp_path, Script([0.5]), how=how)
    assert [r["learning_rate"] for r in trained.records] == pytest.approx([0.08] * 6 + [0.04] * 2)


def test_the_rate_of_a_plateau_does_not_move_within_epochs(tmp_path):
    trained, _ = train(tmp_path, Script([0.1, 0.2, 0.3]), how=settings(3, schedule="plateau", learning_rate=0.08))
    assert {r["learning_rate"] for r in trained.records} == {0.08}


def test_gradients_are_cut_to_the_length_that_is_allowed(tmp_path):
    for most in (1e-3, 1e6):
        network = line()
        train(tmp_path / f"{most}", Script(), network, how=settings(gradient_norm=most))
        length = math.hypot(*(float(p.grad.norm()) for p in network.parameters()))
        assert (length <= 1.001e-3) == (most < 1)


def test_adamw_takes_weight_decay(tmp_path):
    def trained(decay):
        return weights(train(tmp_path / str(decay), Script(), how=settings(weight_decay=decay))[0])

    assert not torch.equal(trained(0.0), trained(0.9))


# The running average


def normalising():
    torch.manual_seed(5)
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_the_average_forgets_the_start_first_and_then_with_the_decay(tmp_path, decay):
    objective, network = Script([0.1, 0.2, 0.3]), normalising()
    trained, _ = train(tmp_path, objective, network, how=settings(3, averaging=decay))
    after_steps = [*objective.before_steps[1:], copied(network)]
    expected = objective.before_steps[0]
    for step, values in enumerate(after_steps, start=1):
        share = 1 - min(decay, (1 + step) / (10 + step))
        expected = {
            name: mean + share * (values[name] - mean) if mean.is_floating_point() else values[name]
            for name, mean in expected.items()
        }
    found = trained.network.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert int(found["0.num_batches_tracked"]) == 9
    if decay == 0.0:
        assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_the_average_is_judged_and_the_network_is_trained(tmp_path):
    objective = Script([0.1, 0.2])
    trained, _ = train(tmp_path, objective, how=settings(2, averaging=0.9))
    assert torch.equal(trained.network.weight, objective.judged[-1]["weight"])
    assert not torch.equal(objective.judged[0]["weight"], objective.before_steps[3]["weight"])


# Which weights are kept, and when training ends


def test_the_weights_of_the_best_validation_are_kept(tmp_path):
    objective = Script([0.3, 0.7, 0.5, 0.6])
    trained, _ = train(tmp_path, objective, how=settings(4))
    assert trained.best_epoch == 2 and trained.best == {"detection": 0.7, "f1": 0.35}
    assert torch.equal(trained.network.weight, objective.judged[1]["weight"])
    assert not torch.equal(objective.judged[1]["weight"], objective.judged[3]["weight"])


def test_a_draw_goes_to_the_later_epoch(tmp_path):
    objective = Script([0.5, 0.7, 0.69, 0.6], draw=0.02)
    trained, _ = train(tmp_path, objective, how=settings(4))
    assert trained.best_epoch == 3 and trained.best["detection"] == 0.69
    assert torch.equal(trained.network.weight, objective.judged[2]["weight"])


def test_many_draws_are_no_way_down(tmp_path):
    trained, _ = train(tmp_path, Script([0.70, 0.69, 0.68, 0.67, 0.66], draw=0.015), how=settings(5))
    assert trained.best_epoch == 2


def test_a_training_that_finds_nothing_still_has_weights(tmp_path):
    trained, _ = train(tmp_path, Script([0.0]), how=settings(3))
    assert trained.best_epoch == 3 and len(trained.records) == 3


def test_training_ends_when_the_patience_does(tmp_path):
    trained, lines = train(tmp_path, Script([0.5, 0.6, 0.4]), how=settings(50, patience=3))
    assert [r["epoch"] for r in trained.records] == [1, 2, 3, 4, 5]
    assert trained.best_epoch == 2 and len(lines) == 5


def test_patience_counts_validations_when_not_every_epoch_has_one(tmp_path):
    trained, lines = train(tmp_path, Script([0.5, 0.4]), how=settings(50, validate_every=3, patience=2))
    assert [r["epoch"] for r in trained.records if "detection" in r] == [3, 6, 9]
    assert len(trained.records) == 9 and trained.best_epoch == 3
    assert [("validation" in line) for line in lines] == [False, False, True] * 3


def test_the_last_epoch_is_always_judged(tmp_path):
    trained, _ = train(tmp_path, Script([0.1, 0.2, 0.3]), how=settings(5, validate_every=2))
    assert [r["epoch"] for r in trained.records if "detection" in r] == [2, 4, 5]
    assert trained.best_epoch == 5
    trained, _ = train(tmp_path / "few", Script([0.1]), how=settings(2, validate_every=9))
    assert trained.best_epoch == 2


def test_a_stopped_training_remembers_its_patience(tmp_path):
    expected, _ = train(tmp_path / "whole", Script([0.5, 0.4]), how=settings(50, patience=3))
    objective = Script([0.5, 0.4])
    with pytest.raises(StoppedError, match="after 2 of 50 epochs"):
        train(tmp_path, objective, how=settings(50, patience=3), stop=after(9))
    found, _ = train(tmp_path, objective, how=settings(50, patience=3))
    assert found.records == expected.records and len(found.records) == 4


def test_records_are_one_json_object_a_line():
    text = loop.records_as_jsonl([{"epoch": 1, "loss": 0.5}, {"loss": 0.25, "epoch": 2}])
    assert [json.loads(line) for line in text.splitlines()] == [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    assert text.endswith("\n") and text.splitlines()[0] == '{"epoch": 1, "loss": 0.5}'


@pytest.mark.parametrize(("precision", "expected"), [("fp32", False), ("bf16", True)])
def test_the_arithmetic_is_what_the_settings_say(precision, expected):
    assert loop.uses_bf16(precision, CPU) is expected


# What is not learnt


class Half(FrameNetwork):
    """A large encoder that is not learnt, and a head that is."""

    frozen = ("encoder.",)
    context_frames = 0

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 10_000), nn.Dropout(0.0))
        self.encoder.requires_grad_(False)
        self.head = nn.Linear(10_000, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.encoder(x)))


def half():
    torch.manual_seed(6)
    return Half()


def test_what_is_frozen_is_shared_not_learnt_and_not_stored(tmp_path):
    network = half()
    fixed = copied(network.encoder)
    trained, _ = train(tmp_path, Script([0.1, 0.2, 0.3]), network)
    assert trained.network is not network and trained.network.head.weight is not network.head.weight
    for mine, theirs in zip(network.encoder.parameters(), trained.network.encoder.parameters(), strict=True):
        assert mine is theirs, "one copy in memory"
    assert all(torch.equal(value, fixed[name]) for name, value in network.encoder.state_dict().items())
    assert not torch.equal(trained.network.head.weight, half().head.weight)
    # Three networks and two moments of the head, each 10,001 numbers of 4 bytes; the encoder has 40,000.
    assert (tmp_path / "r.pt").stat().st_size < 5 * 10_001 * 4 + 40_000


def test_a_network_with_frozen_parts_resumes(tmp_path):
    expected, _ = train(tmp_path / "whole", Script([0.1, 0.2, 0.3]), half())
    with pytest.raises(StoppedError):
        train(tmp_path, Script([0.1, 0.2, 0.3]), half(), stop=after(6))
    found, lines = train(tmp_path, Script([0.2, 0.3]), half())
    assert lines[0] == "resuming after epoch 1 of 3 and 1 batches of the next"
    assert torch.equal(weights(expected), weights(found))
