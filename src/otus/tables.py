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
from otus.errors import DataError

SCHEMA_VERSION = 3

#: How the name of a layer behind a forest ends: cnn+rf, external+rf.
FILTERED = "+rf"

_TEXT, _REAL, _INT, _FLAG = pa.string(), pa.float64(), pa.int64(), pa.bool_()

#: Column name -> type for every table, in the order in which they are written.
SCHEMAS: dict[str, dict[str, pa.DataType]] = {
    "recordings": {
        "recording_id": _TEXT,
        "path": _TEXT,
        "group": _TEXT,
        "duration_s": _REAL,
        "n_samples": _INT,
        "sample_rate": _INT,
        "channels": _INT,
        "subtype": _TEXT,
        "sha256": _TEXT,
        "content_sha256": _TEXT,
        "start_time": _TEXT,
        "site": _TEXT,
        "recorder": _TEXT,
        "raw": _TEXT,
        "parent": _TEXT,
        "parent_start_s": _REAL,
        "peak_dbfs": _REAL,
        "rms_dbfs": _REAL,
        "clipped_share": _REAL,
        "silent_share": _REAL,
        "flags": _TEXT,
        "given_split": _TEXT,
        "labelled": _FLAG,
        "readable": _FLAG,
        "error": _TEXT,
    },
    "annotations": {
        "annotation_id": _TEXT,
        "recording_id": _TEXT,
        "start_s": _REAL,
        "end_s": _REAL,
        "low_hz": _REAL,
        "high_hz": _REAL,
        "label": _TEXT,
        "quality": _TEXT,
        "source_file": _TEXT,
        "source_row": _INT,
    },
    "annotation_files": {
        "path": _TEXT,
        "format": _TEXT,
        "n_rows": _INT,
        "n_annotations": _INT,
        "n_views": _INT,
        "n_quarantined": _INT,
    },
    "quarantine": {"kind": _TEXT, "path": _TEXT, "row": _INT, "n_rows": _INT, "reason": _TEXT, "remedy": _TEXT},
    "splits": {
        "recording_id": _TEXT,
        "group": _TEXT,
        "fold": _INT,
        "part": _TEXT,
        "split": _TEXT,
        "start_sample": _INT,
        "end_sample": _INT,
        "leaky": _FLAG,
    },
    "clips": {
        "clip_id": _TEXT,
        "recording_id": _TEXT,
        "start_sample": _INT,
        "end_sample": _INT,
        "class": _TEXT,
        "label": _TEXT,
        "quality": _TEXT,
        "group": _TEXT,
        "fold": _INT,
        "split": _TEXT,
        "origin": _TEXT,
        "leaky": _FLAG,
    },
    "leakage": {
        "dataset": _TEXT,
        "fold": _INT,
        "side": _TEXT,
        "other_side": _TEXT,
        "shared_groups": _INT,
        "shared_recordings": _INT,
        "shared_contents": _INT,
        "shared_raw_recordings": _INT,
        "overlapping_clips": _INT,
        "example": _TEXT,
        "leaky": _FLAG,
    },
    "chunks": {
        "chunk_id": _TEXT,
        "recording_id": _TEXT,
        "start_sample": _INT,
        "end_sample": _INT,
        "context_left": _INT,
        "context_right": _INT,
        "sha256": _TEXT,
        "shard": _INT,
    },
    "chunk_files": {
        "chunk_id": _TEXT,
        "recording_id": _TEXT,
        "path": _TEXT,
        "start_s": _REAL,
        "end_s": _REAL,
        "offset_s": _REAL,
        "sha256": _TEXT,
        "error": _TEXT,
    },
    "items": {
        "chunk_id": _TEXT,
        "recording_id": _TEXT,
        "shard": _INT,
        "status": _TEXT,
        "error_class": _TEXT,
        "error": _TEXT,
        "wall_s": _REAL,
        "audio_s": _REAL,
        "attempt": _INT,
    },
    "selections": {
        "selection_id": _TEXT,
        "recording_id": _TEXT,
        "start_s": _REAL,
        "end_s": _REAL,
        "label": _TEXT,
        "score": _REAL,
        "peak_score": _REAL,
        "probability": _REAL,
        "model": _TEXT,
        "fold": _INT,
        "split": _TEXT,
        "operating_point": _TEXT,
        "selected": _FLAG,
        "layer": _TEXT,
        "rf_probability": _REAL,
        "hit": _FLAG,
        "leaky": _FLAG,
    },
    "matches": {
        "model": _TEXT,
        "layer": _TEXT,
        "fold": _INT,
        "split": _TEXT,
        "recording_id": _TEXT,
        "label": _TEXT,
        "iou_threshold": _REAL,
        "outcome": _TEXT,
        "selection_id": _TEXT,
        "annotation_id": _TEXT,
        "start_s": _REAL,
        "end_s": _REAL,
        "score": _REAL,
        "iou": _REAL,
        "onset_error_s": _REAL,
        "offset_error_s": _REAL,
        "leaky": _FLAG,
    },
    "metrics": {
        "model": _TEXT,
        "layer": _TEXT,
        "fold": _TEXT,
        "part": _TEXT,
        "split": _TEXT,
        "label": _TEXT,
        "iou": _REAL,
        "operating_point": _TEXT,
        "threshold": _REAL,
        "selected": _FLAG,
        "n_recordings": _INT,
        "n_groups": _INT,
        "hours": _REAL,
        "n_gt": _INT,
        "n_pred": _INT,
        "tp": _INT,
        "fp": _INT,
        "fn": _INT,
        "precision": _REAL,
        "precision_low": _REAL,
        "precision_high": _REAL,
        "recall": _REAL,
        "recall_low": _REAL,
        "recall_high": _REAL,
        "f1": _REAL,
        "f1_low": _REAL,
        "f1_high": _REAL,
        "average_precision": _REAL,
        "false_alarms_per_hour": _REAL,
        "onset_error_median_s": _REAL,
        "offset_error_median_s": _REAL,
        "leaky": _FLAG,
        "note": _TEXT,
    },
    "metrics_per_recording": {
        "model": _TEXT,
        "layer": _TEXT,
        "fold": _TEXT,
        "split": _TEXT,
        "label": _TEXT,
        "iou": _REAL,
        "operating_point": _TEXT,
        "threshold": _REAL,
        "selected": _FLAG,
        "recording_id": _TEXT,
        "group": _TEXT,
        "duration_s": _REAL,
        "n_gt": _INT,
        "n_pred": _INT,
        "tp": _INT,
        "fp": _INT,
        "fn": _INT,
        "precision": _REAL,
        "recall": _REAL,
        "f1": _REAL,
        "leaky": _FLAG,
    },
    "curves": {
        "model": _TEXT,
        "layer": _TEXT,
        "fold": _TEXT,
        "split": _TEXT,
        "label": _TEXT,
        "iou": _REAL,
        "threshold": _REAL,
        "n_gt": _INT,
        "n_pred": _INT,
        "tp": _INT,
        "precision": _REAL,
        "recall": _REAL,
        "false_alarms_per_hour": _REAL,
        "leaky": _FLAG,
    },
    "reliability": {
        "model": _TEXT,
        "label": _TEXT,
        "bin_low": _REAL,
        "bin_high": _REAL,
        "n": _INT,
        "mean_probability": _REAL,
        "hit_share": _REAL,
        "hit_share_low": _REAL,
        "hit_share_high": _REAL,
        "brier_score": _REAL,
        "leaky": _FLAG,
    },
    "jobs": {
        "rule": _TEXT,
        "job": _TEXT,
        "stage": _TEXT,
        "status": _TEXT,
        "attempt": _INT,
        "host": _TEXT,
        "slurm_job_id": _TEXT,
        "started": _TEXT,
        "ended": _TEXT,
        "wall_s": _REAL,
        "asked_min": _REAL,
        "cpu_s": _REAL,
        "threads": _INT,
        "rss_peak_mb": _REAL,
        "asked_mem_mb": _REAL,
        "items_ok": _INT,
        "items_failed": _INT,
        "items_skipped": _INT,
        "retries": _INT,
        "oom_backoffs": _INT,
        "audio_h": _REAL,
        "rtf": _REAL,
        "data_wait_s": _REAL,
        "data_wait_share": _REAL,
        "gpu_s": _REAL,
        "gpu_uuid": _TEXT,
        "gpu_name": _TEXT,
        "gpu_util_mean": _REAL,
        "gpu_util_p95": _REAL,
        "vram_peak_mb": _REAL,
        "energy_wh": _REAL,
        "no_gpu": _TEXT,
        "error_class": _TEXT,
        "error": _TEXT,
        "run_id": _TEXT,
    },
}

#: The counts that evaluation and forest hand to merge: like the final table, with the fold's number and part.
SCHEMAS["counts"] = SCHEMAS["metrics_per_recording"] | {"fold": _INT, "part": _TEXT}


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
    return _to_pandas(arrow.select(list(SCHEMAS[name])))


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
