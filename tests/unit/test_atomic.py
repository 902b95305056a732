import contextlib
import errno
import json
import math
import os
import re
import resource
from pathlib import Path

import pandas as pd
import pytest

from otus.atomic import read_json, replacing, storage_explained, storage_failure, write_json, write_text
from otus.errors import MissingPartError
from otus.tables import table, write_table


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_is_whole_and_alone_in_its_folder(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    write_text(target, "häuser\n")
    assert target.read_bytes() == "häuser\n".encode()
    assert names(target.parent) == ["a.txt"]


def test_nothing_is_seen_before_the_end_and_the_temporary_name_is_hidden_beside_the_target(tmp_path):
    target = tmp_path / "a.txt"
    with replacing(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent and temporary.name.startswith(".")
    assert target.read_text() == "half"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failure_leaves_the_folder_as_it_was(tmp_path, error, old):
    target = tmp_path / "a.txt"
    if old is not None:
        target.write_text(old)
    before = names(tmp_path)
    with pytest.raises(error), replacing(target) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert names(tmp_path) == before
    assert old is None or target.read_text() == old


def test_a_block_that_writes_nothing_does_not_remove_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_rename_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken" / "by").mkdir(parents=True)
    with pytest.raises(OSError):
        write_text(tmp_path / "taken", "text")
    assert names(tmp_path) == ["taken"]


def test_the_data_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        steps.append(("fsync", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def noted_replace(source, target):
        steps.append(("replace", source.stat().st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_text(tmp_path / "a.txt", "12345")
    assert steps == [("fsync", 5), ("replace", 5)]


def test_json_round_trip(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": {"é": "x\ny"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert list(json.loads(text)) == ["a", "b"] and text.endswith("}\n")


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}])
def test_json_that_others_cannot_read_is_refused_and_the_old_file_kept(tmp_path, value):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", {"x": value})
    assert read_json(tmp_path / "a.json") == {"x": 1} and names(tmp_path) == ["a.json"]


SAID = {
    "ENOSPC": "the disk has no room for it",
    "EDQUOT": "your quota is used up",
    "EFBIG": "larger than the system allows",
    "EROFS": "the folder is read-only",
    "EACCES": "access is denied",
    "EPERM": "access is denied",
    "ENAMETOOLONG": "the name is too long",
    "EMFILE": "this job has too many files open",
    "ENFILE": "this machine has too many files open",
}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("filename", ["temporary", "folder", "none"])
def test_what_the_disk_refuses_is_one_sentence_and_the_old_file_stays(tmp_path, name, filename):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(MissingPartError) as caught, replacing(target) as temporary:
        temporary.write_text("half")
        at = {"temporary": [str(temporary)], "folder": [str(tmp_path)], "none": []}[filename]
        raise OSError(getattr(errno, name), "as the system says it", *at)
    text = str(caught.value)
    assert text.startswith(f"{target}: ") and SAID[name] in text and text.endswith(".") and "\n" not in text
    assert " MB free on /" in text
    assert caught.value.exit_code == 5
    assert isinstance(caught.value.__cause__, OSError)
    assert names(tmp_path) == ["a.txt"] and target.read_text() == "old"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_file_that_is_read_meanwhile_is_not_taken_for_the_one_that_is_written(tmp_path, number):
    with pytest.raises(OSError, match=r"other\.wav"), replacing(tmp_path / "a.txt"):
        raise OSError(number, "denied", str(tmp_path / "other.wav"))


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    assert storage_failure(FileNotFoundError(errno.ENOENT, "gone"), tmp_path / "a") is None
    with pytest.raises(FileNotFoundError), storage_explained(tmp_path / "a"):
        (tmp_path / "b").unlink()


@contextlib.contextmanager
def small_files_only(most_bytes):
    """No file can be written beyond this size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_does_not_fit_leaves_the_old_one_whatever_writes_it(tmp_path):
    wide = table("splits", pd.DataFrame({"recording_id": [os.urandom(8).hex() for _ in range(500)]}))
    same = table("quarantine", pd.DataFrame({"kind": ["a" * 10] * 500}))
    for path, write in {
        "a.txt": lambda path: write_text(path, "x" * 5000),
        "b.json": lambda path: write_json(path, list(range(5000))),
        "c.parquet": lambda path: write_table(path, "splits", wide),
        "d.csv": lambda path: write_table(tmp_path / "e.parquet", "quarantine", same, csv=path),
    }.items():
        (tmp_path / path).write_text("old")
        with small_files_only(4000), pytest.raises(MissingPartError, match=path):
            write(tmp_path / path)
        assert (tmp_path / path).read_text() == "old"
    assert names(tmp_path) == ["a.txt", "b.json", "c.parquet", "d.csv", "e.parquet"]


def test_a_name_that_is_too_long_is_explained(tmp_path):
    with pytest.raises(MissingPartError, match="the name is too long"):
        write_text(tmp_path / ("x" * 300), "text")


def test_free_space_is_that_of_the_disk_that_the_file_would_lie_on(tmp_path):
    found = str(storage_failure(OSError(errno.ENOSPC, ""), tmp_path / "not" / "made" / "yet.txt"))
    mount = next(p for p in (tmp_path, *tmp_path.parents) if p.is_mount())
    assert f"MB free on {mount}" in found
    free = int(re.search(r"\(([\d,]+) MB", found)[1].replace(",", ""))
    status = os.statvfs(tmp_path)
    assert abs(free - status.f_bavail * status.f_frsize / 2**20) < 2000


def test_a_relative_path_has_a_disk_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "MB free on /" in str(storage_failure(OSError(errno.EDQUOT, ""), Path("a.txt")))
