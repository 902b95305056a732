"""What each `otus` command does. Heavy imports stay inside, so that `otus --help` answers at once."""

import argparse
import shlex
from pathlib import Path

from otus.errors import DataError


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
    """Check the config and take the inventory without writing anything."""
    from otus.config import load_config
    from otus.datasets import make_splits
    from otus.inventory import summary_lines, take_inventory

    config = load_config(options.config)
    if config.corpus.demo is not None and not Path(config.corpus.root, "corpus.json").exists():
        print("config: ok; the demo corpus will be made by the workflow")
        return 0
    inventory = take_inventory(Path(config.corpus.root), config.corpus)
    make_splits(
        inventory.recordings,
        inventory.annotations,
        targets=config.corpus.targets,
        settings=config.split,
        seed=config.seed,
    )
    print("\n".join(["config: ok", *summary_lines(inventory)]))
    quarantine = inventory.quarantine.astype({"row": object})
    for row in quarantine.where(quarantine.notna(), None).itertuples(index=False):
        where = row.path if row.row is None else f"{row.path}, row {row.row}"
        print(f"quarantine: {where}: {row.reason}")
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
    from otus.tables import read_table

    table = options.results / "metrics.parquet"
    if not table.exists():
        raise DataError(f"{table}: not there; run snakemake first, or name the results_dir of your config.")
    print(leaderboard_text(read_table(table, "metrics"), options.results / "report.html"))
    return 0


def schema(options: argparse.Namespace) -> int:
    """Write schemas/*.json and docs/config.md from the typed models."""
    from otus.atomic import write_json, write_text
    from otus.cli.reference import config_reference, table_schemas
    from otus.config import config_schema

    write_json(options.folder / "schemas" / "config.schema.json", config_schema())
    write_json(options.folder / "schemas" / "tables.json", table_schemas())
    write_text(options.folder / "docs" / "config.md", config_reference())
    return 0
