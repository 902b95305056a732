"""The time of day of a candidate."""

import numpy as np
import pandas as pd
import pytest

from otus.errors import DataError
from otus.forest.daytime import DAYTIME_NAMES, daytime_features

RECORDINGS = pd.DataFrame(
    {
        "recording_id": ["evening", "midnight", "undated"],
        "start_time": ["2024-05-12T18:00:00", "2024-05-12T23:59:30.500", None],
    }
)


def candidates(*rows):
    frame = pd.DataFrame(list(rows), columns=["recording_id", "start_s"])
    return frame.set_index(pd.Index(range(10, 10 + len(rows))))


def test_it_is_one_turn_a_day_without_an_edge_at_midnight():
    rows = candidates(("evening", 0.0), ("evening", 6 * 3600.0), ("midnight", 0.0), ("midnight", 29.5))
    found = daytime_features(rows, RECORDINGS)
    assert tuple(found.columns) == DAYTIME_NAMES and found.index.equals(rows.index)
    almost = 2 * np.pi * 29.5 / 86_400
    expected = [[-1, 0], [0, 1], [-np.sin(almost), np.cos(almost)], [0, 1]]
    assert found.to_numpy() == pytest.approx(np.array(expected), abs=1e-9)


def test_what_is_not_dated_is_not_known():
    found = daytime_features(candidates(("undated", 1.0), ("evening", 1.0)), RECORDINGS)
    assert found.isna().all(axis=1).tolist() == [True, False]


def test_no_candidates():
    assert daytime_features(candidates(), RECORDINGS).shape == (0, 2)


def test_a_corpus_without_any_date_is_refused():
    undated = RECORDINGS.assign(start_time=None)
    with pytest.raises(DataError, match="rename the recordings, or drop time_of_day"):
        daytime_features(candidates(("undated", 1.0)), undated)
