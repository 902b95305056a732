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
        else:
            verdicts[fold] = (True, "No group, no recording, no content on two sides.")
    return verdicts


def noise_sentences(report: Mapping[str, Any], *, fallback_raw: bool) -> list[str]:
    """Return what became of the noise that was wanted, as sentences; `report` is what make_dataset wrote."""
    wanted, mined, raw, unmet = (int(report.get(name, 0)) for name in ("wanted", "mined", "mined_raw", "unmet"))
    found = mined + raw
    sentences = [f"{amount(wanted, 'noise clip')} wanted, {found} found in time that no annotation touches."]
    if raw:
        sentences.append(
            f"{raw} of the {found} ({100 * raw / found:.1f} %) come from raw recordings that nobody has labelled, "
            "because the labelled extracts had no room left."
        )
    elif fallback_raw:
        sentences.append("No raw recording was used: the labelled recordings had room for all that was found.")
    if unmet:
        sentences.append(f"{amount(unmet, 'noise clip')} wanted found no room: fewer than noise_per_target asks for.")
    if alarms := int(report.get("false_alarms", 0)):
        sentences.append(f"{amount(alarms, 'false alarm')} of an earlier model came on top.")
    overlapping, duplicate = int(report.get("overlapping_noise", 0)), int(report.get("duplicate_noise", 0))
    if overlapping:
        sentences.append(
            f"{amount(overlapping, 'noise clip')} overlap an earlier one of the same recording, {duplicate} of them "
            "with the same times; labelled confusers may, as a person drew them."
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
