import os
import random
import re
from collections import Counter
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from malformed import AUDIO, GOOD, GOOD_ROWS, GOOD_TABLE, Kind, build, raven, recording
from malformed_tables import TABLES

from otus.audio import sha256
from otus.config import AnnotationSource, CorpusSettings
from otus.errors import DataError
from otus.fingerprint import AUDIO_SUFFIXES
from otus.inventory import Inventory, summary_lines, take_inventory
from otus.inventory.page import inventory_page, other_files
from otus.tables import read_table, write_table

KINDS = [*AUDIO, *TABLES]
TOGETHER = [kind for kind in KINDS if not kind.settings]
TABLE_NAMES = ("recordings", "annotations", "annotation_files", "quarantine")

#: What no sentence may hold: words of the interpreter, of tracebacks and of the libraries that read files.
NO_WORDS = re.compile(
    r"Traceback|\w(?:Error|Exception)\b|NoneType|<class|object at|has no attribute|codec|Errno|0x[0-9a-f]+|surrogate"
    r"|int\(\)|recursion|SF_INFO|psf_|\bNone\b"
)


def is_plain(text: str) -> bool:
    return len(text) < 500 and "\x1b" not in text and not NO_WORDS.search(text)


def take(root: Path, kinds: Iterable[Kind], *, workers: int = 1) -> Inventory:
    sources, settings = [], {"root": str(root), "targets": ["owl"], "unlabelled": "negative"}
    for kind in kinds:
        own = [AnnotationSource(files=GOOD_TABLE), *kind.sources]
        sources += [{**source.model_dump(), "files": f"{kind.name}/{source.files}"} for source in own]
        settings |= kind.settings
    config = CorpusSettings.model_validate({**settings, "annotations": sources})
    return take_inventory(root, config, workers=workers, progress=lambda line: None)


def shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def audio_on_disk(root: Path) -> "Counter[str]":
    """The audio files below a folder, links to nothing among them, without the help of what is tested."""
    found: Counter[str] = Counter()
    for folder, _, files in os.walk(os.fsencode(root)):
        for name in files:
            path = os.path.join(folder, name)  # noqa: PTH118 (names of bytes)
            is_file = os.path.isfile(path) or not os.path.exists(path)  # noqa: PTH110, PTH113
            if is_file and os.fsdecode(os.path.splitext(name)[1]).lower() in AUDIO_SUFFIXES:  # noqa: PTH122
                found[shown(os.path.relpath(path, os.fsencode(root)))] += 1
    return found


def check_quarantine(inventory: Inventory, kinds: Iterable[Kind]) -> None:
    """The rows that are expected, each with its reason and a remedy, and no others."""
    quarantine = inventory.quarantine
    found = [
        (q["kind"], q["path"], None if pd.isna(q["row"]) else int(q["row"]), int(q["n_rows"]), q["reason"])
        for q in quarantine.to_dict("records")
    ]
    expected = [
        *((left.kind, f"{kind.name}/{left.file}", left.row, left.n_rows, left.reason)
          for kind in kinds for left in kind.left),
        *(("unlabelled", f"{kind.name}/{path}", None, 0, "^nothing in its tables can be used$")
          for kind in kinds for path in kind.unusable),
    ]  # fmt: skip
    assert Counter(entry[:4] for entry in found) == Counter(entry[:4] for entry in expected)
    for *entry, pattern in expected:
        reasons = [reason for *other, reason in found if other == entry]
        assert any(re.search(pattern, reason) for reason in reasons), (pattern, reasons)
    for reason, remedy in zip(quarantine["reason"], quarantine["remedy"], strict=True):
        assert is_plain(reason) and reason == reason.strip().rstrip(".") and "\n" not in reason
        assert is_plain(remedy) and len(remedy) > 10 and "\n" not in remedy


