"""Kinds of damage that annotation files come with, and what the inventory must make of each."""

import json
from typing import Any

from malformed import HEADER, UNKNOWN, Kind, Left, bytes_named, encoded, link, named, raven, recording, sound

from otus.config import AnnotationSource

OWL = (0.25, 0.5, "owl")
KEPT = (("call.wav", *OWL),)
ONE = raven(OWL)
CSV = "start,end,label\n0.25,0.5,owl\n"
OFFSETS = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tAnnotation\n"
FILES = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tEnd File\tAnnotation\n"

EMPTY = "^is empty, which could be an Audacity track without labels or a lost table$"
NO_TEXT = "^is not a text file, or a damaged one$"
NO_TABLE = "^is neither a Raven table nor an Audacity label track nor a table with start and end columns$"
NO_TIME = "is not a time in seconds$"


def table(name: str, content: str | bytes, *lost: Left, file: str = "call.txt", **expected: Any) -> Kind:
    """A table of the recording call.wav, with its format `auto` unless `source` gives another."""
    source = AnnotationSource(files=file, **expected.pop("source", {}))
    files = {"call.wav": recording(name), file: content.encode() if isinstance(content, str) else content}
    return Kind(name, files | expected.pop("files", {}), sources=(source,), left=lost, **expected)


def whole(name: str, content: str | bytes, reason: str, n_rows: int = 0, **expected: Any) -> Kind:
    """A table of which nothing can be used."""
    file = expected.setdefault("file", "call.txt")
    expected.setdefault("unusable", ("call.wav",) if file.startswith("call") else ())
    return table(name, content, Left("table", file, reason, None, n_rows), **expected)


def row(number: int, reason: str, file: str = "call.txt") -> Left:
    """One row that cannot be used."""
    return Left("row", file, reason, number, 1)


def third(name: str, begin: object, end: object, reason: str, label: str = "owl") -> Kind:
    """A Raven table of which row 3 cannot be used."""
    return table(name, raven(OWL, (begin, end, label)), row(3, reason), kept=KEPT)


def forced(format_: str) -> dict[str, str]:
    return {"format": format_}


FILES_AS_A_WHOLE = [
    whole("empty table", "", EMPTY),
    whole("empty Raven table", "", "^is empty: not even a header$", source=forced("raven")),
    whole("empty CSV", "", "^is empty: not even a header$", source=forced("csv")),
    table("empty Audacity track", "", source=forced("audacity")),
    whole("blank lines", "\r\n\t\r\n   \n", EMPTY),
    table("header only", raven()),
    table("CSV header only", "recording,start,end,label\n"),
    whole("binary table", bytes(range(256)) * 40, NO_TEXT),
    whole("recording in place of a table", recording("as a table"), NO_TEXT),
    table("UTF-16", ONE.decode().encode("utf-16"), kept=KEPT),
    table("UTF-8 with BOM", b"\xef\xbb\xbf" + ONE, kept=KEPT),
    table("Latin-1", raven((0, 1, "Käuzchen")).decode().encode("latin-1"), kept=(("call.wav", 0, 1, "Käuzchen"),)),
    whole("UTF-16 without BOM", ONE.decode().encode("utf-16-le"), NO_TEXT),
    whole("UTF-16 cut", ONE.decode().encode("utf-16")[:-1], NO_TEXT),
    table("CRLF", ONE.replace(b"\n", b"\r\n"), kept=KEPT),
    table("CR only", ONE.replace(b"\n", b"\r"), kept=KEPT),
    whole("NUL bytes", ONE.replace(b"owl", b"o\0wl"), NO_TEXT),
    whole("NUL bytes at the end of a long table", raven(*[OWL] * 200) + bytes(4096), NO_TEXT),
    whole("no header", ONE.split(b"\n", 1)[1], NO_TABLE),
    whole("no header of Raven", raven(OWL, OWL).split(b"\n", 1)[1], "lacks the begin or", 1, source=forced("raven")),
    whole("blanks for tabs", ONE.replace(b"\t", b"  "), NO_TABLE),
    table("commas for tabs", ONE.replace(b"\t", b","), kept=KEPT),
    whole("prose", "Dear all,\nhere are the labels, as promised; see you.\n", NO_TABLE),
    whole("prose as Audacity labels", "Dear all,\nthe labels.\n", "^is no Audacity label", source=forced("audacity")),
    whole("line of 10 MB", b"x" * 10_000_000, NO_TABLE),
    whole("no column of labels", HEADER.replace("Annotation", "") + "1\tx\t1\t0.25\t0.5\n" * 2, "^names no label", 2),
    whole("no column of ends", "start,label\n0.25,owl\n", "told to be the end .*start, label", 1, source=forced("csv")),
    whole("10,000 columns without times", ",".join(f"c{i}" for i in range(10_000)) + "\n1\n",
          "told to be the start .*c19, and 9980 more", 1, source=forced("csv")),
    table("10,000 columns", ",".join(["start,end,label", *(f"c{i}" for i in range(9997))]) + "\n0.25,0.5,owl\n",
          kept=KEPT),
    table("columns of one name", "start,end,label,label,,\n0.25,0.5,owl,frog,,\n", kept=KEPT),
    named("folder named like a table", "call.txt/note.wav"),
    Kind("link to no table", make=link("call.txt", "not/there.txt"), sources=(AnnotationSource(files="call.txt"),),
         left=(Left("table", "call.txt", r"^cannot be read \(No such file or directory\)$"),)),
    Kind("table whose name is no UTF-8", {"K.txt": ONE, "K.wav": recording("K")}, bytes_named(b"K\xe4uz.txt", ONE),
         sources=(AnnotationSource(files="K*.txt"),), kept=(("K.wav", *OWL),),
         left=(Left("table", r"K\xe4uz.txt", "^its name is not valid UTF-8$"),)),
]  # fmt: skip

