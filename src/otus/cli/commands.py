"""What each `otus` command does. Heavy imports stay inside, so that `otus --help` answers at once."""

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from otus.errors import DataError, OtusError

if TYPE_CHECKING:
    import pandas as pd

    from otus.config import Config
    from otus.inventory import Inventory

#: Threads of `otus check`, which may run on a login node.
_MOST_THREADS = 4
#: Lines of quarantine that it prints.
_MOST_LINES = 100


def init(options: argparse.Namespace) -> int:
    """Write a config file for a folder of recordings."""
    from otus.atomic import write_text
    from otus.proposal import propose_config

    target: Path = options.output or Path("config", f"{options.folder.resolve().name}.yaml")
    if target.exists():
        raise DataError(f"{target}: exists already; choose another name with --output.")
    text = propose_config(options.folder)
    write_text(target, text)
    print(text, end="")
    name = shlex.quote(str(target))
    print(f"\nwritten to {target}; next: otus check {name} && snakemake -j2 --configfile {name}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Check the config, take the inventory and make every dataset variant, each whether or not another one fails.

    What was found in unchanged files is kept for the next time.
    """
    from otus.config import load_config
    from otus.doctor.machine import usable_cores
    from otus.inventory import summary_lines, take_inventory

    config = load_config(options.config)
    made = "demo corpus" if config.corpus.demo else "soundscapes" if config.corpus.soundscapes else None
    if made and not Path(config.corpus.root, "corpus.json").exists():
        print(f"config: ok; the {made} will be made by the workflow")
        return 0
    inventory = take_inventory(
        Path(config.corpus.root),
        config.corpus,
        workers=min(usable_cores(), _MOST_THREADS),
        cache=Path(config.results_dir, "cache", "inventory.parquet"),
    )
    print("\n".join(["config: ok", *summary_lines(inventory), *_quarantine_lines(inventory)]), flush=True)
    failures = [_check_dataset(name, config, inventory) for name in config.datasets]
    return next(filter(None, failures), 0)


def _quarantine_lines(inventory: "Inventory") -> list[str]:
    """The entries that somebody may want to do something about, as lines."""
    quarantine = inventory.quarantine[inventory.quarantine["kind"] != "cutout"].astype({"row": object})
    quarantine = quarantine.where(quarantine.notna(), None)
    lines = []
    for row in quarantine.head(_MOST_LINES).itertuples(index=False):
        where = row.path if row.row is None else f"{row.path}, row {row.row}"
        lines.append(f"quarantine: {where}: {row.reason}")
    if len(quarantine) > _MOST_LINES:
        more = len(quarantine) - _MOST_LINES
        lines.append(f"quarantine: {more} more; `snakemake inventory` writes all to quarantine.csv")
    return lines


def _check_dataset(name: str, config: "Config", inventory: "Inventory") -> int:
    """Tell what a dataset variant consists of, or on standard error why it cannot be made; return the exit code."""
    from otus.clipfiles.verdicts import noise_sentences
    from otus.datasets import make_variant, parts_in_words, read_selections, verdict

    settings = config.datasets[name]
    selections, remark = None, ""
    try:
        if settings.hard_negatives is not None:
            alarms = Path(settings.hard_negatives.selections)
            if alarms.is_file():
                selections = read_selections(alarms, inventory.recordings)
            else:
                remark = f" Its hard_negatives.selections, {alarms}, is not there yet: checked without."
        variant = make_variant(
            inventory.recordings,
            inventory.annotations,
            selections,
            dataset=name,
            targets=config.corpus.targets,
            split=config.split,
            settings=settings,
            seed=config.seed,
        )
    except OtusError as error:
        print(f"dataset {name}: {error}{remark}", file=sys.stderr)
        return error.exit_code
    counts = variant.clips.drop_duplicates("clip_id")["class"].value_counts().to_dict()
    clips = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), reverse=True))
    facts = [f"{clips} clips", parts_in_words(variant.splits), verdict(variant.leakage)]
    noise = " ".join(noise_sentences(dataclasses.asdict(variant.noise)))
    print(f"dataset {name}: {'; '.join(filter(None, facts))}. {noise}{remark}", flush=True)
    return 0


def demo_corpus(options: argparse.Namespace) -> int:
    """Make the demo corpus."""
    from otus.config import DemoSettings
    from otus.demo import make_demo_corpus

    if options.recordings < 12:
        raise DataError(f"--recordings {options.recordings}: the demo corpus has at least 12 recordings.")
    if options.seed < 0:
        raise DataError(f"--seed {options.seed}: a seed is zero or more.")
    make_demo_corpus(options.folder, DemoSettings(seed=options.seed, recordings=options.recordings))
    print(f"demo corpus in {options.folder}")
    return 0


def metrics(options: argparse.Namespace) -> int:
    """Print the leader board and the path of the report."""
    from otus.report.leaderboard import leaderboard_text

    found, differences = (_result(options.results, name) for name in ("metrics", "differences"))
    print(leaderboard_text(found, differences, options.results / "report.html"))
    return 0


def _result(results: Path, name: str) -> "pd.DataFrame":
    from otus.tables import read_table

    path = results / f"{name}.parquet"
    if not path.exists():
        raise DataError(f"{path}: not there; run snakemake first, or name the results_dir of your config.")
    return read_table(path, name)


def schema(options: argparse.Namespace) -> int:
    """Write schemas/*.json and docs/config.md from the typed models."""
    from otus.atomic import write_json, write_text
    from otus.cli.reference import config_reference, table_schemas
    from otus.config import config_schema

    write_json(options.folder / "schemas" / "config.schema.json", config_schema())
    write_json(options.folder / "schemas" / "tables.json", table_schemas())
    write_text(options.folder / "docs" / "config.md", config_reference())
    return 0