def check_kept(inventory: Inventory, root: Path, kinds: Iterable[Kind]) -> None:
    """The annotations and flags that are expected, and no others; what lies beside the damage is as it was."""
    recordings = inventory.recordings.set_index("path")
    paths = dict(zip(recordings["recording_id"], recordings.index, strict=True))
    found = [(paths[a.recording_id], a.start_s, a.end_s, a.label) for a in inventory.annotations.itertuples()]
    good = [(f"{kind.name}/{GOOD}", *row) for kind in kinds for row in GOOD_ROWS]
    assert sorted(found) == sorted(good + [(f"{kind.name}/{path}", *row) for kind in kinds for path, *row in kind.kept])
    for kind in kinds:
        row = recordings.loc[f"{kind.name}/{GOOD}"]
        assert (row["n_samples"], row["sample_rate"], row["channels"]) == (8000, 8000, 1)
        assert row["readable"] and row["labelled"] and pd.isna(row["flags"]) and pd.isna(row["error"])
        assert row["sha256"] == sha256(root / kind.name / GOOD)
    flags = recordings["flags"].dropna().to_dict()
    expected = {f"{kind.name}/{path}": pattern for kind in kinds for path, pattern in kind.flags.items()}
    assert flags.keys() == expected.keys()
    assert all(re.search(pattern, flags[path]) for path, pattern in expected.items()), flags
    labelled = set(recordings.index[recordings["readable"] & ~recordings["labelled"]])
    assert labelled == {f"{kind.name}/{path}" for kind in kinds for path in kind.unusable}


def check_accounts(inventory: Inventory, root: Path, kinds: Iterable[Kind]) -> None:
    """Every file and every row is somewhere, once."""
    files, quarantine = inventory.annotation_files.set_index("path"), inventory.quarantine
    assert files.index.is_unique
    assert (files["n_rows"] == files["n_annotations"] + files["n_views"] + files["n_quarantined"]).all()
    assert files["n_annotations"].to_dict() == {
        path: int(inventory.annotations["source_file"].eq(path).sum()) for path in files.index
    }
    left_out = quarantine.groupby("path")["n_rows"].sum()
    assert files["n_quarantined"].to_dict() == {path: int(left_out.get(path, 0)) for path in files.index}
    assert files["n_annotations"].sum() == len(inventory.annotations)
    assert files["n_quarantined"].sum() == quarantine["n_rows"].sum()
    views = {f"{kind.name}/{path}": number for kind in kinds for path, number in kind.views.items()}
    assert files["n_views"].to_dict() == {path: views.get(path, 0) for path in files.index}
    named = {f"{k.name}/{s.files}" for k in kinds for s in k.sources if "*" not in s.files}
    assert named | {f"{kind.name}/{GOOD_TABLE}" for kind in kinds} <= set(files.index)
    unwritable = quarantine["kind"].eq("recording") & quarantine["reason"].str.contains("UTF-8")
    no_recording = unwritable | quarantine["kind"].eq("cutout")
    nameless = quarantine.loc[no_recording, "path"]
    copies = quarantine.loc[quarantine["kind"].eq("duplicate"), "path"]
    assert Counter([*inventory.recordings["path"], *copies, *nameless]) == audio_on_disk(root)
    ids = inventory.recordings["recording_id"]
    assert ids.str.lower().is_unique and ids.str.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}").all()
    for path in (f"{kind.name}/{name}" for kind in kinds for name in kind.passed_over):
        assert path not in {*inventory.recordings["path"], *quarantine["path"]}


def check(inventory: Inventory, root: Path, kinds: list[Kind]) -> None:
    check_accounts(inventory, root, kinds)
    check_quarantine(inventory, kinds)
    check_kept(inventory, root, kinds)


def test_there_are_enough_kinds() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 150


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_of_damage(kind: Kind, tmp_path: Path) -> None:
    build(kind, tmp_path)
    check(take(tmp_path, [kind]), tmp_path, [kind])


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inventory]:
    root = tmp_path_factory.mktemp("together")
    for kind in TOGETHER:
        build(kind, root)
    return root, take(root, TOGETHER)


