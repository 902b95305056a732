"""The tables of benchmarks/throughput.py as Markdown, for docs/benchmarks.md."""

from typing import Any

STAGES = ("decode", "spectrogram", "network", "write")


def as_markdown(found: dict[str, Any]) -> str:
    """Return the tables for docs/benchmarks.md."""
    about = found["surroundings"]
    packages = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    where = f"{about['cpu']}, {about['cores']} cores" + (f", {about['gpu']}" if about["gpu"] else "")
    lines = [
        f"Taken {about['date']} on {where} (load {about['load']}), {about['threads']} thread(s), {about['readers']} "
        f"reader(s), Python {about['python']}, {packages}.",
        "",
        "| model | file | x real time per core | CPU s | wall s "
        "| decode | spectrogram | network | write | rest | bound |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in found["rows"]:
        shares = " | ".join(f"{100 * row['shares'][s]:.0f} %" for s in (*STAGES, "rest"))
        lines.append(f"| {row['model']} | {row['file']} | {_figures(row)} | {shares} | {row['bound']} |")
    for name, row in found["others"].items():
        lines.append(f"| {name} | {row['audio_s']:.0f} s WAV | {_figures(row)} | | | | | | |")
    alone = found["rows"] and [
        "",
        "Stages alone, as multiples of real time, and what the network computes:",
        "",
        "| model | file | decode | spectrogram | network | write | GFLOP/s |",
        "|---|---|--:|--:|--:|--:|--:|",
        *(
            f"| {row['model']} | {row['file']} | "
            + " | ".join(f"{row['x_real_time_of_stage'][s]:,.0f}" for s in STAGES)
            + f" | {row['network_gflop_per_s']:.1f} |"
            for row in found["rows"]
        ),
    ]
    lines += alone or []
    if (day := found.get("day")) is not None:
        lines += [
            "",
            f"{day['hours']:g} h in one file, {day['model']}: {day['peak_mb']:,.0f} MB at the peak "
            f"({day['peak_mb_before']:,.0f} MB before the first sample), {day['x_real_time_per_core']:,.0f} x real "
            "time per core.",
        ]
    if (many := found.get("many")) is not None:
        lines += [
            "",
            f"{many['files']:,} files of 1 s in one job, {many['model']}: {many['cpu_s']:.1f} CPU s, "
            f"{100 * many['share_outside']:.1f} % of them outside decoding, spectrogram and network.",
        ]
    return "\n".join(lines) + "\n"


def _figures(row: dict[str, Any]) -> str:
    return f"{row['x_real_time_per_core']:,.1f} | {row['cpu_s']:.2f} | {row['wall_s']:.2f}"
