import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from otus.config import Config, parse_config
from otus.errors import DataError
from otus.inventory import Inventory, take_inventory
from otus.proposal import propose_config

RAVEN = (
    "Selection\tView\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\n1\tSpectrogram 1\t0.1\t0.5\t1\t9\n"
)


def make(root: Path, recordings: list[str], texts: dict[str, str]) -> None:
    for seed, path in enumerate(recordings):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, np.random.default_rng(seed).normal(0, 0.1, 8000), 8000)
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def propose(root: Path) -> tuple[str, Config, Inventory]:
    text = propose_config(root)
    assert len(text.splitlines()) <= 20
    config = parse_config(yaml.safe_load(text))
    assert config.corpus.root == str(root.resolve())
    return text, config, take_inventory(root, config.corpus, progress=lambda line: None)


def test_audacity_labels(tmp_path: Path) -> None:
    names = [f"r{i}" for i in range(6)]
    texts = {f"{name}.txt": "0.1\t0.5\towl\n0.6\t0.9\tno\n" for name in names[:4]}
    root = tmp_path / "My corpus #1"
    make(root, [f"{name}.wav" for name in names], {**texts, "readme.txt": "0 notes\n"})
    text, config, inventory = propose(root)
    (source,) = config.corpus.annotations
    assert (source.files, source.format, source.label) == ("*.txt", "audacity", None)
    assert set(config.corpus.targets) == {"owl", "no"}
    assert config.corpus.unlabelled == "exclude" and "2 of 6 recordings" in text
    assert config.corpus.group == "recording" and config.split.folds == 4
    assert config.results_dir == "results/My_corpus_1"
    assert len(inventory.annotations) == 8 and inventory.recordings["labelled"].sum() == 4


def test_raven_tables_without_labels_take_the_folders_name(tmp_path: Path) -> None:
    names = [f"{kind}/{kind}{i}" for kind in ("owls", "frogs") for i in range(2)]
    texts = {f"{name}.Table.{i}.selections.txt": RAVEN for i, name in enumerate(names)}
    make(tmp_path, [f"{name}.wav" for name in names], texts)
    _, config, inventory = propose(tmp_path)
    assert {source.label: source.files for source in config.corpus.annotations} == {
        "owls": "owls/*.Table.*.selections.txt",
        "frogs": "frogs/*.Table.*.selections.txt",
    }
    assert set(config.corpus.targets) == {"owls", "frogs"} and config.corpus.group == "recording"
    assert inventory.annotations["label"].value_counts().to_dict() == {"owls": 2, "frogs": 2}


def test_sites_are_groups_and_no_labels(tmp_path: Path) -> None:
    root = tmp_path / "bitterns"
    names = [f"site {i}/n{j}" for i in range(3) for j in range(2)]
    make(root, [f"{name}.wav" for name in names], {f"{name}.selections.txt": RAVEN for name in names})
    _, config, inventory = propose(root)
    (source,) = config.corpus.annotations
    assert (source.files, source.label) == ("**/*.selections.txt", "bitterns")
    assert config.corpus.targets == ["bitterns"]
    assert config.corpus.group == "folder" and config.split.folds == 3
    assert inventory.recordings["group"].nunique() == 3


def test_one_csv_for_all_in_a_folder_with_brackets(tmp_path: Path) -> None:
    rows = "".join(f"r{i}.wav,0.1,0.5,owl\n" for i in range(3))
    csv = "recording,start,end,label\n" + rows
    make(tmp_path, [f"r{i}.wav" for i in range(3)], {"t[1]/labels.csv": csv})
    _, config, inventory = propose(tmp_path)
    assert config.corpus.annotations[0].files == "t[[]1]/labels.csv"
    assert len(inventory.annotations) == 3


def test_files_that_the_glob_takes_in_are_named(tmp_path: Path) -> None:
    texts = {f"r{i}.csv": "start,end,label\n0.1,0.5,owl\n" for i in range(3)}
    texts["r1_detector.csv"] = "start,end,label\n0.1,0.5,owl\n"
    make(tmp_path, [f"r{i}.wav" for i in range(3)], texts)
    assert "takes in *_detector.csv as well" in propose(tmp_path)[0]


