"""What networks learn from: the loss of frames and of windows, and what a fold makes of its settings."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from training_corpus import (
    CPU,
    FRONTEND,
    NOTHING,
    POINT,
    RATE,
    RECURRENT,
    SETTINGS,
    make_corpus,
    make_tables,
    new_network,
    objective_of,
    plan,
    positions,
    single_threaded,
    store,
)

from otus.config import AugmentationSettings, OptimisationSettings, TrainingSettings
from otus.dense import FrameRange, score_stretch
from otus.models import Ensemble, FrameNetwork, WindowMean
from otus.selections import NO_WINDOW
from otus.training import frames
from otus.training.cuts import Batch
from otus.training.frames import (
    FrameMaterial,
    FrameObjective,
    WindowObjective,
    learning_from_frames,
    weighted_cross_entropy,
)
from otus.training.material import read_material

PLAIN = OptimisationSettings(positive_weight=1.0, onset_weight=1.0)


class Given(FrameNetwork):
    """Gives the logits that it was made with, whatever it hears."""

    context_frames = 0

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits[: len(x)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def objective(corpus, kind=FrameObjective, *, n_classes=1, how=PLAIN, augmentation=NOTHING, clips=None, **planned):
    train, val = corpus
    facts = FrameMaterial(store(train), store(val), clips or positions(train), n_classes, [POINT], 0.4, 2)
    return kind(facts, plan(**planned), augmentation, how)


def a_batch(n=3, n_classes=2, frames=20, seed=0):
    random = torch.Generator().manual_seed(seed)
    activity = torch.rand(n, n_classes, frames, generator=random).round()
    onset = torch.rand(n, n_classes, frames, generator=random).round()
    valid = torch.rand(n, frames, generator=random).round()
    return Batch(tuple("abc"[:n]), torch.zeros(n, 16, frames), activity, onset, valid, torch.zeros(n))


# Frames


def test_the_loss_of_frames_is_the_cross_entropy_of_those_that_count(corpus):
    batch, logits = a_batch(), torch.randn(3, 4, 20)
    how = OptimisationSettings(positive_weight=3.0, onset_weight=5.0)
    learns = objective(corpus, n_classes=2, how=how)
    found = float(learns.loss(Given(logits), batch) / learns.weight(batch))
    expected, counted = 0.0, 0
    p = torch.sigmoid(logits.double())
    for i in range(3):
        for t in range(20):
            if batch.valid[i, t]:
                counted += 4
                for c, truth in enumerate([*batch.activity[i, :, t], *batch.onset[i, :, t]]):
                    weight = 3.0 if c < 2 else 5.0
                    expected -= weight * p[i, c, t].log() if truth else (1 - p[i, c, t]).log()
    assert found == pytest.approx(float(expected) / counted, rel=1e-5)


def test_frames_that_do_not_count_do_not_move_the_loss(corpus):
    learns, batch, logits = objective(corpus, n_classes=2), a_batch(), torch.randn(3, 4, 20)
    other = torch.where(batch.valid.unsqueeze(1) > 0, logits, 50.0)
    assert learns.loss(Given(logits), batch) == learns.loss(Given(other), batch)
    nothing = dataclasses.replace(batch, valid=torch.zeros(3, 20))
    assert learns.loss(Given(logits), nothing) == 0 and learns.weight(nothing) == 1


@pytest.mark.parametrize("kind", [FrameObjective, WindowObjective])
def test_the_losses_of_the_parts_add_up_to_that_of_the_batch(corpus, kind):
    learns = objective(corpus, kind, n_classes=2, length=20)
    batch, logits = a_batch(), torch.randn(3, 4, 20)
    if kind is WindowObjective:  # all of a window counts, or nothing
        batch = dataclasses.replace(batch, valid=torch.ones(3, 20))
    whole = learns.loss(Given(logits), batch)
    parts = [learns.loss(Given(logits[i : i + 1]), batch.part(i, i + 1)) for i in range(3)]
    assert float(whole) == pytest.approx(float(sum(parts)), rel=1e-6)
    assert learns.weight(batch) == sum(learns.weight(batch.part(i, i + 1)) for i in range(3))


@examples(max_examples=50)
@given(
    logit=st.floats(-20, 20),
    truth=st.sampled_from([0.0, 1.0]),
    weight=st.floats(0.1, 10),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_the_focal_loss_lets_what_is_right_already_count_less(logit, truth, weight, gamma):
    found = weighted_cross_entropy(torch.tensor([logit]).double(), torch.tensor([truth]).double(),
                                   torch.tensor([weight]).double(), gamma)  # fmt: skip
    p = 1 / (1 + np.exp(-logit if truth else logit))
    expected = -((1 - p) ** gamma) * np.log(p) * (weight if truth else 1.0)
    assert float(found[0]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_gradient_of_the_focal_loss_is_finite_where_the_network_is_sure():
    logits = torch.tensor([-80.0, 80.0, 0.0], requires_grad=True)
    weighted_cross_entropy(logits, torch.tensor([0.0, 1.0, 1.0]), torch.ones(1), 0.5).sum().backward()
    assert logits.grad.isfinite().all()


# Windows


def test_the_loss_of_a_window_is_that_of_the_mean_of_its_frames(corpus):
    learns = objective(
        corpus, WindowObjective, n_classes=2, how=OptimisationSettings(positive_weight=3.0), length=20, margin=7
    )
    label = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    batch = dataclasses.replace(a_batch(), activity=label.unsqueeze(-1).expand(3, 2, 20), valid=torch.ones(3, 20))
    logits = torch.randn(3, 4, 34)
    mean = logits[:, :2, 7:27].mean(dim=-1).double()
    p = torch.sigmoid(mean)
    expected = -(3 * label * p.log() + (1 - label) * (1 - p).log()).mean()
    assert float(learns.loss(Given(logits), batch) / learns.weight(batch)) == pytest.approx(float(expected), rel=1e-5)
    other = logits.clone()
    other[:, :, :7] = other[:, :, 27:] = other[:, 2:] = 50.0
    assert learns.loss(Given(other), batch) == learns.loss(Given(logits), batch), "neither margin nor onsets"
    only_first = dataclasses.replace(batch, valid=torch.tensor([1.0, 0.0, 0.0]).unsqueeze(1).expand(3, 20))
    first = -(3 * label * p.log() + (1 - label) * (1 - p).log())[0].mean()
    assert float(learns.loss(Given(logits), only_first) / learns.weight(only_first)) == pytest.approx(
        float(first), rel=1e-5
    )


def test_a_window_counts_if_half_of_it_does_after_augmentation(corpus):
    learns = objective(corpus, WindowObjective, length=20)
    valid = torch.ones(3, 20)
    valid[0, :10], valid[1, :11], valid[2, 15:] = 0.0, 0.0, 0.0
    batch = dataclasses.replace(a_batch(n_classes=1), valid=valid)
    logits = torch.randn(3, 2, 20)
    losses = [
        float(learns.loss(Given(logits[i : i + 1]), batch.part(i, i + 1).having({"valid": torch.ones(1, 20)})))
        for i in range(3)
    ]
    assert learns.weight(batch) == 2
    assert float(learns.loss(Given(logits), batch)) == pytest.approx(losses[0] + losses[2], rel=1e-6)


def test_windows_that_are_stretched_in_time_still_count(corpus):
    how = NOTHING.model_copy(update={"stretch_time": 1.5})
    learns = objective(corpus, WindowObjective, augmentation=how, length=40, margin=9, cuts_per_epoch=64, batch_size=64)
    (batch,) = learns.batches(3, 0)
    assert learns.weight(learns.vary(batch, torch.Generator().manual_seed(1))) > 0.9 * learns.weight(batch)


def test_the_number_of_batches_is_counted_once(corpus, monkeypatch):
    learns = objective(corpus)
    monkeypatch.setattr(frames, "n_cuts", None)
    assert learns.n_batches() == 3


@examples(max_examples=40, deadline=None)
@given(n_frames=st.integers(1, 60), width=st.integers(1, 30), seed=st.integers(0, 99))
def test_the_mean_over_windows_is_a_moving_average(n_frames, width, seed):
    logits = torch.randn(2, 6, n_frames, generator=torch.Generator().manual_seed(seed))
    found = WindowMean(Given(logits), width)(torch.zeros(2, 16, n_frames))
    assert found.shape == (2, 6, n_frames) and (found[:, 3:] == NO_WINDOW).all(), "nothing is learnt of onsets"
    for f in range(n_frames):
        first = f - width // 2
        inside = logits[:, :3, max(0, first) : max(0, first + width)].mean(dim=-1)
        torch.testing.assert_close(found[:, :3, f], inside, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [7, 40])
def test_windows_are_trained_as_they_are_predicted(corpus, length):
    """What a window is judged by in training is what prediction says of its middle."""
    network = new_network().eval()
    learns = objective(corpus, WindowObjective, length=length, margin=network.context_frames)
    features = store(corpus[0]).read(0, 0, 600)
    for start in (20, 123, 300):
        inner = learns.plan
        cut = features[:, start - inner.margin : start + length + inner.margin]
        trained = network(cut.unsqueeze(0))[0, 0, inner.margin : inner.margin + length].mean().item()
        middle = start + length // 2
        predicted = score_stretch(
            WindowMean(network, length),
            lambda a, b: features[:, a:b],
            FrameRange(middle, middle + 1),
            n_frames=600,
            outside=0.0,
        )
        assert float(predicted[0, 0]) == pytest.approx(trained, abs=1e-5)


def test_windows_are_judged_by_their_means(corpus):
    class Flicker(FrameNetwork):
        """Hears every fourth frame of a tone, and that one well: its frames make no call, their means do."""

        context_frames = 0

        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            loud = (x.amax(dim=1, keepdim=True) > 4.0).float() * (torch.arange(x.shape[-1]) % 4 == 0)
            return (20 * loud - 4).repeat(1, 2, 1)

    assert objective(corpus, WindowObjective, length=8).judge(Flicker())["f1"] > 0.9
    assert objective(corpus, WindowObjective, length=8).judge(WindowMean(Flicker(), 8))["f1"] > 0.9
    assert objective(corpus).judge(Flicker())["f1"] == 0.0


@pytest.mark.parametrize("kind", [FrameObjective, WindowObjective])
def test_augmentation_keeps_shapes_and_draws_the_same_from_the_same_numbers(corpus, kind):
    everything = AugmentationSettings(
        mix_probability=0.5,
        noise_probability=0.5,
        mixup_probability=0.5,
        stretch_time=1.5,
        stretch_pitch=1.3,
        shift_time=0.2,
    )
    learns = objective(corpus, kind, augmentation=everything, length=40, margin=9, cuts_per_epoch=8, batch_size=8)
    (batch,) = learns.batches(3, 0)
    varied, again, other = (learns.vary(batch, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    for name, value in batch.tensors().items():
        assert varied.tensors()[name].shape == value.shape and varied.tensors()[name].isfinite().all()
        assert torch.equal(varied.tensors()[name], again.tensors()[name])
    assert varied.features.shape[-1] == 58 and not torch.equal(varied.features, other.features)


# What a fold makes of its settings


def learning(corpus, **changes):
    tables = make_tables(corpus)
    material = read_material(Path(corpus[0][0].path.parent), tables, ["hum"])
    settings = TrainingSettings(**changes)
    return learning_from_frames(material, tables.clips, ["hum"], settings, iou=0.4, device=CPU)


def test_the_front_end_comes_from_the_calls(corpus):
    found = learning(corpus)
    assert (found.frontend.sample_rate, found.frontend.bands) == (RATE, 64)
    assert (found.frontend.low_hz, found.frontend.high_hz) == (400.0, 2400.0)
    assert found.hears == f"64 mel bands 400-2400 Hz, hop {1000 * found.frontend.hop_s:g} ms"
    assert isinstance(found.objective, FrameObjective) and found.window_frames == 1
    assert [c.target for c in found.objective.material.clips] == [0] * 6
    assert found.objective.n_batches() == 10, "160 cuts of 16"


def test_the_window_of_the_clip_objective_is_the_median_call_or_what_is_set(corpus):
    found = learning(corpus, objective="clip", architecture="dense_resnet", frontend={"hop_s": 0.01})
    assert isinstance(found.objective, WindowObjective)
    assert found.window_frames == found.objective.plan.length == 50
    assert found.objective.plan.margin == found.new_network().context_frames
    assert learning(corpus, objective="clip", clip_s=0.2, frontend={"hop_s": 0.01}).window_frames == 20
    assert learning(corpus, objective="clip", clip_s=0.001, frontend={"hop_s": 0.01}).window_frames == 1


@pytest.mark.parametrize(("settings", "inference"), [(SETTINGS, "dense"), (RECURRENT, "blocks")])
@pytest.mark.parametrize("goal", ["frame", "clip"])
def test_networks_answer_together_as_they_will_predict(corpus, settings, inference, goal):
    chosen = settings.model_copy(update={"objective": goal}).model_dump(exclude_defaults=True)
    if goal == "clip":
        del chosen["cut_frames"]
    found = learning(corpus, **chosen)
    assert found.inference == inference
    networks = [found.new_network() for _ in range(2)]
    both = found.together(networks)
    assert isinstance(both, WindowMean if goal == "clip" else Ensemble)
    assert both.block_frames == networks[0].block_frames
    assert both(torch.zeros(1, 64, 30)).shape == (1, 2, 30)


@pytest.mark.parametrize("kind", [FrameObjective, WindowObjective])
def test_labels_keep_their_numbers(corpus, kind):
    train, val = corpus
    third = [dataclasses.replace(r, target=np.full(2, 2)) for r in train]
    clips = [dataclasses.replace(c, target=2) for c in positions(train) if c.target == 0]
    learns = objective((third, val), kind, n_classes=3, clips=clips, length=40, target_share=1.0)
    truth = torch.cat([batch.activity.amax(dim=2) for batch in learns.batches(1, 0)])
    assert truth.sum(dim=0).tolist() == [0, 0, 12]


def test_the_default_objective_draws_what_the_settings_say(corpus):
    learns = objective_of(corpus)
    assert learns.n_batches() == 3 and learns.draw == 0.25, "half a call of two on the validation side"
    assert FRONTEND.bands == next(learns.batches(1, 0)).features.shape[1]
