import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.errors import DataError
from otus.inventory.names import group_of, recording_ids, start_time


def test_ids_are_readable_where_they_can_be() -> None:
    paths = [
        "a/b_05.23.wav",
        "A_20250203_05.wav",
        "x y.wav",
        "x_y.wav",
        "é.wav",
        "-r.wav",
        "d.wav",
        "D.flac",
        "a__c.wav",
    ]
    ids = recording_ids([*paths, "a/c.wav", "n" * 200 + ".wav"])
    assert ids["a/b_05.23.wav"] == "a__b_05.23" and ids["A_20250203_05.wav"] == "A_20250203_05"
    for path, start in {"x y.wav": "x_y-", "é.wav": "_-", "-r.wav": "_r-", "d.wav": "d-", "a/c.wav": "a__c-"}.items():
        assert re.fullmatch(re.escape(start) + "[0-9a-f]{8}", ids[path])
    assert len(ids["n" * 200 + ".wav"]) == 120


@given(st.sets(st.text(min_size=1, max_size=150).filter(lambda t: "/" not in t and "\0" not in t), max_size=20))
def test_ids_are_unique_safe_and_stable(names: set[str]) -> None:
    paths = [f"{name}.wav" for name in names]
    ids = recording_ids(paths)
    assert len({i.lower() for i in ids.values()}) == len(paths)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}", i) for i in ids.values())
    assert recording_ids(reversed(paths)) == ids


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s/dalby_01_2980_703204_20210123_085630_30_0.wav", "2021-01-23T08:56:30"),
        ("2021-01-23_08-56-30.wav", "2021-01-23T08:56:30"),
        ("2021-01-23T08:56:30Z.flac", "2021-01-23T08:56:30Z"),
        ("AM_20210123T085630Z.wav", "2021-01-23T08:56:30Z"),
        ("20210123T085630+1000_site.wav", "2021-01-23T08:56:30+10:00"),
        ("20210123_085630-0001.wav", "2021-01-23T08:56:30"),
        ("S4A_20210123$085630.wav", None),
        ("20210123085630.WAV", "2021-01-23T08:56:30"),
        ("20210230_085630.wav", None),
        ("20210123_256099.wav", None),
        ("20210123.wav", None),
        ("A_20250203_05.23.wav", None),
        ("120210123_085630.wav", None),
        ("20201301_000000_20201201_010203.wav", "2020-12-01T01:02:03"),
        ("20210123_085630/tape.wav", None),
    ],
)
def test_start_times(path: str, expected: str | None) -> None:
    assert start_time(path) == expected


def test_group_of_an_empty_match_is_an_error() -> None:
    with pytest.raises(DataError, match="finds no group"):
        group_of("a.wav", "a", "(?P<group>z*)")
