"""From frame scores to selections."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from otus.config import DecodingSettings
from otus.errors import DataError
from otus.selections import NO_WINDOW, DecodingPoint, Segments, check_windows, decode, decode_all, decoding_grid, logit
from otus.smoothing import smooth

HOP_S = 0.1
NEVER = np.full(1000, -9.0)  # no onset anywhere
POINT = DecodingPoint(off_threshold=0.5, onset_threshold=0.5, gap_s=0.0, smoothing_s=0.0, min_duration_s=0.1)


def point(**changes):
    return DecodingPoint(**{**POINT.__dict__, **changes})


def frames(text):
    """Logits from a drawing: '#' is 4, '=' is 1, '.' is -4."""
    return np.array([{"#": 4.0, "=": 1.0, ".": -4.0}[character] for character in text])


def peaks_at(n, *where):
    onset = np.full(n, -6.0)
    onset[list(where)] = 5.0
    return onset


def spans(found: Segments):
    """Start and end of every segment in frames."""
    return [(round(start / HOP_S), round(end / HOP_S)) for start, end in zip(found.start_s, found.end_s, strict=True)]


def decode_drawing(text, onset=None, **changes):
    activity = frames(text)
    return decode(activity, NEVER[: len(activity)] if onset is None else onset, HOP_S, point(**changes))


def test_times_and_scores_of_a_selection():
    activity = np.array([-2.0, -1.0, 1.0, 3.0, 2.0, -1.0])
    found = decode(activity, NEVER[:6], HOP_S, POINT)
    assert found.start_s == pytest.approx([0.2])
    assert found.end_s == pytest.approx([0.5])
    assert found.score == pytest.approx([2.0])
    assert found.peak_score == pytest.approx([3.0])


def test_hysteresis_lasts_down_to_the_off_threshold_but_must_reach_the_on_threshold():
    found = decode_drawing("..==##==...==..")
    assert spans(found) == [(2, 8), (11, 13)]
    assert spans(found.above(0.9)) == [(2, 8)]
    assert spans(found.above(0.6)) == [(2, 8), (11, 13)]
    assert len(found.above(0.99)) == 0


def test_above_includes_the_threshold_itself():
    exactly = Segments(np.zeros(1), np.ones(1), np.array([0.0]), np.array([logit(0.3)]))
    assert len(exactly.above(0.3)) == 1
    assert len(exactly.above(0.3001)) == 0


def test_gap_is_closed_up_to_its_length_only():
    assert spans(decode_drawing("##..##...##", gap_s=0.2)) == [(0, 6), (9, 11)]
    assert spans(decode_drawing("##..##...##", gap_s=0.1)) == [(0, 2), (4, 6), (9, 11)]
    assert spans(decode_drawing("##..##...##", gap_s=0.3)) == [(0, 11)]


@pytest.mark.parametrize("peak", [2, 3, 4])
def test_gap_is_not_closed_over_an_onset_peak(peak):
    text = "##..##"
    assert spans(decode_drawing(text, gap_s=0.2)) == [(0, 6)]
    assert spans(decode_drawing(text, onset=peaks_at(6, peak), gap_s=0.2)) == [(0, 2), (4, 6)]
    assert spans(decode_drawing(text, onset=peaks_at(6, 0), gap_s=0.2)) == [(0, 6)], "that is the first call's own"


def test_touching_calls_are_split_at_onset_peaks():
    text = ".##########."
    assert spans(decode_drawing(text, onset=peaks_at(12, 1, 5, 8), min_duration_s=0.2)) == [(1, 5), (5, 8), (8, 11)]
    assert spans(decode_drawing(text, onset=peaks_at(12, 1, 5, 8), onset_threshold=1.0)) == [(1, 11)]
    weak = np.where(peaks_at(12, 5) > 0, logit(0.4), -6.0)
    assert spans(decode_drawing(text, onset=weak)) == [(1, 11)]
    assert spans(decode_drawing(text, onset=weak, onset_threshold=0.3)) == [(1, 5), (5, 11)]


def test_no_split_leaves_less_than_the_shortest_selection():
    text = "##########"
    for peak in (1, 2, 8, 9):
        assert spans(decode_drawing(text, onset=peaks_at(10, peak), min_duration_s=0.3)) == [(0, 10)]
    assert spans(decode_drawing(text, onset=peaks_at(10, 3, 5), min_duration_s=0.3)) == [(0, 3), (3, 10)]
    assert spans(decode_drawing(text, onset=peaks_at(10, 3, 7), min_duration_s=0.3)) == [(0, 3), (3, 7), (7, 10)]


def test_splitting_loses_nothing_when_the_shortest_selection_is_no_whole_number_of_frames():
    # 0.34 s are more than three frames: a part of three frames would be dropped, and a piece of the call with it.
    assert spans(decode_drawing("##########", onset=peaks_at(10, 3), min_duration_s=0.34)) == [(0, 10)]
    assert spans(decode_drawing("##########", onset=peaks_at(10, 4), min_duration_s=0.34)) == [(0, 4), (4, 10)]


def test_level_stretch_of_the_onset_score_is_one_peak_only_if_it_falls_on_both_sides():
    rising, top = peaks_at(12, 3, 4, 5), peaks_at(12, 3, 4)
    rising[5] = 6.0
    assert spans(decode_drawing("############", onset=rising)) == [(0, 5), (5, 12)]
    assert spans(decode_drawing("############", onset=top)) == [(0, 3), (3, 12)]


def test_minimum_duration_is_inclusive():
    assert spans(decode_drawing(".##.###.####", min_duration_s=0.3)) == [(4, 7), (8, 12)]
    assert spans(decode_drawing(".##.###.####", min_duration_s=0.31)) == [(8, 12)]


def test_short_pieces_count_together_once_their_gap_is_closed():
    assert spans(decode_drawing(".##.##..", gap_s=0.1, min_duration_s=0.5)) == [(1, 6)]


@pytest.mark.parametrize(("text", "expected"), [("", []), ("......", []), ("######", [(0, 6)]), ("#", [(0, 1)])])
def test_nothing_active_and_everything_active(text, expected):
    found = decode_drawing(text)
    assert spans(found) == expected
    assert {len(getattr(found, name)) for name in ("start_s", "end_s", "score", "peak_score")} == {len(expected)}


def test_off_threshold_zero_takes_everything_and_one_nothing():
    assert spans(decode_drawing("..##..", off_threshold=0.0)) == [(0, 6)]
    assert spans(decode_drawing("..##..", off_threshold=1.0)) == []


def test_smoothing_bridges_a_dropout_but_scores_are_means_of_the_raw_logits():
    found = decode_drawing("..###.###..", smoothing_s=0.3)
    assert spans(found) == [(2, 9)]
    assert found.score == pytest.approx([(6 * 4 - 4) / 7])
    assert found.peak_score == pytest.approx([4.0])


def test_smooth_is_a_centred_mean_that_shrinks_at_the_edges():
    scores = np.array([0.0, 3.0, 6.0, 9.0, 0.0])
    np.testing.assert_allclose(smooth(scores, 3), [1.5, 3.0, 6.0, 5.0, 4.5])
    np.testing.assert_allclose(smooth(scores, 2), smooth(scores, 3))
    np.testing.assert_array_equal(smooth(scores, 1), scores)
    np.testing.assert_allclose(smooth(scores, 99), np.full(5, scores.mean()))
    assert len(smooth(np.zeros(0), 5)) == 0


def test_logit():
    assert logit(0.0) == -math.inf
    assert logit(1.0) == math.inf
    assert logit(0.5) == 0.0
    assert logit(0.9) == pytest.approx(math.log(9))


def test_grid_scales_with_the_calls_and_names_its_points():
    settings = DecodingSettings(
        off_thresholds=[0.1, 0.4], onset_thresholds=[0.3, 1.0], gaps=[0.0, 0.5], smoothing=0.1, min_duration=0.5
    )
    grid = decoding_grid(settings, median_call_s=0.6, short_call_s=0.2)
    assert len(grid) == 8
    assert {p.gap_s for p in grid} == {0.0, 0.3}
    assert [p.smoothing_s for p in grid] == pytest.approx([0.06] * 8)
    assert [p.min_duration_s for p in grid] == pytest.approx([0.1] * 8)
    assert len({p.name() for p in grid}) == 8
    assert grid[0].name() == "off0.1_ons0.3_gap0_smo0.06_min0.1"


# smoothing


def test_median_and_ema_bridge_dropouts_that_a_threshold_would_not():
    text = "..####.####.."
    assert spans(decode_drawing(text)) == [(2, 6), (7, 11)]
    for by, width_s in (("median", 0.3), ("ema", 0.9)):
        found = decode_drawing(text, smoothing_s=width_s, smoothing_by=by)
        assert spans(found) == [(2, 11)]
        assert found.score == pytest.approx([(8 * 4 - 4) / 9]), "still the mean of the raw logits"


def test_median_keeps_edges_and_removes_single_frames():
    scores = np.array([0.0, 0.0, 5.0, 0.0, 0.0, 3.0, 3.0, 3.0])
    np.testing.assert_array_equal(smooth(scores, 3, "median"), [0, 0, 0, 0, 0, 3, 3, 3])
    np.testing.assert_array_equal(smooth(scores, 2, "median"), smooth(scores, 3, "median"))
    np.testing.assert_array_equal(smooth(scores, 1, "median"), scores)
    assert smooth(np.array([2.0]), 99, "median") == [2.0]


def ema_by_hand(scores, width):
    """Weights r**k to both sides, of what is there."""
    variance = (width**2 - 1) / 12
    ratio = (variance + 1 - math.sqrt(2 * variance + 1)) / variance
    weights = ratio ** np.abs(np.subtract.outer(np.arange(len(scores)), np.arange(len(scores))))
    return weights @ scores / weights.sum(axis=1)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(-9, 9)), st.sampled_from([3, 5, 11, 31]))
def test_ema_weighs_both_sides_alike(scores, width):
    found = smooth(scores, width, "ema")
    np.testing.assert_allclose(found, ema_by_hand(scores, width), atol=1e-9)
    np.testing.assert_allclose(found[::-1], smooth(scores[::-1], width, "ema"), atol=1e-9)


@pytest.mark.parametrize("width", [3, 9, 41])
def test_weights_of_the_ema_are_spread_as_those_of_the_mean(width):
    impulse = np.zeros(4001)
    impulse[2000] = 1.0
    away = np.arange(-2000, 2001)
    for by in ("mean", "ema"):
        weights = smooth(impulse, width, by)
        assert weights.sum() == pytest.approx(1.0)
        assert (weights * away).sum() == pytest.approx(0.0, abs=1e-9), "no lag"
        assert (weights * away**2).sum() == pytest.approx((width**2 - 1) / 12)


# windows


def mean_windows_by_hand(activity, window, hop, threshold):
    """Union of windows, each scored with the mean of its frames."""
    n = len(activity)
    starts = [i for i in range(0, n, hop) if i + window <= n] or [0]
    windows = [(i, min(i + window, n), float(np.mean(activity[i : i + window]))) for i in starts]
    found = []
    for start, end, x in windows:
        if x >= logit(threshold):
            if found and start <= found[-1][1]:
                found[-1][1] = end
            else:
                found.append([start, end])
    limit = logit(1 - 1e-6)
    scores, peaks = [], []
    for start, end in found:
        over = [(min(b, end) - max(a, start), x) for a, b, x in windows if min(b, end) > max(a, start)]
        scores.append(sum(w * np.clip(x, -limit, limit) for w, x in over) / sum(w for w, _ in over))
        peaks.append(max(x for _, x in over))
    return [tuple(one) for one in found], scores, peaks


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, st.integers(1, 60), elements=st.floats(-12, 12, width=32)),
    st.integers(2, 12),
    st.integers(1, 12),
    st.floats(0.05, 0.95),
)
def test_union_of_windows_of_frames_is_what_one_counts_by_hand(activity, window, hop, threshold):
    hop = min(hop, window)
    chosen = point(
        off_threshold=threshold, merge="union", min_duration_s=0.0, window_s=window * HOP_S, hop_s=hop * HOP_S
    )
    found = decode(activity, np.full(len(activity), -9.0), HOP_S, chosen)
    where, scores, peaks = mean_windows_by_hand(activity, window, hop, threshold)
    assert spans(found) == where
    np.testing.assert_allclose(found.score, scores, atol=1e-9)
    np.testing.assert_allclose(found.peak_score, peaks, atol=1e-9)


def test_a_windows_score_stands_for_the_hop_around_its_middle():
    # Windows of 4 frames every 2: the mean of frames 4 to 7 is 4, of 2 to 5 and 6 to 9 it is 0, of others -4.
    text = "....####...."
    windows = {"window_s": 0.4, "hop_s": 0.2}
    assert spans(decode_drawing(text, off_threshold=0.9, **windows)) == [(5, 7)]
    found = decode_drawing(text, off_threshold=0.4, **windows)
    assert spans(found) == [(3, 9)]
    assert found.score == pytest.approx([(4 * 4 - 2 * 4) / 6]) and found.peak_score == pytest.approx([4.0])
    assert spans(decode_drawing(text, off_threshold=0.9, merge="threshold", **windows)) == [(5, 7)]


def test_the_first_and_the_last_window_stand_for_the_edges_too():
    windows = {"window_s": 0.4, "hop_s": 0.2}
    assert spans(decode_drawing("####....", **windows)) == [(0, 5)]
    assert spans(decode_drawing("....####", **windows)) == [(3, 8)]
    assert spans(decode_drawing("###", **windows)) == [(0, 3)], "shorter than a window"
    assert spans(decode_drawing("#", **windows)) == [(0, 1)]
    assert spans(decode_drawing("", **windows)) == []


def test_a_window_at_every_frame_is_a_moving_average():
    activity = np.random.default_rng(0).normal(0, 3, 200)
    window = decode(activity, NEVER[:200], HOP_S, point(window_s=0.5, min_duration_s=0.0))
    mean = decode(activity, NEVER[:200], HOP_S, point(smoothing_s=0.5, min_duration_s=0.0))
    inside = [s for s in spans(mean) if s[0] > 2 and s[1] < 198]  # the average shrinks at the edges
    assert inside and set(inside) <= set(spans(window))
    assert decode(activity, NEVER[:200], HOP_S, point(window_s=HOP_S)).start_s.tolist() == (
        decode(activity, NEVER[:200], HOP_S, point()).start_s.tolist()
    ), "a window of one frame is the frame"


def test_onsets_split_and_gaps_are_closed_in_frames_whatever_the_windows():
    onset = peaks_at(24, 11)
    windows = {"window_s": 0.4, "hop_s": 0.2, "min_duration_s": 0.2}
    text = "....################...."
    whole = spans(decode_drawing(text, onset_threshold=1.0, **windows))
    assert len(whole) == 1
    assert spans(decode_drawing(text, onset=onset, **windows)) == [(whole[0][0], 11), (11, whole[0][1])]


def test_windows_of_a_network_that_scores_windows_are_thinned_to_the_hop():
    # Every frame f stands for the window [f - 2, f + 2); every second window begins at an even frame.
    windows = {"merge": "union", "window_frames": 4, "window_s": 0.4, "hop_s": 0.2}
    assert spans(decode_drawing("....#.......", **windows)) == [(2, 6)]
    assert spans(decode_drawing(".....#......", **windows)) == [], "no window has its middle in frame 5"
    found = decode_drawing("....#.......", **windows)
    # Windows [0, 4), [2, 6) and [4, 8) overlap it by 2, 4 and 2 frames.
    assert found.score == pytest.approx([(4 * 4 - 4 * 4) / 8]) and found.peak_score == pytest.approx([4.0])


def test_too_long_is_dropped_and_exactly_as_long_stays():
    text = ".##.###.####"
    assert spans(decode_drawing(text, max_duration_s=0.3)) == [(1, 3), (4, 7)]
    assert spans(decode_drawing(text, max_duration_s=0.29, min_duration_s=0.25)) == []


@pytest.mark.parametrize("merge", ["hysteresis", "threshold", "union"])
@pytest.mark.parametrize("by", ["mean", "median", "ema"])
def test_frames_of_minus_infinity_are_silence(merge, by):
    silence = np.full(50, -np.inf, dtype=np.float32)
    chosen = point(merge=merge, smoothing_by=by, smoothing_s=0.3, window_s=0.4)
    assert len(decode(silence, silence, HOP_S, chosen)) == 0
    silence[20:30] = 5.0
    found = decode(silence, np.full(50, -np.inf), HOP_S, point(merge=merge))
    assert spans(found) == [(20, 30)] and found.peak_score == pytest.approx([5.0])


def some_grid():
    settings = DecodingSettings(
        merge=["hysteresis", "threshold", "union"],
        windows_s=[None, 0.3],
        hops_s=[None, 0.2],
        smoothing=[0.0, 0.5],
        smoothing_by=["mean", "median", "ema"],
        min_duration=[0.0, 0.5],
        max_duration=[None, 3.0],
    )
    return settings, decoding_grid(settings, median_call_s=0.6, short_call_s=0.2)


def test_a_grid_is_decoded_as_its_points_are_one_by_one():
    random = np.random.default_rng(3)
    activity, onset = random.normal(-0.5, 2, 300), random.normal(-1, 2, 300)
    _, grid = some_grid()
    for chosen, found in zip(grid, decode_all(activity, onset, HOP_S, grid), strict=True):
        alone = decode(activity, onset, HOP_S, chosen)
        for name in ("start_s", "end_s", "score", "peak_score"):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))


def test_every_point_of_a_grid_has_names_of_its_own_and_comes_back_in_the_units_of_the_config():
    settings, grid = some_grid()
    # ways x (as it is, and the window with two hops) x off x onset x gaps x (none, and three of a width) x min x max
    assert len(grid) == 3 * 3 * 3 * 2 * 2 * 4 * 2 * 2
    assert len({p.name() for p in grid}) == len({p.name_in_calls() for p in grid}) == len(grid)
    assert [p.in_calls() for p in grid] == settings.combinations()
    other = decoding_grid(settings, median_call_s=0.71, short_call_s=0.33)
    assert [p.name_in_calls() for p in other] == [p.name_in_calls() for p in grid], "the same for every fold"
    assert grid[0].name_in_calls() == "off0.3_ons1_gap0_smo0_min0"
    assert point(window_s=0.4, hop_s=0.05, smoothing_by="ema", max_duration_s=2.0).name() == (
        "off0.5_ons0.5_gap0_ema0_min0.1_max2_window0.4_hop0.05"
    )


@pytest.mark.parametrize(
    ("values", "window_frames", "message"),
    [
        ({"windows_s": 0.05}, 1, "windows_s: 0.05 s is less than a frame of this network"),
        ({"windows_s": 0.4, "hops_s": 0.05}, 1, "hops_s: 0.05 s is less than a frame of this network"),
        ({"windows_s": 0.4}, 4, "windows_s: this network scores windows already; set it to null for hysteresis"),
        ({"windows_s": 0.8, "merge": "union"}, 4, r"this network scores windows of 0.4 s, not of 0.8 s"),
        ({"windows_s": [None, 0.4], "hops_s": 0.1, "merge": "union"}, 4, None),
        ({"windows_s": [0.1, 0.4], "hops_s": [None, 0.1]}, 1, None),
        ({}, 40, None),
    ],
)
def test_windows_that_cannot_be_made_are_refused(values, window_frames, message):
    settings = DecodingSettings(**values)
    if message is None:
        check_windows(settings, HOP_S, window_frames)
        return
    with pytest.raises(DataError, match=message):
        check_windows(settings, HOP_S, window_frames)


def test_the_alpaca_preset_stands_behind_what_is_given():
    alpaca = DecodingSettings(preset="alpaca")
    grid = decoding_grid(alpaca, median_call_s=0.6, short_call_s=0.2)
    assert [p.off_threshold for p in grid] == [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    for chosen in grid:
        assert (chosen.merge, chosen.window_s, chosen.hop_s, chosen.onset_threshold) == ("union", 0.4, 0.05, 1.0)
        assert (chosen.gap_s, chosen.smoothing_s, chosen.min_duration_s, chosen.max_duration_s) == (0, 0, 0, None)
    given_beside = DecodingSettings(preset="alpaca", windows_s=0.5, off_thresholds=[0.7])
    assert given_beside.windows_s == [0.5] and given_beside.hops_s == [0.05] and given_beside.off_thresholds == [0.7]
    for one in (alpaca, given_beside, DecodingSettings()):
        assert DecodingSettings.model_validate(one.model_dump(mode="json")) == one, "as rules hand it to jobs"


def test_single_values_stand_for_lists_and_combinations_are_not_repeated():
    settings = DecodingSettings(merge="union", smoothing=0.0, min_duration=0.0, gaps=0, off_thresholds=0.5)
    assert settings.merge == ["union"] and settings.smoothing == [0.0] and len(settings.combinations()) == 2
    twice = DecodingSettings(off_thresholds=[0.5, 0.5], onset_thresholds=1, gaps=[0, 0.0])
    assert len(twice.combinations()) == 1
    hop = DecodingSettings(windows_s=[None, 0.4], hops_s=[0.05, 0.1]).combinations()
    assert {(one.window_s, one.hop_s) for one in hop} == {(None, None), (0.4, 0.05), (0.4, 0.1)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hops_s": 0.05}, "there is none; give windows_s as well"),
        ({"windows_s": [0.4, 0.1], "hops_s": [0.05, 0.2]}, "0.2 is longer than the window 0.1"),
        ({"smoothing": 0.0, "smoothing_by": "ema"}, "smoothing_by tells how, but smoothing is 0"),
        ({"preset": "beaver"}, "alpaca"),
        ({"windows_s": []}, "windows_s"),
        ({"max_duration": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DecodingSettings(**values)


# one threshold: runs and unions of windows


def test_one_threshold_means_that_everything_found_is_selected():
    for merge in ("threshold", "union"):
        found = decode_drawing("..==##==...==..", off_threshold=0.9, merge=merge)
        assert spans(found) == [(4, 6)], "the flanks stay outside"
        assert len(found.above(0.9)) == 1
        assert point(merge=merge).has_one_threshold
    assert not POINT.has_one_threshold


def test_union_paints_whole_windows_and_joins_those_that_touch_or_overlap():
    windows = {"merge": "union", "window_frames": 4}  # frame f stands for [f - 2, f + 2)
    assert spans(decode_drawing("....#.......", **windows)) == [(2, 6)]
    assert spans(decode_drawing("....#...#...", **windows)) == [(2, 10)], "they touch"
    assert spans(decode_drawing("....##......", **windows)) == [(2, 7)], "they overlap"
    assert spans(decode_drawing("....#....#..", **windows)) == [(2, 6), (7, 11)], "a frame lies between"
    assert spans(decode_drawing("....#....#..", gap_s=0.1, **windows)) == [(2, 11)]
    odd = {"merge": "union", "window_frames": 3}
    assert spans(decode_drawing("....#.......", **odd)) == [(3, 6)]
    assert spans(decode_drawing("#..........#", **odd)) == [(0, 2), (10, 12)], "no selection leaves the recording"


def test_gap_onset_and_shortest_duration_apply_to_unions_as_well():
    windows = {"merge": "union", "window_frames": 4}
    text = "....#...#..."
    onset = peaks_at(12, 6)
    assert spans(decode_drawing(text, onset=onset, min_duration_s=0.2, **windows)) == [(2, 6), (6, 10)]
    assert spans(decode_drawing(text, onset=onset, min_duration_s=0.2, onset_threshold=1.0, **windows)) == [(2, 10)]
    assert spans(decode_drawing(text, min_duration_s=0.9, **windows)) == []


def test_score_of_a_union_is_the_mean_over_all_windows_that_overlap_it():
    # The window of frame 4 is [2, 6). Those of frames 1 to 7 overlap it, by 1, 2, 3, 4, 3, 2 and 1 frames.
    found = decode_drawing("....#.......", merge="union", window_frames=4)
    assert found.score == pytest.approx([(4 * 4 - 4 * 12) / 16])
    assert found.peak_score == pytest.approx([4.0])


def test_logits_of_sure_windows_are_clamped_in_the_mean_but_not_in_the_peak():
    activity = np.array([-20.0, 40.0, -20.0])
    found = decode(activity, NEVER[:3], HOP_S, point(merge="union", window_frames=1))
    assert found.score == pytest.approx([logit(1 - 1e-6)])
    assert found.peak_score == pytest.approx([40.0])


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_frames_without_a_window_are_never_selected_and_have_no_share_in_the_score(threshold):
    activity = np.array([NO_WINDOW, NO_WINDOW, 4.0, 4.0, 2.0, NO_WINDOW])
    found = decode(activity, NEVER[:6], HOP_S, point(merge="union", window_frames=4, off_threshold=threshold))
    assert spans(found) == [(0, 6)], "three windows: [0, 4), [1, 5) and [2, 6)"
    assert found.score == pytest.approx([10 / 3])
    none = decode(np.full(6, NO_WINDOW), NEVER[:6], HOP_S, point(merge="union", off_threshold=threshold))
    assert len(none) == 0


def union_by_hand(activity, window, threshold):
    """What section 4 of the old pipeline's description says, window by window."""
    windows = [(f - window // 2, f - window // 2 + window, x) for f, x in enumerate(activity) if x > NO_WINDOW]
    windows = [(max(a, 0), min(b, len(activity)), x) for a, b, x in windows]
    found = []
    for start, end, x in windows:
        if x >= logit(threshold):
            if found and start <= found[-1][1]:
                found[-1][1] = max(end, found[-1][1])
            else:
                found.append([start, end])
    scores, peaks = [], []
    for start, end in found:
        over = [(min(b, end) - max(a, start), x) for a, b, x in windows if min(b, end) > max(a, start)]
        clamped = [(w, min(max(x, logit(1e-6)), logit(1 - 1e-6))) for w, x in over]
        scores.append(sum(w * x for w, x in clamped) / sum(w for w, _ in clamped))
        peaks.append(max(x for _, x in over))
    return [tuple(one) for one in found], scores, peaks


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, st.integers(0, 40), elements=st.floats(-40, 40, width=32) | st.just(NO_WINDOW)),
    st.integers(1, 12),
    st.floats(0.01, 0.99),
)
def test_union_is_that_of_the_old_pipeline(activity, window, threshold):
    chosen = point(off_threshold=threshold, merge="union", window_frames=window, min_duration_s=0.0)
    found = decode(activity, np.full(len(activity), -9.0), HOP_S, chosen)
    where, scores, peaks = union_by_hand(activity, window, threshold)
    assert spans(found) == where
    np.testing.assert_allclose(found.score, scores, atol=1e-9)
    np.testing.assert_array_equal(found.peak_score, peaks)
    assert len(found.above(threshold)) == len(found), "what is found is selected"


