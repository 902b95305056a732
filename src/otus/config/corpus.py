"""Settings of a corpus: recordings, what their paths say, and what a person wrote about them."""

import datetime
import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from otus.config.base import Positive, Settings
from otus.config.soundscapes import SoundscapeSettings

#: A moment whose every part differs from the default, to try time formats on.
_SOME_MOMENT = datetime.datetime(2020, 12, 22, 18, 5, 30, tzinfo=datetime.UTC)


class DemoSettings(Settings):
    """The embedded demo corpus, made by `otus demo-corpus`."""

    seed: int = Field(1, ge=0, description="Seed of the generator; the same seed gives the same files.")
    recordings: int = Field(16, ge=12, description="How many good recordings to make; a truncated file comes on top.")
    duration_s: Positive = Field(60.0, description="Length of each recording.")


AnnotationFormat = Literal[
    "auto",
    "raven",
    "audacity",
    "csv",
    "names",
    "animal_spot",
    "alpaca_hums",
    "alpaca_index",
    "birdsong-recognition-dataset",
    "generic-seq",
    "notmat",
    "simple-seq",
    "textgrid",
    "timit",
    "yarden",
]
#: Formats that read the names of audio files.
NAME_FORMATS = frozenset({"names", "animal_spot", "alpaca_hums"})
#: Formats that the package crowsetta reads.
SEQUENCE_FORMATS = frozenset(
    {"birdsong-recognition-dataset", "generic-seq", "notmat", "simple-seq", "textgrid", "timit", "yarden"}
)


def named_groups(pattern: str) -> frozenset[str]:
    """Return the names of the groups of a regular expression; ValueError if it is none."""
    try:
        return frozenset(re.compile(pattern).groupindex)
    except re.error as error:
        raise ValueError(f"'{pattern}' is no valid regular expression ({error}); correct it") from error


