import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.external.joining import join_chunks
from otus.external.programs import ProgramError
from otus.external.results import Found
from otus.external.rows import ChunkTimes, numbered, peak_logit, selections_of_chunk
from otus.selections import logit

TIMES = ChunkTimes(start_s=60.0, end_s=120.0, file_start_s=56.0, file_end_s=124.0)


def kept(*found, labels=None, kind="probability", min_score=None, times=TIMES):
    return selections_of_chunk(found, times, labels or {"OWL": "owl"}, kind=kind, min_score=min_score)


def spans(result):
    return [(row["start_s"], row["end_s"], row["selected"]) for row in result.rows]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=20))
def test_the_logit_of_a_probability_rises_with_it_and_ends(scores):
    logits = [peak_logit(score, "probability") for score in sorted(scores)]
    assert logits == sorted(logits) and np.isfinite(logits).all()
    for score, value in zip(sorted(scores), logits, strict=True):
        if 1e-6 <= score <= 1 - 1e-6:
            assert value == pytest.approx(logit(score))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=20))
def test_any_number_keeps_its_order_and_its_threshold_can_be_written_as_a_probability(scores):
    logits = [peak_logit(score, "number") for score in sorted(scores)]
    assert logits == sorted(logits)
    for value in logits:
        probability = 1.0 / (1.0 + math.exp(-value))
        assert 0.0 < probability < 1.0
        assert logit(probability) == pytest.approx(value, abs=0.01)


def test_a_score_that_is_no_probability_is_a_failure():
    for score in (1.01, -0.01, 85.0):
        with pytest.raises(ProgramError, match="is no probability; set scores: number"):
            kept(Found(1.0, 2.0, "OWL", score))
    assert kept(Found(5.0, 6.0, "OWL", 85.0), kind="number").rows[0]["score"] == 85.0


def test_times_are_carried_back_and_a_selection_belongs_to_the_chunk_of_its_midpoint():
    found = (
        Found(10.0, 11.0, "OWL", 0.5),
        Found(0.0, 3.5, "OWL", 0.5),  # context alone: the neighbour's
        Found(2.0, 5.0, "OWL", 0.5),  # across the border, mostly the neighbour's
        Found(3.5, 5.0, "OWL", 0.5),  # across the border, mostly ours
        Found(3.0, 5.0, "OWL", 0.5),  # its midpoint on the border: ours
        Found(63.0, 65.0, "OWL", 0.5),  # its midpoint on the end: the next one's
    )
    assert spans(kept(*found)) == [
        (58.0, 61.0, False), (59.0, 61.0, True), (59.5, 61.0, True), (66.0, 67.0, True), (119.0, 121.0, False),
    ]  # fmt: skip


def test_a_midpoint_is_in_one_chunk():
    borders = [0.0, 7.3, 14.6, 20.0]
    for middle in np.linspace(0.3, 19.7, 57):
        owners = 0
        for start, end in pairwise(borders):
            times = ChunkTimes(start, end, max(0.0, start - 4), min(20.0, end + 4))
            at = middle - times.file_start_s
            if 0.1 < at < times.file_end_s - times.file_start_s - 0.1:
                result = kept(Found(at - 0.1, at + 0.1, "OWL", 0.5), times=times)
                owners += sum(row["selected"] for row in result.rows)
        assert owners == 1


def test_what_reaches_beyond_the_file_is_cut_and_times_of_elsewhere_are_a_failure():
    assert spans(kept(Found(63.0, 80.0, "OWL", 0.5), Found(-0.2, 12.0, "OWL", 0.5))) == [
        (56.0, 68.0, True), (119.0, 124.0, False),
    ]  # fmt: skip
    for start, end in ((69.0, 70.0), (2500.0, 2600.0), (-3.0, -2.0), (10.0, 900.0)):
        with pytest.raises(ProgramError, match="but the sound file is 68 s long"):
            kept(Found(start, end, "OWL", 0.5))


def test_labels_are_mapped_and_others_counted():
    found = [Found(10.0, 11.0, label, 0.5) for label in ("OWL", "JAY", "JAY", "owl", "OWLET")]
    result = kept(*found, labels={"OWL": "owl", "OWLET": "owl"})
    assert [row["label"] for row in result.rows] == ["owl", "owl"]
    assert result.dropped == {"JAY": 2, "owl": 1}


def test_weak_selections_are_dropped_and_one_without_a_score_is_sure():
    found = [Found(10.0, 11.0, "OWL", score) for score in (0.1, 0.2, 0.3, None)]
    rows = kept(*found, min_score=0.2).rows
    assert [row["score"] for row in rows] == [0.2, 0.3, 1.0]
    assert rows[2]["peak_score"] == pytest.approx(logit(1 - 1e-6))


