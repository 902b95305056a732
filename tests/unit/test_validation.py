"""Validation judges a network as a detector."""

import dataclasses

import numpy as np
import pytest
import torch
from training_corpus import POINT, make_corpus, make_recording, new_network, single_threaded, spans, store

from otus.models import FrameNetwork
from otus.training.validation import validate


class Oracle(FrameNetwork):
    """Hears every loud tone, and says it is of each of `n_classes` labels."""

    context_frames = 5

    def __init__(self, n_classes=1):
        super().__init__()
        self.n_classes = n_classes
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        loud = (x.amax(dim=1, keepdim=True) > 4.0).float() * 10 - 5
        return loud.repeat(1, 2 * self.n_classes, 1)


class Deaf(Oracle):
    def forward(self, x):
        return super().forward(x) * 0 - 5


PERFECT = {"detection": 1.0, "f1": 1.0, "average_precision": 1.0}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def judged(recordings, network=None, **more):
    options = {"points": [POINT], "iou": 0.4, "n_classes": 1} | more
    return validate(network or Oracle(), store(recordings), **options)


def test_perfect_scores_are_perfect(corpus):
    assert judged(corpus[1]) == PERFECT


def test_what_hears_nothing_finds_nothing(corpus):
    assert judged(corpus[1], Deaf()) == dict.fromkeys(PERFECT, 0.0)
    assert judged(corpus[1][1:]) == dict.fromkeys(PERFECT, 0.0), "a side without calls proves nothing"


def test_calls_that_are_missed_and_false_alarms_count(corpus):
    one = corpus[1][0]
    more = {"start_s": np.array([2.0, 3.0, 4.0]), "end_s": np.array([2.4, 3.4, 4.5]), "target": np.zeros(3, dtype=int)}
    found = judged([dataclasses.replace(one, **more)])
    assert found["f1"] == pytest.approx(0.8) and found["average_precision"] == pytest.approx(2 / 3)
    assert found["detection"] == pytest.approx((0.8 + 2 / 3) / 2)
    less = {"start_s": np.array([2.0]), "end_s": np.array([2.4]), "target": np.zeros(1, dtype=int)}
    assert judged([dataclasses.replace(one, **less)])["f1"] == pytest.approx(2 / 3)


def test_labels_count_the_same_however_many_calls_they_have(corpus):
    one = dataclasses.replace(corpus[1][0], target=np.array([0, 1]))
    found = judged([one], Oracle(2), n_classes=2)
    assert found["f1"] == pytest.approx(2 / 3), "each label has one hit and one false alarm"
    assert judged([one], Oracle(3), n_classes=3)["f1"] == pytest.approx(4 / 9)


def test_the_best_of_the_ways_to_decode_counts(corpus):
    bad = dataclasses.replace(POINT, min_duration_s=2.0)
    assert judged(corpus[1], points=[bad])["f1"] == 0.0
    assert judged(corpus[1], points=[bad, POINT, bad]) == PERFECT


def test_the_overlap_that_is_asked_for_counts(corpus):
    late = dataclasses.replace(corpus[1][0], start_s=np.array([2.2, 4.25]))
    assert judged([late], iou=0.4) == PERFECT
    assert judged([late], iou=0.7)["f1"] == 0.0


def test_what_is_unknown_or_on_another_side_is_left_out(tmp_path):
    one = make_recording(tmp_path, "v", [(1.0, 1.5), (2.0, 2.4), (4.0, 4.5)])
    called = dataclasses.replace(one, start_s=one.start_s[1:2], end_s=one.end_s[1:2], target=one.target[1:2])

    def found(**changes):
        return judged([dataclasses.replace(called, **changes)])

    assert found()["f1"] < 0.6, "two false alarms"
    assert found(unknown=spans((0.5, 1.3), (4.1, 4.6))) == PERFECT
    assert found(side=spans((1.8, 3.0))) == PERFECT
    assert found(unknown=spans((0.0, 6.0))) == PERFECT, "a hit stays a hit"
    assert found(unknown=spans((0.5, 1.2)))["f1"] < 0.7, "less than half"


def test_a_network_is_judged_as_it_will_predict(corpus):
    network = new_network().train()
    first = judged(corpus[1], network)
    assert not network.training and judged(corpus[1], network) == first


def test_recordings_shorter_than_a_block_or_a_frame_are_judged(tmp_path):
    short = make_recording(tmp_path, "s", [(0.01, 0.09)], seconds=0.1)
    tiny = make_recording(tmp_path, "t", [], seconds=0.001)
    assert judged([short, tiny]).keys() == PERFECT.keys()
