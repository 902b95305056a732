import itertools

import pytest

from otus.annotations.pairing import index_recordings
from otus.audio import AudioInfo
from otus.config import ExtractSettings
from otus.errors import DataError
from otus.fingerprint import AUDIO_SUFFIXES
from otus.inventory.examine import Examined
from otus.inventory.extracts import BEYOND, DISAGREES, Extract, find_extracts, groups_of, raw_keys
from otus.inventory.names import recording_ids
from otus.inventory.recordings import AudioFile, originals
from otus.inventory.sheet import SheetEntry

RATE = 1000


class Files:
    """Audio files that need not exist: path -> length in seconds (None: cannot be read), or what it is a copy of."""

    def __init__(self, **settings):
        self.settings = ExtractSettings(**settings)
        self.lines = []

    def find(self, lengths):
        contents = {path: path if not isinstance(length, str) else length for path, length in lengths.items()}
        self.files = []
        for path in sorted(lengths):
            length = lengths[contents[path]]
            info = None if length is None else AudioInfo(round(length * RATE), RATE, 1, "PCM_16")
            found = info and Examined(info, contents[path], 0, None)
            self.files.append(AudioFile(path, contents[path], found, None if found else "bad"))
        self.kept = originals(self.files)
        index = index_recordings(lengths, self.kept)
        self.extracts = find_extracts(self.files, self.kept, index, self.settings)
        return self.extracts

    def groups(self, rule="recording", sheet=None):
        paths = [path for path in self.kept if self.kept[path] == path]
        entries = {path: SheetEntry(row, group, None, None) for path, (row, group) in (sheet or {}).items()}
        ids = recording_ids(self.kept)
        return groups_of(paths, ids, rule, self.extracts, entries, self.lines.append)


@pytest.fixture
def files():
    return Files()


def test_without_settings_there_are_no_extracts():
    file = AudioFile("t.wav_0_5.wav", "x", Examined(AudioInfo(5, 1, 1, ""), "x", 0, None), None)
    assert find_extracts([file], originals([file]), index_recordings([file.path]), None) == {}


@pytest.mark.parametrize(
    ("name", "length_s", "start_s"),
    [
        ("t.wav_110_125.wav", 900, 6600),  # minutes
        ("t.wav_110_125.wav", 15, 110),  # seconds
        ("t.wav_110_125.wav", 900 * 1.02, 6600),
        ("t.wav_110_125.wav", 15.9, 110),
        ("t.wav_0_3550.wav", 3550.4, 0),
        ("t.wav_1.5_2.25.wav", 45, 90),
        ("t.wav_1.5_2.25.wav", 0.75, 1.5),
        ("t.wav_110_125.wav", 60, None),
        ("t.wav_125_110.wav", 15, None),
        ("t.wav_0_0.wav", 30, None),
    ],
)
def test_the_unit_is_the_one_that_agrees_with_the_length(files, name, length_s, start_s):
    assert files.find({name: length_s}) == {
        name: Extract("t.wav", None, start_s, None if start_s is not None else DISAGREES)
    }


@pytest.mark.parametrize(
    ("unit", "length_s", "start_s"), [("seconds", 900, None), ("minutes", 900, 6600), ("seconds", 15, 110)]
)
def test_a_given_unit_is_checked(unit, length_s, start_s):
    extract = Files(unit=unit).find({"t.wav_110_125.wav": length_s})["t.wav_110_125.wav"]
    assert (extract.start_s, extract.flag) == (start_s, None if start_s is not None else DISAGREES)


def test_an_extract_that_cannot_be_read_has_no_place(files):
    assert files.find({"t.wav_0_5.wav": None}) == {"t.wav_0_5.wav": Extract("t.wav", None, None, None)}


def test_the_raw_recording_is_found_by_name_beside_or_elsewhere(files):
    found = files.find({"raw/T.WAV": 7200, "cut/t.wav_10_25.wav": 900, "b/u.wav_0_5.wav": 5, "b/u.wav": 60, "u.wav": 9})
    assert found["cut/t.wav_10_25.wav"] == Extract("raw/T.WAV", "raw/T.WAV", 600, None)
    assert found["b/u.wav_0_5.wav"].raw == "b/u.wav"
    assert set(found) == {"cut/t.wav_10_25.wav", "b/u.wav_0_5.wav"}


def test_an_extract_beyond_the_end_of_its_raw_recording(files):
    found = files.find({"t.wav": 100, "t.wav_95_125.wav": 30, "t.wav_70_100.wav": 30})
    assert (found["t.wav_95_125.wav"].start_s, found["t.wav_95_125.wav"].flag) == (None, BEYOND)
    assert (found["t.wav_70_100.wav"].start_s, found["t.wav_70_100.wav"].flag) == (70, None)


def test_several_recordings_that_could_be_the_raw_one(files):
    with pytest.raises(DataError, match=r"c/t.wav_0_5.wav: there are several recordings 't.wav' .*; move it beside"):
        files.find({"a/t.wav": 50, "b/t.wav": 60, "c/t.wav_0_5.wav": 5})


