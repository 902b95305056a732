"""The time of day at which a candidate begins, for recordings so long that it differs within them."""

import numpy as np
import pandas as pd

from otus.errors import DataError

DAYTIME_NAMES = ("time_of_day_sin", "time_of_day_cos")

_DAY_S = 86_400.0


def daytime_features(candidates: pd.DataFrame, recordings: pd.DataFrame) -> pd.DataFrame:
    """Return one column per name of `DAYTIME_NAMES` and one row per candidate, with the index of `candidates`.

    Sine and cosine of the recorder's clock, as one turn a day, so that midnight has no edge. `recordings` has
    recording_id and start_time (ISO 8601, as in table recordings); NaN where that is unknown.

    Raises DataError if it is unknown of all recordings.
    """
    if recordings["start_time"].isna().all():
        raise DataError(
            "forest.time_of_day is set, but of no recording is it known when it began: names such as "
            "20240512_043000.wav tell; rename the recordings, or drop time_of_day."
        )
    began = pd.to_datetime(recordings.set_index("recording_id")["start_time"].astype(object), format="ISO8601")
    midnight = began.dt.normalize()
    clock_s = (began - midnight).dt.total_seconds().reindex(candidates["recording_id"]).to_numpy(dtype=float)
    turn = 2 * np.pi * (clock_s + candidates["start_s"].to_numpy(dtype=float)) / _DAY_S
    values = np.column_stack([np.sin(turn), np.cos(turn)])
    return pd.DataFrame(values, columns=list(DAYTIME_NAMES), index=candidates.index)
