import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.resources.requests import (
    LARGEST_FACTOR,
    SMALLEST_MB,
    SMALLEST_MIN,
    estimate,
    request_mb,
    request_min,
    shipped_figures,
)
from otus.resources.usage import Usage
from otus.resources.workload import WORK_UNITS, Load

RULES = [*WORK_UNITS, "a_rule_of_tomorrow"]
NOTHING = Load(0.0, 0.0, 0.0)

amounts = st.floats(0, 1e12)
loads = st.builds(Load, work=st.floats(0, 1e6), read_h=st.floats(0, 1e5), data_mb=st.floats(0, 1e6))
devices = st.sampled_from(["cpu", "cuda"])


def used(rule="train_model", device="cpu", *, load=NOTHING, wall_s=10.0, cpu_s=10.0, mb=900.0, attempts=1):
    return Usage(
        rule=rule,
        job="x",
        model="",
        device=device,
        work=load.work,
        read_h=load.read_h,
        data_mb=load.data_mb,
        wall_s=wall_s,
        cpu_s=cpu_s,
        max_rss_mb=mb,
        wait_s=None,
        attempts=attempts,
        host="",
        finished="2026-01-01T00:00:00",
        version="",
    )


pasts = st.lists(
    st.builds(
        used,
        rule=st.sampled_from(RULES),
        device=devices,
        load=loads,
        wall_s=amounts,
        cpu_s=amounts,
        mb=amounts,
        attempts=st.integers(1, 3),
    ),
    max_size=8,
)


def test_every_rule_has_figures_that_make_sense():
    figures = shipped_figures()
    assert set(figures) == set(WORK_UNITS)
    for rule, found in figures.items():
        assert found.base_s > 0 and 50 < found.base_mb < 5000, rule
        assert found.s_per_work >= 0 and 1 <= found.mb_per_mb < 10, rule


@given(rule=st.sampled_from(RULES), load=loads, device=devices, past=pasts)
def test_estimates_are_quantities_and_stay_near_the_figures(rule, load, device, past):
    found, plain = estimate(rule, load, device, past), estimate(rule, load, device, [])
    for name in ("wall_s", "cpu_s", "max_rss_mb"):
        value, shipped = getattr(found, name), getattr(plain, name)
        assert math.isfinite(value) and value > 0
        assert shipped / LARGEST_FACTOR * 0.999 <= value <= shipped * LARGEST_FACTOR * 1.001
    assert plain.from_runs == 0 and 0 <= found.from_runs <= len(past)


@given(rule=st.sampled_from(RULES), load=loads, device=devices, past=pasts, attempt=st.integers(1, 5))
def test_no_table_makes_an_absurd_request(rule, load, device, past, attempt):
    shipped = estimate(rule, load, device, [])
    mb, minutes = (ask(rule, load, device, past, attempt) for ask in (request_mb, request_min))
    smallest_min = SMALLEST_MIN.get(rule, 30)
    assert isinstance(mb, int) and isinstance(minutes, int)
    assert attempt * SMALLEST_MB <= mb <= attempt * max(SMALLEST_MB, LARGEST_FACTOR * shipped.max_rss_mb)
    assert attempt * smallest_min <= minutes <= attempt * max(smallest_min, LARGEST_FACTOR * shipped.wall_s / 60)


@given(rule=st.sampled_from(RULES), load=loads, device=devices, past=pasts, attempt=st.integers(1, 4))
def test_requests_grow_with_every_attempt(rule, load, device, past, attempt):
    for ask in (request_mb, request_min):
        assert ask(rule, load, device, past, attempt) == attempt * ask(rule, load, device, past, 1)


@given(rule=st.sampled_from(RULES), load=loads, device=devices, past=pasts, factor=st.floats(1, 100))
def test_requests_and_estimates_never_shrink_with_more_work(rule, load, device, past, factor):
    more = Load(load.work * factor, load.read_h * factor, load.data_mb * factor)
    for ask in (request_mb, request_min):
        assert ask(rule, more, device, past, 1) >= ask(rule, load, device, past, 1)
    assert estimate(rule, more, device, past).wall_s >= estimate(rule, load, device, past).wall_s