def test_names_tell_the_three_ways_apart_and_grids_know_the_window():
    ways = ("hysteresis", "threshold", "union")
    settings = [DecodingSettings(merge=merge, off_thresholds=[0.5, 0.2]) for merge in ways]
    grids = [decoding_grid(s, median_call_s=0.6, short_call_s=0.2, window_frames=40) for s in settings]
    names = [p.name() for grid in grids for p in grid]
    assert len(set(names)) == len(names) == 3 * 8
    assert grids[0][0].name() == "off0.5_ons1_gap0_smo0.06_min0.1", "the name that results have always had"
    assert grids[1][0].name() == "thr0.5_ons1_gap0_smo0.06_min0.1"
    assert grids[2][0].name() == "uni0.5_ons1_gap0_smo0.06_min0.1_win40"
    assert [p.off_threshold for p in grids[2]] == [0.5] * 4 + [0.2] * 4
    assert {p.window_frames for grid in grids[:2] for p in grid} == {1}


@st.composite
def cases(draw):
    n = draw(st.integers(0, 60))
    values = st.floats(-8, 8, width=32)
    activity = draw(arrays(np.float32, n, elements=values))
    onset = draw(arrays(np.float32, n, elements=values))
    probability = st.floats(0.05, 0.95)
    chosen = DecodingPoint(
        off_threshold=draw(probability),
        onset_threshold=draw(st.one_of(probability, st.just(1.0))),
        gap_s=draw(st.floats(0, 0.8)),
        smoothing_s=draw(st.floats(0, 0.6)),
        min_duration_s=draw(st.floats(0, 0.7)),
    )
    return activity, onset, chosen


