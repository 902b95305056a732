"""Reading ahead: order, errors, how far it goes, and that no thread is left."""

import itertools
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.training import prefetch
from otus.training.prefetch import prefetched, several_at_once


def readers():
    return [t for t in threading.enumerate() if t.name == "prefetch"]


def wait_for(condition):
    """Wait until something holds that another thread brings about."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def failing(n, error):
    yield from range(n)
    raise error


@given(st.lists(st.one_of(st.integers(), st.none(), st.just(StopIteration()))))
@settings(max_examples=50, deadline=None)
def test_what_comes_out_is_what_went_in_and_in_the_same_order(items):
    assert list(prefetched(iter(items))) == items
    assert not readers()


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 9])
@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), StopAsyncIteration()])
def test_an_error_comes_at_its_place(n, error):
    found = []
    with pytest.raises(type(error)) as raised:
        for item in prefetched(failing(n, error)):
            found.append(item)
    assert found == list(range(n)) and raised.value is error
    assert not readers()


@pytest.mark.parametrize("taken", [1, 2, 7])
def test_nothing_is_read_further_than_the_depth(taken):
    read = []
    source = prefetched(read.append(i) or i for i in range(100))
    for _ in range(taken):
        next(source)
    most = taken + prefetch._DEPTH + 1  # those that wait, and one that waits for room
    wait_for(lambda: len(read) == most)
    time.sleep(0.15)
    assert len(read) == most
    source.close()
    assert len(read) == most and not readers()


def test_nothing_is_read_before_something_is_asked_for():
    read = []
    source = prefetched(read.append(i) or i for i in range(3))
    time.sleep(0.02)
    assert read == [] and not readers()
    assert list(source) == read == [0, 1, 2]


def test_the_next_items_are_read_while_the_consumer_works():
    second = threading.Event()

    def source():
        yield 1
        second.set()
        yield 2

    for item in prefetched(source()):
        assert item == 2 or second.wait(10)


@pytest.mark.parametrize("n", [2, 100])
def test_a_consumer_that_stops_early_leaves_no_thread(n):
    for item in prefetched(iter(range(n))):
        assert item == 0
        break
    wait_for(lambda: not readers())
    taken = list(itertools.islice(prefetched(iter(range(n))), 2))
    assert taken == [0, 1]
    wait_for(lambda: not readers())


@pytest.mark.parametrize("n", [2, 100])
def test_a_consumer_that_fails_leaves_no_thread(n):
    def consume():
        for _ in prefetched(iter(range(n))):
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        consume()
    assert not readers()


def test_the_source_is_not_read_on_after_the_end():
    read = []
    with pytest.raises(ValueError):
        for _ in prefetched(read.append(i) or i for i in range(1000)):
            raise ValueError
    before = len(read)
    assert before <= prefetch._DEPTH + 2
    time.sleep(0.15)
    assert len(read) == before


def test_two_readers_do_not_mix():
    pairs = list(zip(prefetched(iter(range(20))), prefetched(iter("abcdefghijklmnopqrst")), strict=True))
    assert pairs == list(zip(range(20), "abcdefghijklmnopqrst", strict=True))
    assert not readers()


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_several_are_read_at_once_and_come_in_order(n):
    together = threading.Barrier(min(n, 2)) if n else None

    def read(i):
        if i < 2:
            together.wait(10)
        return i

    assert several_at_once(read, range(n)) == list(range(n))
    assert not [t for t in threading.enumerate() if t.name.startswith("reader")]


def test_of_several_errors_the_first_is_raised():
    def read(i):
        time.sleep(0.02 if i == 2 else 0)
        if i in (2, 5):
            raise OSError(f"file {i}")

    with pytest.raises(OSError, match="file 2"):
        several_at_once(read, range(9))
