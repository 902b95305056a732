"""What the leakage table and the noise report mean, in plain words."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

#: What two sides may share, the most telling first.
_SHARED = {
    "shared_recordings": "recording",
    "shared_contents": "content",
    "shared_raw_recordings": "raw recording",
    "shared_groups": "group",
}


def leakage_verdicts(leakage: pd.DataFrame, folds: Iterable[int]) -> dict[int, tuple[bool, str]]:
    """Return, for every fold, whether its sides are proved apart, and a sentence that says so or says what leaks.

    `leakage` is the table of that name of one dataset variant; a fold without a row in it is not proved.
    """
    verdicts = {}
    for fold in folds:
        rows = leakage[leakage["fold"].eq(fold)]
        found = [text for row in rows.to_dict("records") if (text := _shared(row))]
        if rows.empty:
            verdicts[fold] = (False, "Not checked: the leakage table has no row for this fold.")
        elif found:
            verdicts[fold] = (False, f"LEAKY: {'; '.join(found)}.")
        elif rows["shared_contents"].isna().any():
            verdicts[fold] = (True, "No group, no recording on two sides; contents were not compared.")
        else:
            verdicts[fold] = (True, "No group, no recording, no content on two sides.")
    return verdicts


def noise_sentences(report: Mapping[str, Any]) -> list[str]:
    """Return what became of the noise of a variant; `report` is its noise.json (otus.datasets.noise.NoiseReport).

    The first sentence says what was wanted, found, taken from raw recordings and not found, and how many false alarms
    came on top; the others are about what was left out or may surprise, where there is any.
    """
    sentences = [_noise_found(report)]
    if left_out := report["confusers_left_out"]:
        what = "is no noise clip" if left_out == 1 else "are no noise clips"
        sentences.append(f"{amount(left_out, 'labelled confuser')} {what}: a call or something unknown is heard too.")
    if unrated := report["unrated_calls"]:
        what = "is a target clip" if unrated == 1 else "are target clips"
        sentences.append(f"{amount(unrated, 'call')} whose quality holds no number {what} all the same (min_quality).")
    if rows := report["selections"]:
        sentences.append(_selections_used(rows))
    overlapping, duplicate = report["overlapping_noise"], report["duplicate_noise"]
    if overlapping:
        verb = "overlaps" if overlapping == 1 else "overlap"
        sentences.append(
            f"{amount(overlapping, 'noise clip')} {verb} an earlier one of the same recording, {duplicate} with the "
            "same times; labelled confusers may, as a person drew them."
        )
    else:
        sentences.append("No two noise clips of a recording overlap.")
    return sentences


def amount(n: int, noun: str) -> str:
    """Return e.g. '1 clip' or '3 clips'."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _shared(row: Mapping[Any, Any]) -> str:
    """The most telling thing that two sides share, and how many clips overlap; empty if there is nothing."""
    side, other = row["side"], row["other_side"]
    counts = [(int(row[name]), noun) for name, noun in _SHARED.items() if not pd.isna(row[name]) and row[name]]
    overlapping = 0 if pd.isna(row["overlapping_clips"]) else int(row["overlapping_clips"])
    parts = []
    if counts:
        verb = "stands" if counts[0][0] == 1 else "stand"
        parts.append(f"{amount(*counts[0])} {verb} in {side} and in {other}")
    if overlapping:
        verb = "overlaps" if overlapping == 1 else "overlap"
        parts.append(f"{amount(overlapping, 'clip')} of {side} {verb} a clip of {other}")
    return ", ".join(parts)


def _noise_found(report: Mapping[str, Any]) -> str:
    """How much noise was wanted and found, and where."""
    mined, raw, unmet = report["mined"], report["mined_raw"], report["unmet"]
    found = mined + raw
    parts = [f"{amount(report['wanted'], 'noise clip')} wanted, {found} found"]
    if raw:
        share = f"{100 * raw / found:.1f} %"
        parts[0] += f" ({mined} in labelled recordings, {raw} or {share} in raw recordings that nobody has labelled)"
    elif found:
        parts[0] += ", all in labelled recordings"
    if unmet:
        parts.append(f"{unmet} not found, as there was no room")
    if report["false_alarms"] or report["selections"]:
        parts.append(f"{amount(report['false_alarms'], 'false alarm')} of an earlier model used on top")
    return f"{'; '.join(parts)}."


def _selections_used(rows: Mapping[str, int]) -> str:
    """What became of the rows of a table of hard negatives, the most frequent reason first."""
    said = f"Of {amount(sum(rows.values()), 'row')} of the table of hard negatives {rows['used']} became noise clips"
    left_out = [(reason, n) for reason, n in rows.items() if n and reason != "used"]
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(left_out, key=lambda pair: (-pair[1], pair[0])))
    return f"{said}; left out: {reasons}." if reasons else f"{said}."
