"""The whole workflow on a small demo corpus: outputs, leakage, what reruns and what does not."""

import json

import pandas as pd
import pytest

from otus.tables import read_table

pytestmark = pytest.mark.slow

MODEL = "grouped-default"


@pytest.fixture
def results(finished):
    return finished[0].folder / "results"


def test_it_ends_with_a_table_and_the_path_of_the_report(finished):
    _, done = finished
    assert "F1 [95 % int.]" in done.stdout
    assert "results/report.html" in done.stdout


def test_the_outputs_have_their_names(results):
    found = {str(p.relative_to(results)) for p in results.rglob("*") if p.is_file()}
    found = {p for p in found if not p.startswith(("logs/", "benchmarks/")) and "/forests/" not in p}
    found -= {"otus.duckdb"}  # that a documented command makes, which may have been tried on the same run
    tables = sorted(p for p in found if p.startswith("datasets/grouped/files/selection_tables/"))
    assert len(tables) == 12
    tables += ["inventory/inventory.html", "cache/inventory.parquet", "cache/inventory_snr.parquet"]
    tables.append("datasets/grouped/files/.snakemake_timestamp")
    names = ("recordings", "annotations", "annotation_files", "quarantine")
    expected = {*tables, *(f"inventory/{t}.{s}" for t in names for s in ("parquet", "csv"))}
    names = ("clips.parquet", "splits.parquet", "splits.csv", "leakage.parquet", "leakage.csv", "noise.json")
    expected |= {f"datasets/grouped/{n}" for n in (*names, "files/dataset.html", "files/statistics.json")}
    lists = ("train.csv", "val.csv", "test.csv", "variant_index.json")
    expected |= {f"datasets/grouped/files/fold{k}/{n}" for k in range(1, 5) for n in lists}
    expected |= {"chunks/chunks.parquet", "chunks/chunks.csv", "chunks/shards.json", "report.html", "curves.parquet"}
    trainings, shards = (f"train_model/{MODEL}.fold{k}" for k in range(1, 5)), (1, 2)
    jobs = [*trainings, *(f"predict_shard/{MODEL}.shard{shard}" for shard in shards)]
    expected |= {f"telemetry/{job}.jsonl" for job in jobs}
    measures = ("metrics", "metrics_per_class", "recall_at_rates", "strata", "differences", "confusion", "densities")
    measures += ("reliability",)
    expected |= {f"{t}.{s}" for t in (*measures, "metrics_per_recording", "matches") for s in ("parquet", "csv")}
    expected |= {f"measures/{MODEL}/{t}.parquet" for t in (*measures, "curves")}
    layer = ("selections", "matches", "counts", "points")
    expected |= {f"evaluation/{MODEL}/{t}.parquet" for t in (*layer, "shapes")}
    expected |= {f"forest/{MODEL}/{t}.parquet" for t in (*layer, "features", "importances", "dependence")}
    expected |= {f"evaluation/{MODEL}/thresholds.yaml", f"forest/{MODEL}/forests.json"}
    expected.add(f"models/{MODEL}/model_card.md")
    for fold in range(1, 5):
        names = ("model.safetensors", "card.json", "metrics.jsonl", "best_metrics.json", "learning_curves.svg")
        expected |= {f"models/{MODEL}/fold{fold}/{n}" for n in names}
        expected |= {
            f"scores/{MODEL}/fold{fold}/shard{shard}.{kind}.parquet" for shard in (1, 2) for kind in ("scores", "items")
        }
    assert found == expected


def test_the_metrics_say_what_they_promise(results):
    metrics = pd.read_csv(results / "metrics.csv", dtype={"fold": str})
    assert {"model", "layer", "fold", "split", "label", "iou", "selected", "n_gt", "n_pred", "tp", "fp", "fn"} <= set(
        metrics
    )
    assert {"precision", "recall", "f1", "f1_low", "f1_high", "false_alarms_per_hour"} <= set(metrics)
    assert set(metrics["layer"]) == {"cnn", "cnn+rf"}
    headline = metrics[(metrics["fold"] == "pooled") & (metrics["split"] == "test") & metrics["selected"]]
    assert headline["layer"].tolist() == ["cnn", "cnn+rf"]
    assert set(metrics["role"]) == {"chosen", "fixed", "grid", "best"}
    assert (metrics["selected"] == (metrics["role"] == "chosen")).all()
    assert ((metrics["tp"] + metrics["fn"]) == metrics["n_gt"]).all()
    assert ((metrics["tp"] + metrics["fp"]) == metrics["n_pred"]).all()
    annotations = read_table(results / "inventory" / "annotations.parquet", "annotations")
    recordings = read_table(results / "inventory" / "recordings.parquet", "recordings")
    assert (headline["n_gt"] == (annotations["label"] == "hum").sum()).all()
    assert (headline["n_recordings"] == (recordings["readable"] & recordings["labelled"]).sum()).all()


