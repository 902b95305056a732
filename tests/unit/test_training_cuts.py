"""Where training cuts lie, how often each clip comes up, and the truth of their frames."""

import dataclasses
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from training_corpus import (
    CPU,
    FRONTEND,
    clip_row,
    make_corpus,
    make_recording,
    plan,
    positions,
    single_threaded,
    spans,
    store,
)

from otus.sides import Spans
from otus.tables import table
from otus.training import cuts
from otus.training.cuts import (
    ClipPosition,
    FeatureStore,
    counted_frames,
    draw_batches,
    draw_windows,
    frame_labels,
    n_cuts,
)
from otus.training.material import clip_positions


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


class Rulers:
    """A store whose network input says which frame it is: 1 in the first frame of recording 0, 1001 in that of 1."""

    frontend = FRONTEND

    def __init__(self, recording, n_frames):
        self.recordings, self.lengths = [recording] * len(n_frames), n_frames

    def n_frames(self, index):
        return self.lengths[index]

    def read_all(self, stretches):
        return [self.read(*stretch) for stretch in stretches]

    def read(self, index, start, end):
        assert 0 <= start <= end <= self.lengths[index], "nothing outside a recording is read"
        return (torch.arange(start, end) + 1 + 1000 * index).float().expand(FRONTEND.bands, -1)


def frames_drawn(rulers, clips, cut_plan, seed=0, windows=False):
    """The frames (cuts, length) of every cut of an epoch, -1 outside the recording, and its label."""
    options = {"n_classes": 3, "generator": np.random.default_rng(seed)}
    if not windows:
        options["onset_frames"] = 2
    batches = list((draw_windows if windows else draw_batches)(rulers, clips, cut_plan, **options))
    assert all(len(b) == cut_plan.batch_size for b in batches[:-1])
    return torch.cat([b.features[:, 0] for b in batches]).numpy() - 1, torch.cat([b.activity for b in batches]).numpy()


# The truth of frames


def test_labels_are_frames_whose_centre_lies_in_the_call(tmp_path):
    recording = make_recording(tmp_path, "a", [(0.10, 0.13)], seconds=1.0)
    activity, onset = frame_labels(recording, FRONTEND, 1, 0, 100, onset_frames=1)
    assert np.flatnonzero(activity[0]).tolist() == [10, 11, 12]
    assert np.flatnonzero(onset[0]).tolist() == [9, 10, 11]
    later, _ = frame_labels(recording, FRONTEND, 1, 12, 20, onset_frames=1)
    assert np.flatnonzero(later[0]).tolist() == [0]


def test_a_call_shorter_than_a_frame_still_has_one(tmp_path):
    recording = make_recording(tmp_path, "a", [(0.1010, 0.1030)], seconds=1.0)
    activity, _ = frame_labels(recording, FRONTEND, 1, 0, 100, onset_frames=1)
    assert activity.sum() == 1


def test_calls_of_several_labels_may_overlap(tmp_path):
    recording = make_recording(tmp_path, "a", [(0.1, 0.5), (0.3, 0.4)], seconds=1.0)
    recording = dataclasses.replace(recording, target=np.array([0, 2]))
    activity, onset = frame_labels(recording, FRONTEND, 3, 0, 100, onset_frames=0)
    assert activity.sum(axis=1).tolist() == [40, 0, 10]
    assert [np.flatnonzero(row).tolist() for row in onset] == [[10], [], [30]]


@examples(max_examples=30)
@given(start=st.integers(0, 90), length=st.integers(1, 60))
def test_the_truth_of_a_stretch_is_a_stretch_of_the_truth(corpus, start, length):
    recording = corpus[0][0]
    whole = frame_labels(recording, FRONTEND, 1, 0, 600, onset_frames=3)
    part = frame_labels(recording, FRONTEND, 1, start + 60, start + 60 + length, onset_frames=3)
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[:, start + 60 : start + 60 + length], other)


def test_frames_that_are_unknown_or_of_another_side_do_not_count(corpus):
    recording = dataclasses.replace(corpus[0][0], side=spans((-np.inf, 2.0)), unknown=spans((0.5, 0.754)))
    counted = counted_frames(recording, FRONTEND, 40, 220)
    assert counted.dtype == np.float32 and set(counted) == {0.0, 1.0}
    assert np.flatnonzero(counted == 0).tolist() == [*range(10, 35), *range(160, 180)], "by the centres of the frames"
    assert counted_frames(corpus[0][0], FRONTEND, 0, 700).all()
    options = {"n_classes": 1, "onset_frames": 2, "generator": np.random.default_rng(0)}
    cut_plan = plan(cuts_per_epoch=4, length=580)
    (batch,) = draw_batches(store([recording]), [ClipPosition(0, 100, 150, 0)], cut_plan, **options)
    assert (batch.valid.sum(dim=1) <= 175).all() and (batch.valid.sum(dim=1) >= 150).all()


