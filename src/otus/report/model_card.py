"""The model card as a page for people, with the sections of Mitchell et al. 2019, "Model Cards for Model Reporting"."""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import PurePath
from typing import Any

import jinja2
import pandas as pd

from otus.config import DatasetSettings
from otus.layout import Table
from otus.report.leaderboard import at_iou, deciding_iou, noted_rows, with_interval
from otus.report.model_facts import ModelFacts
from otus.report.results import DASH, Row, amount, cell, fold_order
from otus.tables import MICRO, POOLED

#: More groups than this are counted, not listed.
_MOST_GROUPS = 40

#: Fewer calls than this deserve a warning.
_FEW_CALLS = 100

_ARCHITECTURES = {
    "tcn": "a small network of convolutions that thin out frequency and dilated convolutions over time",
    "crnn": "a small network of convolutions over frequency, dilated convolutions over time and a bidirectional GRU",
    "dense_resnet": "a residual network that keeps the time resolution of its input",
    "resnet18": "the ResNet-18 of ANIMAL-SPOT, which judges short windows (Bergler et al. 2022)",
    "beats": "a BEATs encoder (Chen et al. 2022) with a head that scores frames",
    "timm": "an image network of the timm library with a head that scores frames",
}

_OBJECTIVES = {
    "frame": "frames: each learns whether it lies in a call and whether one starts there (strong labels)",
    "clip": "whole windows: each learns whether it shows a call (weak labels)",
}

#: What means something in Markdown: underscores at the ends of words, brackets that are no interval, and the rest.
_MARKUP = re.compile(r"[\\`*<>|#&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\[(?!\d)|(?<=\])\(")

_NUMBERS = ("F1", "Precision", "Recall", "AP", "FA/h", "Calls", "Recordings", "Groups")


