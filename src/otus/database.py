"""A DuckDB file with views over the tables of a finished run: nothing is copied, whoever opens it sees the tables."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otus.atomic import replacing
from otus.errors import DataError, MissingPartError

if TYPE_CHECKING:
    import duckdb

#: The view of a table -> its file, or patterns of those of all models, below the results folder.
_WHOLE = {
    **{
        name: f"{name}.parquet"
        for name in (
            "metrics",
            "metrics_per_recording",
            "metrics_per_class",
            "recall_at_rates",
            "strata",
            "differences",
            "confusion",
            "densities",
            "curves",
            "reliability",
            "matches",
        )
    },
    "recordings": "inventory/recordings.parquet",
    "annotations": "inventory/annotations.parquet",
}
_OF_MODELS = {
    "selections": ("evaluation/*/selections.parquet", "forest/*/selections.parquet"),
    "points": ("evaluation/*/points.parquet", "forest/*/points.parquet"),
    "importances": ("forest/*/importances.parquet",),
    "dependence": ("forest/*/dependence.parquet",),
}
_SCORES = "scores/*/*/*.scores.parquet"

_ANALYSES = Path(__file__).with_suffix(".sql")


def write_database(results: Path, out: Path) -> list[str]:
    """Write a DuckDB file with a view of every table of a run and some for analysts; return the names of the views.

    The views hold absolute paths, because DuckDB would look for relative ones below the folder of whoever asks. Of the
    tables of single models only those are seen that the metrics are about: what an earlier config left is not. Raises
    DataError if a table is missing or cannot be read, MissingPartError without the package duckdb.
    """
    try:
        import duckdb
    except ImportError as error:
        raise MissingPartError(
            "the package duckdb, which writes the database, is not installed; install it with: "
            "pip install 'otus[database]'."
        ) from error
    folder = results.resolve()
    for file in _WHOLE.values():
        if not (folder / file).is_file():
            raise DataError(
                f"{results / file}: not there; run snakemake first, or name the results_dir of your config."
            )
    with replacing(out) as temporary, duckdb.connect(str(temporary)) as database:
        try:
            _add_views(database, folder)
        except duckdb.Error as error:
            raise DataError(
                f"{results}: a table cannot be read ({str(error).splitlines()[0]}); run snakemake to make it anew."
            ) from error
        names = database.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_name")
        return [name for (name,) in names.fetchall()]


def _add_views(database: "duckdb.DuckDBPyConnection", folder: Path) -> None:
    for name, file in _WHOLE.items():
        database.execute(f"CREATE VIEW {name} AS SELECT * FROM {_files(folder, [file])}")
    judged = "model IN (SELECT model FROM metrics)"
    for name, patterns in _OF_MODELS.items():
        if found := [pattern for pattern in patterns if any(folder.glob(pattern))]:
            database.execute(f"CREATE VIEW {name} AS SELECT * FROM {_files(folder, found)} WHERE {judged}")
    if any(folder.glob(_SCORES)):
        database.execute(_scores_view(folder, judged))
    database.execute(_ANALYSES.read_text(encoding="utf-8"))


def _scores_view(folder: Path, judged: str) -> str:
    """Frame logits with what their files are called by: model and fold; and with the time of a frame."""
    place = r"regexp_extract(filename, '([^/]+)/fold([0-9]+)/[^/]+$', {})"
    pattern = _pattern(folder, _SCORES)
    return f"""
        CREATE VIEW scores AS
        WITH hops AS (
            SELECT file_name AS filename, CAST(decode(value) AS DOUBLE) AS hop_s
            FROM parquet_kv_metadata({pattern}) WHERE decode(key) = 'frame_hop_s'
        )
        SELECT {place.format(1)} AS model, CAST({place.format(2)} AS BIGINT) AS fold, recording_id, frame,
            frame * hop_s AS start_s, frames.* EXCLUDE (recording_id, frame, filename)
        FROM read_parquet({pattern}, union_by_name = true, filename = true) AS frames JOIN hops USING (filename)
        WHERE {judged}
    """


def _files(folder: Path, patterns: Sequence[str]) -> str:
    """Files as a table of SQL; those of an older version of a table may lack columns."""
    return f"read_parquet([{', '.join(_pattern(folder, p) for p in patterns)}], union_by_name = true)"


def _pattern(folder: Path, pattern: str) -> str:
    """An absolute path as a literal of SQL, in which only `pattern` holds wildcards."""
    literal = re.sub(r"([\[*?])", r"[\1]", folder.as_posix())
    return "'" + f"{literal}/{pattern}".replace("'", "''") + "'"
