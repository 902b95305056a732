import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.columns import SCHEMAS
from otus.score_shapes import score_shapes
from otus.selections import NO_WINDOW, DecodingPoint, Segments, decode

FRAME_S = 0.1


def segments(*pairs, frame_s=FRAME_S):
    starts, ends = (
        np.array(values, dtype=float) * frame_s for values in ([a for a, _ in pairs], [b for _, b in pairs])
    )
    return Segments(starts, ends, np.zeros(len(pairs)), np.zeros(len(pairs)))


def shapes(activity, *pairs, onset=None, frame_s=FRAME_S):
    onset = np.full(len(activity), -5.0) if onset is None else np.asarray(onset, dtype=float)
    return score_shapes(np.asarray(activity, dtype=float), onset, frame_s, segments(*pairs, frame_s=frame_s))


def one(activity, first, stop, **more):
    return {name: float(values[0]) for name, values in shapes(activity, (first, stop), **more).items()}


def test_columns_are_those_of_the_table():
    assert ["selection_id", *shapes([1.0, 2.0], (0, 2))] == list(SCHEMAS["score_shapes"])


def test_a_peak_has_the_known_answers():
    found = one([-4, -2, 1, 3, 5, 1, -1, -3, -6, -6], 2, 6, onset=[9, 0, 1, 4, 2, 0, 8, 0, 0, 0])
    assert found == pytest.approx(
        {
            "peak_position": 2.5 / 4,
            "mean_logit": 2.5,
            "std_logit": np.std([1, 3, 5, 1]),
            "rise_per_s": 4 / 0.2,
            "fall_per_s": 4 / 0.1,
            "before_logit": -3.0,  # two frames of four are there
            "after_logit": -4.0,
            "contrast_logit": 2.5 + 3.5,
            "share_above_half": 1.0,
            "onset_logit": 4.0,
        }
    )


def test_the_neighbourhood_is_at_most_a_second_long():
    activity = np.concatenate([np.full(10, -9.0), np.full(10, -1.0), np.full(30, 2.0), np.full(10, -2.0), [-9.0]])
    found = one(activity, 20, 50)
    assert (found["before_logit"], found["after_logit"]) == (-1.0, -2.0)
    assert found["contrast_logit"] == pytest.approx(3.5)


def test_edges_of_the_recording_are_null():
    whole = one([1, 2, 1], 0, 3)
    assert np.isnan([whole["before_logit"], whole["after_logit"], whole["contrast_logit"]]).all()
    left = one([1, 2, -3], 0, 2)
    assert np.isnan(left["before_logit"])
    assert left["contrast_logit"] == pytest.approx(1.5 + 3)


def test_one_frame_and_a_peak_on_the_edge_have_no_slope():
    found = one([-1, 2, -1], 1, 2)
    assert found["peak_position"] == 0.5
    assert found["std_logit"] == 0
    assert np.isnan([found["rise_per_s"], found["fall_per_s"]]).all()
    falling = one([3, 2, 1], 0, 3)
    assert np.isnan(falling["rise_per_s"])
    assert falling["fall_per_s"] == pytest.approx(2 / 0.2)


def test_first_of_equal_peaks_and_half_itself_is_not_above():
    found = one([0, 4, 4, 0], 0, 4)
    assert found["peak_position"] == pytest.approx(1.5 / 4)
    assert found["share_above_half"] == 0.5


def test_frames_without_a_window_are_not_looked_at():
    found = one([NO_WINDOW, NO_WINDOW, 2, 4, np.nan, -np.inf], 1, 5)
    assert found["mean_logit"] == 3
    assert found["share_above_half"] == 1
    assert np.isnan([found["before_logit"], found["after_logit"], found["rise_per_s"], found["fall_per_s"]]).all()


def test_nothing_scored_is_all_null():
    found = one(np.full(4, -np.inf), 1, 3, onset=np.full(4, -np.inf))
    assert np.isnan(list(found.values())).all()


def test_no_segments_and_no_frames():
    for activity in ([1.0, 2.0], []):
        assert all(len(values) == 0 for values in shapes(activity).values())
    beyond = shapes([], (0, 3))
    assert all(np.isnan(values).all() and len(values) == 1 for values in beyond.values())


def test_ends_beyond_the_scores_are_cut():
    assert one([1, 2, 3], 1, 9)["mean_logit"] == 2.5
    assert one([1, 2, 3], 7, 9)["mean_logit"] == 3


@given(st.integers(0, 2**32 - 1))
def test_agrees_with_the_plain_loop(seed):
    random = np.random.default_rng(seed)
    frame_s = float(random.choice([0.01, 0.03, 0.4, 2.0]))
    activity = np.round(random.normal(0, 2, random.integers(1, 200)), 1)
    activity[random.random(len(activity)) < 0.05] = NO_WINDOW
    onset = random.normal(size=len(activity))
    pairs = [tuple(sorted(random.choice(len(activity) + 1, 2, replace=False))) for _ in range(5)]
    found = shapes(activity, *pairs, onset=onset, frame_s=frame_s)
    for row, (first, stop) in enumerate(pairs):
        inside = activity[first:stop]
        inside = inside[inside > NO_WINDOW]
        reach = min(stop - first, max(1, round(1 / frame_s)))
        sides = [activity[max(0, first - reach) : first], activity[stop : stop + reach]]
        sides = [side[side > NO_WINDOW].mean() for side in sides if (side > NO_WINDOW).any()]
        expected = {"onset_logit": onset[first:stop].max()}
        if len(inside):
            expected |= {
                "mean_logit": inside.mean(),
                "std_logit": inside.std(),
                "share_above_half": np.mean(inside > 0),
            }
            expected |= {"peak_position": (list(activity[first:stop]).index(inside.max()) + 0.5) / (stop - first)}
            expected |= {"contrast_logit": inside.mean() - np.mean(sides) if sides else np.nan}
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][row], value, atol=1e-9, err_msg=name)
        assert not any(np.isinf(values[row]) for values in found.values())


def test_shapes_of_what_was_decoded_agree_with_its_scores():
    random = np.random.default_rng(0)
    activity = np.repeat(random.normal(0, 3, 400), 5)
    found = decode(activity, np.full(2000, -9.0), 0.02, DecodingPoint(0.3, 1.0, 0.1, 0.0, 0.05))
    shape = score_shapes(activity, np.full(2000, -9.0), 0.02, found)
    assert len(found) > 30
    np.testing.assert_allclose(shape["mean_logit"], found.score, atol=1e-9)
    assert (shape["peak_position"] > 0).all()
    assert (shape["peak_position"] < 1).all()


def test_a_hundred_thousand_segments_take_less_than_a_second():
    activity = np.random.default_rng(0).normal(size=1_000_000)
    starts = np.arange(100_000) * 10.0
    many = Segments(starts * 0.02, (starts + 7) * 0.02, starts, starts)
    began = time.process_time()
    found = score_shapes(activity, activity, 0.02, many)
    assert time.process_time() - began < 1.0
    assert len(found["mean_logit"]) == 100_000