ROWS = [
    table("short row", ONE + b"2\tSpectrogram 1\t1\t0.5\n", row(3, "^a time is missing$"), kept=KEPT),
    table("tab in a label", raven(OWL, (0.5, 0.75, "barn\towl")),
          row(3, "^has 9 cells, but the header has 8$"), kept=KEPT),
    table("long row", CSV + "0.5,0.75,owl, barn\n0.5,0.75,owl,,\n", row(3, "^has 4 cells, but the header has 3$"),
          kept=(*KEPT, ("call.wav", 0.5, 0.75, "owl"))),
    table("long row without a header", "0.25,0.5,owl\n0.5,0.75,owl, barn\n",
          row(2, "^has 4 cells, but the first row has 3$"), kept=KEPT),
    table("comma between and within numbers", "start,end,label\n0,25,0,5,owl\n", row(2, "^has 5 cells, but"),
          unusable=("call.wav",)),
    table("decimal commas", raven(("0,25", "0,5", "owl")), kept=KEPT),
    table("semicolons and decimal commas", "start;end;label\n0,25;0,5;owl\n", kept=KEPT),
    table("quotation mark that nothing closes", 'start,end,label\n0.25,0.5,"owl\n0.5,0.6,frog\n0.7,0.8,frog\n',
          kept=(*KEPT, ("call.wav", 0.5, 0.6, "frog"), ("call.wav", 0.7, 0.8, "frog"))),
    table("quotation mark closed in another row", 'start,end,label\n0.25,0.5,"owl\n0.5,0.6,"a, b"\n0.7,0.8,"frog"\n',
          row(3, "^has 4 cells"), kept=(*KEPT, ("call.wav", 0.7, 0.8, "frog"))),
    table("line ends in quotation marks", 'start,end,label\n0.25,0.5,"owl"\n0.5,0.6,"barn\n\nowl"\n',
          kept=(*KEPT, ("call.wav", 0.5, 0.6, "barn owl"))),
    third("clock times", "00:00:01", "00:00:02", f"^'00:00:01' {NO_TIME}"),
    third("times with a unit", "0.5 s", "0.6 s", f"^'0.5 s' {NO_TIME}"),
    third("thousands", "1,000.5", "1,000.6", f"^'1,000.5' {NO_TIME}"),
    third("underscores", "0_1", "0_2", f"^'0_1' {NO_TIME}"),
    third("times not a number", "NaN", "0.5", f"^'NaN' {NO_TIME}"),
    third("times infinite", "0.5", "inf", f"^'inf' {NO_TIME}"),
    third("times too large for a float", "0.5", "1e400", f"^'1e400' {NO_TIME}"),
    third("time of 10 MB", "0.5", "9" * 10_000_000, f"^'9{{80}}\\.\\.\\.' {NO_TIME}"),
    third("escape sequence for a time", "0.5", "\x1b[2J\u202e1", rf"^'\?\[2J\?1' {NO_TIME}"),
    table("times with a line end", 'start,end,label\n0.25,0.5,owl\n"0\n5","0\n6",owl\n', row(3, f"^'0 5' {NO_TIME}"),
          kept=KEPT),
    third("blank times", "", "", "^a time is missing$"),
    third("negative times", -0.5, -0.25, "^row outside its recording: starts at -0.5 s, the recording lasts 1 s$"),
    third("end before start", 0.75, 0.5, r"^ends before it starts \(0.75 s to 0.5 s\)$"),
    third("zero length", 0.75, 0.75, r"^has zero length \(at 0.75 s\)$"),
    third("end beyond the recording", 0.75, 1.5, "^row outside its recording: ends at 1.5 s, the recording lasts 1 s$"),
    third("start beyond the recording", 7, 8, "^row outside its recording: starts at 7 s, the recording lasts 1 s$"),
    third("times at the end of floats", -1e308, 1e308, "^row outside its recording: starts at -1e.308 s"),
    third("no label", 0.5, 0.75, "^has no label$", ""),
    third("blank label", 0.5, 0.75, "^has no label$", "  \u00a0 "),
    third("label of 10 MB", 0.5, 0.75, "^has a label of 10000000 characters$", "x" * 10_000_000),
    table("label with HTML", CSV + "0.5,0.6,<script>alert('label')</script>\n",
          kept=(*KEPT, ("call.wav", 0.5, 0.6, "<script>alert('label')</script>"))),
    table("row twice", raven(OWL, OWL), row(3, r"^same label and times as row 2 of row twice/call\.txt$"), kept=KEPT),
    table("two views", ONE + ONE.split(b"\n")[1].replace(b"Spectrogram", b"Waveform"), kept=KEPT,
          views={"call.txt": 1}),
    table("numbered anew", ONE + raven((0.5, 0.75, "owl")).split(b"\n", 1)[1],
          kept=(*KEPT, ("call.wav", 0.5, 0.75, "owl"))),
    table("header in the middle", ONE + raven((0.5, 0.75, "owl")), row(3, rf"^'Begin Time \(s\)' {NO_TIME}"),
          kept=(*KEPT, ("call.wav", 0.5, 0.75, "owl"))),
    table("frequencies reversed", ONE.replace(b"\t100\t900\t", b"\t900\t100\t"), kept=KEPT),
    table("frequencies as text", ONE.replace(b"\t100\t900\t", b"\tlow\tNaN\t"), kept=KEPT),
    table("frequencies below zero", ONE.replace(b"\t100\t900\t", b"\t-100\t900\t"), kept=KEPT),
    table("Audacity frequencies without a label", "\\\t100\t900\n0.25\t0.5\towl\n\\\tlow\n\\\t100\t900\n",
          row(1, "^is a line of frequencies without a label before it$"), row(4, "^is a line of frequencies without"),
          kept=KEPT, source=forced("audacity")),
    table("Audacity points", "0.25\t0.5\towl\n0.75\t0.75\towl\n0.5\t0.6\n",
          row(2, r"^has zero length \(at 0.75 s\)$"), row(3, "^has no label$"), kept=KEPT),
    table("dropped labels", raven(OWL, (0.5, 0.6, "moth"), (0.6, 0.7, "moth")),
          Left("dropped", "call.txt", r"^its rows with the label 'moth' are dropped by corpus.labels \(2 rows\)$",
               None, 2), kept=KEPT, settings={"labels": {"moth": None}}),
]  # fmt: skip

