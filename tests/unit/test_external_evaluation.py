import pandas as pd
import pytest

from otus.config import EvaluationSettings
from otus.errors import StageError
from otus.evaluation.external import evaluate_external, fold_sides
from otus.evaluation.thresholds import read_thresholds, write_thresholds
from otus.selections import logit
from otus.tables import table

RATE = 100
SECONDS = 60
GROUPS = 4
PER_GROUP = 3


class Corpus:
    """Recordings of 60 s in four groups, each with calls every 10 s; four folds that test a group each."""

    def __init__(self, failed=(), leaky=False):
        ids = [f"g{g}_r{i}" for g in range(GROUPS) for i in range(PER_GROUP)]
        self.ids, self.group = ids, {r: r[:2] for r in ids}
        facts = {"sample_rate": RATE, "n_samples": SECONDS * RATE, "duration_s": float(SECONDS)}
        self.recordings = table("recordings", [{"recording_id": r, "group": self.group[r], **facts} for r in ids])
        self.annotations = table(
            "annotations",
            [
                {
                    "annotation_id": f"{r}_a{k}",
                    "recording_id": r,
                    "start_s": 10.0 * k,
                    "end_s": 10.0 * k + 1,
                    "label": "owl",
                }
                for r in ids
                for k in range(1, 5)
            ],
        )
        rows = []
        for fold in range(1, GROUPS + 1):
            for r in ids:
                number = int(r[1])
                side = "test" if number == fold - 1 else "val" if number == fold % GROUPS else "train"
                rows.append({"recording_id": r, "group": self.group[r], "fold": fold, "split": side, "leaky": leaky})
        self.splits = table("splits", rows).assign(start_sample=0, end_sample=SECONDS * RATE)
        self.chunks = table("chunks", [{"chunk_id": f"{r}_k0", "recording_id": r} for r in ids])
        status = {r: "failed" if r in failed else "ok" for r in ids}
        self.items = table("items", [{"chunk_id": f"{r}_k0", "recording_id": r, "status": status[r]} for r in ids])

    def sides(self):
        return fold_sides(self.items, self.chunks, self.recordings, self.splits)

    def evaluate(self, selections, classes=("owl",), **settings):
        return evaluate_external(
            selections,
            self.sides(),
            self.annotations,
            classes=list(classes),
            settings=EvaluationSettings(**settings),
            gap_s=0.5,
            model="grouped-toy",
        )

    def found(self, peak_of_hit=2.0, peak_of_alarm=-1.0, alarms=3, ids=None):
        """Every call, a little late, and some false alarms in every recording."""
        rows = []
        for r in ids or self.ids:
            for k in range(1, 5):
                rows.append((r, 10.0 * k + 0.1, 10.0 * k + 1.1, peak_of_hit + 0.01 * k))
            for k in range(alarms):
                rows.append((r, 10.0 * k + 5, 10.0 * k + 6, peak_of_alarm + 0.01 * k))
        frame = pd.DataFrame(rows, columns=["recording_id", "start_s", "end_s", "peak_score"])
        return frame.assign(label="owl", score=frame["peak_score"])


def selected(counts, split="test"):
    return counts[counts["selected"] & counts["split"].eq(split)][["n_gt", "n_pred", "tp"]].sum().tolist()


def test_the_threshold_lies_between_hits_and_false_alarms():
    corpus = Corpus()
    evaluation = corpus.evaluate(corpus.found())
    assert sorted(evaluation.operating_points) == [1, 2, 3, 4]
    for points in evaluation.operating_points.values():
        assert points["owl"].val_f1 == 1.0 and points["owl"].val_average_precision == 1.0
        assert -0.98 < logit(points["owl"].threshold) < 2.01
    assert selected(evaluation.counts) == [48, 48, 48] == selected(evaluation.counts, "val")
    assert set(evaluation.selections["layer"]) == {"external"} == set(evaluation.counts["layer"])
    assert evaluation.selections["selection_id"].is_unique
    assert set(evaluation.matches["outcome"]) == {"hit"}


