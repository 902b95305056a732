"""The command `otus doctor`."""

import argparse
import io
import sys
from pathlib import Path


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `otus`."""
    doctor = commands.add_parser("doctor", help="look whether this machine has what a run needs, and say what to do")
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    doctor.add_argument(
        "--slurm",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="Slurm must be here, or is not looked at (default: look at it if it is here)",
    )
    doctor.add_argument(
        "--folder", type=Path, default=Path(), help="where the workflow writes (default: the working directory)"
    )
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the findings as they come; return 5 if something needed is missing, else 0."""
    from otus.doctor import as_json, examine, exit_code, line, summary

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold anything
    findings = []
    for finding in examine(slurm=options.slurm, folder=options.folder):
        findings.append(finding)
        if not options.json:
            print(line(finding), flush=True)
    print(as_json(findings) if options.json else summary(findings))
    return exit_code(findings)