def table_of(*rows):
    """Rows (chunk, start_s, end_s, peak, owned[, label]) of recording r."""
    names = ["chunk", "start_s", "end_s", "peak_score", "selected", "label"]
    frame = pd.DataFrame([(*row, "owl")[:6] for row in rows], columns=names)
    ids = [f"r_k{chunk:05d}_s{i:05d}" for i, chunk in enumerate(frame["chunk"])]
    frame = frame.assign(selection_id=ids, recording_id="r", score=frame["peak_score"] / 10)
    return frame.drop(columns="chunk")


def joined(*rows, gap_s=None):
    found = join_chunks(table_of(*rows), gap_s)
    return [tuple(row) for row in found[["start_s", "end_s", "peak_score"]].itertuples(index=False)]


def test_a_call_across_a_border_counts_once():
    assert joined((0, 58.0, 61.0, 2.0, True), (1, 59.0, 62.5, 3.0, True)) == [(58.0, 62.5, 3.0)]
    assert joined((0, 58.0, 61.5, 2.0, True), (1, 58.5, 61.5, 3.0, False)) == [(58.0, 61.5, 2.0)]


def test_a_call_that_each_chunk_sees_in_the_others_half_is_not_lost():
    """Windows of 3 s that begin elsewhere in each sound file."""
    rows = [(0, 59.0, 62.0, 1.0, False), (1, 58.2, 61.2, 2.0, False)]
    assert joined(*rows) == [(58.2, 61.2, 2.0)]
    assert joined(*rows[:1]) == [(59.0, 62.0, 1.0)]


def test_what_one_chunk_reports_stays_as_it_is():
    rows = [(0, 1.0, 4.0, 1.0, True), (0, 2.5, 5.5, 2.0, True), (0, 5.5, 6.0, 2.0, True)]
    assert joined(*rows) == [row[1:4] for row in rows]
    assert joined(*rows, gap_s=0.0) == [(1.0, 6.0, 2.0)]


def test_gaps_are_closed_within_a_label():
    rows = [
        (0, 1.0, 2.0, 1.0, True),
        (1, 2.5, 3.0, 5.0, True),
        (2, 3.6, 4.0, 2.0, True),
        (2, 2.1, 2.2, 9.0, True, "jay"),
    ]
    assert joined(*rows, gap_s=0.5) == [(1.0, 3.0, 5.0), (2.1, 2.2, 9.0), (3.6, 4.0, 2.0)]


def test_neither_labels_nor_recordings_are_joined():
    frame = pd.concat(
        [
            table_of((0, 58.0, 61.0, 2.0, True), (1, 59.0, 62.0, 3.0, True, "jay")),
            table_of((1, 59.0, 62.0, 3.0, True)).assign(recording_id="q", selection_id="q_k00001_s00000"),
        ]
    )
    found = join_chunks(frame, 1.0)
    assert found["recording_id"].tolist() == ["q", "r", "r"]
    assert found["label"].tolist() == ["owl", "owl", "jay"]


def test_the_score_of_a_joined_selection_is_that_of_its_best_part():
    found = join_chunks(table_of((0, 58.0, 61.0, 2.0, True), (1, 59.0, 62.0, 3.0, True)), None)
    assert found["score"].tolist() == [0.3]


def test_nothing_joins_to_nothing():
    found = join_chunks(table_of(), 1.0)
    assert found.empty and list(found) == ["recording_id", "start_s", "end_s", "label", "score", "peak_score"]


CHUNKED = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 40), st.integers(1, 6), st.integers(0, 5).map(float), st.booleans()
    ).map(lambda row: (row[0], float(row[1]), float(row[1] + row[2]), row[3], row[4])),
    max_size=12,
    unique_by=lambda row: row[:4],
)


@settings(deadline=None, max_examples=40)
@given(CHUNKED, st.none() | st.integers(0, 3).map(float), st.randoms(use_true_random=False))
def test_joining_depends_on_no_order_and_loses_no_time_that_is_owned(rows, gap_s, random):
    found = joined(*rows, gap_s=gap_s)
    frame = table_of(*rows)
    order = list(range(len(frame)))
    random.shuffle(order)
    again = join_chunks(frame.iloc[order], gap_s)
    assert [tuple(row) for row in again[["start_s", "end_s", "peak_score"]].itertuples(index=False)] == found
    for _, start_s, end_s, peak, owned in rows:
        holders = [one for one in found if one[0] <= start_s and end_s <= one[1]]
        if owned:
            assert holders and max(one[2] for one in holders) >= peak
        else:
            assert any(one[0] < end_s and start_s < one[1] for one in found)
    assert len(found) <= len(rows)


def test_ids_tell_the_chunk():
    rows = numbered([{"label": "owl"}, {"label": "owl"}], "site_a-1.wav_k00002", "site_a-1.wav")
    assert [row["selection_id"] for row in rows] == ["site_a-1.wav_k00002_s00000", "site_a-1.wav_k00002_s00001"]
    assert rows[0]["recording_id"] == "site_a-1.wav"
