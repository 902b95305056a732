import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from otus import config as rooms
from otus.cli import main
from otus.cli.reference import config_reference
from otus.config import Config, config_schema, load_config, parse_config
from otus.errors import DataError

REPOSITORY = Path(__file__).parents[2]

#: Every place in a config file that has keys: the path to it and the class of its settings.
PLACES = {
    (): rooms.Config,
    ("corpus",): rooms.CorpusSettings,
    ("corpus", "annotations", 0): rooms.AnnotationSource,
    ("corpus", "names", 0): rooms.NamePattern,
    ("corpus", "extracts"): rooms.ExtractSettings,
    ("corpus", "demo"): rooms.DemoSettings,
    ("corpus", "soundscapes"): rooms.SoundscapeSettings,
    ("corpus", "soundscapes", "events", "mine"): rooms.EventSource,
    ("corpus", "soundscapes", "snr"): rooms.SnrSettings,
    ("split",): rooms.SplitSettings,
    ("datasets", "mine"): rooms.DatasetSettings,
    ("datasets", "mine", "hard_negatives"): rooms.HardNegativeSettings,
    ("clip_files",): rooms.ClipFileSettings,
    ("clip_files", "spectrograms"): rooms.ClipImageSettings,
    ("training", "mine"): rooms.TrainingSettings,
    ("training", "mine", "tcn"): rooms.TcnSettings,
    ("training", "mine", "crnn"): rooms.CrnnSettings,
    ("training", "mine", "dense_resnet"): rooms.DenseResnetSettings,
    ("training", "mine", "resnet18"): rooms.Resnet18Settings,
    ("training", "mine", "beats"): rooms.BeatsSettings,
    ("training", "mine", "timm"): rooms.TimmSettings,
    ("training", "mine", "frontend"): rooms.FrontendSettings,
    ("training", "mine", "augmentation"): rooms.AugmentationSettings,
    ("training", "mine", "optimisation"): rooms.OptimisationSettings,
    ("external", "mine"): rooms.ExternalSettings,
    ("external", "mine", "hawkears"): rooms.HawkEarsSettings,
    ("chunking",): rooms.ChunkSettings,
    ("prediction",): rooms.PredictionSettings,
    ("evaluation",): rooms.EvaluationSettings,
    ("evaluation", "decoding"): rooms.DecodingSettings,
    ("evaluation", "choice"): rooms.ChoiceSettings,
    ("evaluation", "choice_of", "mine"): rooms.ChoiceSettings,
    ("evaluation", "strata"): rooms.StrataSettings,
    ("evaluation", "decoding_of", "mine"): rooms.DecodingSettings,
    ("forest",): rooms.ForestSettings,
    ("report",): rooms.ReportSettings,
}


def minimal(**values):
    return {"corpus": {"root": "/data", "targets": ["hum"]}, **values}


def with_value(path, value):
    """The minimal config with `value` at `path`."""
    values = minimal()
    here = values
    for part, following in zip(path, [*path[1:], None], strict=True):
        if part == path[-1] and following is None:
            here[part] = value
        elif isinstance(following, int):
            here[part] = [{"files": "*.txt"}]
            here = here[part]
        elif isinstance(part, int):
            here = here[part]
        else:
            here = here.setdefault(part, {})
    return values


def refusal(values):
    with pytest.raises(DataError) as error:
        parse_config(values)
    text = str(error.value)
    assert text.startswith("config") and "\n" not in text
    return text


def dotted(path):
    return ".".join(map(str, path))


def test_the_places_are_all_there_are():
    exported = {value for value in vars(rooms).values() if isinstance(value, type) and issubclass(value, BaseModel)}
    assert set(PLACES.values()) == exported


@pytest.mark.parametrize("place", PLACES, ids=dotted)
def test_an_unknown_key_names_the_nearest_valid_one(place):
    fields = PLACES[place].model_fields
    for field in fields:
        wrong = field[:-1] + ("ss" if field.endswith("s") else "x" + field[-1])
        text = refusal(with_value((*place, wrong), 1))
        assert f"unknown key '{dotted((*place, wrong))}'; did you mean '{field}'?" in text
    text = refusal(with_value((*place, "zzz"), 1))
    assert f"unknown key '{dotted((*place, 'zzz'))}'; valid keys: {', '.join(fields)}." in text