def test_the_probability_of_a_hit_is_calibrated_on_validation():
    corpus = Corpus()
    selections = corpus.evaluate(corpus.found()).selections
    assert (selections.loc[selections["hit"], "probability"] > 0.8).all()
    assert (selections.loc[~selections["hit"], "probability"] < 0.2).all()


def test_a_fold_is_judged_with_a_threshold_that_never_saw_its_groups():
    """In group 0 hits are quiet and alarms loud: only the fold that tests it must not know."""
    corpus = Corpus()
    usual = corpus.found(ids=[r for r in corpus.ids if not r.startswith("g0")])
    odd = corpus.found(peak_of_hit=-5.0, peak_of_alarm=9.0, ids=[r for r in corpus.ids if r.startswith("g0")])
    points = corpus.evaluate(pd.concat([usual, odd], ignore_index=True)).operating_points
    clean = corpus.evaluate(corpus.found()).operating_points
    assert points[1]["owl"].val_f1 == 1.0 and points[1]["owl"].n_calls == 36
    assert points[1] == corpus.evaluate(usual).operating_points[1]
    assert points[2]["owl"].val_f1 < 1.0 and points[2] != clean[2]


def test_a_leaky_fold_looks_at_its_own_validation_alone():
    points = Corpus(leaky=True).evaluate(Corpus().found()).operating_points
    assert {point["owl"].n_calls for point in points.values()} == {12}
    assert {point["owl"].n_calls for point in Corpus().evaluate(Corpus().found()).operating_points.values()} == {36}


def test_one_score_for_everything_selects_everything_or_its_threshold_would_be_chance():
    corpus = Corpus()
    frame = corpus.found(alarms=1).assign(peak_score=logit(1 - 1e-6), score=1.0)
    evaluation = corpus.evaluate(frame)
    assert selected(evaluation.counts) == [48, 60, 48]


@pytest.mark.parametrize("peak", [34.0, -34.0])
def test_extreme_scores_can_still_be_told_apart(peak):
    corpus = Corpus()
    frame = corpus.found(peak_of_hit=peak + 1, peak_of_alarm=peak - 1)
    assert selected(corpus.evaluate(frame).counts) == [48, 48, 48]


def test_a_detector_that_finds_nothing_misses_everything():
    corpus = Corpus()
    evaluation = corpus.evaluate(corpus.found().iloc[:0])
    assert selected(evaluation.counts) == [48, 0, 0]
    assert evaluation.selections.empty and set(evaluation.matches["outcome"]) == {"miss"}
    assert {points["owl"].threshold for points in evaluation.operating_points.values()} == {0.5}


def test_a_label_without_calls_has_only_false_alarms():
    corpus = Corpus()
    frame = corpus.found()
    evaluation = corpus.evaluate(pd.concat([frame, frame.assign(label="jay")]), classes=("owl", "jay"))
    jay = evaluation.counts[evaluation.counts["label"].eq("jay") & evaluation.counts["selected"]]
    assert jay["n_gt"].sum() == 0 and jay["tp"].sum() == 0 and jay["n_pred"].sum() > 0
    owl = evaluation.counts[evaluation.counts["label"].eq("owl")]
    assert selected(owl) == [48, 48, 48]


def test_a_recording_with_a_failed_chunk_is_left_out():
    corpus = Corpus(failed=["g1_r0"])
    evaluation = corpus.evaluate(corpus.found())
    assert "g1_r0" not in set(evaluation.counts["recording_id"]) | set(evaluation.selections["recording_id"])
    assert selected(evaluation.counts)[0] == 44