def test_the_tables_of_all_models_agree_with_each_other(results):
    names = ("metrics", "metrics_per_recording", "metrics_per_class", "differences", "confusion", "densities")
    tables = {name: pd.read_csv(results / f"{name}.csv", dtype={"fold": str}) for name in names}
    sums = ["n_gt", "n_pred", "tp", "fp", "fn"]
    metrics, by_class = (tables[name].query("fold == 'pooled'") for name in ("metrics", "metrics_per_class"))
    headline, by_class = metrics[metrics["selected"]].set_index("layer"), by_class.set_index("layer")
    pd.testing.assert_frame_equal(by_class[sums], headline[sums])
    added = tables["metrics_per_recording"].query("fold == 'pooled'").groupby("layer")[sums].sum()
    pd.testing.assert_frame_equal(added, headline[sums])
    assert (tables["densities"].groupby("layer")["n_gt"].sum() == headline["n_gt"]).all()
    hits = tables["confusion"].query("annotated == 'hum' and selected == 'hum'").set_index("layer")["n"]
    assert (hits == headline["tp"]).all()
    gain = tables["differences"].query("measure == 'f1'").set_index("layer").loc["cnn+rf", "difference"]
    assert gain == pytest.approx(headline.loc["cnn+rf", "f1"] - headline.loc["cnn", "f1"])


def test_no_group_is_on_both_sides_of_any_fold(results):
    splits = read_table(results / "datasets" / "grouped" / "splits.parquet", "splits")
    assert (splits.groupby(["fold", "group"])["split"].nunique() == 1).all()
    assert (splits[splits["split"] == "test"]["recording_id"].value_counts() == 1).all()
    clips = read_table(results / "datasets" / "grouped" / "clips.parquet", "clips")
    side = clips.merge(splits, on=["recording_id", "fold"], suffixes=("", "_of_recording"))
    assert (side["split"] == side["split_of_recording"]).all()


def test_pooled_selections_come_from_models_that_never_saw_the_recording(results):
    splits = read_table(results / "datasets" / "grouped" / "splits.parquet", "splits")
    side = splits.set_index(["recording_id", "fold"])["split"]
    for stage in ("evaluation", "forest"):
        selections = read_table(results / stage / MODEL / "selections.parquet", "selections")
        tested = selections[selections["split"] == "test"]
        assert {side[(r, f)] for r, f in zip(tested["recording_id"], tested["fold"], strict=True)} <= {"test"}
    forest = read_table(results / "forest" / MODEL / "selections.parquet", "selections")
    for fold, rows in forest.groupby("fold"):
        groups = {s: set(part["recording_id"].str[:6]) for s, part in rows.groupby("split")}
        assert not groups.get("val", set()) & groups.get("test", set()), f"fold {fold}"


def test_items_account_for_every_chunk_and_training_recordings_are_not_scored(results):
    chunks = read_table(results / "chunks" / "chunks.parquet", "chunks")
    splits = read_table(results / "datasets" / "grouped" / "splits.parquet", "splits")
    for fold in range(1, 5):
        folder = results / "scores" / MODEL / f"fold{fold}"
        items = pd.concat([read_table(p, "items") for p in sorted(folder.glob("*.items.parquet"))])
        assert sorted(items["chunk_id"]) == sorted(chunks["chunk_id"])
        trained = set(splits[(splits["fold"] == fold) & (splits["split"] == "train")]["recording_id"])
        assert set(items[items["status"] == "skipped"]["recording_id"]) == trained
        assert set(items["status"]) == {"ok", "skipped"}


def test_the_truncated_file_is_counted_and_stops_nothing(results):
    quarantine = read_table(results / "inventory" / "quarantine.parquet", "quarantine")
    assert (quarantine["kind"] == "recording").sum() == 1
    assert quarantine.loc[quarantine["kind"] == "recording", "path"].iloc[0] in (results / "report.html").read_text()


