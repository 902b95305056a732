import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import yaml

import otus.demo
from otus import __version__
from otus.cli import commands, main
from otus.tables import table, write_table

HEAVY = {
    "torch",
    "torchaudio",
    "librosa",
    "pandas",
    "pyarrow",
    "numpy",
    "soundfile",
    "pydantic",
    "sklearn",
    "snakemake",
}


@pytest.fixture(autouse=True)
def no_debugging(monkeypatch):
    monkeypatch.delenv("OTUS_DEBUG", raising=False)


@pytest.fixture
def corpus(tmp_path):
    """Four sites with a recording and a label track each; one row cannot be used, nor can one recording."""
    folder = tmp_path / "my corpus"
    for i in range(4):
        site = folder / f"site_{i}"
        site.mkdir(parents=True)
        soundfile.write(site / f"t{i}.wav", np.random.default_rng(i).uniform(-0.1, 0.1, 8000 * 10), 8000)
        (site / f"t{i}.txt").write_text("1.0\t2.0\thum\n5.0\t5.5\tbark\n")
    with (folder / "site_0" / "t0.txt").open("a") as file:
        file.write("9\t8\thum\n")
    (folder / "site_3" / "bad.wav").write_bytes((folder / "site_3" / "t3.wav").read_bytes()[:1000])
    return folder


def write_config(path, root, values=None):
    corpus = {"root": str(root), "annotations": [{"files": "**/*.txt"}], "targets": ["hum"], "group": "folder"}
    settings = {"corpus": corpus, "split": {"folds": 3}, "results_dir": str(path.parent / "out")}
    path.write_text(yaml.safe_dump(settings | (values or {})))
    return path


