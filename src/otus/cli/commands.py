"""What each `otus` command does. Heavy imports stay inside, so that `otus --help` answers at once."""

import argparse
import shlex
from pathlib import Path

from otus.errors import DataError

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
    """Check the config and take the inventory; what was found in unchanged files is kept for the next time."""
    from otus.config import load_config
    from otus.datasets import make_variant, verdict
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
    lines = ["config: ok", *summary_lines(inventory)]
    for name, dataset in config.datasets.items():
        variant = make_variant(
            inventory.recordings,
            inventory.annotations,
            dataset=name,
            targets=config.corpus.targets,
            split=config.split,
            settings=dataset,
            seed=config.seed,
        )
        counts = variant.clips.drop_duplicates("clip_id")["class"].value_counts().to_dict()
        clips = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), reverse=True))
        lines.append(f"dataset {name}: {clips} clips; {verdict(variant.leakage)}.")
    print("\n".join(lines))
    quarantine = inventory.quarantine.astype({"row": object})
    quarantine = quarantine.where(quarantine.notna(), None)
    for row in quarantine.head(_MOST_LINES).itertuples(index=False):
        where = row.path if row.row is None else f"{row.path}, row {row.row}"
        print(f"quarantine: {where}: {row.reason}")
    if len(quarantine) > _MOST_LINES:
        print(f"quarantine: {len(quarantine) - _MOST_LINES} more; `snakemake inventory` writes all to quarantine.csv")
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
