import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.cli import main
from otus.config import Config
from otus.errors import DataError
from otus.resources import plan as plan_module
from otus.resources.corpus_size import CorpusSize
from otus.resources.plan import Job, Machines, as_json, as_text, jobs_in_summary, make_plan, makespan, remaining_jobs
from otus.resources.usage import Usage
from otus.resources.workload import Workload

RESULTS = Path("results")
HERE = Machines(cluster=False, slots=2, gpus=1, has_gpu=False)
CLUSTER = Machines(cluster=True, slots=50, gpus=8, has_gpu=True)
SIZE = CorpusSize(6000, 100.0, 100.0, 1 / 60, 24_000, 12_000, 10_000, 0.3, True)

SUMMARY = """Building DAG of jobs...
output_file\tdate\trule\tlog-file(s)\tstatus\tplan
results/inventory/recordings.parquet\tMon Mar  2\ttake_inventory\t-\tok\tno update
results/models/grouped-default/fold1/model.safetensors\t-\ttrain_model\t-\tmissing\tupdate pending
results/models/grouped-default/fold1/card.json\t-\ttrain_model\t-\tmissing\tupdate pending
results/models/grouped-default/fold2/card.json\t-\ttrain_model\t-\tmissing\tupdate pending
results/scores/grouped-default/fold1/shard1.scores.parquet\t-\tpredict_shard\t-\tmissing\tupdate pending
results/scores/grouped-default/fold1/shard1.items.parquet\t-\tpredict_shard\t-\tmissing\tupdate pending
results/scores/grouped-default/fold1/shard2.items.parquet\t-\tpredict_shard\t-\tmissing\tupdate pending
results/metrics.csv\t-\tmerge_metrics\t-\tmissing\tupdate pending
results/metrics.parquet\t-\tmerge_metrics\t-\tmissing\tupdate pending
"""


def workload(size=SIZE, **config):
    values = {"corpus": {"root": "r", "targets": ["hum"]}, "split": {"folds": 4}, **config}
    found = Workload(Config.model_validate(values))
    found.size = lambda: size
    return found


def jobs_of(rule, folds=(), shards=()):
    model = {"dataset": "grouped", "training": "default"}
    names = [model | {"fold": str(f)} | ({"shard": str(s)} if s else {}) for f in folds for s in shards or [0]]
    return [Job(rule, tuple(sorted(n.items()))) for n in names or [{}]]


EVERYTHING = [
    *jobs_of("take_inventory"),
    *jobs_of("train_model", range(1, 5)),
    *jobs_of("predict_shard", range(1, 5), range(1, 4)),
    *jobs_of("merge_metrics"),
    *jobs_of("write_report"),
]


def waited(rule, seconds):
    return Usage(rule, "", "", "cpu", 0, 0, 0, 10.0, 10.0, 100.0, seconds, 1, "", "2026-01-01T00:00:00", "")


def test_every_pending_job_is_there_once():
    jobs = jobs_in_summary(SUMMARY, RESULTS)
    assert [job.rule for job in jobs] == ["train_model"] * 2 + ["predict_shard"] * 2 + ["merge_metrics"]
    assert dict(jobs[3].wildcards) == {"dataset": "grouped", "training": "default", "shard": "2"}


def test_nothing_is_pending_in_a_finished_run():
    assert jobs_in_summary(SUMMARY.replace("update pending", "no update"), RESULTS) == []


def test_something_else_than_a_summary_is_refused():
    with pytest.raises(DataError, match="no table"):
        jobs_in_summary("Nothing to be done", RESULTS)


def test_stages_stand_in_their_order_and_sum_up():
    plan = make_plan(reversed(EVERYTHING), workload(), [], CLUSTER)
    assert [(s.stage, s.jobs) for s in plan.stages] == [
        ("inventory", 1),
        ("train", 4),
        ("predict", 12),
        ("merge", 1),
        ("report", 1),
    ]
    assert plan.wall_s == sum(s.wall_s for s in plan.stages)
    assert all(s.gpu_h > 0 if s.stage in ("train", "predict") else s.gpu_h == 0 for s in plan.stages)
    assert all(s.cpu_h > 0 and s.asks_mb >= 1500 and s.asks_min >= 30 for s in plan.stages)


def test_a_rule_that_is_not_known_is_a_stage_of_its_own():
    plan = make_plan([Job("detect_calls", ())], workload(), [], CLUSTER)
    assert [(s.stage, s.jobs) for s in plan.stages] == [("detect_calls", 1)]


