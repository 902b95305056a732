import datetime
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from otus.inventory.page import inventory_page, other_files
from otus.inventory.recorded_hours import draw_calendar
from otus.tables import table

NASTY = "<script>alert('x')</script> & \"y\""


def recording(i, **values):
    row = {
        "recording_id": f"r{i}", "path": f"site/r{i}.wav", "group": f"g{i % 3}", "duration_s": 60.0 * (i + 1),
        "n_samples": 100, "sample_rate": 24_000, "channels": 1, "subtype": "PCM_16", "sha256": "a", "labelled": True,
        "readable": True, "peak_dbfs": -3.0, "rms_dbfs": -20.0, "clipped_share": 0.0, "silent_share": 0.0,
        "site": f"site {i % 2}", "start_time": f"2021-01-{i % 28 + 1:02d}T08:00:00",
    }  # fmt: skip
    return row | values


def annotation(i, label="owl", **values):
    row = {"annotation_id": f"a{i}", "recording_id": f"r{i}", "start_s": 1.0, "end_s": 1.5, "low_hz": 300.0}
    return row | {"high_hz": 2000.0, "label": label, "source_file": f"t{i}.txt", "source_row": 2} | values


def account(i, **values):
    row = {"path": f"t{i}.txt", "format": "raven", "n_rows": 3, "n_annotations": 1, "n_views": 1, "n_quarantined": 1}
    return row | values


def entry(i, kind="row", **values):
    row = {"kind": kind, "path": f"t{i}.txt", "row": 3, "n_rows": 1, "reason": f"reason {i}", "remedy": "correct it"}
    return row | values


def page(recordings=None, annotations=None, files=None, quarantine=None, others=(), corpus="owls"):
    def made(name, rows):
        return table(name, rows) if rows else table(name, pd.DataFrame())

    return inventory_page(
        corpus,
        made("recordings", [recording(i) for i in range(4)] if recordings is None else recordings),
        made("annotations", [annotation(0), annotation(1, "cat")] if annotations is None else annotations),
        made("annotation_files", [account(0), account(1)] if files is None else files),
        made("quarantine", [entry(0)] if quarantine is None else quarantine),
        others,
    )