PAIRS = [
    whole("table without a recording", raven(OWL, OWL), r"^belongs to no recording: .* \(2 rows\)$", 2,
          file="lost.txt"),
    table("table of two recordings", ONE, Left("table", "call.txt", "^has a name that fits 2 recordings", None, 1),
          files={"call.flac": encoded(sound("another"), "FLAC")}),
    table("row of two recordings", "recording,start,end,label\ncall,0,1,owl\n",
          Left("table", "l.csv", r"^names the recording 'call', which fits 2 recordings \(row of", 2, 1), file="l.csv",
          files={"call.flac": encoded(sound("one more"), "FLAC")}),
    table("table of a broken recording", raven(OWL, OWL), Left("recording", "broken.wav", UNKNOWN),
          Left("table", "broken.txt", r"^belongs to .*broken\.wav, which cannot be read \(2 rows\)$", None, 2),
          file="broken.txt", files={"broken.wav": b"no audio"}),
    table("recordings that are not there", "recording,start,end,label\ncall.wav,0.25,0.5,owl\ngone.wav,0,1,owl\n"
          f"gone.wav,2,3,owl\n,0,1,owl\n{'x' * 200},0,1,owl\n",
          Left("table", "all.csv", r"^names the recording 'gone.wav', which is not in the corpus \(2 rows\)$", 3, 2),
          Left("table", "all.csv", "^belongs to no recording", None, 1),
          Left("table", "all.csv", r"^names the recording 'x{80}\.\.\.', which is not in the corpus$", 6, 1),
          kept=KEPT, file="all.csv"),
    table("Windows path", HEADER.replace("View", "Begin File")
          + "1\tC:\\Field 2020\\Site A\\CALL.WAV\t1\t0.25\t0.5\t100\t900\towl\n", kept=KEPT, file="lost.txt"),
    table("path out of the corpus", HEADER.replace("View", "Begin File")
          + "1\t../../../etc/passwd\t1\t0.25\t0.5\t100\t900\towl\n",
          Left("table", "lost.txt", "^names the recording '../../../etc/passwd', which is not in", 2, 1),
          file="lost.txt"),
    table("file offsets", OFFSETS + "1\tx\t900.25\t900.5\tcall.wav\t0.25\towl\n2\tx\t901\t901.5\tcall.wav\t1.5\towl\n"
          "3\tx\t901\t901.5\tcall.wav\tone\towl\n4\tx\t901\t901.5\tcall.wav\t\towl\n",
          row(3, "^row outside its recording: starts at 1.5 s", "lost.txt"), row(4, f"^'one' {NO_TIME}", "lost.txt"),
          row(5, "^a time is missing$", "lost.txt"), kept=KEPT, file="lost.txt"),
    table("selection over two files", FILES + "1\tx\t0.25\t0.5\tcall.wav\tcall.wav\towl\n"
          "2\tx\t0.75\t1.5\tcall.wav\tnext.wav\towl\n", row(3, "^runs over from call.wav into next.wav$"), kept=KEPT),
    Kind("sheet with a recording that is not there", {"sheet.csv": b'recording,group\ngood.wav,a\n"go\x1b\nne",b\n'},
         left=(Left("sheet", "sheet.csv", r"^names the recording 'go\? ne', which is not in the corpus$", 3),),
         settings={"sheet": "sheet with a recording that is not there/sheet.csv"}),
]  # fmt: skip


