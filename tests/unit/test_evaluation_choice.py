"""The choice of decoding and threshold on validation recordings: by F1, under a budget of false alarms, by cost."""

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluation_scenes import GRID, HOP_S, N_FRAMES, bumps, one_threshold, recording, validation_hits

from otus.config import ChoiceSettings
from otus.errors import StageError
from otus.evaluation import operating
from otus.evaluation.operating import ScoredRecording, judge_recording
from otus.matching import Intervals
from otus.selections import DecodingPoint, logit
from otus.sides import Spans


def choose_operating_point(recordings, iou):
    """The choice by F1 on recordings that are judged first."""
    judged = [judge_recording(one, iou) for one in recordings]
    return operating.choose_operating_point(judged, choice=ChoiceSettings())


# by F1


def test_threshold_is_the_middle_of_the_plateau():
    # F1 is best for every threshold in (1, 4]: the calls peak at 4 and above, the false alarms at 1 and below.
    chosen = choose_operating_point([recording([5, 4, 1, 0.5], [1, 1, 0, 0])], iou=0.4)
    assert chosen.val_f1 == 1.0
    assert chosen.val_average_precision == 1.0
    assert logit(chosen.threshold) == pytest.approx(2.5)
    assert chosen.n_calls == 2


def test_plateau_holds_thresholds_that_do_as_well_and_ends_where_f1_falls():
    # 60 calls at 4; one more at 3 and one false alarm at 2 change F1 by less than 0.01; then five false alarms at 0.
    heights = [4.0] * 60 + [3.0, 2.0] + [0.0] * 5
    chosen = choose_operating_point([recording(heights, [1] * 61 + [0] * 6)], iou=0.4)
    assert chosen.val_f1 == 1.0
    assert logit(chosen.threshold) == pytest.approx((4.0 + 0.0) / 2)


def test_without_false_alarms_the_plateau_reaches_down_to_the_off_threshold():
    chosen = choose_operating_point([recording([5, 4], [1, 1])], iou=0.4)
    assert logit(chosen.threshold) == pytest.approx((4 + logit(0.3)) / 2)


def test_recordings_are_pooled():
    good, bad = recording([5, 4], [1, 1]), recording([3, 3, 3], [0, 0, 0])
    chosen = choose_operating_point([good, bad], iou=0.4)
    assert logit(chosen.threshold) == pytest.approx(3.5)
    assert chosen.n_calls == 2


def test_better_decoding_wins_and_draws_go_to_the_first():
    # A call with soft flanks: with off-threshold 0.3 (-0.85) the selection is three times too long.
    activity = bumps([50, 60, 70], [10, 10, 10], [0.5, 4.0, 0.5])
    call = Intervals(np.array([6.0]), np.array([7.0]))
    soft = ScoredRecording(activity, np.full(N_FRAMES, -9.0), HOP_S, [*GRID, GRID[0]], call, 30.0)
    assert choose_operating_point([soft], iou=0.4).val_f1 == 0.0
    sharp = replace(
        soft, grid=[GRID[0], DecodingPoint(0.8, 1.0, 0.0, 0.0, 0.2), DecodingPoint(0.8, 1.0, 0.0, 0.0, 0.1)]
    )
    chosen = choose_operating_point([sharp], iou=0.4)
    assert (chosen.decoding, chosen.val_f1) == (1, 1.0)


def test_nothing_detected():
    silent = ScoredRecording(np.full(50, -9.0), np.full(50, -9.0), HOP_S, GRID, Intervals(np.zeros(1), np.ones(1)), 5.0)
    chosen = choose_operating_point([silent], iou=0.4)
    assert (chosen.decoding, chosen.threshold, chosen.val_f1, chosen.n_calls) == (0, 0.5, 0.0, 1)


def test_no_calls_to_choose_by():
    chosen = choose_operating_point([recording([5, 4, 1], [0, 0, 0])], iou=0.4)
    assert (chosen.decoding, chosen.threshold, chosen.val_f1, chosen.n_calls) == (0, 0.5, 0.0, 0)
    assert math.isfinite(chosen.val_average_precision), "JSON has no NaN"