@pytest.mark.parametrize("name", ["crnn", "frontend", "epochs", "corpus", "training"])
def test_a_name_in_a_mapping_may_be_the_name_of_a_key(name):
    text = refusal(minimal(training={name: {"epoch": 3}}))
    assert f"unknown key 'training.{name}.epoch'; did you mean 'epochs'?" in text
    assert parse_config(minimal(training={name: {"epochs": 3}})).training[name].epochs == 3


def test_the_keys_of_csv_columns_are_known():
    source = {"files": "labels.csv", "columns": {"strat": "onset"}}
    text = refusal({"corpus": {"root": "/data", "targets": ["hum"], "annotations": [{"files": "a"}, source]}})
    assert text == "config: unknown key 'corpus.annotations.1.columns.strat'; did you mean 'start'?"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("seed",), "one", "'seed': Input should be a valid integer"),
        (("seed",), -1, "greater than or equal to 0 (found -1)"),
        (("corpus", "targets"), "hum", "'corpus.targets': Input should be a valid list (found 'hum')"),
        (("corpus", "targets"), [[1]], "'corpus.targets.0': Input should be a valid string (found [1])"),
        (("corpus", "targets"), [], "corpus.targets: name at least one label"),
        (("corpus", "targets"), ["hum", "a", "hum"], "corpus.targets: 'hum' is named twice"),
        (("corpus", "targets"), ["hum", "micro"], "corpus.targets: 'micro' names the row that pools all labels"),
        (("corpus", "targets"), ["hum", "macro"], "corpus.targets: 'macro' names the row that averages the labels"),
        (("corpus", "targets"), ["nothing"], "corpus.targets: 'nothing' names what stands for no call in confusion"),
        (("corpus", "root"), "", "'corpus.root': "),
        (("corpus", "annotations", 0), {"format": "raven"}, "the key 'corpus.annotations.0.files' is missing"),
        (("corpus", "annotations", 0), {"files": "a", "format": "ravn"}, "'auto', 'raven', 'audacity', 'csv', "),
        (("corpus", "targets"), ["unknown"], "corpus.targets: 'unknown' names what is neither target nor noise"),
        (("corpus", "annotations", 0), {"files": "a", "pattern": "x"}, "pattern"),
        (("corpus", "names"), [{"pattern": "(["}], "'corpus.names.0"),
        (("datasets", "a"), {"fractions": [0.5, 0.3, 0.3]}, "fractions must add up to 1, not 1.1"),
        (("datasets", "a"), {"fractions": [0.5, 0.5, 0.0]}, "train, val and test must each have a share"),
        (("datasets", "a"), {"class_balance": 0.5}, "greater than or equal to 1 (found 0.5)"),
        (("corpus", "soundscapes"), {"snr": {"low_db": 30}}, "low_db <= mean_db <= high_db must hold"),
        (("corpus", "unlabelled"), "ignore", "'exclude' or 'negative' (found 'ignore')"),
        (("split",), 5, "'split': must be a mapping of keys (found 5)"),
        (("training", "dense"), None, "'training.dense': must be a mapping of keys (it is empty; write {} for"),
        (("training",), {}, "'training': "),
        (("training",), {"a-b": {}}, "'training.a-b': "),
        (("training",), {"../x": {}}, "'training.../x': "),
        (("datasets",), {"_x": {}}, "'datasets._x': "),
        (("split", "folds"), 2, "'split': folds: 2 leaves nothing to validate on; take 3 or more"),
        (("split", "test_fraction"), 0, "greater than 0 (found 0)"),
        (("split", "test_fraction"), 1.0, "less than 1 (found 1.0)"),
        (("split", "val_fraction"), 1, "less than 1 (found 1)"),
        (("chunking", "chunk_s"), float("inf"), "finite number"),
        (("forest", "candidate_recall"), float("nan"), "finite number"),
        (("training", "x", "augmentation"), {"mix_low_db": float("nan")}, "finite number"),
        (("training", "x", "frontend"), {"low_hz": 500, "high_hz": 400}, "low_hz (500) must lie below high_hz (400)"),
        (("training", "x", "crnn"), {"dilations": [1, 0]}, "'training.x.crnn.dilations.1': "),
        (("training", "x", "crnn"), {"channels": []}, "'training.x.crnn.channels': "),
        (("training", "x", "resnet18"), {"max_pool": 3}, "'training.x.resnet18.max_pool': Input should be 0, 1 or 2"),
        (("training", "x", "resnet18"), {"sha256": "abc"}, "'training.x.resnet18.sha256': "),
        (("training", "x", "architecture"), "resnet", "'tcn', 'crnn', 'dense_resnet', 'resnet18', 'beats' or 'timm'"),
        (("training", "x", "balance"), "label", "'training.x.balance': "),
        (("training", "x", "validate_every"), 0, "'training.x.validate_every': "),
        (("training", "x", "epochs"), -1, "'training.x.epochs': Input should be greater than or equal to 0"),
        (("training", "x", "optimisation"), {"plateau_factor": 1}, "'training.x.optimisation.plateau_factor': Input"),
        (("training", "x", "optimisation"), {"beta1": 1}, "less than 1 (found 1)"),
        (("training", "x", "optimisation"), {"beta2": 1}, "less than 1 (found 1)"),
        (("training", "x", "optimisation"), {"learning_rate": 0}, "greater than 0 (found 0)"),
        (("evaluation", "iou"), [0.4, 2], "'evaluation.iou.1': Input should be less than or equal to 1 (found 2)"),
        (("evaluation", "iou"), [], "'evaluation.iou': "),
        (("evaluation", "iou"), [0.4, 0.2, 0.4], "'evaluation.iou': 0.4 stands there twice"),
        (("evaluation", "thresholds"), [0.5, 0.5], "'evaluation.thresholds': 0.5 stands there twice"),
        (("evaluation", "false_alarm_budgets_per_hour"), [10, 10.0001], "10 stands there twice"),
        (("evaluation", "decoding"), {"gaps": []}, "'evaluation.decoding.gaps': "),
        (("results_dir",), "", "'results_dir': "),
        (("results_dir",), "runs/{x}", "'results_dir': "),
        (("report", "audio"), "perhaps", "'report.audio': "),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_in_one_sentence(path, value, expected):
    assert expected in refusal(with_value(path, value))