def text_grid(*intervals: tuple[float, float, str]) -> str:
    """A Praat TextGrid with one tier."""
    items = "".join(
        f'        intervals [{i}]:\n            xmin = {a}\n            xmax = {b}\n            text = "{label}"\n'
        for i, (a, b, label) in enumerate(intervals, start=1)
    )
    return (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 1\ntiers? <exists>\nsize = 1\n'
        'item []:\n    item [1]:\n        class = "IntervalTier"\n        name = "calls"\n        xmin = 0\n'
        f"        xmax = 1\n        intervals: size = {len(intervals)}\n{items}"
    )


def koumura(*notes: tuple[object, object, str], recording: str = "call.wav", head: str = "") -> str:
    """An Annotation.xml with one sequence; positions and lengths in samples."""
    body = "".join(
        f"<Note><Position>{at}</Position><Length>{length}</Length><Label>{label}</Label></Note>"
        for at, length, label in notes
    )
    return (
        f"<?xml version='1.0'?>{head}<Sequences><NumSequence>1</NumSequence><Sequence><NumNote>{len(notes)}</NumNote>"
        f"<WaveFileName>{recording}</WaveFileName><Position>0</Position><Length>8000</Length>{body}</Sequence>"
        "</Sequences>"
    )


def entities(**values: str) -> str:
    defined = "".join(f'<!ENTITY {name} "{value}">' for name, value in values.items())
    return f"<!DOCTYPE S [{defined}]>"


def bomb(levels: int) -> str:
    """A label of 3 * 10^levels characters, if somebody expands it."""
    names = {f"a{i}": f"&a{i - 1};" * 10 for i in range(1, levels + 1)}
    return koumura((2000, 2000, f"&a{levels};"), head=entities(a0="owl", **names))


def xml(name: str, content: str, reason: str, **expected: Any) -> Kind:
    """An XML file that is refused."""
    reason = rf"^cannot be read as birdsong-recognition-dataset \({reason}"
    return whole(name, content, reason, file="call.xml", **expected)


def hums(*entries: object) -> str:
    return json.dumps({"entries": entries})


def hum(**values: object) -> dict[str, object]:
    return {"clip_path": "call.wav", "hum_path": "h.wav", "clip_start_s": 0.25, "clip_end_s": 0.5, **values}


