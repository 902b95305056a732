"""Learning curves: loss, validation and learning rate over the epochs of one training, or of all folds of a model."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from otus.atomic import read_json
from otus.report.figures import COLOURS, FAINT, as_svg, house_style

Record = Mapping[str, float]

#: What a record holds besides the results of its validation.
_NO_RESULT = ("member", "epoch", "loss", "learning_rate", "stage")

#: What early stopping watches; it is drawn solid.
_WATCHED = "detection"

_DASHES: tuple[Any, ...] = ((0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))

#: A loss that falls by more than this is drawn on a logarithmic scale.
_LOG_FROM = 10.0


@dataclass(frozen=True)
class History:
    """The epochs of one network, counted from 1 through all stages; lines of the same `name` share a colour.

    `best`: place among the records of the epoch whose weights were kept, None if none were.
    """

    name: str
    records: tuple[Record, ...]
    best: int | None


def histories_by_member(records: Iterable[Record], best_epochs: Sequence[int]) -> list[History]:
    """Return the networks of one training, each with a name of its own, from its metrics.jsonl and its best epochs."""
    members = _members(records)
    return [
        History(
            f"network {number}" if len(members) > 1 else "network", tuple(own), _place(own, best_epochs[number - 1])
        )
        for number, own in members.items()
    ]


def histories_of_fold(fold: str, records: Iterable[Record], best_epochs: Sequence[int]) -> list[History]:
    """Return the networks of one training, all named after their fold."""
    name = f"fold {fold}"
    return [History(name, one.records, one.best) for one in histories_by_member(records, best_epochs)]


def read_histories(files: Iterable[tuple[str | Path, str | Path]]) -> dict[str, list[History]]:
    """Return the networks of all folds by model, from the metrics.jsonl and best_metrics.json of every training.

    The names of model and fold are those of the folders, as in results/models/<model>/fold<k>/.
    """
    found: dict[str, list[History]] = {}
    for metrics, best in files:
        folder = Path(metrics).parent
        records = [json.loads(line) for line in Path(metrics).read_text(encoding="utf-8").splitlines()]
        own = histories_of_fold(folder.name.removeprefix("fold"), records, read_json(best)["best_epochs"])
        found.setdefault(folder.parent.name, []).extend(own)
    return found


def best_epochs_in_words(histories: Sequence[History]) -> str:
    """Return which epoch of every network was kept, of how many that were trained."""
    folds: dict[str, list[str]] = {}
    for one in histories:
        if one.best is not None:
            folds.setdefault(one.name, []).append(f"{one.best + 1} of {len(one.records)}")
    return "; ".join(f"{name}: {', '.join(kept)}" for name, kept in folds.items())


def fold_svg(histories: Sequence[History]) -> str:
    """Return an SVG file of one training: loss, everything that validation found, learning rate over the epochs.

    One line per network, a dot at its best epoch; dotted uprights stand where a stage begins. Without any epoch (a
    checkpoint that was taken as it is) the figure says so.
    """
    with house_style():
        figure = _drawn([one for one in histories if one.records], _results(histories))
        figure.set_facecolor("white")
        return as_svg(figure, "learning-")


def model_svg(histories: Sequence[History], prefix: str) -> str:
    """Return an <svg> of all trainings of a model; of the validations only what early stopping watches.

    `prefix` makes the ids in it unique on a page. Empty text without any epoch.
    """
    histories = [one for one in histories if one.records]
    with house_style():
        return as_svg(_drawn(histories, [_WATCHED]), prefix) if histories else ""


def _drawn(histories: Sequence[History], results: Sequence[str]) -> Figure:
    names = list(dict.fromkeys(one.name for one in histories))
    figure = Figure(figsize=(8.4, 2.9 + 0.2 * -(-(len(names) + len(results) + 1) // 5)), layout="constrained")
    if not histories:
        figure.text(0.5, 0.5, "Nothing was trained: the network is that of a checkpoint.", ha="center")
        return figure
    for place, (title, keys) in enumerate(
        (("loss", ["loss"]), ("validation", results), ("learning rate", ["learning_rate"])), start=1
    ):
        axes = figure.add_subplot(1, 3, place)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        for one in histories:
            _lines(axes, one, keys, COLOURS[names.index(one.name) % len(COLOURS)])
        _finish(axes, histories, keys)
    handles = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(names)]
    handles += [Line2D([], [], color=FAINT, ls=_dashes(results, key), label=_in_words(key)) for key in results]
    handles.append(Line2D([], [], ls="", marker="o", color=FAINT, label="best epoch"))
    figure.legend(handles=handles, loc="outside lower left", ncols=5, frameon=False)
    return figure


def _members(records: Iterable[Record]) -> dict[int, list[Record]]:
    """The records by the number of their network, in their order."""
    members: dict[int, list[Record]] = {}
    for record in records:
        members.setdefault(int(record.get("member", 1)), []).append(record)
    return dict(sorted(members.items()))


def _place(records: Sequence[Record], best_epoch: int) -> int | None:
    """The validated record of that epoch."""
    return next((i for i, r in enumerate(records) if int(r["epoch"]) == best_epoch and _WATCHED in r), None)


def _results(histories: Sequence[History]) -> list[str]:
    """What validations found, the watched number first."""
    keys = sorted({key for one in histories for record in one.records for key in record} - set(_NO_RESULT))
    return sorted(keys, key=lambda key: key != _WATCHED)


def _lines(axes: Axes, one: History, keys: Sequence[str], colour: str) -> None:
    """One line per key over the epochs of the records that have it, and the best epoch of the first key."""
    for key in keys:
        points = [(r["epoch"], r[key]) for r in one.records if key in r]
        marker = "." if len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), color=colour, lw=1.3, ls=_dashes(keys, key), marker=marker, zorder=2)
    if one.best is not None:
        best = one.records[one.best]
        axes.plot(best["epoch"], best[keys[0]], "o", ms=5, color=colour, zorder=3)


def _finish(axes: Axes, histories: Sequence[History], keys: Sequence[str]) -> None:
    """Scales, and where stages begin."""
    values = [record[key] for one in histories for record in one.records for key in keys if key in record]
    if _WATCHED in keys:
        axes.set_ylim(min(0.0, *values), max(1.0, *values) * 1.02)
    elif keys == ["loss"] and min(values) > 0 and max(values) > _LOG_FROM * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0.0)
    for place in sorted({place for one in histories for place in _stage_starts(one)}):
        axes.axvline(place + 0.5, color=FAINT, lw=0.8, ls=":", zorder=1)


def _stage_starts(one: History) -> list[int]:
    """How many records lie before each change of stage."""
    stages = [record.get("stage", 1) for record in one.records]
    return [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]


def _dashes(keys: Sequence[str], key: str) -> Any:
    """Solid for the first, dashes for the others."""
    place = list(keys).index(key)
    return "-" if place == 0 else _DASHES[(place - 1) % len(_DASHES)]


def _in_words(key: str) -> str:
    return key.replace("_", " ")
