"""The model card for people: its sections, its numbers, and that it warns where it has to."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from otus.config import DatasetSettings
from otus.errors import DataError
from otus.evaluation.calibration import Calibration
from otus.evaluation.thresholds import ChosenPoint, Reached, ThresholdCurve, write_thresholds
from otus.report.model_card import model_card
from otus.report.model_facts import FoldFacts, ModelFacts, read_folds
from otus.selections import DecodingPoint
from otus.tables import table

SECTIONS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
]
LABELS = ["hum", "bark|<b>"]
POINT = ChosenPoint(
    threshold=0.4321,
    decoding=DecodingPoint(0.3, 0.3, 0.0, 0.05, 0.1),
    val_f1=0.83,
    val_average_precision=0.8,
    n_calls=33,
    calibration=Calibration("platt", 50, 30, "", 1.0, 0.0),
    curve=ThresholdCurve(),
    reached=Reached(criterion="the best F1", f1=0.81),
)


def card(fold=1, **changes):
    return {
        "architecture": "crnn",
        "members": 2,
        "network": {},
        "classes": LABELS,
        "objective": "frame",
        "frontend": {
            "kind": "relative",
            "sample_rate": 16000,
            "hop_samples": 160,
            "n_fft": 512,
            "bands": 64,
            "low_hz": 100.0,
            "high_hz": 7000.0,
            "scale": "mel",
        },
        "training": {
            "epochs": 30,
            "batch_size": 16,
            "device": "auto",
            "optimisation": {"method": "adamw", "learning_rate": 0.003, "schedule": "cosine"},
        },
        "data": {
            side: {"recordings": 10 + fold, "hours": 1.25, "calls": {"hum": 70 + fold, "bark|<b>": 9}}
            for side in ("train", "val")
        },
        "training_data_sha256": f"{fold}" * 64,
        "weights_sha256": "a" * 64,
        "best_epochs": [20 + fold, 25],
        "seed": 1000 + fold,
        "versions": {"otus": "0.1.0", "torch": "2.11.0"},
        **changes,
    }


def fold_facts(fold=1, **changes):
    facts = FoldFacts(card(fold), "c" * 64, 206_180, 60.0 * fold, 90.0, dict.fromkeys(LABELS, POINT))
    return replace(facts, **changes)


def metric(layer="cnn", fold="pooled", label="micro", **changes):
    numbers = {"n_recordings": 24, "n_groups": 4, "hours": 2.0, "n_gt": 150, "false_alarms_per_hour": 3.25}
    for name, value in (("f1", 0.8), ("precision", 0.7), ("recall", 0.9)):
        numbers |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.05}
    chosen = {"split": "test", "iou": 0.4, "selected": True, "leaky": False, "average_precision": 0.77}
    return {"model": "grouped-crnn", "layer": layer, "fold": fold, "label": label, **numbers, **chosen, **changes}


def metrics(*more, **changes):
    rows = [
        metric(layer, fold, label, **changes)
        for layer in ("cnn", "cnn+rf")
        for fold in ("pooled", "1", "2")
        for label in ("micro", *LABELS)
    ]
    rows += [metric(iou=0.1, f1=0.99), metric(selected=False, f1=0.98), metric(split="val", fold="1", f1=0.97)]
    return table("metrics", [*rows, *more])


def facts(**changes):
    ids = [f"r{i:02d}" for i in range(8)]
    recordings = [
        {
            "recording_id": name,
            "group": f"site_{i // 2}",
            "duration_s": 450.0,
            "sample_rate": 48000 if i else 44100,
            "site": "north",
            "start_time": f"2024-05-0{i + 1}T04:00:00",
        }
        for i, name in enumerate([*ids, "unlabelled"])
    ]
    sides = {1: ["test", "test", "val", "train"], 2: ["train", "train", "test", "val"]}
    splits = [
        {"recording_id": name, "group": f"site_{i // 2}", "fold": fold, "split": groups[i // 2]}
        for fold, groups in sides.items()
        for i, name in enumerate(ids)
    ]
    annotations = [{"recording_id": ids[i % 3], "label": LABELS[i % 2]} for i in range(12)]
    values = {
        "model": "grouped-crnn",
        "folds": {number: fold_facts(number) for number in (1, 2)},
        "dataset": "grouped",
        "settings": DatasetSettings(),
        "by": "group",
        "metrics": metrics(),
        "recordings": table("recordings", recordings),
        "annotations": table("annotations", annotations),
        "splits": table("splits", splits),
    }
    return ModelFacts(**{**values, **changes})


def tables_of(page, section):
    """The tables of a section: rows of cells, the heads first."""
    text = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    split = [
        [[c.strip() for c in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in b.strip().splitlines()]
        for b in blocks
    ]
    assert all(len({len(row) for row in rows}) == 1 for rows in split), "as many cells in every row"
    return [[rows[0], *rows[2:]] for rows in split]


@pytest.fixture(scope="module")
def page():
    return model_card(facts())


def test_it_has_the_sections_of_a_model_card_in_their_order(page):
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == SECTIONS
    assert page.startswith("# Model card: grouped-crnn\n")
    assert page.endswith(".\n") and "\n\n\n" not in page


def test_the_first_lines_say_what_it_finds_and_how_well(page):
    opening = page.partition("## ")[0]
    assert "*hum*, *bark\\|\\<b\\>*" in opening
    assert "F1 0.80 [0.70, 0.85] on 150 annotated calls in 24 test recordings of 4 groups (cnn+rf)." in opening
    assert "Leaky" not in page and "0.97" not in page and "0.98" not in page and "0.99" not in page


def test_it_tells_what_the_network_is_and_hears(page):
    assert "103,090 parameters a network" in page, "206,180 of both"
    assert "2 from different seeds" in page and "in each of the 2 folds" in page
    assert "64 mel bands from 100 to 7000 Hz of sound resampled to 16000 Hz; every 10 ms over 32 ms" in page
    assert "at a sample rate of 16000 Hz or more" in page
    assert "adamw, learning rate 0.003 (cosine), batches of 16, at most 30 epochs" in page
    assert "3.0 min for 2 of 2 trainings, one after the other, 3.0 min of CPU time" in page
    assert "**Energy**: not measured" in page and "otus 0.1.0, torch 2.11.0" in page


def test_other_front_ends_are_told_in_plain_words():
    windows = card()["frontend"] | {"kind": "windows", "window_samples": 6400, "min_max_norm": True}
    shown = model_card(facts(folds={1: fold_facts(card=card(frontend=windows, architecture="resnet18"))}))
    assert "in windows of 0.4 s, each scaled to 0..1." in shown
    fbank = card(architecture="beats", best_stages=[1, 2], frontend=card()["frontend"] | {"kind": "fbank"})
    shown = model_card(facts(folds={1: fold_facts(card=fbank)}))
    assert "nothing but the training data below, and from what its encoder" in shown
    assert "| 21 (stage 1), 25 (stage 2) |" in shown
    assert "the level of a recording matters" in shown and "neither stored nor counted, except its last bl" in shown
    first = [fold_facts(number, card=fbank | {"best_stages": [1, 1]}) for number in (1, 2)]
    assert "neither stored nor counted.\n" in model_card(facts(folds=dict(enumerate(first, start=1))))


def test_files_groups_and_points_are_listed(page):
    (files,) = tables_of(page, "Model details")
    assert [row[:3] for row in files[1:]] == [["1", "a" * 64, "c" * 64], ["2", "a" * 64, "c" * 64]]
    assert files[1][3:] == ["21, 25", "1001"]
    (groups,) = tables_of(page, "Factors")
    assert groups[1] == ["site_0", "1", "2", "0.25", "4", "4"]
    assert [row[0] for row in groups[1:]] == [f"site_{i}" for i in range(4)]
    assert groups[4][1:] == ["–", "2", "0.25", "0", "0"], "never tested, no calls"
    assert "8 labelled recordings: sample rates 48000 Hz (7), 44100 Hz (1); 1 site; recorded from 2024-05-01" in page
    (points,) = tables_of(page, "Metrics")
    assert points[1] == ["1", "hum", "off0.3_ons0.3_gap0_smo0.05_min0.1", "platt", "0.432", "0.81", "33"]
    assert len(points) == 1 + 2 * 2


def test_the_criterion_of_the_operating_points_is_told_label_by_label(page):
    assert "on validation recordings by the best F1: the threshold is the middle of those" in page
    cost = replace(POINT, reached=Reached(criterion="the least cost (5 per miss, 1 per false alarm)"))
    mixed = model_card(facts(folds={1: fold_facts(points={"hum": POINT, LABELS[1]: cost})}))
    assert "by the best F1 for *hum*, the least cost (5 per miss, 1 per false alarm) for *bark" in mixed
    assert "whose F1" not in mixed


def test_data_of_all_sides_with_calls_and_digest(page):
    (tested,) = tables_of(page, "Evaluation data")
    assert tested[0] == ["Fold", "Recordings", "Groups", "Hours", "Calls: hum", "Calls: bark\\|\\<b\\>"]
    assert tested[1:] == [[str(fold), "24", "4", "2.00", "150", "150"] for fold in (1, 2)]
    (trained,) = tables_of(page, "Training data")
    assert trained[1] == ["1", "training", "1" * 64, "11", "1", "1.25", "71", "9"]
    assert trained[4] == ["2", "validation", "", "12", "1", "1.25", "72", "9"]
    assert "strategy grouped, with 4 mined noise clips for each call" in page


def test_results_of_both_layers_by_label_and_fold_with_counts(page):
    pooled, by_fold = tables_of(page, "Quantitative analyses")
    assert [row[:2] for row in pooled[1:4]] == [
        ["cnn", "all labels (micro)"],
        ["cnn", "hum"],
        ["cnn", "bark\\|\\<b\\>"],
    ]
    assert pooled[1][2:] == [
        "0.80 [0.70, 0.85]",
        "0.70 [0.60, 0.75]",
        "0.90 [0.80, 0.95]",
        "0.77",
        "3.2",
        "150",
        "24",
        "4",
    ]
    assert len(pooled) == 1 + 2 * 3 and len(by_fold) == 1 + 2 * 2 * 3
    assert by_fold[1][:3] == ["1", "cnn", "all labels (micro)"]


def test_parts_that_folds_test_are_named():
    rows = metrics(part="fen <1>")
    page = model_card(facts(by="site", metrics=rows))
    assert tables_of(page, "Evaluation data")[0][1][:2] == ["1", "fen \\<1\\>"]
    assert tables_of(page, "Quantitative analyses")[1][0][:3] == ["Fold", "Site", "Layer"]
    assert "a new place may do worse" not in page and "a new place may do worse" in model_card(facts())


def test_it_says_whose_validation_chose_the_points(page):
    pooled, alone = "not wholly blind to them", "the validation recordings of the fold alone"
    assert pooled in page and alone not in page and "No fold trained on a recording of a group" in page
    leaky = model_card(facts(settings=DatasetSettings(strategy="random"), by="site"))
    assert pooled not in leaky and alone not in leaky
    for one in (facts(by="site", metrics=metrics(part="fen")), facts(folds={1: fold_facts(1)})):
        shown = model_card(one)
        assert alone in shown and pooled not in shown


def test_leaky_variants_are_marked_at_the_top_and_in_the_caveats():
    for one in (facts(settings=DatasetSettings(strategy="random")), facts(metrics=metrics(leaky=True))):
        page = model_card(one)
        assert "Leaky" in page.partition("## ")[0]
        assert "**Leaky**" in page.partition("## Caveats")[2]
        assert "No fold trained on" not in page and "less every recording of the groups" not in page


def test_imported_checkpoints_are_flagged():
    known = {"file": "ANIMAL_SPOT.pk", "sha256": "d" * 64, "note": None}
    settings = card()["training"] | {"epochs": 0}
    page = model_card(facts(folds={1: fold_facts(card=card(imported=known, training=settings))}))
    assert f"from the checkpoint of another program (file: ANIMAL_SPOT.pk; sha256: {'d' * 64})" in page
    assert "**Imported**" in page and "the checkpoint was taken as it is" in page
    (_, learnt, *_), *_ = tables_of(page, "Training data")
    assert learnt[1] == "training" and learnt[4] == "0", "no group taught anything"
    assert "Origin" in model_card(facts()) and "another program" not in model_card(facts())


@pytest.mark.parametrize("weights", [None, "/some/where/w.safetensors"])
def test_weights_that_a_training_started_from_are_named(weights):
    settings = card()["training"] | {"timm": {"backbone": "resnet18", "weights": weights}}
    stored = card(architecture="timm", training=settings, network={"backbone": "resnet18", "weights": None})
    page = model_card(facts(folds={1: fold_facts(card=stored)}))
    assert ("started from the file of weights w.safetensors." in page) == bool(weights) and "/some/where" not in page


def test_few_calls_and_notes_are_caveats_and_each_note_stands_once():
    notes = "only 4 groups: the interval is too narrow; fold 1 hum: no forest, cnn selections"
    rows = metrics(n_gt=49, note=notes)
    rows.loc[rows["layer"].eq("cnn"), "note"] = notes.partition("; ")[0]
    caveats = model_card(facts(metrics=rows)).partition("## Caveats")[2]
    assert "only 49 calls to find" in caveats
    assert caveats.count("Only 4 groups: the interval is too narrow (grouped-crnn cnn micro, ") == 1
    assert caveats.count("Fold 1 hum: no forest, cnn selections (grouped-crnn cnn+rf micro, ") == 1
    assert "single calls move" not in model_card(facts())


def test_front_ends_that_differ_from_fold_to_fold_are_not_passed_over():
    other = card(2, frontend=card()["frontend"] | {"hop_samples": 240})
    page = model_card(facts(folds={1: fold_facts(1), 2: fold_facts(2, card=other)}))
    assert "That is fold 1; the others chose theirs" in page and "That is fold 1" not in model_card(facts())


def test_a_model_without_test_rows_says_so():
    page = model_card(facts(metrics=metrics().iloc[:0]))
    assert "It was not tested." in page and "None." in page


def test_one_label_has_no_micro_row_and_one_fold_no_table_of_folds():
    rows = table("metrics", [metric(fold=fold, label="hum") for fold in ("pooled", "1")])
    page = model_card(facts(metrics=rows, folds={1: fold_facts(card=card(classes=["hum"], members=1))}))
    assert "F1 0.80" in page and "(cnn)." in page and "Fold by fold" not in page and "- **Networks**: one.\n" in page


def test_many_groups_are_counted_not_listed():
    recordings = table(
        "recordings",
        [{"recording_id": f"r{i}", "group": f"g{i:03d}", "duration_s": 1.0, "sample_rate": 8000} for i in range(50)],
    )
    splits = table(
        "splits", [{"recording_id": f"r{i}", "group": f"g{i:03d}", "fold": 1, "split": "train"} for i in range(50)]
    )
    page = model_card(facts(recordings=recordings, splits=splits))
    assert len(tables_of(page, "Factors")[0]) == 41 and "10 more rows are left out." in page


def test_names_can_neither_break_a_table_nor_mean_anything():
    nasty = "a|b\n# <script>x</script> [l](http://x) [1](http://x) *b* _c_ `d`"
    one = facts()
    groups = one.recordings.assign(group=nasty), one.splits.assign(group=nasty)
    page = model_card(replace(one, recordings=groups[0], splits=groups[1]))
    assert "\n# <script>" not in page and "<script" not in page.replace("\\<script", "")
    assert len(tables_of(page, "Factors")[0]) == 2
    cell = tables_of(page, "Factors")[0][1][0]
    assert cell == "a\\|b?\\# \\<script\\>x\\</script\\> \\[l]\\(http://x) [1]\\(http://x) \\*b\\* \\_c\\_ \\`d\\`"


def training_folder(folder, fold=1):
    own = folder / "grouped-crnn" / f"fold{fold}"
    own.mkdir(parents=True)
    (own / "card.json").write_text(json.dumps(card(fold)))
    tensors = {"a.weight": np.zeros((3, 4)), "a.running_mean": np.zeros(9), "a.num_batches_tracked": np.zeros(())}
    save_file(tensors | {"b.bias": np.zeros(5)}, own / "model.safetensors")
    return own


def test_facts_are_read_from_the_files_of_the_stages(tmp_path):
    folders = [training_folder(tmp_path, fold) for fold in (2, 1)]
    write_thresholds(tmp_path / "thresholds.yaml", "grouped-crnn", {1: {"hum": POINT}, 2: {"hum": POINT}})
    benchmarks = tmp_path / "benchmarks"
    benchmarks.mkdir()
    (benchmarks / "grouped-crnn.fold1.tsv").write_text("s\th:m:s\tcpu_time\n72.35\t0:01:12\t30.00\n")
    (benchmarks / "grouped-crnn.fold2.tsv").write_text("s\tcpu_time\n0.5\t-\n")
    found = read_folds(folders, tmp_path / "thresholds.yaml", benchmarks)
    assert list(found) == [1, 2]
    assert (found[1].wall_s, found[1].cpu_s, found[2].wall_s, found[2].cpu_s) == (72.35, 30.0, 0.5, None)
    assert found[1].parameters == 12 + 5, "statistics of norms are not learnt"
    assert found[1].points == {"hum": POINT} and found[2].card["seed"] == 1002
    assert re.fullmatch("[0-9a-f]{64}", found[1].card_sha256) and found[1].card_sha256 != found[2].card_sha256
    assert "103,090" not in model_card(facts(folds=found))


def test_missing_benchmarks_are_no_reason_to_fail_and_missing_thresholds_are(tmp_path):
    folders = [training_folder(tmp_path)]
    write_thresholds(tmp_path / "thresholds.yaml", "grouped-crnn", {1: {"hum": POINT}})
    found = read_folds(folders, tmp_path / "thresholds.yaml", tmp_path / "nowhere")
    assert (found[1].wall_s, found[1].cpu_s) == (None, None)
    assert "**Time**: not known." in model_card(facts(folds=found))
    with pytest.raises(DataError, match=r"none\.yaml"):
        read_folds(folders, tmp_path / "none.yaml", tmp_path)


def test_the_same_facts_give_the_same_text_in_any_order():
    one = facts()
    shuffled = {
        name: getattr(one, name).sample(frac=1, random_state=3) for name in ("recordings", "annotations", "splits")
    }
    first = one.metrics.iloc[:1]  # the first row tells which IoU decides
    again = pd.concat([first, one.metrics.iloc[1:].sample(frac=1, random_state=3)])
    assert model_card(replace(one, **shuffled, metrics=again)) == model_card(one)
