import os
import subprocess
import sys
from pathlib import Path

import pytest

from otus.config import AnnotationSource, CorpusSettings
from otus.errors import DataError
from otus.fingerprint import corpus_fingerprint, explore, select_files, shared_fingerprint, walk


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def settings(**values: object) -> CorpusSettings:
    return CorpusSettings(root="unused", **values)  # type: ignore[arg-type]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, otus.fingerprint; "
        "print(sorted({'numpy', 'pandas', 'pyarrow', 'soundfile', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_walk_skips_hidden_files_and_does_not_run_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "b/x.WAV", "a.wav", "._a.wav", ".cache/y.wav", "b/.hidden.wav")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "b" / "self").symlink_to(tmp_path / "b" / "self")
    touch(tmp_path.parent / f"{tmp_path.name}_elsewhere", "far.wav")
    (tmp_path / "linked").symlink_to(tmp_path.parent / f"{tmp_path.name}_elsewhere")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    assert [file.path for file in walk(tmp_path)] == ["a.wav", "b/self", "b/x.WAV", "gone.wav", "linked/far.wav"]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("**/*.wav", ["a.wav", "s1/b.WAV", "s1/deep/c.wav"]),
        ("*.wav", ["a.wav"]),
        ("s?/*.wav", ["s1/b.WAV"]),
        ("S1/**", ["s1/b.WAV", "s1/deep/c.wav"]),
        ("./s1/**/c.wav", ["s1/deep/c.wav"]),
        ("[ab].wav", ["a.wav"]),
        ("[!b].wav", ["a.wav"]),
        ("s1/[.wav", []),
    ],
)
def test_globs(tmp_path: Path, glob: str, expected: list[str]) -> None:
    touch(tmp_path, "a.wav", "s1/b.WAV", "s1/deep/c.wav", "s1/notes.txt")
    files = select_files(walk(tmp_path), settings(recordings=[glob]))
    assert [file.path for file in files.audio] == expected


def test_an_unusable_glob_is_an_error() -> None:
    with pytest.raises(DataError, match="not a usable glob"):
        select_files([], settings(recordings=["[z-a].wav"]))


def test_audio_is_no_annotation_file_and_wildcards_leave_the_sheet_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a.csv", "sheet.csv")
    sources = [AnnotationSource(files="**/*"), AnnotationSource(files="sheet.csv")]
    files = select_files(walk(tmp_path), settings(annotations=sources, sheet="Sheet.csv"))
    assert [[file.path for file in group] for group in files.annotations] == [["a.csv"], ["sheet.csv"]]
    assert files.sheet is not None and files.sheet.path == "sheet.csv"


def test_the_fingerprint_changes_with_the_files_that_matter_and_no_others(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a.txt", "sheet.csv", "notes.md")
    used = settings(annotations=[AnnotationSource(files="*.txt")], sheet="sheet.csv")
    seen = {corpus_fingerprint(tmp_path, used)}
    touch(tmp_path, "more.md")
    (tmp_path / "notes.md").write_text("other")
    assert corpus_fingerprint(tmp_path, used) in seen
    for path in ("a.wav", "a.txt", "sheet.csv"):
        os.utime(tmp_path / path, ns=(1, 1))
        seen.add(corpus_fingerprint(tmp_path, used))
    (tmp_path / "a.wav").write_bytes(b"longer than before")
    os.utime(tmp_path / "a.wav", ns=(1, 1))
    seen.add(corpus_fingerprint(tmp_path, used))
    touch(tmp_path, "b.wav")
    seen.add(corpus_fingerprint(tmp_path, used))
    assert len(seen) == 6


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus.root: .*nowhere does not exist; "):
        corpus_fingerprint(tmp_path / "nowhere", settings())
    touch(tmp_path, "a.wav")
    with pytest.raises(DataError, match="is not a folder"):
        corpus_fingerprint(tmp_path / "a.wav", settings())


def test_a_job_takes_the_fingerprint_of_its_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("OTUS_CORPUS_STATE", "")
    (tmp_path / "a.wav").write_bytes(b"x")
    used = settings()
    found = shared_fingerprint(tmp_path, used, asks_driver=False)
    assert found == corpus_fingerprint(tmp_path, used)
    (tmp_path / "b.wav").write_bytes(b"y")
    assert shared_fingerprint(tmp_path, used, asks_driver=True) == found
    assert shared_fingerprint(tmp_path, used, asks_driver=False) != found, "a driver looks for itself"


def test_a_job_that_was_told_nothing_looks_for_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("OTUS_CORPUS_STATE", "")
    used = settings()
    assert shared_fingerprint(tmp_path, used, asks_driver=True) == corpus_fingerprint(tmp_path, used)


def test_a_link_to_itself_and_a_closed_folder_are_found(tmp_path, monkeypatch):
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "a" / "closed").mkdir(parents=True)
    (tmp_path / "a" / "x.wav").write_bytes(b"x")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    files, closed = explore(tmp_path)
    assert [(file.path, file.size) for file in files] == [("a/x.wav", 1), ("loop.wav", 0)]
    assert closed == ["a/closed"] and walk(tmp_path) == files
