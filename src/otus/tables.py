"""The tables that stages hand to each other: explicit Parquet schemas, atomic writing, checked reading.

Every file carries `schema` and `schema_version` in its metadata. Sample positions are integers, times in
seconds are floats, and a missing value is null, never a magic number.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from otus.atomic import replacing
from otus.columns import SCHEMAS
from otus.errors import DataError

SCHEMA_VERSION = 4

#: The rows over all labels, which exist only where there are several: counts of all added up, and the mean over labels.
MICRO, MACRO = "micro", "macro"

#: The fold of the rows that pool the test recordings of all folds.
POOLED = "pooled"

#: How the name of a layer behind a forest ends: cnn+rf, external+rf.
FILTERED = "+rf"

#: How a note points to the reasons for which forests are not used.
SEE_FORESTS = "forests.json says why"


def arrow_schema(name: str, metadata: Mapping[str, Any] | None = None) -> pa.Schema:
    """Return the Arrow schema of table `name` with its version and `metadata` (values as JSON)."""
    entries = {"schema": name, "schema_version": SCHEMA_VERSION, **(metadata or {})}
    return pa.schema(
        list(SCHEMAS[name].items()), metadata={k: json.dumps(v, sort_keys=True) for k, v in entries.items()}
    )


def table(name: str, rows: Any) -> pd.DataFrame:
    """Return `rows` (a list of dicts, a dict of columns or a frame) as a frame with exactly the columns of `name`.

    Missing columns become null; an unknown column is a programming error (KeyError).
    """
    frame = pd.DataFrame(rows) if not isinstance(rows, pd.DataFrame) else rows
    unknown = set(frame.columns) - set(SCHEMAS[name])
    if unknown:
        raise KeyError(f"table {name} has no column {sorted(map(str, unknown))}")
    arrow = pa.Table.from_pandas(
        frame.reindex(columns=list(SCHEMAS[name])),
        schema=pa.schema(list(SCHEMAS[name].items())),
        preserve_index=False,
    )
    return _to_pandas(arrow)


def write_table(
    path: str | Path,
    name: str,
    frame: pd.DataFrame,
    *,
    csv: str | Path | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write `frame` as table `name` to Parquet (zstd), and to a CSV twin where a person will open it.

    Floats in the CSV have ten significant digits. Both files are replaced atomically.
    """
    arrow = pa.Table.from_pandas(table(name, frame), schema=arrow_schema(name, metadata), preserve_index=False)
    with replacing(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd")
    if csv is not None:
        with replacing(csv) as temporary:
            _to_pandas(arrow).to_csv(temporary, index=False, float_format="%.10g")


def read_table(path: str | Path, name: str) -> pd.DataFrame:
    """Read a Parquet file as table `name`.

    Raises DataError if the file is damaged, is another table or was written by another schema version.
    """
    return _to_pandas(read_arrow(path, name).select(list(SCHEMAS[name])))


def read_arrow(path: str | Path, name: str) -> pa.Table:
    """Read a Parquet file that says to be table `name` of this schema version.

    Raises DataError if the file is damaged, is another table or was written by another schema version.
    """
    try:
        arrow = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as a table ({str(error).splitlines()[0]}); run again to make it anew."
        ) from error
    found = table_metadata(arrow.schema)
    if found.get("schema") != name or found.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path}: expected table '{name}' version {SCHEMA_VERSION}, found '{found.get('schema')}' version "
            f"{found.get('schema_version')}; delete it and run again."
        )
    return arrow


def table_metadata(schema: pa.Schema) -> dict[str, Any]:
    """Return the JSON values in the metadata of an Arrow schema, without pandas' own entry."""
    found = {}
    for key, value in (schema.metadata or {}).items():
        if key != b"pandas":
            with contextlib.suppress(ValueError):  # text that another program wrote
                found[key.decode()] = json.loads(value)
    return found


def _to_pandas(arrow: pa.Table) -> pd.DataFrame:
    """Arrow to pandas with nullable integers, so that a missing row number stays missing."""
    integers = {pa.int64(): pd.Int64Dtype()}
    nullable = {f.name for f in arrow.schema if pa.types.is_integer(f.type) and arrow[f.name].null_count}
    frame: pd.DataFrame = arrow.to_pandas(integer_object_nulls=False)
    for column in nullable:
        frame[column] = arrow[column].to_pandas(types_mapper=integers.get)
    return frame