def test_all_kinds_in_one_corpus(together: tuple[Path, Inventory]) -> None:
    root, inventory = together
    check(inventory, root, TOGETHER)


def test_order_of_folders_and_number_of_workers_change_nothing(
    together: tuple[Path, Inventory], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, inventory = together
    listed, chance = os.scandir, random.Random(4)
    monkeypatch.setattr(os, "scandir", lambda folder: chance.sample(found := list(listed(folder)), len(found)))
    again = take(root, TOGETHER, workers=3)
    for name in TABLE_NAMES:
        pd.testing.assert_frame_equal(getattr(inventory, name), getattr(again, name))


class Tags(HTMLParser):
    """The names of all elements of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_hostile_names_as_text(together: tuple[Path, Inventory]) -> None:
    root, inventory = together
    tables = [getattr(inventory, name) for name in TABLE_NAMES]
    others = other_files(root, inventory.recordings, inventory.annotation_files, inventory.quarantine)
    page = inventory_page("<script>alert('title')</script>", *tables, others)
    parsed = Tags()
    parsed.feed(page)
    assert "script" not in parsed.tags and "table" in parsed.tags
    for text in ("<script>alert('title')</script>", "<script>alert('name')<%2fscript>.wav", "\"owl's\" $(call) `x`; &",
                 "{{ 6 * 7 }}", "<script>alert('label')</script>", r"K\xe4uzchen.wav"):  # fmt: skip
        assert text in parsed.text
    assert all(is_plain(line) and "\n" not in line for line in summary_lines(inventory))


def test_the_tables_survive_the_disk(together: tuple[Path, Inventory], tmp_path: Path) -> None:
    _, inventory = together
    for name in TABLE_NAMES:
        path, csv = tmp_path / f"{name}.parquet", tmp_path / f"{name}.csv"
        write_table(path, name, getattr(inventory, name), csv=csv)
        pd.testing.assert_frame_equal(read_table(path, name), getattr(inventory, name))
        assert len(pd.read_csv(csv)) == len(getattr(inventory, name))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    kind = Kind("locked", {"locked.wav": recording("locked"), "call.wav": recording("l"), "call.txt": raven()},
                sources=(AnnotationSource(files="call.txt"),))  # fmt: skip
    build(kind, tmp_path)
    for name in ("locked.wav", "call.txt"):
        (tmp_path / "locked" / name).chmod(0)
    found = take(tmp_path, [kind]).quarantine
    assert list(found["kind"]) == ["recording", "table", "unlabelled"]
    assert found["reason"].iloc[:2].str.contains(r"\(Permission denied\)").all()


MANY = "start,end,label\n" + "".join(f"0,{0.1 + i / 5000},species {i}\n" for i in range(3000))
WIDE = ",".join(f"c{i}" for i in range(9999)) + "\n"


def refused(name: str, sentence: str, files: dict[str, bytes | None], *sources: AnnotationSource, **values: Any) -> Any:
    """A corpus of a.wav and a.txt with other `files` (None: it is not there), sources and settings."""
    return pytest.param(files, list(sources) or [AnnotationSource(files="*.txt")], values, sentence, id=name)


def csv(text: str, **columns: str) -> tuple[dict[str, bytes | None], AnnotationSource]:
    return {"a.csv": text.encode()}, AnnotationSource(files="*.csv", columns=columns)


def sheet(text: str) -> dict[str, bytes | None]:
    return {"s.csv": text.encode()}


HEARD = r"none of 1 audio files can be read; a\.wav cannot be read as audio \(it is in no format that is known\)\.$"
REFUSED = [
    refused("nothing to hear", HEARD, {"a.wav": b"no audio"}),
    refused("no audio", r"no audio file below it matches corpus\.recordings .*; correct root or glob", {"a.wav": None}),
    refused("no table", r"^corpus\.annotations: no file below .* '\*\.txt'; correct the glob", {"a.txt": None}),
    refused("two globs", r"^corpus\.annotations: a\.txt is matched by '\*\.txt' and by 'a\.t\*'; make the globs", {},
            AnnotationSource(files="*.txt"), AnnotationSource(files="a.t*")),
    refused("label map that drops all", r"^corpus\.targets: .* labels found: none; in quarantine, for example: a\.txt "
            r"its rows with the label 'owl' are dropped by corpus\.labels \(1 row\)\.$", {}, labels={"*": None}),
    refused("no target", r"^corpus\.targets: no annotation has a target label \(wolf\); labels found: owl \(1\); "
            r"correct corpus\.targets or corpus\.labels", {}, targets=["wolf"]),
    refused("thousands of labels", r"labels found: species 0 \(1\), .* and 2980 more; correct", *csv(MANY)),
    refused("label that clears the screen", r"found: \?\[2J \(1\); correct", {"a.txt": b"0\t1\t\x1b[2J\n"}),
    refused("only tables that cannot be used", r"none; in quarantine, for example: a\.txt is not", {"a.txt": b"\0"}),
    refused("no column", r"^a\.csv: has no column 'on'; its columns are: start, end, label\.$",
            *csv("start,end,label\n", start="on")),
    refused("thousands of columns", r"^a\.csv: has no column 'on'; .* c19, and 9979 more\.$", *csv(WIDE, start="on")),
    refused("no column of labels", r"^a\.txt: has no column 'Art' for the label; its columns are: Selection, View,",
            {}, AnnotationSource(files="a.txt", label_column="Art")),
    refused("no sheet", r"^corpus\.sheet: there is no file s\.csv below .*; correct its path", {}, sheet="s.csv"),
    refused("empty sheet", r"^s\.csv: .* no column 'recording' \(columns: none\); add it", sheet(""), sheet="s.csv"),
    refused("wide sheet", r"^s\.csv: .* no column 'recording' \(.* 9979 more\); add it", sheet(WIDE), sheet="s.csv"),
    refused("binary sheet", r"s\.csv: is not a text file, or a damaged one; save it", sheet("\0"), sheet="s.csv"),
    refused("split in a sheet", r"^s\.csv, row 3: the split '\?tets' is none of train, val and test; correct it",
            sheet("recording,split\na,train\na,\x1btets\n"), sheet="s.csv"),
    refused("sheet against itself", r"^s\.csv, row 3: 'a\.wav' is the same recording as in row 2 .*; make the two",
            sheet("recording,group\na,x\na.wav,y\n"), sheet="s.csv"),
    refused("group rule", r"^a\.wav: corpus\.group '\(\?P<group>\\d\+\)' finds no group in this path; widen the", {},
            group=r"(?P<group>\d+)"),
    refused("extract of two", r"^x/t\.wav_0_1\.wav: there are several recordings 't\.wav' that it may be an extract "
            "of; move it beside", {path: recording(path) for path in ("a/t.wav", "b/t.wav", "x/t.wav_0_1.wav")},
            extracts={}),
    refused("root that is a file", r"^corpus\.root: .* is not a folder; set it to the folder that", {}, root="a.wav"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "sources", "values", "sentence"), REFUSED)
def test_what_no_inventory_can_be_taken_of(
    tmp_path: Path,
    files: dict[str, bytes | None],
    sources: list[AnnotationSource],
    values: dict[str, Any],
    sentence: str,
) -> None:
    for path, content in {"a.wav": recording("a"), "a.txt": raven((0.25, 0.5, "owl")), **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (tmp_path / path).write_bytes(content)
    root = tmp_path / values.get("root", "")
    config = CorpusSettings.model_validate({"targets": ["owl"], "annotations": sources, **values, "root": str(root)})
    with pytest.raises(DataError, match=sentence) as error:
        take_inventory(root, config, progress=lambda line: None)
    text = str(error.value)
    assert is_plain(text) and "\n" not in text and re.search(r"[^.:;]\.$", text)