def index(name: str, content: str, *lost: Left, **expected: Any) -> Kind:
    return table(name, content, *lost, file="corpus_index.json", **expected)


def entry(number: int, reason: str) -> Left:
    return row(number, reason, "corpus_index.json")


def other(format_: str, file: str, content: str | bytes, reason: str) -> Kind:
    """A file that crowsetta refuses."""
    return whole(f"{format_} damaged", content, rf"^cannot be read as {format_} \({reason}", file=file,
                 source=forced(format_))  # fmt: skip


LAYOUT = r"it is not laid out as this format is\)$"
BIRDSONG = forced("birdsong-recognition-dataset")
GONE = Left("table", "corpus_index.json", "^names the recording 'gone.wav', which is not in the corpus$", 5, 1)

PROGRAMS = [
    table("TextGrid", text_grid((0, 0.25, ""), OWL), kept=KEPT, file="call.TextGrid"),
    whole("TextGrid cut", text_grid(OWL)[:-40], f"^cannot be read as textgrid .{LAYOUT}", file="call.TextGrid"),
    whole("TextGrid without items", text_grid()[:60], f"^cannot be read as textgrid .{LAYOUT}", file="call.TextGrid"),
    xml("XML cut", koumura((2000, 2000, "owl"))[:-30], "no element found: line 1, column "),
    xml("XML not well-formed", koumura((2000, 2000, "<b>owl")), "mismatched tag: line 1, column "),
    xml("XML with a position of letters", koumura(("a", 2000, "owl")), r"'a' is no number\)$"),
    xml("XML without labels", koumura((2000, 2000, "owl")).replace("Label>", "Name>"), LAYOUT),
    xml("XML with a blank label", koumura((2000, 2000, "")), r"label must be a string\)$"),
    table("XML bomb", bomb(5), row(1, "^has a label of 300000 characters$", "call.xml"), file="call.xml",
          unusable=("call.wav",)),
    xml("larger XML bomb", bomb(50), r"limit on input amplification factor .*\)$", source=BIRDSONG),
    xml("wide XML bomb", koumura((0, 1, "&a;" * 20_000), head=entities(a="x" * 20_000)), "limit on input ampl",
        source=BIRDSONG),
    xml("XML that reads another file", koumura((1, 1, "&x;"), head='<!DOCTYPE S [<!ENTITY x SYSTEM "/etc/passwd">]>'),
        "undefined entity &x;: line 1, column "),
    table("XML with odd notes", koumura((2000, 2000, "owl"), (9000, 9, "owl"), (100, -50, "owl"), (100, 0, "owl")),
          row(2, "^row outside its recording: starts at 1.125 s", "call.xml"),
          row(3, "^ends before it starts", "call.xml"), row(4, "^has zero length", "call.xml"), kept=KEPT,
          file="call.xml"),
    table("XML of a recording that is not there", koumura((2000, 2000, "owl"), recording="gone.wav"),
          Left("table", "a.xml", "^names the recording 'gone.wav', which is not in the corpus$", 1, 1), file="a.xml"),
    other("notmat", "call.wav.not.mat", b"MATLAB 5.0" + bytes(200), "Unknown mat file type"),
    other("yarden", "call.mat", b"MATLAB 5.0" + bytes(200), "Unknown mat file type"),
    other("simple-seq", "call.csv", "a,b\n1,2\n", "Annotations loaded from path did not have expected column names"),
    other("generic-seq", "call.csv", "a,b\n1,2\n", LAYOUT),
    other("timit", "call.phn", "a b c\n", "."),
    index("index cut", hums(hum())[:-20], Left("table", "corpus_index.json", r"^is no valid JSON \(.*line 1 column")),
    index("index that is a list", json.dumps([hum()]),
          Left("table", "corpus_index.json", "^is no corpus index: it has no list `entries`$"),
          source=forced("alpaca_index")),
    index("index of another schema", '{"entries": {"n_hums": 3}}',
          Left("table", "corpus_index.json", "^is no corpus index: it has no list `entries`$")),
    index("index nested too deep", '{"entries": ' + "[" * 100_000 + '"hum_path"',
          Left("table", "corpus_index.json", r"^is no valid JSON \(lists within lists without an end\)$")),
    index("index with odd entries", hums(
        hum(), None, 7, hum(clip_path=None), hum(clip_path="gone.wav"), hum(clip_start_s=7, clip_end_s=8),
        hum(clip_start_s=None), hum(clip_end_s=[1]), hum(clip_end_s=True), hum(clip_end_s=float("nan")),
        hum(clip_path={"a": 1})),
        *(entry(i, "^names no clip") for i in (2, 3, 4, 11)), GONE, entry(6, "^row outside its recording"),
        entry(7, "^a time is missing$"), entry(8, rf"^'\[1\]' {NO_TIME}"), entry(9, f"^'True' {NO_TIME}"),
        entry(10, f"^'nan' {NO_TIME}"), kept=(("call.wav", 0.25, 0.5, "hum"),)),
    index("index with half characters", hums(hum(quality="\ud800"), hum(clip_path="\ud800.wav")),
          Left("table", "corpus_index.json", r"^names the recording '\?\.wav', which is not in the corpus$", 2, 1),
          kept=(("call.wav", 0.25, 0.5, "hum"),)),
]  # fmt: skip


