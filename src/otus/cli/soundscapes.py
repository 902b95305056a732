"""The command `otus build-soundscapes`."""

import argparse
from pathlib import Path

_DESCRIPTION = """Build long recordings from labelled clips and backgrounds, with a Raven table of every event, as
corpus.soundscapes of the config files asks for. The workflow does the same before it takes the inventory.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `otus`."""
    build = commands.add_parser(
        "build-soundscapes", help="build long recordings from labelled clips", description=_DESCRIPTION
    )
    build.add_argument("config", type=Path, nargs="+", help="config files; later ones win")
    build.add_argument("-o", "--output", type=Path, help="new or empty folder (default: corpus.root of the config)")
    build.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Build the soundscapes with all cores."""
    from otus.config import load_config
    from otus.doctor.machine import usable_cores
    from otus.errors import DataError
    from otus.soundscapes import build_soundscapes

    corpus = load_config(options.config).corpus
    if corpus.soundscapes is None:
        raise DataError(f"{options.config[-1]}: has no corpus.soundscapes; say there what to build.")
    folder: Path = options.output or Path(corpus.root)
    index = build_soundscapes(
        corpus.soundscapes, folder, workers=usable_cores(), progress=lambda line: print(line, flush=True)
    )
    for label, rate in index["labels"].items():
        lost = rate["crowded_out"] + rate["too_faint"]
        dropped = f" ({lost} without a place or too faint)" if lost else ""
        print(f"{label}: {rate['written']} events, {rate['achieved_per_min']:.2f} a minute{dropped}")
    counts = index["counts"]
    print(f"{counts['recordings']} soundscapes, {counts['hours']:.2f} h, {counts['events']} events in {folder}")
    return 0