# Where cuts lie


@examples(max_examples=60)
@given(
    n_frames=st.integers(1, 400),
    clip=st.tuples(st.integers(0, 399), st.integers(1, 200)),
    length=st.integers(1, 300),
    margin=st.integers(0, 70),
    seed=st.integers(0, 9),
)
def test_a_cut_holds_its_clip_or_lies_in_it_and_never_leaves_the_recording(
    corpus, n_frames, clip, length, margin, seed
):
    start = min(clip[0], n_frames - 1)
    end = min(start + clip[1], n_frames)
    cut_plan = plan(length=length, margin=margin)
    rulers = Rulers(corpus[0][0], [n_frames])
    found, _ = frames_drawn(rulers, [ClipPosition(0, start, end, 0)], cut_plan, seed)
    assert found.shape == (12, length + 2 * margin)
    assert np.isin(np.diff(found[(found >= 0).all(axis=1)], axis=1), 1).all()
    for inner in found[:, margin : margin + length].astype(int):
        inside = inner[inner >= 0]
        assert len(inside) == min(length, n_frames), "as much of the recording as there is"
        if length >= end - start:
            assert inside[0] <= start and inside[-1] >= end - 1
        else:
            assert inside[0] >= start and inside[-1] < end


def test_a_clip_lies_anywhere_in_its_cut(corpus):
    found, _ = frames_drawn(Rulers(corpus[0][0], [999]), [ClipPosition(0, 500, 510, 0)], plan(cuts_per_epoch=2000))
    assert set(found[:, 0]) == set(range(410, 501))
    found, _ = frames_drawn(Rulers(corpus[0][0], [999]), [ClipPosition(0, 300, 500, 0)], plan(cuts_per_epoch=2000))
    assert set(found[:, 0]) == set(range(300, 401)), "a long call is heard in pieces"


def test_a_recording_shorter_than_a_cut_is_filled_with_frames_that_do_not_count(tmp_path):
    short = make_recording(tmp_path, "s", [(0.1, 0.2)], seconds=0.4)
    options = {"n_classes": 1, "onset_frames": 2, "generator": np.random.default_rng(0)}
    (batch,) = draw_batches(store([short]), positions([short]), plan(cuts_per_epoch=2), **options)
    assert batch.valid.sum(dim=1).tolist() == [40.0, 40.0]
    assert (batch.features[:, :, 40:] == FRONTEND.outside).all()


def test_a_recording_shorter_than_a_frame_can_be_learnt_from(tmp_path):
    tiny = make_recording(tmp_path, "s", [(0.0, 0.005)], seconds=0.005)
    options = {"n_classes": 1, "onset_frames": 2, "generator": np.random.default_rng(0)}
    (batch,) = draw_batches(store([tiny]), [ClipPosition(0, 0, 1, 0)], plan(cuts_per_epoch=2), **options)
    assert batch.valid.sum(dim=1).tolist() == [1.0, 1.0] and batch.activity.sum(dim=2).tolist() == [[1.0], [1.0]]


# How often clips come up


@examples(max_examples=40, deadline=None)
@given(
    calls=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=250),
    target_share=st.floats(0.1, 1.0),
    seed=st.integers(0, 100),
)
def test_every_call_comes_up_in_every_epoch(corpus, calls, target_share, seed):
    """Calls are (label, stratum); each lies at a place of its own, so that the cut tells which it is."""
    clips = [ClipPosition(0, i, i + 1, label, stratum) for i, (label, stratum) in enumerate(calls)]
    clips.append(ClipPosition(0, 990, 991, None))
    cut_plan = plan(cuts_per_epoch=None, length=1, target_share=target_share)
    found, _ = frames_drawn(Rulers(corpus[0][0], [1000]), clips, cut_plan, seed)
    times = Counter(found[:, 0].astype(int).tolist())
    assert sum(times.values()) == n_cuts(clips, cut_plan) >= 160
    assert all(times[i] for i in range(len(calls)))
    around_calls = sum(times[i] for i in range(len(calls)))
    assert abs(around_calls - target_share * sum(times.values())) <= 0.5
    for stratum in {s for _, s in calls}:
        own = [times[i] for i, (_, s) in enumerate(calls) if s == stratum]
        assert max(own) - min(own) <= 1, "none comes again before all have come"
    drawn = Counter({s: sum(times[i] for i, (_, own) in enumerate(calls) if own == s) for _, s in calls})
    assert max(drawn.values()) - min(drawn.values()) <= 1, "strata come up equally often"