def test_a_thousand_hours_ask_for_more_than_one():
    small, large = Load(1.0, 1.0, 100.0), Load(1000.0, 1000.0, 10_000.0)
    assert request_min("take_inventory", large, "cpu", [], 1) > 2 * request_min("take_inventory", small, "cpu", [], 1)
    assert (
        request_mb("evaluate_model", large, "cpu", [], 1) > 15_000 > request_mb("evaluate_model", small, "cpu", [], 1)
    )


def test_a_slow_start_does_not_count_for_every_hour():
    """One short job that took half a minute to start, against a figure of seconds."""
    figures = shipped_figures()["predict_shard"]
    slow_start = [used("predict_shard", wall_s=30.0, load=Load(0.01, 0.0, 0.0))]
    long = Load(1000.0, 0.0, 0.0)
    without, with_it = (estimate("predict_shard", long, "cpu", past).wall_s for past in ([], slow_start))
    assert with_it - without == pytest.approx(30.0 - figures.base_s, abs=1.0)


def test_long_jobs_say_how_time_grows():
    figures = shipped_figures()["predict_shard"]
    load = Load(100.0, 0.0, 0.0)
    past = [used("predict_shard", wall_s=figures.base_s + 3 * 100 * figures.s_per_work, load=load)] * 3
    expected = estimate("predict_shard", Load(200.0, 0.0, 0.0), "cpu", past)
    assert expected.wall_s == pytest.approx(figures.base_s + 3 * 200 * figures.s_per_work)
    assert expected.from_runs == 3


def test_one_odd_job_among_many_changes_the_estimate_little_and_the_request_much():
    load = Load(100.0, 0.0, 0.0)
    usual = [used("predict_shard", wall_s=1000.0, load=load)] * 6
    odd = [*usual, used("predict_shard", wall_s=6000.0, load=load)]
    assert estimate("predict_shard", load, "cpu", odd) == replace(
        estimate("predict_shard", load, "cpu", usual), from_runs=7
    )
    assert request_min("predict_shard", load, "cpu", odd, 1) >= 1.5 * 6000 // 60
    assert request_min("predict_shard", load, "cpu", odd, 1) > request_min("predict_shard", load, "cpu", usual, 1)


def test_a_job_that_went_over_makes_the_next_one_ask_for_more():
    load = Load(1.0, 0.0, 100.0)
    over = [used("train_model", "cuda", load=load, mb=12_000.0)]
    assert request_mb("train_model", load, "cuda", over, 1) >= 1.5 * 12_000


def test_the_time_of_later_attempts_says_nothing_and_their_memory_does():
    load = Load(100.0, 0.0, 100.0)
    resumed = [used(load=load, wall_s=1.0, cpu_s=1.0, mb=9000.0, attempts=2)]
    assert estimate("train_model", load, "cpu", resumed).wall_s == estimate("train_model", load, "cpu", []).wall_s
    assert request_mb("train_model", load, "cpu", resumed, 1) >= 1.5 * 9000


def test_other_rules_and_devices_say_nothing():
    load = Load(100.0, 0.0, 100.0)
    others = [used("train_model", "cuda", load=load, wall_s=1e6), used("predict_shard", load=load, wall_s=1e6)]
    assert estimate("train_model", load, "cpu", others) == estimate("train_model", load, "cpu", [])


def test_a_gpu_needs_main_memory_for_its_libraries():
    assert request_mb("train_model", NOTHING, "cuda", [], 1) > request_mb("train_model", NOTHING, "cpu", [], 1) + 2000


def test_the_limits_for_a_gpu_are_not_multiplied_until_a_long_job_says_better():
    load = Load(10_000.0, 0.0, 0.0)
    limit_min = estimate("train_model", load, "cuda", []).wall_s / 60
    short = [used("train_model", "cuda", wall_s=20.0)]
    long = [used("train_model", "cuda", load=load, wall_s=60 * limit_min / 5)]
    assert request_min("train_model", load, "cuda", [], 1) == pytest.approx(limit_min, abs=1)
    assert request_min("train_model", load, "cuda", short, 1) < 1.1 * limit_min
    assert request_min("train_model", load, "cuda", long, 1) == pytest.approx(3 * limit_min / 5, rel=0.01)
    assert request_min("train_model", load, "cpu", [], 1) == pytest.approx(3 * limit_min, rel=0.01)