def test_only_misses_still_give_a_finite_threshold():
    chosen = choose_operating_point([recording([5, 4], [1, 0], off_by=12)], iou=0.4)
    assert chosen.val_f1 == 0.0
    assert 0 < chosen.threshold < 1


def test_what_is_unknown_or_on_another_side_does_not_count_in_the_choice():
    one = recording([5, 4.5, 4, 3.5], [0, 1, 1, 0])
    assert choose_operating_point([one], iou=0.4).val_average_precision < 0.8
    loud, last = np.array([0.5]), np.array([6.5])  # the two that are no calls
    unknown = replace(one, unknown=Spans(np.append(loud, last), np.append(loud, last) + 1.0))
    elsewhere = replace(one, side=Spans(np.array([2.0]), np.array([6.0])))
    for without in (unknown, elsewhere):
        chosen = choose_operating_point([without], iou=0.4)
        assert (chosen.val_f1, chosen.val_average_precision) == (1.0, 1.0)
        assert logit(chosen.threshold) == pytest.approx((4 + logit(0.3)) / 2), "as if nothing else had been found"


def test_huge_logits_are_still_selected():
    huge = recording([90, 85, 80], [1, 1, 0])
    chosen = choose_operating_point([huge], iou=0.4)
    assert chosen.threshold < 1
    assert np.isfinite(logit(chosen.threshold))


def test_one_threshold_is_the_middle_of_the_plateau_on_the_grid():
    # Calls at 4 and above, false alarms at 0 and below: every threshold from 0.6 to 0.95 gives F1 1.
    heights, is_call = [5, 4.5, 4, 0.0, -0.1], [1, 1, 1, 0, 0]
    grid = one_threshold(0.1, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95)
    chosen = choose_operating_point([recording(heights, is_call, grid)], iou=0.4)
    assert chosen.val_f1 == chosen.val_average_precision == 1.0
    assert chosen.threshold == grid[chosen.decoding].off_threshold == 0.8, "next to (logit 0.6 + logit 0.95) / 2"
    shuffled = [grid[i] for i in (4, 0, 6, 2, 5, 3, 1)]
    again = choose_operating_point([recording(heights, is_call, shuffled)], iou=0.4)
    assert again.threshold == 0.8, "the order of the grid does not matter"
    assert again.curve == chosen.curve


def test_of_two_thresholds_next_to_the_middle_the_earlier_one_is_chosen():
    heights, is_call = [5, 4.5, 4, 0.0], [1, 1, 1, 0]
    for offs in ((0.6, 0.9), (0.9, 0.6)):
        chosen = choose_operating_point([recording(heights, is_call, one_threshold(*offs))], iou=0.4)
        assert chosen.threshold == offs[0]


def test_thresholds_of_0_and_1_are_allowed_in_the_grid():
    grid = one_threshold(0.0, 1.0)
    chosen = choose_operating_point([recording([5, 4], [1, 1], grid)], iou=0.4)
    assert (chosen.threshold, chosen.val_f1) == (0.0, 0.0), "one selection holds everything; a draw with nothing at all"
    chosen = choose_operating_point([recording([5, 4], [1, 1], one_threshold(0.0, 0.5, 1.0))], iou=0.4)
    assert (chosen.threshold, chosen.val_f1) == (0.5, 1.0)


def test_decodings_that_differ_in_more_than_the_threshold_compete_and_draws_go_to_the_first():
    # Calls of 10 frames with a dropout of 2 in the middle: only the second family bridges it.
    activity = bumps([50, 56, 100, 106], [4, 4, 4, 4], [4.0] * 4)
    calls = Intervals(np.array([5.0, 10.0]), np.array([6.0, 11.0]))
    bridging = [replace(p, gap_s=0.3) for p in one_threshold(0.3, 0.5)]
    grid = [*one_threshold(0.3, 0.5), *bridging, *(replace(p, gap_s=0.4) for p in bridging)]
    one = ScoredRecording(activity, np.full(N_FRAMES, -9.0), HOP_S, grid, calls, 30.0)
    assert choose_operating_point([one], iou=0.6).decoding in (2, 3)


