"""Learning curves for TensorBoard: event files made from the records of a training."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from otus.errors import MissingPartError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: Tags in TensorBoard; what else a record holds was found in validation.
_TAGS = {"loss": "training/loss", "learning_rate": "training/learning_rate", "stage": "training/stage"}


def require_tensorboard() -> None:
    """Raise MissingPartError if the package tensorboard cannot be imported: before a training, not after it."""
    _writer_class()


def write_events(folder: Path, records: Iterable[Mapping[str, float]]) -> None:
    """Write event files below `folder`, one folder per network (`network1`, ...), one point per epoch and value.

    What was in `folder` before is deleted, so that no epoch is there twice, however often a training was resumed.
    Raises MissingPartError without the package tensorboard.
    """
    writer_class = _writer_class()
    shutil.rmtree(folder, ignore_errors=True)
    members: dict[int, list[Mapping[str, float]]] = {}
    for record in records:
        members.setdefault(int(record.get("member", 1)), []).append(record)
    for number, own in members.items():
        with writer_class(str(folder / f"network{number}")) as writer:
            for record in own:
                for key in sorted(record.keys() - {"member", "epoch"}):
                    writer.add_scalar(_TAGS.get(key, f"validation/{key}"), record[key], int(record["epoch"]))


def _writer_class() -> "type[SummaryWriter]":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPartError(
            f"tensorboard: true is set, but the package tensorboard cannot be imported ({error}); install it with: "
            "pip install 'otus[tensorboard]', or leave the key out."
        ) from error
    return SummaryWriter