class Text(HTMLParser):
    """The rows of tables, the text and the tags of a page; an unclosed tag is an error."""

    VOID = frozenset({"meta", "br", "img"})

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.rows, self.text = [], set(), [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_what_is_there():
    found = Text(page(others=["notes.docx", "a/b.DOCX", "README"]))
    text = " ".join(found.text.split())
    assert "owls: inventory" in text and "4 recordings, 0.17 h" in text
    assert "in 3 groups. 4 of the recordings (0.17 h) are labelled: 2 annotations of 2 labels in 2 of them." in text
    for row in (
        ["cat", "1", "1", "1", "0.5", "0.5 / 0.5 / 0.5", "0.3–2.0", ""],
        ["site 1", "2021-01-02", "2021-01-04", "2", "0.10", "0.10", "1", ""],
        ["g0", "2021-01-01", "2021-01-04", "2", "0.08", "0.08", "1", ""],
        ["30 s to 1 min", "1", ""],
        ["2 min to 5 min", "2", ""],
        ["24 kHz", "1", "PCM_16", "4", "0.17"],
        ["t0.txt", "3", "reason 0", "correct it"],
        ["raven", "2", "6", "2", "2", "2"],
        ["t1.txt", "raven", "3", "1", "1", "1"],
        [".docx", "2"],
        ["none", "1"],
    ):
        assert row in found.rows, row


def test_it_needs_nothing_else_and_runs_nothing():
    html = page()
    assert not {"script", "link", "img", "iframe", "a:link"} & Text(html).tags
    assert "default-src 'none'" in html and "http" not in html.replace("http-equiv", "")
    assert html == page()


def test_names_are_data():
    everywhere = page(
        [recording(0, path=NASTY, group=NASTY, site=NASTY, subtype=NASTY, flags=NASTY), recording(1, group=NASTY)],
        [annotation(0, NASTY)],
        [account(0, path=NASTY, format=NASTY)],
        [entry(0, NASTY, path=NASTY, reason=NASTY, remedy=NASTY)],
        [f"x.{NASTY}"],
        NASTY,
    )
    assert "<script" not in everywhere and everywhere.count("&lt;script") >= 12
    assert "script" not in Text(everywhere).tags


def test_flags_are_counted_by_kind_and_listed():
    rows = [
        recording(0, flags="clipped 0.3 %; channel 2 is dead", clipped_share=0.003),
        recording(1, flags="clipped 12 %"),
        recording(2, flags="40 % digital silence; data after the audio: 900 bytes"),
        recording(3),
        recording(4, flags="silent", peak_dbfs=None, rms_dbfs=None, silent_share=1.0),
    ]
    found = Text(page(rows))
    for kind in (["clipped", "2"], ["dead channel", "1"], ["digital silence", "1"], ["data after the audio", "1"]):
        assert kind in found.rows
    assert ["site/r0.wav", "clipped 0.3 %; channel 2 is dead", "-3.0", "-20.0", "0.30", "0.0"] in found.rows
    assert ["site/r4.wav", "silent", "–", "–", "0.00", "100.0"] in found.rows
    assert "No recording is odd." in Text(page()).text


def test_quarantine_kind_by_kind_the_first_rows_of_each():
    rows = [entry(i) for i in range(250)] + [entry(0, "duplicate", row=None, n_rows=0)]
    rows += [entry(0, "strange", n_rows=7)]
    found = Text(page(quarantine=rows))
    text = " ".join(found.text.split())
    assert "Rows of annotation files: 250 entries, 250 annotation rows" in text and "and 50 more" in text
    assert "Copies of other recordings: 1 entry File" in text and "strange: 1 entry, 7 annotation rows" in text
    assert text.index("Copies of") < text.index("Rows of annotation") < text.index("strange: ")
    assert ["t0.txt", "", "reason 0", "correct it"] in found.rows
    assert sum(row[2:3] == ["reason 7"] for row in found.rows) == 1 and len(found.rows) < 300
    assert "Nothing was left out." in Text(page(quarantine=[])).text


def test_long_listings_end_with_a_count():
    rows = [recording(i, group=f"g{i // 2}", site=f"s{i // 2}", flags="silent") for i in range(600)]
    calls = [annotation(i, f"label {i}") for i in range(300)]
    text = " ".join(Text(page(rows, calls, [account(i) for i in range(1000)])).text.split())
    assert text.count("and 100 more") == 3 and "and 400 more" in text and "and 800 more" in text


def test_nothing_is_known():
    nothing = {"start_time": None, "site": None}
    text = Text(page([recording(i, group=f"g{i}", **nothing) for i in range(3)], [], [], [])).text
    for sentence in (
        "There are no annotations.",
        "No recording has a date that can be read",
        "Each recording is a group of its own",
        "There are no annotation files.",
        "Every file below the root is a recording or an annotation file.",
    ):
        assert sentence in text
    bad = recording(0, readable=False, labelled=False, duration_s=None, sample_rate=None, error="bad")
    assert "1 more file cannot be read." in Text(page([bad, recording(1)])).text


def test_extracts_are_counted():
    rows = [recording(0), *(recording(i, parent="r0") for i in (1, 2))]
    assert "2 of 1 raw recordings" in Text(page(rows)).text


def calendar(days, sites=("a",), hours=1.0):
    rows = [
        recording(i, start_time=f"{day}T00:00:00", site=site, duration_s=3600 * hours)
        for i, (day, site) in enumerate((day, site) for day in days for site in sites)
    ]
    return draw_calendar(table("recordings", rows))


@pytest.mark.parametrize(
    ("last", "unit", "columns"),
    [("2021-01-01", "day", 1), ("2021-04-01", "day", 91), ("2021-12-31", "week", 53), ("2025-12-31", "month", 60)],
)
def test_a_square_is_a_day_a_week_or_a_month(last, unit, columns):
    found = calendar(["2021-01-01", "2021-01-01", last])
    assert found.unit == unit and found.most_h >= 2
    dates = re.findall(r">(\d{4}-\d\d-\d\d)</text>", found.svg)
    assert dates[0] in ("2021-01-01", "2020-12-28") and len(dates) <= 12
    corners = {float(x) for x in re.findall(r'<rect x="([\d.]+)"', found.svg)}
    assert max(corners) - 170 == pytest.approx((columns - 1) * min(24, 760 / columns), abs=0.06)


def test_hours_are_summed_by_site_and_day():
    found = calendar(["2021-01-01", "2021-01-02", "2021-01-02"], ["b", "a"], 1.5)
    titles = re.findall(r"<title>(.*?)</title>", found.svg)
    assert "a, from 2021-01-02: 3.00 h" in titles and "b, from 2021-01-01: 1.50 h" in titles and len(titles) == 4
    assert re.findall(r'text-anchor="end">(\w)</text>', found.svg) == ["a", "b"]
    assert (found.most_h, found.left_out) == (3.0, 0)


def test_only_the_sites_with_the_most_hours_are_drawn():
    start = datetime.date(2021, 1, 1)
    rows = [
        recording(i, site=f"s{i:02d}", start_time=f"{start}T00:00:00+10:00", duration_s=60.0 * (i + 1))
        for i in range(45)
    ]
    found = draw_calendar(table("recordings", rows))
    names = re.findall(r'text-anchor="end">(\w+)</text>', found.svg)
    assert names == [f"s{i:02d}" for i in range(5, 45)] and found.left_out == 5


def test_no_dates_no_calendar():
    assert draw_calendar(table("recordings", [recording(0, start_time=None)])) is None


def test_files_that_no_glob_took(tmp_path):
    for name in ("site/r0.wav", "site/r1.wav", "t0.txt", "notes.md", ".hidden", "old/x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    recordings = table("recordings", [recording(0)])
    quarantine = table("quarantine", [entry(0, "duplicate", path="site/r1.wav")])
    files = table("annotation_files", [account(0)])
    assert other_files(tmp_path, recordings, files, quarantine) == ["notes.md", "old/x.wav"]