def test_union_of_windows_is_judged_with_all_that_it_finds():
    # A window is 10 frames long and its frame is in the middle; windows are loud where they hold most of the call.
    activity = bumps([53, 153, 203], [5, 5, 1], [4.0, 4.0, 1.0])
    calls = Intervals(np.array([5.0, 15.0]), np.array([6.0, 16.0]))
    grid = one_threshold(0.5, 0.9, merge="union", window=10)
    one = ScoredRecording(activity, np.full(N_FRAMES, -9.0), HOP_S, grid, calls, 30.0)
    chosen = choose_operating_point([one], iou=0.4)
    assert (chosen.decoding, chosen.threshold, chosen.val_f1) == (1, 0.9, 1.0)
    assert chosen.curve.threshold == (0.9, 0.5)
    assert chosen.curve.precision == pytest.approx((1.0, 2 / 3), abs=1e-4)
    peak, hit = validation_hits([one], 0, iou=0.4)
    assert (peak.tolist(), hit.tolist()) == ([4.0, 4.0, 1.0], [True, True, False])


def test_with_one_threshold_nothing_to_choose_by_gives_the_first_of_the_grid():
    grid = one_threshold(0.7, 0.2)
    for one in (recording([5, 4], [0, 0], grid), recording([-5, -5], [1, 1], grid)):
        chosen = choose_operating_point([one], iou=0.4)
        assert (chosen.decoding, chosen.threshold, chosen.val_f1) == (0, 0.7, 0.0)


def test_curve_is_thinned_but_holds_the_chosen_threshold_and_the_best_f1():
    random = np.random.default_rng(1)
    is_call = np.arange(400) < 80
    one = recording(np.where(is_call, random.normal(3, 1, 400), random.normal(0, 1, 400)), is_call)
    chosen = choose_operating_point([one], iou=0.4)
    curve = chosen.curve
    assert 20 < len(curve.threshold) <= 50
    assert (np.diff(curve.threshold) < 0).all() and (np.diff(curve.recall) >= 0).all()
    assert max(curve.f1) == pytest.approx(chosen.val_f1, abs=1e-4)
    at = curve.threshold.index(round(chosen.threshold, 6))
    peak, hit = validation_hits([one], chosen.decoding, iou=0.4)
    selected = peak >= logit(chosen.threshold)
    assert curve.precision[at] == pytest.approx(hit[selected].mean(), abs=1e-4)
    assert curve.recall[at] == pytest.approx(hit[selected].sum() / 80, abs=1e-4)
    assert curve.f1[at] == pytest.approx(2 * hit[selected].sum() / (selected.sum() + 80), abs=1e-4)


def test_no_recordings_to_choose_by():
    with pytest.raises(StageError, match="no validation recording"):
        choose_operating_point([], iou=0.4)


# budgets and costs


def in_an_hour(heights, is_call, grid=None, duration_s=3600.0):
    """One detection every 20 frames, some of which are calls, in an hour."""
    starts = np.arange(len(heights)) * 20 + 5
    activity = np.full(20 * len(starts) + 20, -6.0, dtype=np.float32)
    for start, height in zip(starts, heights, strict=True):
        activity[start : start + 10] = height
    calls = starts[np.asarray(is_call, dtype=bool)] * HOP_S
    truth = Intervals(calls, calls + 1.0)
    grid = grid or [DecodingPoint(0.3, 1.0, 0.0, 0.0, 0.2)]
    return judge_recording(ScoredRecording(activity, np.full(len(activity), -9.0), HOP_S, grid, truth, duration_s), 0.4)


def budget(per_hour):
    return ChoiceSettings(by="recall", false_alarms_per_hour=per_hour)