def test_the_order_of_clips_changes_with_the_seed(corpus):
    clips = [ClipPosition(0, i, i + 1, 0) for i in range(40)]
    rulers, cut_plan = Rulers(corpus[0][0], [1000]), plan(length=1, cuts_per_epoch=40, target_share=1.0)
    first, again, other = (frames_drawn(rulers, clips, cut_plan, seed)[0][:, 0].tolist() for seed in (1, 1, 2))
    assert first == again != other and sorted(first) == sorted(other) == list(range(40))


@pytest.mark.parametrize(("share", "around_calls"), [(0.0, 0), (0.25, 5), (1.0, 20)])
def test_the_share_of_cuts_around_calls_is_the_one_that_is_asked_for(corpus, share, around_calls):
    clips = [ClipPosition(0, 1, 2, 0), ClipPosition(0, 5, 6, None), ClipPosition(0, 7, 8, None)]
    cut_plan = plan(length=1, cuts_per_epoch=20, target_share=share)
    found, _ = frames_drawn(Rulers(corpus[0][0], [1000]), clips, cut_plan)
    assert Counter(found[:, 0].tolist())[1] == around_calls


def test_without_noise_clips_all_cuts_lie_around_calls(corpus):
    found, _ = frames_drawn(Rulers(corpus[0][0], [1000]), [ClipPosition(0, 1, 2, 0)], plan(length=1))
    assert set(found[:, 0]) == {1}


#: What makes the strata of six calls of label a in group x, one of b in group y and one of b in group x.
BALANCED = {
    "none": ["all"] * 8,
    "labels": ["a"] * 6 + ["b", "b"],
    "groups": ["x"] * 6 + ["y", "x"],
    "both": ["ax"] * 6 + ["by", "bx"],
}


