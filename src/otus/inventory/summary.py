"""What the inventory found, in a few sentences for the log and the terminal."""

from collections import Counter

from otus.inventory.flags import flag_kinds
from otus.inventory.names import NO_DATE, NO_PATTERN
from otus.inventory.stage import Inventory


def summary_lines(inventory: Inventory) -> list[str]:
    """Return what the inventory found in a few sentences: recordings, hours, labels, flags, quarantine by kind."""
    recordings, annotations, quarantine = inventory.recordings, inventory.annotations, inventory.quarantine
    readable = recordings[recordings["readable"].astype(bool)]
    labelled = readable[readable["labelled"].astype(bool)]
    hours, labelled_hours = readable["duration_s"].sum() / 3600, labelled["duration_s"].sum() / 3600
    lines = [
        f"{len(readable)} readable recordings in {readable['group'].nunique()} groups, {hours:.2f} h; "
        f"{len(labelled)} of them labelled, {labelled_hours:.2f} h.",
        f"{len(annotations)} annotations in {annotations['recording_id'].nunique()} recordings: "
        f"{_counted(Counter(annotations['label']))}.",
    ]
    kinds = Counter(kind for flags in readable["flags"].dropna() for kind in flag_kinds(flags))
    if kinds:
        lines.append(f"{readable['flags'].notna().sum()} recordings have flags: {_counted(kinds)}.")
    told = [(kinds[NO_DATE], "the date of {} recordings cannot be read"), (kinds[NO_PATTERN], "{} fit no pattern")]
    if any(count for count, _ in told):
        lines.append(f"corpus.names: {', '.join(text.format(count) for count, text in told if count)}.")
    copies = quarantine.loc[quarantine["kind"].eq("duplicate"), "reason"]
    if len(copies):
        identical = int(copies.str.startswith("byte-identical").sum())
        lines.append(f"{len(copies)} duplicates: byte-identical {identical}, same samples {len(copies) - identical}.")
    if len(quarantine):
        lines.append(f"{len(quarantine)} entries in quarantine: {_counted(Counter(quarantine['kind']))}.")
    return lines


def _counted(counts: "Counter[str]") -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
