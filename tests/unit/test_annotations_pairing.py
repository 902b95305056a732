import pytest

from otus.annotations import index_recordings, recording_named, recording_of_file

DOTTED = ["A_20250203_05.23.wav", "A_20250203_05.wav", "A_20250203_06.wav"]


@pytest.mark.parametrize(
    "ending",
    [
        ".txt", ".csv", ".Table.1.selections.txt", ".selections.txt", "_selections.txt", "_labels.txt", ".labels.txt",
        ".wav.txt", ".WAV.Table.2.selections.txt", " - copy.txt", " (1).txt", ".BirdNET.selection.table.txt",
    ],
)  # fmt: skip
def test_a_table_is_named_like_its_recording(ending: str) -> None:
    index = index_recordings(DOTTED)
    for path in DOTTED:
        assert recording_of_file(index, path.removesuffix(".wav") + ending).recording == path
        assert recording_of_file(index, path.removesuffix(".wav").upper() + ending).recording == path


@pytest.mark.parametrize("table", ["rec_1_2.txt", "rec_1.5.selections.txt", "rec_10.txt", "other.txt", "rec.txt"])
def test_a_number_behind_the_name_is_another_recording(table: str) -> None:
    pairing = recording_of_file(index_recordings(["rec_1.wav", "rec_1_3.wav"]), table)
    assert pairing.recording is None
    assert pairing.reason and pairing.remedy


def test_the_longest_name_wins() -> None:
    index = index_recordings(["site.wav", "site_north.wav", "b/site_north_2.wav"])
    assert recording_of_file(index, "site_north.txt").recording == "site_north.wav"
    assert recording_of_file(index, "site_north_2_labels.txt").recording == "b/site_north_2.wav"
    assert recording_of_file(index, "site_labels.txt").recording == "site.wav"


def test_same_folder_first_then_unique_then_nearest_then_ambiguous() -> None:
    index = index_recordings(["a/x.wav", "b/x.wav", "b/y.wav"])
    assert recording_of_file(index, "b/x.txt").recording == "b/x.wav"
    assert recording_of_file(index, "tables/y.txt").recording == "b/y.wav"
    assert recording_of_file(index, "tables/a/x.txt").recording == "a/x.wav"
    lost = recording_of_file(index, "tables/x.txt")
    assert lost.recording is None and "2 recordings (a/x.wav, b/x.wav)" in lost.reason


def test_two_formats_of_one_name_are_ambiguous() -> None:
    assert recording_of_file(index_recordings(["x.wav", "x.flac"]), "x.txt").recording is None


def test_copies_lead_to_the_recording_that_is_kept() -> None:
    index = index_recordings(["a/x.wav", "b/x.wav"], {"a/x.wav": "a/x.wav", "b/x.wav": "a/x.wav"})
    assert recording_of_file(index, "tables/x.txt").recording == "a/x.wav"
    assert recording_of_file(index, "b/x.txt").recording == "a/x.wav"


def test_leading_words_of_truth_files() -> None:
    index = index_recordings(["1/rec_1.wav", "2/rec_2.wav", "siteA.wav"])
    assert recording_of_file(index, "1/gt_1.csv").recording == "1/rec_1.wav"
    assert recording_of_file(index, "labels_siteA.csv").recording == "siteA.wav"
    assert recording_of_file(index, "5/gt_5.csv").recording is None
    assert recording_of_file(index, "1/deepsqueak_1.csv").recording is None


@pytest.mark.parametrize(
    "reference",
    [
        "a/x.wav", "A/X.WAV", "./a/x.wav", "a\\x.wav", "/mnt/data/corpus/a/x.wav", "C:\\data\\a\\x.wav",
        "a/x.wav ",
    ],
)  # fmt: skip
def test_references_with_folders(reference: str) -> None:
    index = index_recordings(["a/x.wav", "b/x.wav"])
    assert recording_named(index, reference, "labels.csv").recording == "a/x.wav"


def test_references_without_folders() -> None:
    index = index_recordings(["a/x.wav", "b/x.wav", "b/z_05.23.flac", "w.wav", "c/w.wav"])
    assert recording_named(index, "x.wav", "b/labels.csv").recording == "b/x.wav"
    assert recording_named(index, "x", "b/labels.csv").recording == "b/x.wav"
    assert recording_named(index, "x.wav", "labels.csv").recording is None
    assert recording_named(index, "Z_05.23", "labels.csv").recording == "b/z_05.23.flac"
    assert recording_named(index, "z_05.23.wav", "labels.csv").recording == "b/z_05.23.flac"
    assert recording_named(index, "z_05", "labels.csv").recording is None
    assert recording_named(index, "w.wav", "tables/labels.csv").recording == "w.wav"
    assert recording_named(index, "w.wav", "c/labels.csv").recording == "c/w.wav"
    assert recording_named(index, " ", "labels.csv").recording is None


def test_accents_compare_in_either_form() -> None:
    index = index_recordings(["Kauz_a\u0308.wav"])
    assert recording_named(index, "kauz_\u00e4.wav", "labels.csv").recording == "Kauz_a\u0308.wav"