@pytest.mark.parametrize("balance", BALANCED)
def test_what_is_balanced_comes_up_equally_often(corpus, balance):
    rows = [clip_row("t0", i / 10, i / 10 + 0.1, "target", "a", group="x") for i in range(6)]
    rows.append(clip_row("t1", 1.0, 1.1, "target", "b", group="y"))
    rows.append(clip_row("t2", 1.0, 1.1, "target", "b", group="x"))
    rows.append(clip_row("t2", 3.0, 4.1, "noise", group="y"))
    rows.append(clip_row("t2", 4.5, 5.1, "unknown", "unknown", group="x"))
    rows.append(clip_row("t0", 5.0, 5.1, "target", "a", group="z", split="val"))
    clips = clip_positions(corpus[0], table("clips", rows), hop_s=FRONTEND.hop_s, targets=["a", "b"], balance=balance)
    places = [*((0, 10 * i, 0) for i in range(6)), (1, 100, 1), (2, 100, 1), (2, 300, None)]
    assert [(c.recording, c.start_frame, c.target) for c in clips] == places
    cut_plan = plan(cuts_per_epoch=84, length=1, target_share=1.0)
    found, _ = frames_drawn(Rulers(corpus[0][0], [900] * 3), clips, cut_plan)
    times = Counter((found[:, 0].astype(int) // 10).tolist())
    own = [times[(1000 * c.recording + c.start_frame) // 10] for c in clips[:8]]
    strata = BALANCED[balance]
    for stratum in set(strata):
        inside = [n for n, s in zip(own, strata, strict=True) if s == stratum]
        assert sum(inside) == 84 / len(set(strata)) and max(inside) - min(inside) <= 1
    by_default = plan(cuts_per_epoch=None, target_share=0.1)
    assert n_cuts(clips, by_default) == max(160, 10 * len(set(strata)) * max(Counter(strata).values()))


def test_an_epoch_stays_short_however_unequal_the_strata_are(corpus):
    """A call in each of 200 groups, and 100 in one: all groups come up equally often, not all calls."""
    clips = [ClipPosition(0, i, i + 1, 0, stratum=max(0, i - 99)) for i in range(300)]
    cut_plan = plan(cuts_per_epoch=None, length=1, target_share=1.0)
    assert n_cuts(clips, cut_plan) == 1200, "four for each call, not 201 times 100"
    found, _ = frames_drawn(Rulers(corpus[0][0], [1000]), clips, cut_plan)
    times = Counter(max(0, int(i) - 99) for i in found[:, 0])
    assert len(times) == 201 and max(times.values()) - min(times.values()) <= 1
    alike = [ClipPosition(0, i, i + 1, 0, stratum=i // 2) for i in range(300)]
    assert n_cuts(alike, cut_plan) == 300, "nothing is cut short where strata are equal"


def test_many_strata_are_drawn_in_no_time(corpus):
    clips = [ClipPosition(0, 1, 2, 0, stratum=i) for i in range(20_000)]
    began = time.process_time()
    next(cuts.drawn_cuts(Rulers(corpus[0][0], [1000]), clips, plan(cuts_per_epoch=4), np.random.default_rng(0)))
    assert time.process_time() - began < 3


def test_what_is_not_kept_is_read_by_several_threads_and_has_the_same_bits(corpus, monkeypatch):
    readers, real = set(), cuts.read_features

    def noted(*args):
        readers.add(threading.current_thread().name)
        return real(*args)

    def drawn():
        generator = np.random.default_rng(3)
        clips, reads = positions(corpus[0]), store(corpus[0], budget=0)
        return list(draw_batches(reads, clips, plan(), n_classes=1, onset_frames=2, generator=generator))

    monkeypatch.setattr(cuts, "read_features", noted)
    found = drawn()
    assert all(name.startswith("reader") for name in readers)
    monkeypatch.setattr(cuts, "several_at_once", lambda read, what: [read(one) for one in what])
    for a, b in zip(found, drawn(), strict=True):
        assert all(torch.equal(x, b.tensors()[name]) for name, x in a.tensors().items()) and a.sources == b.sources


def test_what_is_kept_does_not_depend_on_how_many_are_asked_for_at_once(corpus):
    room = 2 * FRONTEND.bands * 600 * 2
    together, alone = store(corpus[0], budget=room), store(corpus[0], budget=room)
    stretches = [(2, 0, 30), (0, 5, 10), (2, 590, 600), (1, 0, 600)]
    found = together.read_all(stretches)
    for x, stretch in zip(found, stretches, strict=True):
        assert torch.equal(x, alone.read(*stretch))
    assert together.kept() == alone.kept() == [2, 0]


def test_a_clip_of_a_recording_that_is_not_opened_is_left_out(corpus):
    rows = [clip_row("t0", 1.0, 1.5, "target", "hum"), clip_row("elsewhere", 1.0, 1.5, "target", "hum")]
    clips = clip_positions(corpus[0], table("clips", rows), hop_s=0.01, targets=["hum"], balance="both")
    assert [(c.recording, c.start_frame, c.end_frame) for c in clips] == [(0, 100, 150)]


# Windows


def test_all_frames_of_a_window_bear_the_label_of_its_clip(corpus):
    clips = [ClipPosition(0, 100, 150, 0), ClipPosition(0, 200, 250, 2), ClipPosition(1, 500, 550, None)]
    found, label = frames_drawn(
        Rulers(corpus[0][0], [600, 600]), clips, plan(length=40, target_share=0.7, cuts_per_epoch=40), windows=True
    )
    assert found.shape == (40, 40) and label.shape == (40, 3, 40)
    assert (label == label[:, :, :1]).all()
    of_noise = found[:, 0] >= 1000
    assert of_noise.sum() == 12 and (label[of_noise] == 0).all()
    assert (label[~of_noise].sum(axis=1) == 1).all()
    assert label[~of_noise][:, :, 0].sum(axis=0).tolist() == [14, 0, 14]


def test_a_window_bears_the_labels_of_calls_that_fill_half_of_it_as_well(corpus):
    clips = [ClipPosition(0, 100, 150, 2), ClipPosition(1, 160, 162, None)]  # both recordings call from 100 to 150
    _, label = frames_drawn(
        Rulers(corpus[0][0], [600, 600]), clips, plan(length=40, target_share=0.5, cuts_per_epoch=40), windows=True
    )
    of_call = label[label[:, 2, 0] == 1]
    assert len(of_call) == 20 and (of_call[:, 0] == 1).all()
    of_noise = label[label[:, 2, 0] == 0]
    assert set(of_noise[:, 0, 0].tolist()) == {0.0, 1.0}, "some of the windows around 160 lie half in the call"


def test_windows_that_are_mostly_of_another_side_do_not_count(corpus):
    elsewhere = dataclasses.replace(corpus[0][0], side=Spans(np.array([0.0]), np.array([2.0])))
    clips = [ClipPosition(0, 100, 150, 0), ClipPosition(0, 400, 450, None)]
    batches = draw_windows(
        store([elsewhere]), clips, plan(length=40, cuts_per_epoch=12), n_classes=1, generator=np.random.default_rng(0)
    )
    for batch in batches:
        assert (batch.valid == 1 - batch.noise.unsqueeze(1)).all()


def test_a_window_brings_what_the_network_sees_around_it(corpus):
    clips = [ClipPosition(0, 5, 20, 0), ClipPosition(1, 580, 600, None)]
    rulers, cut_plan = Rulers(corpus[0][0], [600, 600]), plan(length=10, margin=25, cuts_per_epoch=60)
    found, _ = frames_drawn(rulers, clips, cut_plan, windows=True)
    assert found.shape == (60, 60)
    for row in found:
        inner = row[25:35]
        assert (np.diff(inner) == 1).all() and (inner >= 0).all()
        recording, first = divmod(int(inner[0]), 1000)
        expected = np.arange(first - 25, first + 35)
        expected = np.where((expected < 0) | (expected >= 600), -1, expected + 1000 * recording)
        np.testing.assert_array_equal(row, expected)


def test_windows_say_which_are_noise_and_whose_they_are(corpus):
    train, _ = corpus
    options = {"n_classes": 1, "generator": np.random.default_rng(0)}
    for batch in draw_windows(store(train), positions(train), plan(length=30), **options):
        assert (batch.noise == 1 - batch.activity[:, 0, 0]).all() and (batch.valid == 1).all()
        assert set(batch.sources) <= {"t0", "t1", "t2"} and len(batch.sources) == len(batch) == 4


# What is read


def test_features_are_the_same_with_and_without_memory(corpus):
    kept, read = store(corpus[0]), store(corpus[0], budget=0)
    torch.testing.assert_close(kept.read(1, 50, 150), read.read(1, 50, 150), atol=5e-3, rtol=0)
    assert kept.kept() == [1] and read.kept() == []


def test_memory_is_given_to_those_that_are_read_first(corpus):
    some = store(corpus[0], budget=2 * FRONTEND.bands * 600 * 2)
    for index in (2, 1, 0, 2):
        some.read(index, 0, 10)
    assert some.kept() == [2, 1]
    lent = store([dataclasses.replace(corpus[0][0], clips_only=True)])
    lent.read(0, 0, 10)
    assert lent.kept() == [], "of a raw recording only clips are read"


@pytest.mark.parametrize("draw", [draw_batches, draw_windows])
def test_batches_that_were_done_are_drawn_again_but_not_read(corpus, draw):
    train, _ = corpus
    options = {"n_classes": 1} | ({"onset_frames": 2} if draw is draw_batches else {})
    drawn = []
    for skip in (0, 2):
        counted, reads = store(train, budget=0), []
        real = counted.read_all
        counted.read_all = lambda stretches, real=real, reads=reads: reads.extend(stretches) or real(stretches)
        drawn.append(
            list(draw(counted, positions(train), plan(), generator=np.random.default_rng(5), skip=skip, **options))
        )
        assert len(reads) == 4 * (3 - skip)
    assert len(drawn[1]) == 1 and torch.equal(drawn[0][2].features, drawn[1][0].features)


@pytest.mark.parametrize("budget", [10**8, 0])
def test_features_in_blocks_are_the_same_bits(corpus, monkeypatch, budget):
    train, _ = corpus
    frontend = dataclasses.replace(FRONTEND, hop_samples=16)  # 3000 frames
    monkeypatch.setattr(cuts, "_BLOCK_SAMPLES", 2**22)
    whole = FeatureStore(train, frontend, budget, CPU).read(0, 0, 3000)
    sizes, real = [], FeatureStore._compute
    monkeypatch.setattr(cuts, "_BLOCK_SAMPLES", 16 * 700)
    monkeypatch.setattr(FeatureStore, "_compute", lambda s, i, a, b: sizes.append(b - a) or real(s, i, a, b))
    assert torch.equal(FeatureStore(train, frontend, budget, CPU).read(0, 0, 3000), whole)
    assert sizes == ([512] * 5 + [440] if budget else [3000])


def test_the_parts_of_a_batch_are_the_batch(corpus):
    train, _ = corpus
    options = {"n_classes": 1, "onset_frames": 2, "generator": np.random.default_rng(0)}
    batch = next(draw_batches(store(train), positions(train), plan(), **options))
    parts = [batch.part(0, 3), batch.part(3, 6)]
    assert [len(p) for p in parts] == [3, 1] and sum((p.sources for p in parts), ()) == batch.sources
    for name, value in batch.tensors().items():
        assert torch.equal(torch.cat([p.tensors()[name] for p in parts]), value)
