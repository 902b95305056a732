"""The DuckDB file: what its views show, that they follow the tables, and how it refuses."""

import subprocess
import sys

import numpy as np
import pytest

from otus.cli import main
from otus.database import write_database
from otus.errors import DataError, MissingPartError
from otus.report.leaderboard import leaderboard
from otus.scores import ScoreWriter
from otus.tables import read_table, write_table

duckdb = pytest.importorskip("duckdb")

MODELS = ("grouped-a", "grouped-b")
EMPTY = ("recall_at_rates", "strata", "confusion", "densities", "curves", "reliability")
OF_FORESTS = ("importances", "dependence")


def metric(model, f1, fold="pooled", split="test", **more):
    row = {"model": model, "layer": "cnn", "fold": fold, "split": split, "label": "hum", "iou": 0.4, "role": "chosen"}
    counts = {"n_gt": 10, "n_pred": 10, "tp": 5, "fp": 5, "fn": 5, "n_recordings": 2, "leaky": False}
    return row | counts | {"f1": f1, "selected": True, "threshold": 0.3, "operating_point": "selected"} | more


def write_results(folder):
    """A finished run of two models, in as few rows as tell the views apart."""
    rows = [metric("grouped-a", 0.8), metric("grouped-b", 0.9, leaky=True)]
    rows += [metric("grouped-a", f1, layer="cnn+rf") for f1 in (0.7,)]
    rows += [metric("grouped-a", 0.1, iou=0.7), metric("grouped-a", 0.99, selected=False, role="fixed")]
    rows += [metric("grouped-a", f1, fold="1", split=split) for f1, split in ((0.6, "val"), (0.5, "test"))]
    difference = {"model": "grouped-a", "layer": "cnn+rf", "other_model": "grouped-a", "other_layer": "cnn"}
    difference |= {"label": "hum", "iou": 0.4, "measure": "f1", "p_value": 0.2}
    counts = {"fold": "pooled", "split": "test", "layer": "cnn", "label": "hum", "iou": 0.4, "model": "grouped-a"}
    false_alarm = {"model": "grouped-a", "layer": "cnn", "fold": 1, "split": "test", "label": "hum"}
    match = false_alarm | {"recording_id": "r1", "iou_threshold": 0.4, "start_s": 90.5, "end_s": 91.0, "score": 1.0}
    outcomes = (("false_alarm", "s1"), ("hit", "s2"), ("miss", None))
    tables = {
        "metrics": rows,
        "metrics_per_class": [{"model": "grouped-a", "layer": "cnn", "iou": 0.4}],
        "differences": [difference | {"difference": -0.1, "difference_low": -0.3, "difference_high": 0.1}],
        "metrics_per_recording": [
            counts | {"recording_id": name, "fp": n, "fn": 0, "n_gt": 1, "n_pred": 1 + n, "tp": 1}
            for name, n in (("r1", 1), ("r2", 3))
        ],
        "matches": [match | {"outcome": outcome, "selection_id": name} for outcome, name in outcomes],
        **{name: [] for name in EMPTY},
    }
    for name, found in tables.items():
        write_table(folder / f"{name}.parquet", name, found)
    recordings = [
        {"recording_id": f"r{i}", "path": f"tape/r{i}.wav", "group": f"g{i}", "start_time": start}
        for i, start in ((1, "2024-05-01T05:00:00"), (2, None))
    ]
    write_table(folder / "inventory" / "recordings.parquet", "recordings", recordings)
    write_table(folder / "inventory" / "annotations.parquet", "annotations", [])
    for stage, layer, model in (
        ("evaluation", "cnn", MODELS[0]),
        ("forest", "cnn+rf", MODELS[0]),
        ("evaluation", "cnn", "grouped-gone"),
    ):
        found = false_alarm | {"selection_id": "s1", "recording_id": "r1", "probability": 0.25}
        write_table(
            folder / stage / model / "selections.parquet", "selections", [found | {"model": model, "layer": layer}]
        )
    for name in OF_FORESTS:
        write_table(folder / "forest" / MODELS[0] / f"{name}.parquet", name, [{"model": MODELS[0], "feature": "snr"}])
    for fold in (1, 2):
        path = folder / "scores" / MODELS[0] / f"fold{fold}" / "shard1.scores.parquet"
        path.parent.mkdir(parents=True)
        with ScoreWriter(path, ["hum"], 0.02) as scores:
            scores.write("r1", 100, np.full((2, 3), fold, dtype=np.float32))
    return folder


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "birds' [2024] *results*")