def test_every_chunk_must_be_accounted_for():
    corpus = Corpus()
    corpus.items = corpus.items[corpus.items["recording_id"] != "g1_r1"]
    with pytest.raises(StageError, match=r"chunk g1_r1_k0 is not among what the detector searched.*\(1 such chunks\)"):
        corpus.sides()
    corpus = Corpus()
    keep = corpus.items["recording_id"] != "g1_r1"
    corpus.items, corpus.chunks = corpus.items[keep], corpus.chunks[keep]
    with pytest.raises(StageError, match="the detector never searched g1_r1"):
        corpus.sides()
    with pytest.raises(StageError, match="no validation recording was searched"):
        Corpus(failed=corpus.ids).evaluate(corpus.found())


def test_thresholds_are_written_and_read_as_they_are(tmp_path):
    corpus = Corpus()
    points = corpus.evaluate(corpus.found()).operating_points
    write_thresholds(tmp_path / "thresholds.yaml", "grouped-toy", points)
    assert read_thresholds(tmp_path / "thresholds.yaml") == points


def test_points_are_the_fixed_thresholds_by_group_at_every_iou():
    corpus = Corpus()
    evaluation = corpus.evaluate(corpus.found(), thresholds=[0.1, 0.5, 0.9], iou=[0.4, 0.95])
    points = evaluation.points
    assert set(points["role"]) == {"fixed"} and set(points["operating_point"]) == {"0.10", "0.50", "0.90"}
    assert points["merge"].isna().all() and points["window_s"].isna().all(), "nothing of it was decoded here"
    assert len(points) == 4 * 3 * 2  # folds, which test a group each
    assert (points["n_recordings"] == PER_GROUP).all() and (points["duration_s"] == PER_GROUP * SECONDS).all()
    sums = points.groupby(["iou", "operating_point"])[["n_gt", "n_pred", "tp"]].sum()
    assert sums.loc[(0.4, "0.10")].tolist() == [48, 84, 48], "false alarms of -1 are above 0.1"
    assert sums.loc[(0.4, "0.50")].tolist() == [48, 48, 48]
    assert sums.loc[(0.4, "0.90")].tolist() == [48, 0, 0]
    assert sums.loc[(0.95, "0.50")].tolist() == [48, 48, 0]
    assert set(evaluation.counts["operating_point"]) == {"selected"} and len(evaluation.shapes) == 0


def test_a_budget_per_label_is_kept():
    corpus = Corpus()
    frame = pd.concat([corpus.found(peak_of_alarm=2.02), corpus.found().assign(label="jay")])
    corpus.annotations = pd.concat([corpus.annotations, corpus.annotations.assign(label="jay")])
    budget = {"by": "recall", "false_alarms_per_hour": 100.0}
    evaluation = corpus.evaluate(frame, classes=("owl", "jay"), choice_of={"owl": budget})
    for points in evaluation.operating_points.values():
        owl, jay = points["owl"].reached, points["jay"].reached
        # Of four calls a minute, those at 2.04 and 2.03 are above three false alarms at 2.02 to 2.04.
        assert owl.false_alarms_per_hour <= 100.0 or owl.note
        assert (jay.criterion, jay.f1, jay.recall) == ("the best F1", 1.0, 1.0) and jay.hours == 9 * SECONDS / 3600
    quiet = corpus.evaluate(frame, classes=("owl",), choice={"by": "recall", "false_alarms_per_hour": 1e9})
    assert {points["owl"].reached.recall for points in quiet.operating_points.values()} == {1.0}


def test_a_budget_that_nothing_keeps_is_told():
    corpus = Corpus()
    frame = corpus.found(peak_of_alarm=5.0, alarms=4)
    evaluation = corpus.evaluate(frame, choice={"by": "recall", "false_alarms_per_hour": 0.1})
    for points in evaluation.operating_points.values():
        assert points["owl"].reached.note == "no threshold keeps the budget on validation: this is the least excess"
        assert points["owl"].reached.n_pred == 9 and points["owl"].reached.tp == 0, "the loudest of every recording"
