"""Which job is meant: the wildcards of a job from one of its files or from its message, and where its files lie.

The layout is that of rules/*.smk: <results>/<stage>/<dataset>-<training>/fold<n>/shard<n>..., and for logs and
benchmarks <results>/<folder>/<rule>/<dataset>-<training>.fold<n>.shard<n>.<suffix>.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

#: The wildcards of every rule that has some.
_WILDCARDS = {
    "make_dataset": ("dataset",),
    "train_model": ("dataset", "training", "fold"),
    "write_chunk_files": ("shard",),
    "predict_shard": ("dataset", "training", "shard"),
    "evaluate_model": ("dataset", "training"),
    "filter_selections": ("dataset", "training"),
    "measure_model": ("dataset", "training"),
    "export_model": ("dataset", "training"),
    "run_external": ("external", "shard"),
    "evaluate_external": ("dataset", "external"),
}


def wildcards_of_output(rule: str, path: str, results: Path) -> dict[str, str]:
    """Return the wildcards of the job of `rule` that makes the output `path`; none if it lies outside `results`."""
    try:
        parts = Path(path).relative_to(results).parts
    except ValueError:
        return {}
    name = parts[1] if len(parts) > 1 else ""
    return _wildcards(rule, name, "/".join(parts[2:]))


def wildcards_of_message(rule: str, text: str, names: Collection[str]) -> dict[str, str]:
    """Return the wildcards of a job from its message, which tells its dataset or model (one of `names`)."""
    known = [word for word in re.findall(r"[\w-]+", text) if word in names]
    return _wildcards(rule, known[-1] if known else "", text)


def wildcards_of_file(rule: str, path: Path) -> dict[str, str]:
    """Return the wildcards of the job of `rule` that a log or benchmark file belongs to."""
    name, _, numbers = path.name.partition(".")
    of_model = {"dataset", "external"} & set(_WILDCARDS.get(rule, ()))
    return _wildcards(rule, name, numbers if of_model else name)


def complete(rule: str, wildcards: Mapping[str, str]) -> bool:
    """Return whether these are all wildcards that jobs of the rule have."""
    return set(wildcards) >= set(_WILDCARDS.get(rule, ()))


def job_file(results: Path, folder: str, rule: str, wildcards: Mapping[str, str], suffix: str) -> Path:
    """Return the log or benchmark file of a job."""
    if rule not in _WILDCARDS:
        return results / folder / f"{rule}{suffix}"
    name = "-".join(wildcards[key] for key in ("dataset", "training", "external") if key in wildcards)
    numbers = [f"{key}{wildcards[key]}" for key in ("fold", "shard") if key in wildcards]
    return results / folder / rule / (".".join([*filter(None, [name]), *numbers]) + suffix)


def _wildcards(rule: str, name: str, text: str) -> dict[str, str]:
    """Those wildcards of the rule that the name of its dataset or model, and the text, tell."""
    dataset, _, training = name.partition("-")
    found = {"dataset": dataset, "training": training, "external": training or dataset}
    for key in ("fold", "shard"):
        number = re.search(rf"\b{key} ?(\d+)", text)
        found[key] = number[1] if number else ""
    return {key: found[key] for key in _WILDCARDS.get(rule, ()) if found[key]}
