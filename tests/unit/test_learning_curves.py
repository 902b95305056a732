"""Learning curves: the picture of a training, that of a model in the report, and the events for TensorBoard."""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from otus.errors import MissingPartError
from otus.report.learning import (
    best_epochs_in_words,
    fold_svg,
    histories_by_member,
    histories_of_fold,
    model_svg,
    read_histories,
)
from otus.training.tensorboard import require_tensorboard, write_events

SVG = "{http://www.w3.org/2000/svg}"


def epochs(member=1, n=6, every=2, **more):
    """Records as a training writes them: validated every second epoch."""
    found = []
    for epoch in range(1, n + 1):
        record = {"member": member, "epoch": epoch, "loss": 2.0 / epoch, "learning_rate": 0.001 * epoch, **more}
        if epoch % every == 0:
            record |= {"detection": 0.1 * epoch, "f1": 0.1 * epoch + 0.05, "average_precision": 0.1 * epoch - 0.05}
        found.append(record)
    return found


def two_stages(first, second):
    """Records of two stages, whose epochs are counted through."""
    later = [r | {"epoch": r["epoch"] + first} for r in epochs(stage=2, n=second)]
    return [*epochs(stage=1, n=first), *later]


def words(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def lines(svg, dashed=False):
    """The drawn lines, legend included, that are dashed or not."""
    paths = ElementTree.fromstring(svg).iter(f"{SVG}path")
    styles = [path.get("style", "") for path in paths]
    return [s for s in styles if "fill: none" in s and "stroke-width: 1.3" in s and ("dasharray" in s) == dashed]


def test_one_line_per_network_and_every_result():
    svg = fold_svg(histories_by_member([*epochs(1), *epochs(2)], [4, 6]))
    for text in ("loss", "validation", "learning rate", "network 1", "network 2", "detection", "f1", "best epoch"):
        assert text in words(svg)
    assert "average precision" in words(svg)
    assert len(lines(svg)) == 2 * 3, "loss, detection and learning rate of two networks"
    assert len(lines(svg, dashed=True)) == 2 * 2, "the other results of two networks"
    assert "network" in words(fold_svg(histories_by_member(epochs(), [4])))


def test_the_best_epoch_is_the_one_that_was_kept():
    (first, second) = histories_by_member([*epochs(2), *epochs(1)], [4, 6])
    assert (first.name, first.best, second.name, second.best) == ("network 1", 3, "network 2", 5)
    assert best_epochs_in_words([first, second]) == "network 1: 4 of 6; network 2: 6 of 6"
    (unvalidated,) = histories_by_member(epochs(), [3])
    assert unvalidated.best is None, "only validated epochs are kept"


def test_where_a_stage_begins_an_upright_stands():
    one_stage = histories_by_member(epochs(), [4])
    two = histories_by_member(two_stages(6, 4), [8])
    assert two[0].best == 7
    assert fold_svg(two).count("stroke-dasharray: 0.8") == fold_svg(one_stage).count("stroke-dasharray: 0.8") + 3
    assert "stage" not in words(fold_svg(two)), "a stage is no result"


def test_a_steep_loss_has_a_logarithmic_scale_with_plain_numbers():
    records = [r | {"loss": 10.0 ** -r["epoch"]} for r in epochs()]
    svg = fold_svg(histories_by_member(records, [4]))
    assert "0.001" in words(svg) and "mathdefault" not in svg


def test_a_checkpoint_that_was_taken_as_it_is_has_no_curve():
    assert any("Nothing was trained" in text for text in words(fold_svg(histories_by_member([], [0]))))
    assert model_svg(histories_by_member([], [0]), "x-") == ""
    assert model_svg([], "x-") == ""


def test_other_results_than_detections_are_drawn_too():
    records = [{"epoch": e, "loss": 0.0, "learning_rate": 0.1, "detection": 0.5, "accuracy": 0.5} for e in (1,)]
    svg = fold_svg(histories_by_member(records, [1]))
    assert "accuracy" in words(svg) and "f1" not in words(svg)


def test_the_same_records_give_the_same_bytes_and_no_date():
    histories = histories_by_member(epochs(), [4])
    assert fold_svg(histories) == fold_svg(histories)
    assert not re.search(r"\d{4}-\d\d-\d\d", fold_svg(histories))


def test_a_page_can_hold_the_curves_of_several_models():
    runs = [*histories_of_fold("1", epochs(), [4]), *histories_of_fold("2", [*epochs(1), *epochs(2)], [4, 6])]
    figures = [model_svg(runs, prefix) for prefix in ("a-", "b-")]
    ids = [re.findall(r' id="([^"]+)"', figure) for figure in figures]
    assert ids[0] and not set(ids[0]) & set(ids[1])
    assert {"fold 1", "fold 2", "detection"} <= set(words(figures[0])) and "f1" not in words(figures[0])
    assert len(lines(figures[0])) == 3 * 3, "three networks of two folds"
    assert best_epochs_in_words(runs) == "fold 1: 4 of 6; fold 2: 4 of 6, 6 of 6"


def test_trainings_are_read_from_their_files(tmp_path):
    files = []
    for model, fold, best in (("a-net", 1, 2), ("a-net", 2, 4), ("b-net", 1, 6)):
        folder = tmp_path / "models" / model / f"fold{fold}"
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in epochs()))
        (folder / "best_metrics.json").write_text(json.dumps({"f1": 0.5, "best_epochs": [best]}))
        files.append((folder / "metrics.jsonl", folder / "best_metrics.json"))
    found = read_histories(files)
    assert {model: [(h.name, h.best) for h in own] for model, own in found.items()} == {
        "a-net": [("fold 1", 1), ("fold 2", 3)],
        "b-net": [("fold 1", 5)],
    }


def read_events(folder):
    """Tag -> (step, value) pairs of one network."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, round(e.value, 6)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_every_epoch_of_every_network_once_however_often_it_is_written(tmp_path):
    folder = tmp_path / "tensorboard"
    write_events(folder, epochs(n=3))
    for _ in range(2):
        write_events(folder, [*epochs(1), *epochs(2, n=4)])
    assert sorted(path.name for path in folder.iterdir()) == ["network1", "network2"]
    first, second = (read_events(folder / f"network{number}") for number in (1, 2))
    assert first["training/loss"] == [(e, round(2.0 / e, 6)) for e in range(1, 7)]
    assert first["validation/f1"] == [(2, 0.25), (4, 0.45), (6, 0.65)]
    assert second["training/learning_rate"] == [(e, round(0.001 * e, 6)) for e in range(1, 5)]
    assert set(first) == {
        "training/loss",
        "training/learning_rate",
        "validation/detection",
        "validation/f1",
        "validation/average_precision",
    }


def test_steps_of_a_second_stage_go_on(tmp_path):
    write_events(tmp_path / "t", two_stages(2, 2))
    found = read_events(tmp_path / "t" / "network1")
    assert [step for step, _ in found["training/loss"]] == [1, 2, 3, 4]
    assert found["training/stage"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def test_without_the_package_a_sentence_names_the_extra(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for call in (require_tensorboard, lambda: write_events(tmp_path / "t", epochs())):
        with pytest.raises(MissingPartError, match=r"pip install 'otus\[tensorboard\]'"):
            call()
    assert not (tmp_path / "t").exists()