def test_cards_hold_what_prediction_needs(results):
    card = json.loads((results / "models" / MODEL / "fold1" / "card.json").read_text())
    assert {"frontend", "classes", "context_frames", "training_data_sha256", "versions", "seed"} <= set(card)
    lines = (results / "models" / MODEL / "fold1" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 3 and {"member", "epoch", "loss", "f1"} <= set(json.loads(lines[0]))


def test_a_second_run_does_nothing(finished):
    flow, _ = finished
    assert flow.planned() == {}


def test_another_threshold_runs_no_network(finished):
    flow, _ = finished
    planned = flow.layer({"evaluation": {"thresholds": [0.25, 0.75]}}).planned()
    assert planned == {
        "evaluate_model": 1,
        "filter_selections": 1,
        "measure_model": 1,
        "merge_metrics": 1,
        "write_model_card": 1,
        "write_report": 1,
        "all": 1,
    }


def test_another_model_computes_that_model_only(finished):
    flow, _ = finished
    another = flow.layer({"training": {"second": {"members": 1, "epochs": 2, "cuts_per_epoch": 64}}})
    assert another.planned() == {
        "train_model": 4,
        "predict_shard": 2,
        "evaluate_model": 1,
        "filter_selections": 1,
        "measure_model": 1,
        "merge_metrics": 1,
        "write_model_card": 1,
        "write_report": 1,
        "all": 1,
    }
    planned = another.run("-n").stdout
    assert "dataset=grouped, training=second" in planned and "training=default" not in planned


def test_another_network_reruns_everything_after_the_dataset(finished):
    flow, _ = finished
    planned = flow.layer({"training": {"default": {"epochs": 4}}}).planned()
    assert (planned["train_model"], planned["predict_shard"]) == (4, 2)
    assert not {"take_inventory", "make_dataset", "make_chunks"} & set(planned)


def test_a_lost_shard_is_scored_again_and_nothing_else(finished):
    flow, _ = finished
    lost = flow.folder / "results" / "scores" / MODEL / "fold2" / "shard1.scores.parquet"
    kept = lost.read_bytes()
    lost.unlink()
    done = flow.run("-j1", str(lost.relative_to(flow.folder)))
    assert done.returncode == 0, done.stderr
    assert "1 of 1 steps" in done.stdout + done.stderr
    assert lost.read_bytes() == kept, "the same scores, byte for byte"
    assert flow.run("-j1", "--touch").returncode == 0  # other tests use this run: what stands behind it is as it was
    assert flow.planned() == {}


def test_an_edited_selection_table_starts_over_from_the_inventory(finished):
    flow, _ = finished
    # the demo's own tables belong to the demo rule, so the corpus is read as if a person had made it
    config = {"corpus": {"demo": None}, "results_dir": "copy"}
    own = flow.layer(config)
    assert own.run("-j1", "prepare").returncode == 0
    assert own.planned("prepare") == {}
    table = next((flow.folder / "corpus").rglob("*.selections.txt"))
    before = table.read_text()
    try:
        table.write_text(before + before.splitlines()[-1].replace("1", "2", 1) + "\n")
        assert own.planned("prepare") == {
            "take_inventory": 1,
            "make_dataset": 1,
            "describe_dataset": 1,
            "prepare": 1,
        }
    finally:
        table.write_text(before)


@pytest.mark.parametrize(
    "job", ["make_dataset:dataset=grouped", f"evaluate_model:dataset=grouped,training={MODEL[8:]}"]
)
def test_a_job_on_a_cluster_never_does_an_earlier_stage_again(finished, job):
    """Whatever has changed since its run began: the driver alone decides what is done again."""
    changed = finished[0].layer({"corpus": {"recordings": ["**/*.wav"]}})
    assert "take_inventory" in changed.planned("prepare")
    rule = job.partition(":")[0]
    as_job = ("--target-jobs", job, "--allowed-rules", rule, "--force", "--mode", "remote", "--nolock", "--cores", "1")
    assert changed.planned(*as_job, "--ignore-incomplete") == {rule: 1}


def test_the_same_seed_gives_the_same_metrics(finished):
    flow, _ = finished
    first = (flow.folder / "results" / "metrics.csv").read_bytes()
    again = flow.layer({"results_dir": "again"})
    done = again.run("-j2", "again/metrics.csv")
    assert done.returncode == 0, done.stderr
    assert (flow.folder / "again" / "metrics.csv").read_bytes() == first


def test_snakemakes_own_report_can_be_made(finished):
    flow, _ = finished
    done = flow.run("--report", "snakemake-report.html")
    assert done.returncode == 0, done.stderr
    assert (flow.folder / "snakemake-report.html").stat().st_size > 100_000
