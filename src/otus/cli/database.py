"""The command `otus database`."""

import argparse
from pathlib import Path

_DESCRIPTION = """Write a DuckDB file to ask the results of a finished run with SQL. It holds no data but views over the
tables of the results folder, with their absolute paths: after the folder has been moved, write it anew. A later run
needs no new file. Needs the extra `database`.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `otus`."""
    database = commands.add_parser(
        "database", help="write a DuckDB file over the tables of a finished run", description=_DESCRIPTION
    )
    database.add_argument("results", type=Path, nargs="?", default=Path("results"), help="results_dir of the run")
    database.add_argument("-o", "--out", type=Path, help="file to write (default: otus.duckdb in the results)")
    database.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the database and name its views."""
    import textwrap

    from otus.database import write_database

    out: Path = options.out or options.results / "otus.duckdb"
    views = write_database(options.results, out)
    print(f"{out}: {len(views)} views over the tables in {options.results.resolve()}")
    print("\n".join(textwrap.wrap(", ".join(views), 100, initial_indent="  ", subsequent_indent="  ")))
    return 0