def test_extracts_of_extracts_belong_to_the_tape(files):
    found = files.find({"t.wav": 7200, "t.wav_60_75.wav": 900, "t.wav_60_75.wav_100_110.5.wav": 10.5})
    assert found["t.wav_60_75.wav_100_110.5.wav"] == Extract("t.wav", "t.wav", 3700, None)
    # Without the extract in between, and so without its length, its unit is not known, but the tape is.
    found = files.find({"t.wav": 7200, "t.wav_60_75.wav_100_110.5.wav": 10.5})
    assert found["t.wav_60_75.wav_100_110.5.wav"] == Extract("t.wav", "t.wav", None, None)
    found = files.find({"t.wav_60_75.wav_100_110.5.wav": 10.5})
    assert found["t.wav_60_75.wav_100_110.5.wav"] == Extract("t.wav", None, None, None)


def test_a_pattern_that_finds_itself_ends(files):
    itself = Files(pattern=r"(?P<parent>[a-z]+)\.wav(?P<start>)(?P<end>)")
    assert itself.find({"a.wav": 5, "b.wav": 6}) == {}
    turning = Files(pattern=r"^(?P<parent>b(?=a)|a(?=b))(?P<start>)(?P<end>)")
    assert set(turning.find({"ab": 5, "ba": 5})) <= {"ab", "ba"}


def test_a_copy_under_another_name_is_still_an_extract(files):
    found = files.find({"t.wav_0_5.wav": 5, "nice.wav": "t.wav_0_5.wav"})
    assert found == {"nice.wav": Extract("t.wav", None, 0, None)}
    # The whole tape under the name of an extract is the tape.
    assert files.find({"t.wav": 50, "t.wav_0_50.wav": "t.wav", "t.wav_0_5.wav": 5}) == {
        "t.wav_0_5.wav": Extract("t.wav", "t.wav", 0, None)
    }


@pytest.mark.parametrize("suffix", sorted(AUDIO_SUFFIXES))
def test_every_audio_suffix_in_whatever_case(files, suffix):
    for name in (f"TAPE{suffix.upper()}_0_10{suffix.upper()}", f"tape.wav_0_10{suffix}", f"tape{suffix}_0_10.WAV"):
        assert files.find({f"a/{name}": 10})[f"a/{name}"].start_s == 0
    assert not files.find({f"tape_0_10{suffix}": 10, f"A_20250203_05.23_1_2{suffix}": 1, f"t{suffix}_1{suffix}": 1})


def test_the_key_is_beside_the_file_whose_name_tells_of_the_raw_recording(files):
    found = files.find({"a/t.wav_0_5.wav": 5, "b.wav": "a/t.wav_0_5.wav", "a/t.wav_5_9.wav": 4, "a/t.wav_5_9.flac": 4})
    keys = raw_keys(found, recording_ids(files.kept))
    assert set(keys) == {"b.wav", "a/t.wav_5_9.wav", "a/t.wav_5_9.flac"} and len(set(keys.values())) == 1


TAPES = {"r/t.wav": 7200, "a/t.wav_10_25.wav": 900, "b/t.wav_30_45.wav": 900, "a/u.wav_0_5.wav": 5, "b/v.wav": 9}


@pytest.mark.parametrize(
    ("rule", "tape", "of_u", "of_v"),
    [("recording", "r__t", "u", "b__v"), ("folder", "r", "a", "b"), (r"(?P<group>[tuv])\.wav", "t", "u", "v")],
)
def test_a_tape_and_its_extracts_are_one_group_under_every_rule(files, rule, tape, of_u, of_v):
    files.find(TAPES)
    groups = files.groups(rule)
    assert {groups[path] for path in ("r/t.wav", "a/t.wav_10_25.wav", "b/t.wav_30_45.wav")} == {tape}
    assert (groups["a/u.wav_0_5.wav"], groups["b/v.wav"]) == (of_u, of_v)


def test_extracts_of_a_tape_that_is_not_there_are_one_group(files):
    files.find({"a/t x.wav_10_25.wav": 900, "b/t x.wav_30_45.wav": 900, "c/t_x.wav_1_2.wav": 60})
    groups = files.groups()
    assert groups["a/t x.wav_10_25.wav"] == groups["b/t x.wav_30_45.wav"] != groups["c/t_x.wav_1_2.wav"] == "t_x"
    assert groups["a/t x.wav_10_25.wav"].startswith("t_x-") and not files.lines
    assert files.groups("folder")["a/t x.wav_10_25.wav"] == "a"  # the rule says that folders are enough
    assert "extracts of 1 raw recordings, such as t x.wav, are in several groups" in files.lines[0]


def test_the_sheet_wins_for_the_whole_tape(files):
    files.find(TAPES)
    for path in ("r/t.wav", "a/t.wav_10_25.wav"):
        groups = files.groups(sheet={path: (2, "forest"), "b/v.wav": (3, "field"), "a/u.wav_0_5.wav": (4, None)})
        assert [groups[p] for p in TAPES] == ["forest", "forest", "forest", "u", "field"]


@pytest.mark.parametrize("pair", list(itertools.combinations(list(TAPES)[:3], 2)))
def test_the_sheet_may_not_tear_a_tape_apart(files, pair):
    files.find(TAPES)
    with pytest.raises(
        DataError, match=r"corpus.sheet, row \d: .* has another group than .* in row \d, .* make the two"
    ):
        files.groups(sheet={pair[0]: (2, "forest"), pair[1]: (3, "field")})
    assert files.groups(sheet={pair[0]: (2, "forest"), pair[1]: (3, "forest")})["r/t.wav"] == "forest"


def test_a_rule_that_finds_nothing(files):
    files.find(TAPES)
    with pytest.raises(DataError, match="finds no group"):
        files.groups("(?P<group>z+)")