def test_two_ways_to_split_exclude_each_other():
    text = refusal(minimal(split={"folds": 4}, datasets={"a": {"fractions": [0.6, 0.2, 0.2]}}))
    assert "datasets.a.fractions and split.folds exclude each other" in text


def test_the_rest_of_raw_recordings_needs_to_know_which_they_are():
    values = minimal(datasets={"a": {"fallback_raw": True, "noise_from": "own"}})
    assert parse_config(values).corpus.extracts == rooms.ExtractSettings()
    values["corpus"]["extracts"] = None
    assert "datasets.a.fallback_raw needs corpus.extracts" in refusal(values)


def test_a_corpus_is_made_in_one_way():
    soundscapes = {"clips": "/c", "events": {"dog": {"files": "*"}}, "backgrounds": ["rain/*"]}
    text = refusal({"corpus": {"root": "/d", "targets": ["dog"], "demo": {}, "soundscapes": soundscapes}})
    assert "demo and soundscapes exclude each other" in text


def test_numbers_are_labels_too():
    corpus = parse_config({"corpus": {"root": "/d", "targets": [1], "labels": {1: "one", 2: None}}}).corpus
    assert corpus.targets == ["1"] and corpus.labels == {"1": "one", "2": None}


def test_every_mistake_is_told():
    text = refusal({"seeds": 1, "split": {"folds": "many"}})
    assert "unknown key 'seeds'" in text and "'split.folds': " in text and "the key 'corpus' is missing" in text