def ask(path, query):
    with duckdb.connect(str(path), read_only=True) as database:
        return database.execute(query).df()


def test_every_table_is_a_view_wherever_the_asker_stands(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    views = write_database(results.relative_to(tmp_path), results / "otus.duckdb")
    monkeypatch.chdir("/")
    tables = {p.stem for p in results.glob("*.parquet")} | {"recordings", "annotations", "selections", "scores"}
    assert set(views) == tables | set(OF_FORESTS) | {"leaderboard", "worst_recordings", "false_alarms", "thresholds"}
    for view in views:
        ask(results / "otus.duckdb", f"SELECT * FROM {view}")
    metrics = ask(results / "otus.duckdb", "SELECT * FROM metrics")
    assert len(metrics) == len(read_table(results / "metrics.parquet", "metrics"))


def test_models_that_the_metrics_are_not_about_are_not_seen(results, tmp_path):
    write_database(results, tmp_path / "x.duckdb")
    assert set(ask(tmp_path / "x.duckdb", "SELECT * FROM selections")["model"]) == {"grouped-a"}
    assert sorted(ask(tmp_path / "x.duckdb", "SELECT layer FROM selections")["layer"]) == ["cnn", "cnn+rf"]


def test_scores_know_their_model_fold_and_time(results, tmp_path):
    write_database(results, tmp_path / "x.duckdb")
    scores = ask(tmp_path / "x.duckdb", "SELECT * FROM scores ORDER BY fold, frame")
    assert list(scores) == ["model", "fold", "recording_id", "frame", "start_s", "hum", "onset:hum"]
    assert scores["fold"].tolist() == scores["hum"].tolist() == [1, 1, 1, 2, 2, 2]
    assert scores["start_s"].to_numpy() == pytest.approx([2.0, 2.02, 2.04] * 2)
    assert set(scores["model"]) == {"grouped-a"}


def test_the_leader_board_is_pooled_leak_free_first_and_tells_the_difference_to_the_best(results, tmp_path):
    write_database(results, tmp_path / "x.duckdb")
    board = ask(tmp_path / "x.duckdb", "SELECT * FROM leaderboard")
    assert board[["model", "layer", "place"]].to_numpy().tolist() == [
        ["grouped-a", "cnn", 1],
        ["grouped-a", "cnn+rf", 2],
        ["grouped-b", "cnn", 3],
    ]
    assert board["to_best"].isna().tolist() == [True, False, True]
    assert board["tied_with_best"].tolist() == [True, True, False]  # the difference has 0 inside; the last is leaky
    assert board.loc[1, ["to_best", "to_best_low", "to_best_high"]].tolist() == [-0.1, -0.3, 0.1]


@pytest.mark.parametrize(
    ("change", "tied"),
    [
        ({"difference_high": -0.05, "p_value": 0.01}, False),
        ({"difference_high": -0.05, "p_value": 0.2}, True),
        ({"difference_low": None, "difference_high": None}, True),  # then the intervals decide: 0.75 is above 0.7
    ],
)
def test_ties_are_those_of_the_report(results, tmp_path, change, tied):
    metrics = read_table(results / "metrics.parquet", "metrics")
    bounds = metrics["layer"].map({"cnn": (0.7, 0.9), "cnn+rf": (0.6, 0.75)})
    metrics = metrics.assign(f1_low=bounds.str[0], f1_high=bounds.str[1])
    differences = read_table(results / "differences.parquet", "differences").assign(**change)
    write_table(results / "metrics.parquet", "metrics", metrics)
    write_table(results / "differences.parquet", "differences", differences)
    write_database(results, tmp_path / "x.duckdb")
    board = ask(tmp_path / "x.duckdb", "SELECT * FROM leaderboard")
    assert board["tied_with_best"].tolist() == [True, tied, False]
    shown = leaderboard(metrics, differences)
    assert shown["rank"].tolist() == (["=1", "=1", ""] if tied else ["1", "2", ""])


def test_a_difference_is_found_whichever_way_it_was_taken(results, tmp_path):
    rows = read_table(results / "differences.parquet", "differences")
    turned = {"layer": "cnn", "other_layer": "cnn+rf", "difference": 0.1, "difference_low": -0.1}
    write_table(results / "differences.parquet", "differences", rows.assign(**turned, difference_high=0.3))
    write_database(results, tmp_path / "x.duckdb")
    board = ask(tmp_path / "x.duckdb", "SELECT * FROM leaderboard")
    assert board.loc[1, ["to_best", "to_best_low", "to_best_high"]].tolist() == [-0.1, -0.3, 0.1]


def test_false_alarms_say_where_and_when(results, tmp_path):
    write_database(results, tmp_path / "x.duckdb")
    (row,) = ask(tmp_path / "x.duckdb", "SELECT * FROM false_alarms").to_dict("records")
    assert (row["recording_id"], row["path"], row["group"]) == ("r1", "tape/r1.wav", "g1")
    assert str(row["start_time"]) == "2024-05-01 05:01:30.500000" and row["probability"] == 0.25


def test_the_worst_recordings_come_first_and_thresholds_stand_beside_their_validation(results, tmp_path):
    write_database(results, tmp_path / "x.duckdb")
    worst = ask(tmp_path / "x.duckdb", "SELECT * FROM worst_recordings")
    assert worst[["recording_id", "errors"]].to_numpy().tolist() == [["r2", 3], ["r1", 1]]
    (row,) = ask(tmp_path / "x.duckdb", "SELECT * FROM thresholds").to_dict("records")
    assert (row["fold"], row["threshold"], row["validation_f1"], row["test_f1"]) == ("1", 0.3, 0.6, 0.5)


def test_the_views_show_the_tables_of_a_later_run(results, tmp_path):
    write_database(results, tmp_path / "x.duckdb")
    write_table(results / "metrics.parquet", "metrics", [metric("grouped-a", 0.25)])
    assert ask(tmp_path / "x.duckdb", "SELECT f1 FROM leaderboard")["f1"].tolist() == [0.25]


def test_a_run_without_stored_scores_has_no_such_view(results, tmp_path):
    for path in results.rglob("*.scores.parquet"):
        path.unlink()
    assert "scores" not in write_database(results, tmp_path / "x.duckdb")


def test_the_command_replaces_its_file_and_names_the_views(results, capsys):
    (results / "otus.duckdb").write_text("of yesterday")
    assert main(["database", str(results)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{results / 'otus.duckdb'}: ") and "leaderboard" in text and str(results.resolve()) in text
    assert len(ask(results / "otus.duckdb", "SELECT * FROM leaderboard")) == 3
    assert main(["database", str(results), "--out", str(results / "own.duckdb")]) == 0
    assert (results / "own.duckdb").exists()


def test_an_unfinished_run_is_refused(results, tmp_path, capsys):
    (results / "differences.parquet").unlink()
    with pytest.raises(DataError, match=r"differences.parquet: not there; run snakemake first"):
        write_database(results, tmp_path / "x.duckdb")
    assert main(["database", str(tmp_path / "nowhere")]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.glob("*.duckdb"))


def test_a_damaged_table_is_refused_in_one_sentence_and_leaves_nothing(results, tmp_path):
    (results / "curves.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="a table cannot be read") as refusal:
        write_database(results, tmp_path / "x.duckdb")
    assert "\n" not in str(refusal.value) and "curves.parquet" in str(refusal.value)
    assert not list(tmp_path.glob("*.duckdb*"))


def test_without_the_package_it_says_how_to_install_it(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingPartError, match=r"pip install 'otus\[database\]'"):
        write_database(results, tmp_path / "x.duckdb")
    assert main(["database", str(results)]) == 5
    assert capsys.readouterr().err.count("\n") == 1


def test_the_database_needs_no_network():
    code = "import sys, otus.database, otus.cli; sys.exit('torch' in sys.modules or 'duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