def test_gpu_hours_are_those_of_jobs_that_find_a_gpu():
    for machines, device, has_any in [
        (HERE, "auto", False),
        (replace(HERE, has_gpu=True), "auto", True),
        (CLUSTER, "cpu", False),
        (CLUSTER, "auto", True),
    ]:
        found = make_plan(jobs_of("train_model", [1]), workload(training={"default": {"device": device}}), [], machines)
        assert found.uses_gpu is has_any


def test_more_slots_are_sooner_and_more_work_is_later():
    train = jobs_of("train_model", range(1, 5))
    times = [make_plan(train, workload(), [], replace(CLUSTER, gpus=n)).wall_s for n in (1, 2, 4, 8)]
    assert times[0] > times[1] > times[2] == times[3]
    assert make_plan(train, workload(training={"default": {"epochs": 90}}), [], CLUSTER).wall_s > times[3]


def test_threads_take_cores_of_this_machine():
    train = jobs_of("train_model", range(1, 5))
    one, four = (
        make_plan(train, workload(training={"default": {"threads": n}}), [], replace(HERE, slots=4)).wall_s
        for n in (1, 4)
    )
    assert four == pytest.approx(4 * one)


def test_waiting_is_that_of_the_same_rule_else_of_any_else_assumed_and_none_here():
    evaluate = jobs_of("evaluate_model")
    past = [waited("evaluate_model", 600.0), waited("train_model", 50.0)]
    assert make_plan(evaluate, workload(), past, CLUSTER).stages[0].wait_s == 600.0
    assert make_plan(evaluate, workload(), past[1:], CLUSTER).stages[0].wait_s == 50.0
    assert make_plan(evaluate, workload(), [], CLUSTER).stages[0].wait_s == 90.0
    assert make_plan(evaluate, workload(), past, HERE).stages[0].wait_s == 0.0


def test_jobs_of_the_driver_do_not_wait():
    assert make_plan(jobs_of("merge_metrics"), workload(), [], CLUSTER).stages[0].wait_s == 0.0
    rules = (Path(__file__).parents[2] / "rules" / "driver.smk").read_text()
    named = rules.partition("localrules:\n")[2].partition("\n\n")[0]
    assert {name.strip(" ,") for name in named.splitlines()} == plan_module.LOCAL_RULES


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.integers(1, 9))
def test_a_makespan_lies_between_the_longest_job_and_all_in_a_row(durations, slots):
    found = makespan(durations, slots)
    total = sum(durations)
    least = max(*durations, total / slots)
    assert least * (1 - 1e-9) <= found <= total * (1 + 1e-9)
    assert found <= 2 * least * (1 + 1e-9)
    assert makespan(durations, slots + 1) <= found * (1 + 1e-9)


def test_the_text_is_a_table_with_what_it_rests_on():
    text = as_text(make_plan(EVERYTHING, workload(), [], CLUSTER), "usage.csv")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "100.0 h of audio in 6000 recordings, 10000 calls (counted by the inventory)"
    table = lines[2:9]
    assert [line.split()[0] for line in table] == ["stage", "inventory", "train", "predict", "merge", "report", "total"]
    assert len({len(line) for line in table}) == 1
    assert "No past jobs yet" in text and "an upper limit" in text and "8 of them with a GPU" in text


def test_past_jobs_are_named_as_what_it_rests_on():
    past = [waited("train_model", 5.0)] * 3
    text = as_text(make_plan(EVERYTHING, workload(), past, HERE), "mine.csv")
    assert "Rests on 3 past jobs in mine.csv." in text
    assert "No past jobs of inventory, predict, merge, report yet" in text
    assert "an upper limit" not in text  # no GPU here


def test_a_guess_is_called_one():
    assert "guessed" in as_text(make_plan(EVERYTHING, workload(replace(SIZE, counted=False)), [], HERE), "usage.csv")


def test_too_many_shards_are_pointed_out():
    shards = jobs_of("predict_shard", range(1, 5), range(1, 200))
    many = make_plan(shards, workload(chunking={"shards": 200}), [], CLUSTER)
    few = make_plan(
        jobs_of("predict_shard", range(1, 5), [1]), workload(replace(SIZE, labelled_hours=0.1)), [], CLUSTER
    )
    assert "fewer chunking.shards" in as_text(many, "usage.csv")
    assert "fewer chunking.shards" not in as_text(few, "usage.csv")