HEIGHTS = [8, 7, 6.5, 6, 5, 4, 3, 2, 1, 0.5]
IS_CALL = [1, 1, 0, 1, 1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("per_hour", "tp"), [(0.5, 2), (1, 4), (1.5, 4), (2, 5), (3, 5), (4, 6), (50, 6)])
def test_a_budget_of_false_alarms_is_kept_with_the_best_recall(per_hour, tp):
    chosen = operating.choose_operating_point([in_an_hour(HEIGHTS, IS_CALL)], choice=budget(per_hour))
    assert chosen.reached.tp == tp
    assert chosen.reached.false_alarms_per_hour <= per_hour and chosen.reached.note == ""
    assert chosen.reached.recall == pytest.approx(tp / 6, abs=1e-4)
    assert chosen.reached.criterion == f"the best recall with at most {per_hour:g} false alarms per hour"


def test_hours_of_all_recordings_count():
    one, two = in_an_hour(HEIGHTS, IS_CALL), in_an_hour([], [], duration_s=3 * 3600.0)
    chosen = operating.choose_operating_point([one, two], choice=budget(0.5))
    assert chosen.reached.tp == 5, "two false alarms in four hours"
    assert chosen.reached.hours == 4.0 and chosen.reached.false_alarms_per_hour == 0.5


def test_a_budget_that_nothing_keeps_is_exceeded_as_little_as_can_be_and_says_so():
    chosen = operating.choose_operating_point([in_an_hour([8, 7, 6, 5], [0, 1, 0, 1])], choice=budget(0.5))
    assert (chosen.reached.n_pred, chosen.reached.tp) in {(1, 0), (2, 1)} and chosen.reached.false_alarms_per_hour == 1
    assert chosen.reached.note == "no threshold keeps the budget on validation: this is the least excess"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("way", ["hysteresis", "threshold"])
def test_the_middle_of_a_plateau_never_breaks_the_budget(seed, way):
    random = np.random.default_rng(seed)
    is_call = random.random(300) < 0.4
    heights = np.where(is_call, random.normal(2.5, 1.5, 300), random.normal(0.5, 1.5, 300)).round(1)
    offs = [0.1] if way == "hysteresis" else [i / 20 for i in range(1, 20)]
    grid = [DecodingPoint(off, 1.0, 0.0, 0.0, 0.2, way) for off in offs]
    one = in_an_hour(heights, is_call, grid)
    for per_hour in (5, 20, 60):
        chosen = operating.choose_operating_point([one], choice=budget(per_hour))
        peak, hit = one.found[chosen.decoding]
        above = peak >= logit(chosen.threshold)
        assert (above & ~hit).sum() <= per_hour or chosen.reached.note
        assert ((above & hit).sum(), above.sum()) == (chosen.reached.tp, chosen.reached.n_pred)
        assert chosen.val_merit < 0 or chosen.reached.tp / is_call.sum() >= chosen.val_merit - 0.05


def test_costs_move_the_threshold():
    one, tp = in_an_hour(HEIGHTS, IS_CALL), []
    for miss in (0.4, 1.5, 50.0):
        cost = ChoiceSettings(by="cost", miss_cost=miss, false_alarm_cost=1.0)
        tp.append(operating.choose_operating_point([one], choice=cost).reached.tp)
    assert tp == [2, 5, 6]


def test_under_a_budget_the_decoding_with_the_best_recall_wins_though_its_curve_is_worse():
    # The first decoding keeps short pieces, of which three are loud false alarms; the second does not.
    grid = [DecodingPoint(0.3, 1.0, 0.0, 0.0, shortest) for shortest in (0.2, 1.2)]
    activity = np.full(400, -6.0, dtype=np.float32)
    calls = []
    for start, length, height, is_call in [(20, 10, 8, 1), (60, 20, 7, 1), (100, 10, 7.5, 0), (140, 20, 6, 1)]:
        activity[start : start + length] = height
        calls += [(start * HOP_S, (start + length) * HOP_S)] * is_call
    truth = Intervals(*np.array(calls, dtype=float).T)
    scored = ScoredRecording(activity, np.full(400, -9.0), HOP_S, grid, truth, 3600.0)
    judged = judge_recording(scored, 0.4)
    assert operating.choose_operating_point([judged], choice=budget(0.5)).decoding == 1
    assert operating.choose_operating_point([judged], choice=budget(1.0)).decoding == 0