def is_one_sentence(text):
    return text.startswith("otus: ") and text.count("\n") == 1 and text.endswith(".\n")


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_help_is_light_and_names_every_command():
    code = (
        "import sys\nfrom otus.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n"
        f"    print(end.code, sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    for command in ("init", "check", "demo-corpus", "metrics", "schema"):
        assert f"\n    {command}" in done.stdout


def test_module_and_exit_code():
    assert python("-m", "otus", "--version").stdout == f"otus {__version__}\n"
    done = python("-m", "otus", "metrics", "/nowhere")
    assert done.returncode == 3 and is_one_sentence(done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["--unknown"],
        ["init"],
        ["check"],
        ["demo-corpus"],
        ["demo-corpus", "x", "--seed", "one"],
        ["metrics", "a", "b"],
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and "usage: otus" in capsys.readouterr().err


def test_init_writes_a_config_that_check_accepts(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "new folder" / "c.yaml"
    assert main(["init", str(corpus), "--output", str(target)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(target.read_text(encoding="utf-8"))
    words = shlex.split(out.rpartition("next: ")[2])
    assert words[:3] == ["otus", "check", str(target)] and words[-2:] == ["--configfile", str(target)]
    assert main(words[1:3]) == 0
    assert capsys.readouterr().out.startswith("config: ok\n")


def test_init_writes_below_config_by_default(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", str(corpus)]) == 0
    assert (tmp_path / "config" / "my corpus.yaml").exists()
    assert main(["init", "my corpus"]) == 3
    assert "my corpus.yaml: exists already" in capsys.readouterr().err


def test_init_refuses_to_overwrite_before_it_looks_at_anything(tmp_path, capsys):
    target = tmp_path / "c.yaml"
    target.write_text("mine")
    assert main(["init", str(tmp_path / "nowhere"), "-o", str(target)]) == 3
    assert is_one_sentence(err := capsys.readouterr().err) and "choose another name with --output" in err
    assert target.read_text() == "mine"


def test_init_of_a_folder_without_recordings(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert main(["init", str(folder), "-o", str(tmp_path / "c.yaml")]) == 3
        assert is_one_sentence(capsys.readouterr().err)
    assert not (tmp_path / "c.yaml").exists()


def test_check_prints_what_is_there_and_the_quarantine(corpus, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", corpus)
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "config: ok"
    assert lines[1].startswith("4 readable recordings in 4 groups")
    quarantine = [line for line in lines if line.startswith("quarantine: ")]
    assert len(quarantine) == 2
    assert quarantine[0].startswith("quarantine: site_3/bad.wav: truncated: ")
    assert quarantine[1].startswith("quarantine: site_0/t0.txt, row 3: ends before it starts")
    kept = [
        tmp_path / f"out{rest}" for rest in ("", "/cache", "/cache/inventory.parquet", "/cache/inventory_snr.parquet")
    ]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, *kept])  # nothing is written but what the next one needs
    assert main(["check", str(config)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == lines and "4 of 5 audio files are as they were" in printed.err


def test_check_prints_only_the_first_lines_of_a_long_quarantine(corpus, tmp_path, capsys):
    with (corpus / "site_0" / "t0.txt").open("a") as file:
        file.write("9\t8\thum\n" * 150)
    config = write_config(tmp_path / "c.yaml", corpus)
    assert main(["check", str(config)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("quarantine: ")]
    assert len(lines) == 101 and lines[-1].startswith("quarantine: 52 more; ")


def test_check_takes_several_files(corpus, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", corpus)
    layer = tmp_path / "layer.yaml"
    layer.write_text("split: {folds: 5}\n")
    assert main(["check", str(config), str(layer)]) == 3
    assert "4 groups cannot make 5 folds" in capsys.readouterr().err
    assert main(["check", str(layer), str(config)]) == 0


def test_check_tells_of_every_dataset_and_ends_with_the_code_of_one_that_fails(corpus, tmp_path, capsys):
    datasets = {"a": {}, "b": {"min_quality": 3, "hard_negatives": {"selections": str(tmp_path / "no.csv")}}}
    datasets |= {"c": {"hard_negatives": {"selections": str(tmp_path / "broken.csv")}}, "d": {"noise_per_target": 0.5}}
    (tmp_path / "broken.csv").write_text("recording,start,end\nelsewhere.wav,1,2\n")
    config = write_config(tmp_path / "c.yaml", corpus, {"datasets": datasets})
    assert main(["check", str(config)]) == 3
    out, err = capsys.readouterr()
    lines = out.splitlines()
    kinds = [line.split(":")[0] for line in lines if line.startswith(("quarantine", "dataset"))]
    assert kinds == ["quarantine"] * 2 + ["dataset a", "dataset b", "dataset d"]
    told = dict(line.split(": ", 1) for line in lines if line.startswith("dataset"))
    assert "4 target, 20 noise clips; " in told["dataset a"] and "16 noise clips wanted, 16 found" in told["dataset a"]
    assert told["dataset b"].endswith(f"{tmp_path}/no.csv, is not there yet: checked without.")
    assert "2 noise clips wanted, 2 found" in told["dataset d"]
    failure = err.splitlines()[-1]
    assert failure.startswith("dataset c: ") and failure.endswith(
        "broken.csv: none of 1 selections names a recording of this corpus; give another table."
    )


def test_check_takes_the_false_alarms_of_an_earlier_model(corpus, tmp_path, capsys):
    alarms = tmp_path / "alarms.csv"
    alarms.write_text("recording,start,end\nt0.wav,7,8\nt1.wav,1.5,3\nelsewhere.wav,1,2\nt2.wav,x,2\n")
    datasets = {"a": {"noise_per_target": 1, "hard_negatives": {"selections": str(alarms)}}}
    assert main(["check", str(write_config(tmp_path / "c.yaml", corpus, {"datasets": datasets}))]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert "1 false alarm of an earlier model used" in line and "near an annotation 1" in line
    assert "unknown recording 1" in line and "unreadable 1" in line


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"sede": 1}, "unknown key 'sede'; did you mean 'seed'?"),
        ({"corpus": {"root": "/nowhere", "targets": ["x"]}}, "/nowhere does not exist"),
        ({"corpus": {"targets": ["x"]}}, "the key 'corpus.root' is missing"),
    ],
)
def test_check_of_a_wrong_config(corpus, tmp_path, capsys, values, expected):
    assert main(["check", str(write_config(tmp_path / "c.yaml", corpus, values))]) == 3
    err = capsys.readouterr().err
    assert expected in err and err.startswith("otus: ") and err.count("\n") == 1


def test_check_of_a_corpus_without_the_target(corpus, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", corpus)
    config.write_text(config.read_text().replace("- hum", "- howl"))
    assert main(["check", str(config)]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("otus: corpus.targets: no annotation has a target label (howl)")


def test_check_of_a_demo_that_is_not_made_yet(tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"corpus": {"root": str(tmp_path / "demo"), "targets": ["hum"], "demo": {}}}))
    assert main(["check", str(config)]) == 0
    assert "the demo corpus will be made by the workflow" in capsys.readouterr().out


def test_demo_corpus(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(otus.demo, "make_demo_corpus", lambda folder, settings: asked.append((folder, settings)))
    assert main(["demo-corpus", str(tmp_path / "demo"), "--seed", "7", "--recordings", "13"]) == 0
    ((folder, settings),) = asked
    assert folder == tmp_path / "demo" and (settings.seed, settings.recordings) == (7, 13)
    capsys.readouterr()
    for wrong in (["--recordings", "11"], ["--seed", "-1"]):
        assert main(["demo-corpus", str(tmp_path / "demo"), *wrong]) == 3
        assert is_one_sentence(capsys.readouterr().err)
    assert len(asked) == 1


def test_demo_corpus_in_a_folder_with_other_files(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["demo-corpus", str(tmp_path)]) == 3
    assert is_one_sentence(capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def metrics_row(**values):
    row = {
        "model": "grouped-dense", "layer": "cnn", "fold": "pooled", "split": "test", "label": "hum", "iou": 0.4,
        "threshold": 0.5, "selected": True, "n_recordings": 9, "n_groups": 3, "hours": 1.0, "n_gt": 30, "n_pred": 28,
        "tp": 25, "fp": 3, "fn": 5, "precision": 0.8929, "recall": 0.8333, "f1": 0.8621, "false_alarms_per_hour": 3.0,
    }  # fmt: skip
    return row | values


def test_metrics_prints_the_leader_board(tmp_path, capsys):
    write_table(tmp_path / "metrics.parquet", "metrics", table("metrics", [metrics_row()]))
    assert main(["metrics", str(tmp_path)]) == 3
    assert "differences.parquet: not there" in capsys.readouterr().err
    write_table(tmp_path / "differences.parquet", "differences", table("differences", []))
    assert main(["metrics", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "grouped-dense" in out and "0.86" in out and str(tmp_path / "report.html") in out


def test_metrics_of_no_run_or_of_damaged_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["metrics"]) == 3
    assert "results/metrics.parquet: not there; run snakemake first" in capsys.readouterr().err
    (tmp_path / "metrics.parquet").write_bytes(b"half a file")
    assert main(["metrics", str(tmp_path)]) == 3
    assert "cannot be read as a table" in capsys.readouterr().err
    write_table(tmp_path / "metrics.parquet", "splits", table("splits", []))
    assert main(["metrics", str(tmp_path)]) == 3
    assert is_one_sentence(capsys.readouterr().err)


def test_schema_writes_three_files(tmp_path):
    assert main(["schema", str(tmp_path / "new")]) == 0
    written = sorted(path.relative_to(tmp_path / "new").as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert written == ["docs/config.md", "schemas/config.schema.json", "schemas/tables.json"]


def test_a_folder_that_cannot_be_written_is_the_environment(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["schema", str(tmp_path / "file")]) == 5
    err = capsys.readouterr().err
    assert err.startswith("otus: ") and err.count("\n") == 1 and str(tmp_path / "file") in err


@pytest.mark.parametrize(("flags", "environment"), [(["--debug"], {}), ([], {"OTUS_DEBUG": "1"})])
def test_debugging_shows_the_traceback_and_keeps_the_exit_code(tmp_path, monkeypatch, capsys, flags, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main([*flags, "metrics", str(tmp_path)]) == 3
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err and err.splitlines()[-1].startswith("otus: ")


def test_what_nobody_expected_is_not_hidden(monkeypatch):
    def broken(options):
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "schema", broken)
    with pytest.raises(ZeroDivisionError):
        main(["schema"])


@pytest.mark.parametrize("unbuffered", ["", "1"])  # the pipe is found broken at the end, or at the first line
def test_a_reader_that_goes_away_is_no_error(corpus, tmp_path, monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    config = write_config(tmp_path / "c.yaml", corpus)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "otus", "check", str(config)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