def model_card(facts: ModelFacts) -> str:
    """Return the card of a model as Markdown; the same facts give the same text.

    Numbers are those of test recordings at the selected operating point and the first IoU, with the counts behind
    them. Names from the corpus are shown as they are, without meaning anything in Markdown.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["plain"] = _plain
    template = environment.from_string(resources.files(__package__).joinpath("model_card.md").read_text("utf-8"))
    text = template.render(_view(facts))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"\|\n\n\|", "|\n|", text))


def _view(facts: ModelFacts) -> dict[str, Any]:
    """What the template shows."""
    card, classes = _card(facts), _classes(facts)
    frontend, pooled = card["frontend"], _chosen(facts, POOLED)
    return {
        "model": facts.model,
        "leaky": _leaky(facts),
        "criteria": _criteria(facts),
        "chosen_by": _chosen_by(facts),
        "classes": ", ".join(f"*{_plain(label)}*" for label in classes),
        "result": _result(pooled),
        **_networks(facts),
        "hears": _hears(frontend) + _other_frontends(facts),
        "answer_ms": f"{1000 * _hop_s(frontend):g}",
        "objective": _OBJECTIVES[card["objective"]],
        "origin": _origin(card),
        "training": _training(card["training"]),
        "time": _time(facts),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(card["versions"].items())),
        "files": _files(facts),
        "sample_rate": f"{frontend['sample_rate']:g}",
        "band": f"{frontend['low_hz']:g} to {frontend['high_hz']:g} Hz",
        "known": _known(_used(facts)),
        "groups": _groups(facts),
        "iou": f"{deciding_iou(facts.metrics) or 0.0:g}",
        "points": _points(facts),
        "tested": _tested(facts),
        "dataset": facts.dataset,
        "strategy": facts.settings.strategy,
        "noise": _noise(facts.settings),
        "trained": _trained(facts),
        "pooled": Table(["Layer", "Label", *_NUMBERS], [_cells(row) for row in pooled], text_columns=2),
        "by_fold": _by_fold(facts),
        "caveats": _caveats(facts, pooled),
    }


def _result(pooled: Sequence[Row]) -> str:
    """The number that counts, and what it was measured on."""
    if not pooled:
        return ""
    row = _headline(pooled)
    tested = f"{amount(row['n_recordings'], 'test recording')} of {amount(row['n_groups'], 'group')}"
    return (
        f"F1 {with_interval(row, 'f1', DASH)} on {amount(row['n_gt'], 'annotated call')} in {tested} ({row['layer']})."
    )


def _networks(facts: ModelFacts) -> dict[str, Any]:
    """What the networks are, and how many."""
    card = _card(facts)
    members, folds = int(card["members"]), len(facts.folds)
    each = f"{members} from different seeds, which answer together (mean of their logits)" if members > 1 else "one"
    sizes = sorted({fold.parameters // members for fold in facts.folds.values()})
    return {
        "architecture": f"{card['architecture']}, {_ARCHITECTURES[card['architecture']]}",
        "encoder": _encoder(facts),
        "parameters": " or ".join(f"{size:,}" for size in sizes),
        "parts": f"{each}, in each of the {folds} folds of a cross-validation" if folds > 1 else each,
    }


def _encoder(facts: ModelFacts) -> str:
    """Where the weights of a BEATs encoder are; empty for other networks."""
    if _card(facts)["architecture"] != "beats":
        return ""
    kept = "The weights of the encoder are in your checkpoint; they are neither stored nor counted"
    if any(2 in (fold.card.get("best_stages") or []) for fold in facts.folds.values()):
        return f"{kept}, except its last blocks in the networks of stage 2, which learnt as well."
    return f"{kept}."


def _hears(frontend: Mapping[str, Any]) -> str:
    """What the network hears, in plain words."""
    rate = frontend["sample_rate"]
    band = f"{frontend['low_hz']:g} to {frontend['high_hz']:g} Hz"
    start = f"{frontend['bands']} {frontend['scale']} bands from {band} of sound resampled to {rate:g} Hz"
    if frontend["kind"] == "windows":
        how = "each scaled to 0..1" if frontend["min_max_norm"] else "with a fixed range of dB"
        return f"{start}, in windows of {frontend['window_samples'] / rate:g} s, {how}."
    if frontend["kind"] == "fbank":
        return f"{start}, as its encoder was trained on; the level of a recording matters."
    window_ms = 1000 * frontend["n_fft"] / rate
    return (
        f"{start}; every {1000 * _hop_s(frontend):g} ms over {window_ms:.3g} ms, each in units of its own median over "
        "the recording, so that recorder gain and steady noise hardly matter."
    )


def _other_frontends(facts: ModelFacts) -> str:
    """Whether the front ends of the folds differ."""
    frontends = [fold.card["frontend"] for fold in facts.folds.values()]
    if all(one == frontends[0] for one in frontends):
        return ""
    return f" That is fold {next(iter(facts.folds))}; the others chose theirs by their own training calls (card.json)."


def _origin(card: Mapping[str, Any]) -> str:
    """Where the weights come from."""
    if imported := card.get("imported"):
        known = "; ".join(f"{_plain(name)}: {_plain(value)}" for name, value in sorted(imported.items()) if value)
        return f"from the checkpoint of another program ({known}); Otus cannot know all that it learnt from."
    learnt = "learnt from nothing but the training data below"
    if card["architecture"] == "beats":
        return f"{learnt}, and from what its encoder had learnt before."
    if card["architecture"] == "timm" and (weights := card["training"]["timm"]["weights"]):
        return f"{learnt}, and started from the file of weights {_plain(PurePath(weights).name)}."
    return f"{learnt}."


def _training(settings: Mapping[str, Any]) -> str:
    if settings["epochs"] == 0:
        return "none; the checkpoint was taken as it is."
    how = settings["optimisation"]
    most = f", at most {amount(settings['epochs'], 'epoch')}" if settings["epochs"] else ""
    return (
        f"{how['method']}, learning rate {how['learning_rate']:g} ({how['schedule']}), batches of "
        f"{settings['batch_size']}{most}; of each network the epoch that did best on validation was kept."
    )


def _time(facts: ModelFacts) -> str:
    """What the trainings took, as far as Snakemake has noted it."""
    wall, cpu = (
        [s for s in seconds if s is not None]
        for seconds in zip(*((fold.wall_s, fold.cpu_s) for fold in facts.folds.values()), strict=True)
    )
    if not wall:
        return "not known."
    cpu_time = f", {sum(cpu) / 60:.1f} min of CPU time" if len(cpu) == len(wall) else ""
    return (
        f"{sum(wall) / 60:.1f} min for {len(wall)} of {amount(len(facts.folds), 'training')}, one after the other"
        f"{cpu_time}; of one that was interrupted the last attempt (device: {_card(facts)['training']['device']})."
    )


def _files(facts: ModelFacts) -> Table:
    rows = [
        [str(number), fold.card["weights_sha256"], fold.card_sha256, _best_epochs(fold.card), str(fold.card["seed"])]
        for number, fold in facts.folds.items()
    ]
    return Table(["Fold", "SHA-256 of model.safetensors", "of card.json", "Best epochs", "Seed"], rows, text_columns=3)


def _best_epochs(card: Mapping[str, Any]) -> str:
    """Which epoch of every network was kept, and in which stage if there were two."""
    if not (stages := card.get("best_stages")):
        return ", ".join(map(str, card["best_epochs"]))
    return ", ".join(f"{epoch} (stage {stage})" for epoch, stage in zip(card["best_epochs"], stages, strict=True))


def _known(recordings: pd.DataFrame) -> str:
    """What is known to vary between recordings."""
    rates = recordings["sample_rate"].value_counts().sort_index(ascending=False)
    known = [f"sample rates {', '.join(f'{rate} Hz ({n})' for rate, n in rates.items())}"]
    known += [amount(n, name) for name in ("site", "recorder") if (n := recordings[name].nunique())]
    days = recordings["start_time"].dropna().astype(str).str[:10]
    if len(days):
        known.append(f"recorded from {_plain(days.min())} to {_plain(days.max())}")
    return f"{amount(len(recordings), 'labelled recording')}: {'; '.join(known)}"


def _groups(facts: ModelFacts) -> Table:
    """A row for each group."""
    tested = facts.splits[facts.splits["split"].eq("test")].groupby("group")["fold"].unique()
    calls = pd.crosstab(facts.annotations["recording_id"], facts.annotations["label"])
    rows = []
    for group, own in _used(facts).groupby("group"):
        counts = calls.reindex(index=own["recording_id"], columns=_classes(facts), fill_value=0).sum()
        folds = ", ".join(str(fold) for fold in sorted(tested.get(group, [])))
        hours = cell(own["duration_s"].sum() / 3600)
        rows.append([str(group), folds or DASH, str(len(own)), hours, *(str(n) for n in counts)])
    head = ["Group", "Tested in fold", "Recordings", "Hours", *_calls(facts)]
    return Table(head, rows[:_MOST_GROUPS], text_columns=2, left_out=max(0, len(rows) - _MOST_GROUPS))


def _points(facts: ModelFacts) -> Table:
    """The operating points."""
    rows = []
    for number, fold in facts.folds.items():
        for label, point in fold.points.items():
            named = [str(number), label, point.decoding.name(), point.calibration.method, f"{point.threshold:.3f}"]
            rows.append([*named, cell(point.reached.f1), str(point.n_calls)])
    head = ["Fold", "Label", "Decoding", "Calibration", "Threshold", "F1, validation", "Calls, validation"]
    return Table(head, rows, text_columns=4)


def _criteria(facts: ModelFacts) -> str:
    """By what the operating points were chosen; label by label where that differs."""
    criteria = {label: point.reached.criterion for fold in facts.folds.values() for label, point in fold.points.items()}
    if len(set(criteria.values())) == 1:
        return next(iter(criteria.values()))
    return ", ".join(f"{criterion} for *{_plain(label)}*" for label, criterion in criteria.items())


def _chosen_by(facts: ModelFacts) -> str:
    """On whose validation recordings the operating points were chosen."""
    if _leaky(facts):
        return "These lie in recordings that the fold also tests, in stretches of time of their own."
    if facts.by != "group" or len(facts.folds) == 1:
        return "These are the validation recordings of the fold alone; none is of a group that it tests."
    return (
        "These are the validation recordings of its own network, with the scores of that network, and those of the "
        "networks of the other folds, with theirs, less every recording of the groups that the fold tests. Those other "
        "networks were trained on the tested groups, so their scores are not wholly blind to them."
    )


def _tested(facts: ModelFacts) -> Table:
    """A row per fold: what was searched, and how many calls were there."""
    rows, by = [], facts.by != "group"
    for fold in _folds(facts):
        own = {row["label"]: row for row in _chosen(facts, fold) if row["layer"] == "cnn"}
        if not own:
            continue
        first = next(iter(own.values()))
        searched = [cell(first["n_recordings"], 0), cell(first["n_groups"], 0), cell(first["hours"])]
        calls = [cell(own[label]["n_gt"], 0) if label in own else DASH for label in _classes(facts)]
        rows.append([fold, *([cell(first["part"])] if by else []), *searched, *calls])
    head = ["Fold", *([facts.by.capitalize()] if by else []), "Recordings", "Groups", "Hours", *_calls(facts)]
    return Table(head, rows, text_columns=1 + by)


def _noise(settings: DatasetSettings) -> str:
    quality = settings.min_quality
    left_out = f"; calls of a quality below {quality:g} taught nothing" if quality is not None else ""
    return f"{settings.noise_share:g} mined noise clips for each call{left_out}"


def _trained(facts: ModelFacts) -> Table:
    """Two rows per fold: what taught and what chose."""
    rows = []
    for number, fold in facts.folds.items():
        sides = facts.splits[facts.splits["fold"].eq(number)]
        for side, name in (("train", "training"), ("val", "validation")):
            data = fold.card["data"][side]
            digest = fold.card["training_data_sha256"] if side == "train" else ""
            unused = side == "train" and fold.card["training"]["epochs"] == 0
            n_groups = 0 if unused else sides.loc[sides["split"].eq(side), "group"].nunique()
            amounts = [str(data["recordings"]), str(n_groups)]
            calls = [str(data["calls"].get(label, DASH)) for label in _classes(facts)]
            rows.append([str(number), name, digest, *amounts, cell(data["hours"]), *calls])
    head = ["Fold", "Side", "Digest (SHA-256)", "Recordings", "Groups", "Hours", *_calls(facts)]
    return Table(head, rows, text_columns=3)


def _by_fold(facts: ModelFacts) -> Table | None:
    """The results of every fold; None if there is only one."""
    folds, by = _folds(facts), facts.by != "group"
    if len(folds) < 2:
        return None
    rows = [
        [fold, *([cell(row["part"])] if by else []), *_cells(row)] for fold in folds for row in _chosen(facts, fold)
    ]
    head = ["Fold", *([facts.by.capitalize()] if by else []), "Layer", "Label", *_NUMBERS]
    return Table(head, rows, text_columns=3 + by)


def _cells(row: Row) -> list[str]:
    label = "all labels (micro)" if row["label"] == MICRO else str(row["label"])
    intervals = [with_interval(row, name, DASH) for name in ("f1", "precision", "recall")]
    counts = [cell(row[name], 0) for name in ("n_gt", "n_recordings", "n_groups")]
    ratios = [cell(row["average_precision"]), cell(row["false_alarms_per_hour"], 1)]
    return [str(row["layer"]), label, *intervals, *ratios, *counts]


def _caveats(facts: ModelFacts, pooled: Sequence[Row]) -> list[str]:
    """What makes the numbers of this very model worth less than they look."""
    found = []
    if _leaky(facts):
        found.append(
            "**Leaky**: this dataset variant deals single clips, so that calls of one recording stand on both sides. "
            "The numbers are for comparison with older pipelines; expect less on new recordings."
        )
    if _card(facts).get("imported"):
        found.append(
            "**Imported**: the checkpoint may have learnt from the very recordings that it is tested on here; if so, "
            "its numbers are too good."
        )
    if pooled and (calls := _headline(pooled)["n_gt"]) < _FEW_CALLS:
        found.append(f"There were only {amount(calls, 'call')} to find: single calls move the numbers.")
    if facts.by == "group" and not _leaky(facts):
        found.append(
            "Unless a group is a whole site, training and test share sites and recorders, and a new place may do "
            "worse; `split.by: site` in the config tests that."
        )
    if len(facts.folds) > 1:
        found.append("The numbers are those of all folds together; each network was tested on its own part only.")
    return found + _notes(pooled)


def _notes(pooled: Sequence[Row]) -> list[str]:
    """What the metrics table notes to the rows, each note once."""
    notes = noted_rows(pooled).items()
    return [f"{_plain(note[0].upper() + note[1:])} ({_plain(', '.join(rows))})." for note, rows in notes]


def _card(facts: ModelFacts) -> Mapping[str, Any]:
    """The card of the first fold, for what all folds share."""
    return next(iter(facts.folds.values())).card


def _classes(facts: ModelFacts) -> list[str]:
    return [str(label) for label in _card(facts)["classes"]]


def _calls(facts: ModelFacts) -> list[str]:
    """Column heads for the calls of every class."""
    return [f"Calls: {label}" for label in _classes(facts)]


def _leaky(facts: ModelFacts) -> bool:
    return facts.settings.leaky or bool(facts.metrics["leaky"].eq(True).any())


def _used(facts: ModelFacts) -> pd.DataFrame:
    """The recordings that stand on a side of any fold."""
    return facts.recordings[facts.recordings["recording_id"].isin(facts.splits["recording_id"])]


def _hop_s(frontend: Mapping[str, Any]) -> float:
    return float(frontend["hop_samples"] / frontend["sample_rate"])


def _folds(facts: ModelFacts) -> list[str]:
    return sorted(set(facts.metrics["fold"]) - {POOLED}, key=fold_order)


def _chosen(facts: ModelFacts, fold: str) -> list[Row]:
    """The test rows of a fold at the selected operating point: layer by layer, all labels together first."""
    rows = at_iou(facts.metrics, "iou", deciding_iou(facts.metrics))
    rows = rows[rows["selected"].eq(True) & rows["split"].eq("test") & rows["fold"].eq(fold)]
    order = [MICRO, *_classes(facts)]
    return sorted(rows.to_dict("records"), key=lambda row: (row["layer"], order.index(row["label"])))


def _headline(pooled: Sequence[Row]) -> Row:
    """All labels together where there are several, after the forest where there is one."""
    return [row for row in pooled if row["label"] == pooled[0]["label"]][-1]


def _plain(text: Any) -> str:
    """Names are data: no mark-up, no line break, no control character."""
    printable = "".join(character if character.isprintable() else "?" for character in str(text))
    return _MARKUP.sub(r"\\\g<0>", printable)