def test_a_key_that_is_no_text_is_refused():
    for key in (5, True, None):
        assert "Keys should be strings" in refusal({**minimal(), key: 1})


def test_defaults_are_valid_and_settings_cannot_be_changed():
    config = parse_config(minimal())
    assert list(config.datasets) == ["grouped"]
    assert config.training == {"default": rooms.TrainingSettings()}
    assert parse_config(config.model_dump(mode="json")) == config
    with pytest.raises(ValueError):
        config.seed = 2


def test_variables_and_home_are_expanded(monkeypatch):
    monkeypatch.setenv("OTUS_TEST_ROOT", "/tapes")
    monkeypatch.setenv("OTUS_TEST_EMPTY", "")
    monkeypatch.setenv("HOME", "/home/someone")
    corpus = {
        "root": "~/x${OTUS_TEST_EMPTY}/${OTUS_TEST_ROOT}",
        "targets": ["a", "~unsure", "$HOME", "x~"],
        "group": r"^(?P<group>site_\d+)$",
        "annotations": [{"files": "${OTUS_TEST_ROOT}/*.txt"}],
    }
    found = parse_config({"corpus": corpus, "results_dir": "~"}).corpus
    assert found.root == "/home/someone/x//tapes"
    assert found.targets == ["a", "~unsure", "$HOME", "x~"]
    assert found.group == r"^(?P<group>site_\d+)$"
    assert found.annotations[0].files == "/tapes/*.txt"
    assert parse_config(minimal(results_dir="~")).results_dir == "/home/someone"


def test_an_unset_variable_names_the_key_and_what_to_do(monkeypatch):
    monkeypatch.delenv("OTUS_TEST_ROOT", raising=False)
    text = refusal(with_value(("corpus", "annotations", 0), {"files": "${OTUS_TEST_ROOT}/x"}))
    assert text == (
        "config.corpus.annotations[0].files: the environment variable OTUS_TEST_ROOT is not set; "
        "export OTUS_TEST_ROOT=... first."
    )


def files_of(tmp_path, *texts):
    paths = [tmp_path / f"{i}.yaml" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def test_later_files_win_mappings_are_merged_and_lists_replaced(tmp_path):
    first = """
        seed: 1
        corpus: {root: /a, targets: [hum, buzz], annotations: [{files: "*.txt"}, {files: "*.csv"}]}
        training: {small: {epochs: 3, architecture: dense_resnet, dense_resnet: {channels: 8}}, large: {}}
    """
    second = "{corpus: {root: /b, targets: [bark]}, training: {small: {dense_resnet: {dropout: 0.5}}}}"
    third = "{seed: 3, training: {small: {epochs: 5}}, split: {folds: 4}}"
    paths = files_of(tmp_path, first, second, third)
    config = load_config(paths)
    assert (config.seed, config.corpus.root, config.corpus.targets) == (3, "/b", ["bark"])
    assert [source.files for source in config.corpus.annotations] == ["*.txt", "*.csv"]
    assert list(config.training) == ["small", "large"] and config.split.folds == 4
    small = config.training["small"]
    assert (small.epochs, small.network.channels, small.network.dropout) == (5, 8, 0.5)
    assert load_config([paths[2], paths[1], paths[0]]).corpus.root == "/a"


def test_a_null_in_a_later_file_wins(tmp_path):
    paths = files_of(tmp_path, "{corpus: {root: /a, targets: [x]}, split: {folds: 4}}", "split: {folds: null}")
    assert load_config(paths).split.folds is None


def test_numbers_that_yaml_takes_for_text_and_a_byte_order_mark(tmp_path):
    (path,) = files_of(
        tmp_path, "\ufeffcorpus: {root: /a, targets: [x]}\ntraining: {a: {optimisation: {learning_rate: 1e-3}}}\n"
    )
    assert load_config([path]).training["a"].optimisation.learning_rate == 0.001


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"corpus:\n  root: [a\nseed: 1\n", r"0\.yaml, line 3: not valid YAML: expected ',' or '\]'"),
        (b"corpus: {root: a}\n  seed: 1\n", r"0\.yaml, line 2: not valid YAML: "),
        (b"corpus:\n\troot: a\n", r"0\.yaml, line 2: not valid YAML: "),
        (b"a: \x07\n", r"0\.yaml: not valid YAML: "),
        (b"root: !!python/object/apply:os.getcwd []\n", r"0\.yaml, line 1: not valid YAML: could not determine"),
        (b"root: caf\xe9\n", r"0\.yaml: the config file is not UTF-8 text; save it"),
        (b"- a\n", r"0\.yaml: a config file is a mapping"),
        (b"", r"0\.yaml: a config file is a mapping"),
    ],
)  # fmt: skip
def test_what_is_no_config_file(tmp_path, content, expected):
    (tmp_path / "0.yaml").write_bytes(content)
    with pytest.raises(DataError, match=expected) as error:
        load_config([tmp_path / "0.yaml"])
    assert "\n" not in str(error.value)


