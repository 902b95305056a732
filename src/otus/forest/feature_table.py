"""features.parquet: what the forest knew of every candidate, for analysts and exports. The columns are the features."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from otus.atomic import replacing
from otus.tables import SCHEMA_VERSION, read_arrow

_NAME = "features"

#: What stands before the features.
FIRST_COLUMNS = ("selection_id", "hit", "group")


def write_features(path: str | Path, features: pd.DataFrame) -> None:
    """Write selection_id, hit, group and the features by name, which are floats, to Parquet (zstd), atomically."""
    names = [str(name) for name in features.columns if name not in FIRST_COLUMNS]
    types = {"selection_id": pa.string(), "hit": pa.bool_(), "group": pa.string(), **dict.fromkeys(names, pa.float64())}
    metadata = {"schema": f'"{_NAME}"', "schema_version": str(SCHEMA_VERSION)}
    schema = pa.schema(list(types.items()), metadata=metadata)
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pandas(features, schema, preserve_index=False), temporary, compression="zstd")


def read_features(path: str | Path) -> pd.DataFrame:
    """Return what `write_features` wrote; a feature that is not known is NaN.

    Raises DataError if the file is damaged, is another table or was written by another schema version.
    """
    frame: pd.DataFrame = read_arrow(path, _NAME).to_pandas()
    return frame