@settings(max_examples=50, deadline=None)
@given(cases())
def test_selections_are_ordered_disjoint_inside_and_long_enough(case):
    activity, onset, chosen = case
    found = decode(activity, onset, HOP_S, chosen)
    assert (found.start_s >= 0).all()
    assert (found.end_s <= len(activity) * HOP_S + 1e-9).all()
    assert (found.end_s[:-1] <= found.start_s[1:] + 1e-9).all()
    assert (found.end_s - found.start_s >= max(chosen.min_duration_s, HOP_S) - 1e-6).all()
    assert (found.peak_score >= logit(chosen.off_threshold) - 1e-9).all()
    assert np.isfinite(found.score).all()


@settings(max_examples=50, deadline=None)
@given(cases(), st.floats(0.01, 0.99))
def test_decoding_is_deterministic_and_does_not_depend_on_the_on_threshold(case, threshold):
    activity, onset, chosen = case
    found, again = (decode(activity, onset, HOP_S, chosen) for _ in range(2))
    for name in ("start_s", "end_s", "score", "peak_score"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    kept = found.above(threshold)
    expected = [s for s, peak in zip(spans(found), found.peak_score, strict=True) if peak >= logit(threshold)]
    assert spans(kept) == expected
    assert len(found.above(0.0)) == len(found)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_splitting_at_onsets_covers_the_same_frames(case):
    activity, onset, chosen = case
    without_gaps = DecodingPoint(**{**chosen.__dict__, "gap_s": 0.0})
    whole = decode(activity, onset, HOP_S, DecodingPoint(**{**without_gaps.__dict__, "onset_threshold": 1.0}))
    split = decode(activity, onset, HOP_S, without_gaps)
    covered = [{i for start, end in spans(found) for i in range(start, end)} for found in (whole, split)]
    assert covered[0] == covered[1]
    assert len(split) >= len(whole)