class NamePattern(Settings):
    """One layout of paths: where they name the site, the recorder and the time."""

    pattern: str = Field(
        description="Regular expression, searched in the path below the root, with any of (?P<site>...), "
        "(?P<recorder>...), (?P<time>...)."
    )
    time_format: str | None = Field(
        None,
        description="Format of the group `time` as in Python's strptime, e.g. '%y%m%d-%H%M'; null = a usual form such "
        "as 20201222_180530.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> "NamePattern":
        found, known = named_groups(self.pattern), ("site", "recorder", "time")
        if not found or not found <= set(known):
            odd = next(iter(sorted(found - set(known))), None)
            what = f"has a group named '{odd}'" if odd else "names no group"
            raise ValueError(f"'{self.pattern}' {what}; it takes (?P<site>...), (?P<recorder>...) and (?P<time>...)")
        if self.time_format is not None:
            if "time" not in found:
                raise ValueError(f"time_format needs a group (?P<time>...) in the pattern '{self.pattern}'")
            if not _gives_a_date(self.time_format):
                raise ValueError(f"time_format '{self.time_format}' gives no date; write one like '%y%m%d-%H%M'")
        return self


def _gives_a_date(time_format: str) -> bool:
    """Whether a date survives being written and read in this format."""
    try:
        read = datetime.datetime.strptime(_SOME_MOMENT.strftime(time_format), time_format)
    except (ValueError, re.error):
        return False
    return read.date() == _SOME_MOMENT.date()


#: Suffixes of audio files (otus.fingerprint.AUDIO_SUFFIXES) as part of a regular expression.
_AUDIO = "(?:wav|flac|ogg|oga|opus|mp3|aiff?|au|w64|rf64|caf)"


class ExtractSettings(Settings):
    """Recordings that are stretches of longer raw recordings, as their names say."""

    pattern: str = Field(
        rf"(?i)(?P<parent>[^/]+?\.{_AUDIO})_(?P<start>\d+(?:\.\d+)?)_(?P<end>\d+(?:\.\d+)?)\.{_AUDIO}$",
        description="Regular expression with (?P<parent>...), the raw recording's file name, and (?P<start>...) and "
        "(?P<end>...); the default reads tape.wav_110_125.wav, in upper or lower case and with any audio suffix.",
    )
    unit: Literal["auto", "seconds", "minutes"] = Field(
        "auto", description="Unit of start and end; auto = the one that agrees with the length of each file."
    )

    @field_validator("pattern")
    @classmethod
    def _names_parent_and_times(cls, pattern: str) -> str:
        missing = [name for name in ("parent", "start", "end") if name not in named_groups(pattern)]
        if missing:
            raise ValueError(f"'{pattern}' has no (?P<{missing[0]}>...); it needs parent, start and end")
        return pattern


class AnnotationSource(Settings):
    """One kind of annotation file: where, in which format, and the label where the file names none."""

    files: str = Field(description="Glob below the corpus root, e.g. '**/*.selections.txt' or 'labels.csv'.")
    format: AnnotationFormat = Field(
        "auto",
        description="File format; auto looks at the header of each file. names, animal_spot and alpaca_hums read the "
        "names of audio files; the last seven are read by crowsetta.",
    )
    pattern: str | None = Field(
        None,
        description="Format names: regular expression, searched in the path below the root, with any of "
        "(?P<label>...), (?P<quality>...), (?P<recording>...), and (?P<start>...) with (?P<end>...) in seconds; "
        "without these the whole recording is one annotation.",
    )
    label: str | None = Field(None, description="Label of every row that names none.")
    label_column: str | None = Field(
        None,
        description="Column of a Raven table that holds the label; found by its usual names if not given.",
    )
    columns: dict[Literal["recording", "start", "end", "duration", "label", "low_hz", "high_hz", "quality"], str] = (
        Field(
            default_factory=dict,
            description="CSV only: which of your columns means what, e.g. {start: onset, end: offset}; duration "
            "(s) may stand for end. Without `recording`, each file belongs to the recording of the same name.",
        )
    )

    @field_validator("pattern")
    @classmethod
    def _names_parts_of_a_row(cls, pattern: str | None) -> str | None:
        found = named_groups(pattern) if pattern is not None else frozenset()
        odd = sorted(found - {"label", "quality", "recording", "start", "end"})
        if odd:
            raise ValueError(
                f"'{pattern}' has a group named '{odd[0]}'; it takes label, quality, recording, start and end"
            )
        if ("start" in found) != ("end" in found):
            raise ValueError(f"'{pattern}' has only one of (?P<start>...) and (?P<end>...); write both or none")
        return pattern

    @model_validator(mode="after")
    def _settings_fit_the_format(self) -> "AnnotationSource":
        if (self.format == "names") != (self.pattern is not None):
            raise ValueError("`pattern` and `format: names` go together")
        if self.pattern is not None and self.label is None and "label" not in named_groups(self.pattern):
            raise ValueError(f"'{self.pattern}' has no (?P<label>...); add it, or set `label`")
        if self.columns and self.format not in ("auto", "csv"):
            raise ValueError(f"`columns` is for tables such as CSV, not for the format {self.format}")
        if self.label_column is not None and self.format not in ("auto", "csv", "raven"):
            raise ValueError(f"`label_column` is for tables, not for the format {self.format}")
        if {"end", "duration"} <= self.columns.keys():
            raise ValueError("`columns` maps both end and duration; map one of them")
        return self


class CorpusSettings(Settings):
    """The recordings and what a person wrote about them."""

    root: str = Field(min_length=1, description="Folder of the corpus; ${VARIABLES} and ~ are expanded.")
    recordings: list[str] = Field(
        default_factory=lambda: ["**/*"],
        description="Globs below the root; only audio files (wav, flac, ogg, mp3, aif, ...) are taken.",
    )
    annotations: list[AnnotationSource] = Field(default_factory=list, description="Annotation files.")
    labels: dict[str, str | None] = Field(
        default_factory=dict,
        description="Label map: a label or a glob of labels ('owl*', '*'; the first that fits) -> another label, null "
        "(its rows are dropped, as if nobody had written them), or unknown (neither target nor noise).",
    )
    targets: list[str] = Field(
        default_factory=list,
        description="Labels to detect, as the label map gives them. Every other label is a confuser: never a target, "
        "never free noise. The label unknown is neither: left out of training, no hit and no false alarm.",
    )
    unlabelled: Literal["exclude", "negative"] = Field(
        "exclude",
        description="What a recording without any annotation file or row is: left out, or known to hold no call. "
        "A recording whose tables hold only unusable rows is left out in either case.",
    )
    group: str = Field(
        "recording",
        description="What must never be split across train and test: 'recording', 'folder', or a regular expression "
        "with a (?P<group>...) that is searched in the path below the root.",
    )
    sheet: str | None = Field(
        None,
        description="CSV below the root with the column recording and any of group, site, split (train|val|test).",
    )
    names: list[NamePattern] = Field(
        default_factory=list,
        description="Layouts of paths, tried in their order. Without any, a usual time in the file name is read.",
    )
    extracts: ExtractSettings | None = Field(
        default_factory=ExtractSettings,
        description="Recordings cut from raw recordings, as their names say: an extract belongs to the group of its "
        "raw recording, whose rest may serve as noise (datasets.*.fallback_raw). null = no name says that.",
    )
    audio_check: Literal["full", "ends"] = Field(
        "full",
        description="full: every sample is decoded once, to find damage, silence, clipping and copies in other "
        "formats; ends: only the header and the last samples (byte-identical copies are found).",
    )
    demo: DemoSettings | None = Field(None, description="Make the demo corpus at `root` first.")
    soundscapes: SoundscapeSettings | None = Field(None, description="Build soundscapes at `root` first.")

    @field_validator("labels")
    @classmethod
    def _leads_to_labels(cls, labels: dict[str, str | None]) -> dict[str, str | None]:
        blank = next((label for label, target in labels.items() if target is not None and not target.strip()), None)
        if blank is not None:
            raise ValueError(f"'{blank}' leads to an empty label; write null to drop its rows")
        return labels

    @field_validator("group")
    @classmethod
    def _finds_a_group(cls, rule: str) -> str:
        if rule not in ("recording", "folder") and "group" not in named_groups(rule):
            raise ValueError(
                f"'{rule}' is neither 'recording' nor 'folder' nor a regular expression with (?P<group>...)"
            )
        return rule

    @property
    def source(self) -> "CorpusSettings":
        """The files that somebody has brought: the recordings, or the clips that soundscapes are built from."""
        made = self.soundscapes
        if made is None:
            return self
        globs = [*made.backgrounds, *(event.files for event in made.events.values())]
        return CorpusSettings(root=made.clips, recordings=globs)

    @property
    def is_made(self) -> bool:
        """Whether the workflow makes the recordings itself."""
        return self.demo is not None or self.soundscapes is not None

    @model_validator(mode="after")
    def _made_once(self) -> "CorpusSettings":
        if self.demo is not None and self.soundscapes is not None:
            raise ValueError("demo and soundscapes exclude each other: both make the corpus at root")
        return self