def test_cut_out_calls_of_the_alpaca_pipeline(tmp_path: Path) -> None:
    tapes = [f"38{i}_2020120{i}_cut.wav" for i in range(4)]
    clips = [f"labelled_recordings/{tape}_{m}_{m + 1}.wav" for tape in tapes for m in (0, 3)]
    hums = [f"onlyhums/{Path(clip).name}_0.{k}_0.{k + 3}Q{k}.wav" for clip in clips for k in (1, 5)]
    make(tmp_path, [*clips, *hums, *(f"raw_recordings/{tape}" for tape in tapes)], {"notes.txt": "hello\n"})
    _, config, inventory = propose(tmp_path)
    (source,) = config.corpus.annotations
    assert (source.files, source.format, config.corpus.targets) == ("onlyhums/*Q[0-9].wav", "alpaca_hums", ["hum"])
    assert config.corpus.recordings == ["labelled_recordings/*", "raw_recordings/*"]
    assert (config.corpus.group, config.split.folds) == ("recording", 4)
    assert len(inventory.annotations) == 16 and inventory.recordings["labelled"].sum() == 8
    assert inventory.recordings["group"].nunique() == 4 and set(inventory.quarantine["kind"]) == {"unlabelled"}


def test_cut_out_calls_beside_their_clips_in_the_older_form(tmp_path: Path) -> None:
    clips = [f"t{i}.wav_0_1.wav" for i in range(3)]
    make(tmp_path, [*clips, *(f"{clip}_0.1_0.4_hw_q2 faint.wav" for clip in clips)], {})
    _, config, inventory = propose(tmp_path)
    assert config.corpus.annotations[0].files == "*Q[0-9]*.wav" and config.corpus.recordings == ["**/*"]
    assert inventory.recordings["path"].tolist() == clips and len(inventory.annotations) == 3


def test_animal_spot_clips_are_grouped_by_tape(tmp_path: Path) -> None:
    clips = [f"{label}_{i}_2010_T{i % 3}_0_1000.wav" for i in range(9) for label in ("call-Q3", "noise-", "song-")]
    make(tmp_path, [*(f"set/{clip}" for clip in clips), "other.wav"], {})
    _, config, inventory = propose(tmp_path)
    assert config.corpus.annotations[0].format == "animal_spot" and set(config.corpus.targets) == {"call", "song"}
    assert set(inventory.recordings["group"]) == {"2010_T0", "2010_T1", "2010_T2"} and config.split.folds == 3
    assert len(inventory.annotations) == 18 and inventory.recordings["labelled"].all()


def test_extracts_of_one_tape_are_no_more_than_one_fold(tmp_path: Path) -> None:
    names = [f"t{i}.wav_{k}_{k + 1}" for i in range(3) for k in (0, 5)]
    make(tmp_path, [f"{name}.wav" for name in names], {f"{name}.txt": "0.1\t0.5\towl\n" for name in names})
    _, config, inventory = propose(tmp_path)
    assert inventory.recordings["group"].nunique() == config.split.folds == 3


@pytest.mark.parametrize(
    ("recordings", "texts", "message"),
    [
        ([], {"a.txt": "0\t1\towl\n"}, "holds no audio file"),
        (["a.wav"], {"readme.txt": "hello\n"}, "none of its 1 text and CSV files"),
        (["a.wav"], {"b.txt": "0\t1\towl\n"}, "none of its 1 text and CSV files"),
        (["t.wav_0_5.wav_1_2Q1.wav"], {}, r"such as t.wav_0_5.wav_1_2Q1.wav are named like .* \(format alpaca_hums\)"),
        (["noise-_1_2010_T_0_1.wav"], {}, "no audio file is named like a call"),
        (["call-_1_2010_T_0_1.wav", "call-_2_2010_T_0_1.wav"], {}, "only 1 recordings have annotations"),
        (["a.wav", "b.wav"], {"a.txt": "0\t1\towl\n", "b.txt": "0\t1\towl\n"}, "only 2 recordings have annotations"),
    ],
)
def test_folders_that_cannot_work(tmp_path: Path, recordings: list[str], texts: dict[str, str], message: str) -> None:
    make(tmp_path, recordings, texts)
    with pytest.raises(DataError, match=message):
        propose_config(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        propose_config(tmp_path / "nowhere")


def real(name: str) -> Path:
    if not os.environ.get("OTUS_DATA"):
        pytest.skip("OTUS_DATA is not set: no annotated recordings to look at")
    return Path(os.environ["OTUS_DATA"]) / name


@pytest.mark.real
def test_boobook() -> None:
    _, config, inventory = propose(real("boobook"))
    assert {source.label for source in config.corpus.annotations} == {"positive", "neg_2"}
    assert inventory.annotations["label"].value_counts().to_dict() == {"positive": 49, "neg_2": 32}
    assert config.split.folds == 5 and inventory.recordings["labelled"].sum() == 16


@pytest.mark.real
def test_usv() -> None:
    text, config, inventory = propose(real("usv"))
    assert [source.files for source in config.corpus.annotations] == ["**/gt_*.csv"]
    assert "deepsqueak_*.csv" in text and config.corpus.targets == ["usv"]
    assert len(inventory.recordings) == 7 and inventory.recordings["labelled"].all()
    assert list(inventory.quarantine["kind"]) == ["table", "table"]
