from pathlib import Path

import pytest

from otus.resources.jobs import complete, job_file, wildcards_of_file, wildcards_of_message, wildcards_of_output

RESULTS = Path("results/a")
MODEL = {"dataset": "grouped", "training": "dense"}
NAMES = {"grouped", "grouped-dense", "quiet", "quiet-dense"}


@pytest.mark.parametrize(
    ("rule", "path", "wildcards"),
    [
        ("make_dataset", "datasets/grouped/clips.parquet", {"dataset": "grouped"}),
        ("train_model", "models/grouped-dense/fold2/card.json", MODEL | {"fold": "2"}),
        (
            "predict_shard",
            "scores/grouped-dense/fold2/shard31.scores.parquet",
            MODEL | {"shard": "31"},
        ),
        ("evaluate_model", "evaluation/grouped-dense/counts.parquet", MODEL),
        ("filter_selections", "forest/grouped-dense/forests", MODEL),
        ("measure_model", "measures/grouped-dense/curves.parquet", MODEL),
        ("take_inventory", "inventory/recordings.csv", {}),
        ("merge_metrics", "metrics.csv", {}),
        ("a_rule_of_tomorrow", "models/grouped-dense/fold2/card.json", {}),
    ],
)
def test_an_output_tells_the_wildcards_of_its_job(rule, path, wildcards):
    assert wildcards_of_output(rule, str(RESULTS / path), RESULTS) == wildcards


def test_a_file_elsewhere_tells_nothing():
    assert wildcards_of_output("make_demo_corpus", "demo-corpus/corpus.json", RESULTS) == {}
    assert wildcards_of_output("train_model", "results/a", RESULTS) == {}


@pytest.mark.parametrize(
    ("rule", "text", "wildcards"),
    [
        ("train_model", "Training quiet-dense, fold 12", {"dataset": "quiet", "training": "dense", "fold": "12"}),
        ("predict_shard", "Scoring shard 3 with grouped-dense", MODEL | {"shard": "3"}),
        ("make_dataset", "Splitting groups and mining noise for quiet", {"dataset": "quiet"}),
        ("filter_selections", "Fitting and judging forests on the selections of grouped-dense", MODEL),
        ("merge_metrics", "Merging the metrics of all models", {}),
        ("train_model", "Something else altogether", {}),
    ],
)
def test_a_message_tells_the_wildcards_of_its_job(rule, text, wildcards):
    assert wildcards_of_message(rule, text, NAMES) == wildcards


@pytest.mark.parametrize("rule", ["make_dataset", "train_model", "predict_shard", "evaluate_model", "merge_metrics"])
def test_a_benchmark_file_tells_the_wildcards_that_it_was_named_by(rule):
    everything = MODEL | {"fold": "3", "shard": "17"}
    wanted = wildcards_of_file(rule, Path("grouped-dense.fold3.shard17.tsv"))
    assert complete(rule, wanted) and wanted.items() <= everything.items()
    assert wildcards_of_file(rule, job_file(RESULTS, "benchmarks", rule, wanted, ".tsv")) == wanted


def test_files_lie_where_the_rules_put_them():
    """Read off the rules themselves."""
    rules = "\n".join(path.read_text() for path in (Path(__file__).parents[2] / "rules").glob("*.smk"))
    everything = {name: f"{{{{{name}}}}}" for name in ("dataset", "training", "fold", "shard")}
    of_models = ("train_model", "predict_shard", "evaluate_model", "measure_model")
    for rule in ("make_dataset", *of_models, "take_inventory", "merge_metrics"):
        own = {key: value for key, value in everything.items() if not complete(rule, everything.keys() - {key})}
        for folder, suffix in (("logs", ".log"), ("benchmarks", ".tsv")):
            path = str(job_file(Path("R"), folder, rule, own, suffix))
            named = path.replace("R/", "{RESULTS}/", 1)
            assert f'f"{named}"' in rules, named


def test_a_rule_of_shards_alone_has_its_number_wherever_its_files_lie():
    rule, shard = "write_chunk_files", {"shard": "12"}
    assert wildcards_of_output(rule, "results/a/chunks/files/shard12.parquet", RESULTS) == shard
    assert wildcards_of_output(rule, "results/a/chunks/files/shard12", RESULTS) == shard
    log = job_file(RESULTS, "logs", rule, shard, ".log")
    assert log == RESULTS / "logs/write_chunk_files/shard12.log"
    assert wildcards_of_file(rule, log) == shard


def test_jobs_of_detectors_of_others_are_told_by_their_files():
    run = {"external": "toy", "shard": "12"}
    assert wildcards_of_output("run_external", "results/a/external/toy/shard12.items.parquet", RESULTS) == run
    log = job_file(RESULTS, "logs", "run_external", run, ".log")
    assert log == RESULTS / "logs/run_external/toy.shard12.log"
    assert wildcards_of_file("run_external", log) == run
    judged = {"dataset": "grouped", "external": "toy"}
    assert (
        wildcards_of_output("evaluate_external", "results/a/evaluation/grouped-toy/counts.parquet", RESULTS) == judged
    )
    log = job_file(RESULTS, "logs", "evaluate_external", judged, ".log")
    assert log == RESULTS / "logs/evaluate_external/grouped-toy.log"
    assert wildcards_of_file("evaluate_external", log) == judged


def test_wildcards_are_complete_or_not():
    assert complete("train_model", MODEL | {"fold": "1"})
    assert not complete("train_model", MODEL)
    assert complete("merge_metrics", {})