def test_a_config_file_that_cannot_be_opened(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(DataError, match="cannot read the config file"):
            load_config([path])


def test_the_configs_of_the_repository_are_valid(monkeypatch):
    monkeypatch.setenv("OTUS_DATA", "/data")
    for path in sorted((REPOSITORY / "config").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        layers = [path]
        if text.startswith("# A layer"):
            (command,) = re.findall("# +snakemake --configfile (.*)", text)
            layers = [REPOSITORY / name for name in command.split()]
            assert layers[-1] == path
        load_config(layers)


@pytest.mark.parametrize("name", ["schemas/config.schema.json", "schemas/tables.json", "docs/config.md"])
def test_generated_files_are_up_to_date(tmp_path, name):
    assert main(["schema", str(tmp_path)]) == 0
    fresh = (tmp_path / name).read_text(encoding="utf-8")
    assert (REPOSITORY / name).read_text(encoding="utf-8") == fresh, "run `otus schema` in the repository"


def test_the_json_schema_knows_every_place():
    schema = config_schema()
    assert schema["additionalProperties"] is False and json.dumps(schema)
    known = {Config.__name__: set(schema["properties"])}
    known |= {name: set(part["properties"]) for name, part in schema["$defs"].items()}
    assert known == {model.__name__: set(model.model_fields) for model in PLACES.values()}


def test_the_reference_tells_every_key_with_its_meaning():
    text = config_reference()
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    named = {dotted(place).replace("mine", "NAME").replace(".0", "[]"): model for place, model in PLACES.items()}
    assert set(sections) == {f"`{title}`" if title else "Top level" for title in named}
    for title, model in named.items():
        section = sections[f"`{title}`" if title else "Top level"]
        for field, info in model.model_fields.items():
            assert info.description, f"{title}.{field} has no description"
            (line,) = [line for line in section.splitlines() if line.startswith(f"| `{field}` |")]
            cells = line.replace("\\|", "").split("|")
            assert len(cells) == 5 and cells[2].strip() and cells[3].strip()
            assert ("required" in cells[2]) == info.is_required()


def test_a_single_value_stands_for_a_list_of_one():
    values = {"iou": 0.5, "thresholds": 0.3, "false_alarm_budgets_per_hour": 2, "decoding": {"merge": "union"}}
    strata = {"duration_edges_s": 0.5, "snr_edges_db": 3}
    settings = rooms.EvaluationSettings.model_validate({**values, "strata": strata})
    assert (settings.iou, settings.thresholds, settings.false_alarm_budgets_per_hour) == ([0.5], [0.3], [2.0])
    assert (settings.strata.duration_edges_s, settings.strata.snr_edges_db) == ([0.5], [3.0])
    assert settings.decoding.merge == ["union"]
    assert (
        rooms.EvaluationSettings.model_validate({"strata": {"duration_edges_s": None}}).strata.duration_edges_s is None
    )
