import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from otus.config import CorpusSettings, ExtractSettings, NamePattern
from otus.errors import DataError
from otus.inventory.names import (
    NO_DATE,
    NO_PATTERN,
    Origin,
    group_of,
    later,
    origin_of,
    recording_ids,
    safe_id,
    start_time,
)


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


def test_groups_by_folder_and_expression() -> None:
    assert group_of("a/b/c.wav", "id", "folder") == "a/b" and group_of("c.wav", "id", "folder") == "."
    assert group_of("a/b/c.wav", "id", "recording") == "id"
    assert group_of("a/b7/c.wav", "id", r"(?P<group>b\d)/") == "b7"


def test_the_name_of_what_is_not_there_becomes_an_id() -> None:
    assert safe_id("387_20201207_cut.wav") == "387_20201207_cut"
    assert re.fullmatch(r"x_y-[0-9a-f]{8}", safe_id("x y.wav")) and safe_id("x y.wav") != safe_id("x?y.wav")
    assert len(safe_id("n" * 300)) == 120


LAYOUTS = [
    NamePattern(pattern=r"^(?P<site>[^/]+)/(?P<recorder>AM\d+)_(?P<time>[^/]+)\.wav$"),
    NamePattern(pattern=r"(?P<recorder>SM4)-(?P<time>\d{6}-\d{4})", time_format="%y%m%d-%H%M"),
    NamePattern(pattern=r"day_(?P<time>\d+ \w+ \d{4})", time_format="%d %b %Y"),
    NamePattern(pattern=r"^(?P<site>meadow)"),
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("wood/AM12_20201222_180530.wav", Origin("wood", "AM12", "2020-12-22T18:05:30")),
        ("wood/AM12_20201222T180530Z.wav", Origin("wood", "AM12", "2020-12-22T18:05:30Z")),
        ("wood/AM12_20201322_180530.wav", Origin("wood", "AM12", None, NO_DATE)),
        ("wood/AM12_whenever.wav", Origin("wood", "AM12", None, NO_DATE)),
        ("x/y/SM4-201222-1805.wav", Origin(None, "SM4", "2020-12-22T18:05:00")),
        ("x/y/SM4-201299-1805.wav", Origin(None, "SM4", None, NO_DATE)),
        ("day_22 Dec 2020.wav", Origin(None, None, "2020-12-22T00:00:00")),
        ("meadow/20201222_180530.wav", Origin("meadow", None, "2020-12-22T18:05:30")),
        ("meadow/tape.wav", Origin("meadow", None, None)),
        ("wood/20201222_180530.wav", Origin(None, None, "2020-12-22T18:05:30", NO_PATTERN)),
        ("wood/tape.wav", Origin(None, None, None, NO_PATTERN)),
        ("meadow/20201399_000000.wav", Origin("meadow", None, None, NO_DATE)),
    ],
)
def test_several_layouts_at_once(path: str, expected: Origin) -> None:
    assert origin_of(path, LAYOUTS) == expected


@pytest.mark.parametrize(
    ("path", "flag"),
    [
        ("a/20201399_000000.wav", NO_DATE),
        ("2020-02-30_12-00-00.flac", NO_DATE),
        ("20201399_000000_20201201_010203.wav", None),
        ("20201399_000000/tape.wav", None),
        ("20201399.wav", None),
        ("120201399_000000.wav", None),
    ],
)
def test_what_looks_like_a_clock_but_is_no_date_is_flagged(path: str, flag: str | None) -> None:
    assert origin_of(path, []).flag == flag


@pytest.mark.parametrize(
    ("moment", "seconds", "expected"),
    [
        ("2020-12-31T23:59:59", 1, "2021-01-01T00:00:00"),
        ("2020-12-22T18:05:30Z", 6600, "2020-12-22T19:55:30Z"),
        ("2020-12-22T18:05:30+10:00", 0.0625, "2020-12-22T18:05:30.062+10:00"),
        ("2020-12-22T18:05:30", 1e15, None),
    ],
)
def test_a_moment_later(moment: str, seconds: float, expected: str | None) -> None:
    assert later(moment, seconds) == expected


def test_the_first_layout_that_fits_counts_and_an_empty_part_is_none() -> None:
    both = [NamePattern(pattern=r"(?P<site>a*)b"), NamePattern(pattern=r"(?P<site>.)b")]
    assert origin_of("ab.wav", both).site == "a" and origin_of("xb.wav", both).site is None
    assert origin_of("AM_20201222_180530.wav", []) == Origin(None, None, "2020-12-22T18:05:30")
    zone = NamePattern(pattern="(?P<time>.*)[.]wav", time_format="%Y%m%dT%H%M%S%z")
    assert origin_of("20201222T180530+1000.wav", [zone]).start_time == "2020-12-22T18:05:30+10:00"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NamePattern(pattern="(?P<site>"), "'(?P<site>' is no valid regular expression"),
        (lambda: NamePattern(pattern="(?P<sit>.)"), "has a group named 'sit'; it takes (?P<site>...)"),
        (lambda: NamePattern(pattern="(.)"), "names no group; it takes"),
        (lambda: NamePattern(pattern="(?P<site>.)", time_format="%Y"), "time_format needs a group (?P<time>...)"),
        (lambda: NamePattern(pattern="(?P<time>.)", time_format="%H%M"), "time_format '%H%M' gives no date"),
        (lambda: NamePattern(pattern="(?P<time>.)", time_format="%Y%m"), "time_format '%Y%m' gives no date"),
        (lambda: NamePattern(pattern="(?P<time>.)", time_format="%Q%Y"), "time_format '%Q%Y' gives no date"),
        (lambda: ExtractSettings(pattern="(?P<parent>.)(?P<start>.)"), "has no (?P<end>...); it needs parent"),
        (lambda: ExtractSettings(pattern="(?P<parent>.))"), "is no valid regular expression"),
        (lambda: CorpusSettings(root="x", group="(?P<group>"), "is no valid regular expression"),
        (lambda: CorpusSettings(root="x", group="site_(a)"), "is neither 'recording' nor 'folder' nor"),
    ],
)
def test_expressions_are_checked_when_the_config_is_read(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        make()
    assert message in str(error.value)


def test_time_formats_of_every_kind_are_accepted() -> None:
    for time_format in ("%Y%m%d", "%y%m%d-%H%M", "%d.%m.%Y", "%Y-%j_%H", "%c", "%Y%m%dT%H%M%S%z", "%d %B %Y"):
        assert NamePattern(pattern="(?P<time>.*)", time_format=time_format).time_format == time_format
