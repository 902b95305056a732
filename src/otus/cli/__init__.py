"""The `otus` command: small tools around the workflow. Exit codes are those of the errors (see otus.errors)."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from otus import __version__
from otus.cli import commands, database, doctor, export, jobs, plan, runs, soundscapes
from otus.errors import MissingPartError, OtusError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 ok, 1 unexpected, 2 usage, 3 invalid data or config, ..."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        code = run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as head, has gone; nobody is left to flush it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OtusError, OSError) as error:
        if options.debug or os.environ.get("OTUS_DEBUG"):
            traceback.print_exc()
        print(f"otus: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, OtusError) else MissingPartError.exit_code
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="otus", description="From labelled recordings to a benchmarked detector.")
    parser.add_argument("--version", action="version", version=f"otus {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an expected failure")
    commands_of = parser.add_subparsers(required=True, metavar="COMMAND")

    init = commands_of.add_parser("init", help="look at a folder of recordings and write a config file for it")
    init.add_argument("folder", type=Path, help="folder with recordings and annotation files")
    init.add_argument("-o", "--output", type=Path, help="config file to write (default: config/<folder>.yaml)")
    init.set_defaults(run=commands.init)

    check = commands_of.add_parser("check", help="check config files and the corpus that they name")
    check.add_argument("config", type=Path, nargs="+", help="config files; later ones win")
    check.set_defaults(run=commands.check)

    demo = commands_of.add_parser("demo-corpus", help="make the embedded demo corpus")
    demo.add_argument("folder", type=Path, help="new or empty folder")
    demo.add_argument("--seed", type=int, default=1, help="seed of the generator (default: 1)")
    demo.add_argument("--recordings", type=int, default=16, help="number of good recordings (default: 16)")
    demo.set_defaults(run=commands.demo_corpus)

    metrics = commands_of.add_parser("metrics", help="print the leader board of a finished run")
    metrics.add_argument("results", type=Path, nargs="?", default=Path("results"), help="results_dir of the run")
    metrics.set_defaults(run=commands.metrics)

    schema = commands_of.add_parser("schema", help="write the JSON schemas and the config reference")
    schema.add_argument("folder", type=Path, nargs="?", default=Path(), help="root of the repository")
    schema.set_defaults(run=commands.schema)
    doctor.register(commands_of)
    runs.register(commands_of)
    jobs.register(commands_of)
    plan.register(commands_of)
    soundscapes.register(commands_of)
    export.register(commands_of)
    database.register(commands_of)
    return parser