def test_nothing_to_do_is_said():
    plan = make_plan([], workload(), [], HERE)
    assert "Nothing to be done" in as_text(plan, "usage.csv")
    assert json.loads(as_json(plan))["total"] == {"jobs": 0, "wall_s": 0, "gpu_h": 0, "cpu_h": 0, "disk_mb": 0}


def test_json_holds_the_same_numbers():
    plan = make_plan(EVERYTHING, workload(), [], CLUSTER)
    found = json.loads(as_json(plan))
    assert found["total"]["wall_s"] == pytest.approx(plan.wall_s)
    assert found["total"]["jobs"] == 19
    assert found["stages"][1]["stage"] == "train" and found["corpus"]["hours"] == 100.0


def test_snakemake_is_asked_with_the_options_of_the_run(monkeypatch):
    asked = []

    def answer(command, **_):
        asked.append(command)
        return plan_module.subprocess.CompletedProcess(command, 0, SUMMARY, "")

    monkeypatch.setattr(plan_module.subprocess, "run", answer)
    found = remaining_jobs(
        Path("S"), RESULTS, configfiles=[Path("a.yaml"), Path("b.yaml")], profile="slurm", targets=["train"]
    )
    assert len(found) == 5
    text = " ".join(asked[0])
    assert "-s S --summary" in text and "--profile slurm" in text
    assert text.endswith("--configfile a.yaml b.yaml -- train")


def test_what_snakemake_refuses_is_told(monkeypatch):
    said = "WorkflowError in file x, line 2:\ncorpus.root: /x does not exist; set it.\n  File x, line 2, in <module>\n"
    monkeypatch.setattr(
        plan_module.subprocess,
        "run",
        lambda command, **_: plan_module.subprocess.CompletedProcess(command, 1, "", said),
    )
    with pytest.raises(DataError, match=r"cannot plan this run: corpus\.root: /x does not exist; set it\.$"):
        remaining_jobs(Path("S"), RESULTS, configfiles=[], profile=None, targets=[])


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty working directory without site settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("OTUS_SITE", raising=False)
    return tmp_path


def test_the_command_plans_the_demo_before_anything_ran(empty, capsys):
    """With the real Snakemake and the real Snakefile."""
    (empty / "layer.yaml").write_text("split: {folds: 3}\nchunking: {shards: 2}\n")
    assert main(["plan", "--json", "--configfile", "layer.yaml"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {stage["stage"]: stage["jobs"] for stage in found["stages"]} == {
        "demo": 1,
        "inventory": 2,
        "prepare": 2,
        "chunk": 1,
        "train": 3,
        "predict": 2,
        "evaluate": 1,
        "forest": 1,
        "measure": 1,
        "merge": 1,
        "report": 2,
    }
    assert found["corpus"]["recordings"] == 16 and not found["corpus"]["counted"]


def test_the_command_takes_site_settings_and_jobs(empty, capsys, monkeypatch):
    monkeypatch.setattr(plan_module, "remaining_jobs", lambda *_, **__: EVERYTHING)
    (empty / "site.yaml").write_text("jobs: 7\nmax_gpus: 3\n")
    assert main(["plan", "--profile", "slurm"]) == 0
    assert "7 jobs in the queue at a time, 3 of them with a GPU" in capsys.readouterr().out
    assert main(["plan", "--profile", "slurm", "--jobs", "2"]) == 0
    assert "2 jobs in the queue at a time, 2 of them with a GPU" in capsys.readouterr().out
    assert main(["plan", "-j1"]) == 0
    assert "on 1 core." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["plan", "-j0"])


def test_the_command_reads_all_config_files(empty, capsys, monkeypatch):
    monkeypatch.setattr(plan_module, "remaining_jobs", lambda *_, **__: EVERYTHING)
    (empty / "a.yaml").write_text("corpus: {root: nowhere, targets: [hum]}\n")
    (empty / "b.yaml").write_text("training: {default: {epohcs: 3}}\n")
    assert main(["plan", "--configfile", "a.yaml"]) == 0
    assert "0 recordings" in capsys.readouterr().out
    assert main(["plan", "--configfile", "a.yaml", "b.yaml"]) == 3
    assert "did you mean" in capsys.readouterr().err
