"""A folder of text files that is whole or absent."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from otus.atomic import storage_explained
from otus.errors import DataError


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Write `texts`, by their posix paths below `folder`, as UTF-8; `folder` is new or empty, and appears as a whole.

    Raises DataError if the folder holds something, or a path leads out of it, and MissingPartError if the disk is full
    or may not be written.
    """
    for name in texts:
        parts = name.split("/")
        if "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in parts):
            raise DataError(f"{folder}: a file for it is named '{name}', which leads elsewhere; rename its recording.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder}: holds something already; move it away or delete it, and start again.")
    new = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    with storage_explained(folder):
        try:
            for name, text in texts.items():
                path = new.joinpath(*PurePosixPath(name).parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
            new.mkdir(parents=True, exist_ok=True)
            new.replace(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
