import json
import math
import os

import pytest

from otus.atomic import read_json, replacing, write_json, write_text


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
