"""What the post-filter changes in finished runs of the workflow: F1, and false alarms per hour at equal recall.

    snakemake -j2 --configfile config/boobook.yaml
    snakemake -j2 --configfile config/esc10_snr.yaml config/esc10_cv.yaml
    python benchmarks/post_filter.py results/boobook results/esc10_cv

Every number comes from differences.csv and forests.json of the run, so it is that of the report: paired by group, on
test recordings, at the operating points that validation chose.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from otus.atomic import read_json
from otus.errors import OtusError
from otus.tables import FILTERED, read_table

_RATE = "false_alarms_per_hour_at_equal_recall"


def rows_of(results: Path) -> list[list[str]]:
    """Return a row of text for every model and label of a results folder."""
    differences = read_table(results / "differences.parquet", "differences")
    gains = differences[
        differences["layer"].str.endswith(FILTERED) & differences["model"].eq(differences["other_model"])
    ]
    rows = []
    for (model, label), own in gains.groupby(["model", "label"], sort=False):
        by_measure = own.set_index("measure")
        f1, rate = by_measure.loc["f1"], by_measure.loc[_RATE]
        fits = [
            f for f in read_json(results / "forest" / str(model) / "forests.json") if label in (f["label"], "micro")
        ]
        used = sum(not fit["reason"] for fit in fits)
        rows.append(
            [
                results.name,
                str(model),
                str(label),
                f"{f1['other_value']:.3f}",
                f"{f1['value']:.3f}",
                _with_interval(f1, 3),
                f"{f1['p_value']:.2f}",
                f"{rate['other_value']:.1f}",
                f"{rate['value']:.1f}",
                f"{used} of {len(fits)}",
                str(int(f1["n_groups"])),
            ]
        )
    return rows


def _with_interval(row: "pd.Series[float]", digits: int) -> str:
    low, high = row["difference_low"], row["difference_high"]
    interval = "" if pd.isna(low) else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"{row['difference']:+.{digits}f}{interval}"


def main() -> None:
    """Print the table of all results folders as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="results folders of finished runs")
    columns = ["run", "model", "label", "F1 alone", "F1 with", "difference", "p", "FA/h alone", "FA/h with"]
    columns += ["forests used", "groups"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for results in parser.parse_args().results:
        for row in rows_of(results):
            print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    try:
        main()
    except OtusError as error:
        sys.exit(str(error))
