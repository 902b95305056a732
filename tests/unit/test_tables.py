import csv
import math

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from otus import tables
from otus.columns import SCHEMAS
from otus.errors import DataError
from otus.tables import SCHEMA_VERSION, arrow_schema, read_table, table, table_metadata, write_table

VALUES = {pa.string(): 'ünï, "code"\nline', pa.float64(): 1 / 3, pa.int64(): 5_000_000_000, pa.bool_(): True}


def full_row(name):
    return {column: VALUES[kind] for column, kind in SCHEMAS[name].items()}


def is_one_sentence(error):
    text = str(error.value)
    return "\n" not in text and text.endswith(".") and ". " not in text


@pytest.mark.parametrize("name", SCHEMAS)
def test_values_and_nulls_of_every_table_come_back(tmp_path, name):
    rows = [full_row(name), dict.fromkeys(SCHEMAS[name])]
    write_table(tmp_path / "t.parquet", name, table(name, rows))
    back = read_table(tmp_path / "t.parquet", name)
    assert list(back.columns) == list(SCHEMAS[name])
    assert back.iloc[0].to_dict() == rows[0]
    assert back.iloc[1].isna().all()
    for column, kind in SCHEMAS[name].items():  # numbers stay numbers beside a null
        if pa.types.is_integer(kind):
            assert back[column].dtype == pd.Int64Dtype()
    again = table(name, back)
    pd.testing.assert_frame_equal(again, back)


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_empty_table_keeps_its_columns_and_types(tmp_path, name):
    write_table(tmp_path / "t.parquet", name, table(name, []))
    back = read_table(tmp_path / "t.parquet", name)
    assert len(back) == 0 and list(back.columns) == list(SCHEMAS[name])
    assert pq.read_schema(tmp_path / "t.parquet").types == list(SCHEMAS[name].values())


def test_integers_without_a_null_are_plain_integers():
    frame = table("splits", [{"recording_id": "a", "fold": 1}])
    assert frame["fold"].dtype == "int64" and frame["split"].isna().all()


def test_integers_beside_a_null_do_not_go_through_floats(tmp_path):
    beyond_floats = 2**53 + 1
    frame = pd.DataFrame({"fold": pd.array([beyond_floats, None], dtype="Int64")})
    write_table(tmp_path / "t.parquet", "splits", table("splits", frame))
    assert read_table(tmp_path / "t.parquet", "splits")["fold"].iloc[0] == beyond_floats


def test_missing_columns_are_null_and_the_order_is_that_of_the_schema():
    frame = table("splits", {"split": ["test"], "recording_id": ["a"]})
    assert list(frame.columns) == list(SCHEMAS["splits"])
    assert frame[["group", "fold"]].isna().all(axis=None)


def test_an_unknown_column_or_a_wrong_type_is_refused():
    with pytest.raises(KeyError, match="folds"):
        table("splits", [{"recording_id": "a", "folds": 1}])
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        table("splits", [{"recording_id": "a", "fold": "first"}])
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        table("splits", [{"recording_id": "a", "fold": 1.5}])


def test_a_table_that_cannot_be_written_does_not_touch_the_old_one(tmp_path):
    write_table(tmp_path / "t.parquet", "splits", table("splits", [{"fold": 1}]), csv=tmp_path / "t.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyError):
        write_table(tmp_path / "t.parquet", "splits", pd.DataFrame({"other": [1]}), csv=tmp_path / "t.csv")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_table_gives_the_same_bytes(tmp_path):
    frame = table("splits", [full_row("splits")] * 3)
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.parquet", "splits", frame, csv=tmp_path / f"{name}.csv")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_another_table_is_refused(tmp_path):
    write_table(tmp_path / "t.parquet", "splits", table("splits", []))
    with pytest.raises(DataError, match=rf"'chunks' version {SCHEMA_VERSION}, found 'splits'") as error:
        read_table(tmp_path / "t.parquet", "chunks")
    assert is_one_sentence(error)


def test_another_version_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(tables, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        write_table(tmp_path / "t.parquet", "splits", table("splits", []))
    with pytest.raises(DataError, match=f"found 'splits' version {SCHEMA_VERSION + 1}; delete it") as error:
        read_table(tmp_path / "t.parquet", "splits")
    assert is_one_sentence(error)


def test_a_table_of_another_program_is_refused(tmp_path):
    foreign = pa.table({"x": [1]}).replace_schema_metadata({"note": "no JSON", b"\xff": b"\xfe"})
    pq.write_table(foreign, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="found 'None' version None") as error:
        read_table(tmp_path / "t.parquet", "splits")
    assert is_one_sentence(error)


@pytest.mark.parametrize("keep", [0, 20, -20])
def test_a_damaged_file_is_refused(tmp_path, keep):
    write_table(tmp_path / "t.parquet", "splits", table("splits", [full_row("splits")]))
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:keep])
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read as a table") as error:
        read_table(tmp_path / "t.parquet", "splits")
    assert "\n" not in str(error.value)


def test_metadata_comes_back_without_what_pandas_adds(tmp_path):
    extra = {"frame_hop_s": 0.01, "classes": ["a", "b"], "text": "é"}
    write_table(tmp_path / "t.parquet", "splits", table("splits", []), metadata=extra)
    found = table_metadata(pq.read_schema(tmp_path / "t.parquet"))
    assert found == {"schema": "splits", "schema_version": SCHEMA_VERSION, **extra}
    assert table_metadata(arrow_schema("splits")) == {"schema": "splits", "schema_version": SCHEMA_VERSION}
    assert table_metadata(pa.schema([("x", pa.int64())])) == {}


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path):
    path = tmp_path / "fold=3" / "t.parquet"
    write_table(path, "splits", table("splits", [{"recording_id": "a", "fold": 1}]))
    assert read_table(path, "splits")["fold"].tolist() == [1]


def test_the_csv_twin_says_the_same(tmp_path):
    rows = [
        {"recording_id": 'a,"b"\nc', "start_s": 1 / 3, "low_hz": None, "label": "é", "source_row": 7},
        {"recording_id": "d", "start_s": 123456.125, "low_hz": 0.0, "label": None, "source_row": None},
    ]
    write_table(tmp_path / "t.parquet", "annotations", table("annotations", rows), csv=tmp_path / "csv" / "t.csv")
    with (tmp_path / "csv" / "t.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == list(SCHEMAS["annotations"])
    assert (first["recording_id"], first["start_s"], first["low_hz"], first["label"], first["source_row"]) == (
        'a,"b"\nc', "0.3333333333", "", "é", "7",
    )  # fmt: skip
    assert (second["start_s"], second["low_hz"], second["label"], second["source_row"]) == ("123456.125", "0", "", "")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["t.csv", "t.parquet"]


def test_not_a_number_is_a_null_in_the_file(tmp_path):
    write_table(tmp_path / "t.parquet", "annotations", table("annotations", [{"start_s": math.nan}]))
    assert pq.read_table(tmp_path / "t.parquet")["start_s"].null_count == 1