def in_names(name: str, source: AnnotationSource, files: dict[str, bytes | None], *lost: Left, **expected: Any) -> Kind:
    """Audio files that say in their names what is in them."""
    contents = {file: recording(f"{name} {file}") if content is None else content for file, content in files.items()}
    return Kind(name, contents, sources=(source,), left=lost, **expected)


SPOT = AnnotationSource(files="*tape*.wav", format="animal_spot")
HUMS = AnnotationSource(files="*Q?.wav", format="alpaca_hums")
PATTERN = r"(?P<label>[a-z]+)_(?P<start>[^_]+)_(?P<end>[^_]+)\.wav$"

NAMES = [
    in_names("ANIMAL-SPOT names", SPOT,
             {"owl-A_1_20_tape_0_9.wav": None, "owl-A_1_20_tape_0.wav": None, "noise-A_1_20_tape_0_9.wav": None,
              "frog-A_1_20_tape_0_9.wav": b"no audio"},
             Left("recording", "frog-A_1_20_tape_0_9.wav", UNKNOWN),
             Left("table", "frog-A_1_20_tape_0_9.wav", "^belongs to .*, which cannot be read$", 1, 1),
             Left("table", "owl-A_1_20_tape_0.wav", "^its name is not made like CLASSNAME-LABELINFO_ID_", None, 1),
             kept=(("owl-A_1_20_tape_0_9.wav", 0, 1, "owl"),), unusable=("owl-A_1_20_tape_0.wav",)),
    in_names("names of hums", HUMS,
             {"call.wav": None, "call.wav_0.25_0.5Q1.wav": None, "call.wav_0.5_0.25Q3.wav": None,
              "gone.wav_0.25_0.5Q2.wav": None, "callQ1.wav": None, "call.wav_1_2Q0.wav": None},
             row(1, r"^ends before it starts \(0.5 s to 0.25 s\)$", "call.wav_0.5_0.25Q3.wav"),
             row(1, "^row outside its recording: starts at 1 s", "call.wav_1_2Q0.wav"),
             *(Left("cutout", f"{clip}_{rest}.wav", f"^is a cut-out call of {clip}, read as an annotation$")
               for clip, rest in (("call.wav", "0.25_0.5Q1"), ("call.wav", "0.5_0.25Q3"), ("call.wav", "1_2Q0"),
                                  ("gone.wav", "0.25_0.5Q2"))),
             Left("table", "gone.wav_0.25_0.5Q2.wav", "^names the recording 'gone.wav', which is not in", 1, 1),
             Left("table", "callQ1.wav", "^its name is not that of a hum, such as", None, 1),
             kept=(("call.wav", 0.25, 0.5, "hum"),), unusable=("callQ1.wav",)),
    in_names("names with a pattern", AnnotationSource(files="*owl*.wav", format="names", pattern=PATTERN),
             {"owl_0.25_0.5.wav": None, "owl_x_0.5.wav": None, "owl.wav": None, "owl_1e400_2.wav": None},
             row(1, f"^'x' {NO_TIME}", "owl_x_0.5.wav"), row(1, f"^'1e400' {NO_TIME}", "owl_1e400_2.wav"),
             Left("table", "owl.wav", "^its name does not fit `pattern`$", None, 1),
             kept=(("owl_0.25_0.5.wav", 0.25, 0.5, "owl"),),
             unusable=("owl.wav", "owl_1e400_2.wav", "owl_x_0.5.wav")),
]  # fmt: skip

TABLES = [*FILES_AS_A_WHOLE, *ROWS, *PAIRS, *PROGRAMS, *NAMES]
