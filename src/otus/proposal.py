"""A first config for a folder of recordings and annotation files: what `otus init` writes."""

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from otus.annotations import (
    Extent,
    RecordingIndex,
    index_recordings,
    read_annotations,
    recording_named,
    recording_of_file,
)
from otus.annotations.alpaca_index import HUM
from otus.annotations.file_names import cut_from, read_name
from otus.config import AnnotationSource, ExtractSettings
from otus.errors import DataError
from otus.fingerprint import is_audio, walk

_TABLE_SUFFIXES = (".txt", ".csv", ".tsv")
_TRUTH_WORDS = re.compile(r"gt|truth|label|annot|selection|manual", re.IGNORECASE)
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_MOST_SOURCES, _MOST_NAMED = 6, 4
_FOLDS, _FEWEST_GROUPS = 5, 3
#: CLASSNAME-LABELINFO_ID_YEAR_TAPENAME_STARTMS_ENDMS as a glob, and the tape in it.
_ANIMAL_SPOT_NAME, _ANIMAL_SPOT_TAPE = "*-*_*_*_*_*_*.*", r"_(?P<group>\d+_[^_/]*)_\d+_\d+\.[^./]+$"
#: Stands for the missing label while the folder is looked at; no text file contains it.
_NO_LABEL = "\0"


@dataclass(frozen=True)
class _Candidate:
    """An annotation file: its format, the recordings that it labels, the labels that it names, its usable rows."""

    path: str
    format: str
    recordings: frozenset[str]
    labels: frozenset[str]
    n_rows: int

    @property
    def folder(self) -> str:
        return _folder(self.path)


@dataclass(frozen=True)
class _Source:
    """One entry of corpus.annotations."""

    files: str
    format: str
    label: str | None


@dataclass(frozen=True)
class _Corpus:
    """What the config says of the corpus: its sources, what they label, globs of the recordings (none: all audio)."""

    sources: Sequence[_Source]
    labels: Sequence[str]
    labelled: Set[str]
    n_recordings: int
    rule: str
    n_groups: int
    recordings: Sequence[str] = ()
    remark: str | None = None


def propose_config(folder: Path) -> str:
    """Return a commented config (YAML, at most 20 lines) for the recordings and annotation files below `folder`.

    The annotation files are those with one kind of name that label most recordings. Labels that no file names are
    taken from the folders of the files, or from the name of `folder`. Without any, the names of audio files are read
    as those of cut-out calls of the alpaca pipeline, or of ANIMAL-SPOT clips.
    Raises DataError if there is no audio, no annotation, or too little of it to train, validate and test.
    """
    folder = folder.resolve()
    files = [file.path for file in walk(folder)]
    audio = [path for path in files if is_audio(path)]
    if not audio:
        raise DataError(f"{folder}: holds no audio file; name the folder with the recordings.")
    tables = [path for path in files if path.lower().endswith(_TABLE_SUFFIXES)]
    kinds = _kinds(folder, tables, index_recordings(audio))
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.name).strip("._-") or "corpus"
    corpus = _from_tables(kinds, audio, name) or _from_hums(folder, audio) or _from_animal_spot(audio)
    if corpus is None:
        raise DataError(
            f"{folder}: none of its {len(tables)} text and CSV files is a Raven table, an Audacity label track or a "
            "CSV with start and end that labels a recording, and no audio file is named like a call (formats "
            "alpaca_hums and animal_spot); put the tables beside the recordings, named like them."
        )
    if corpus.n_groups < _FEWEST_GROUPS:
        raise DataError(
            f"{folder}: only {corpus.n_groups} recordings have annotations (all of one tape count once); training, "
            f"validation and test need one each, so at least {_FEWEST_GROUPS}."
        )
    return _yaml(folder, name, corpus)


def _from_tables(kinds: Mapping[str, Sequence[_Candidate]], audio: Sequence[str], name: str) -> _Corpus | None:
    """The kind of annotation files that labels most recordings; None if there is none."""
    usable = [glob for glob, group in kinds.items() if _labelled(group) and any(c.n_rows for c in group)]
    if not usable:
        return None
    chosen = max(usable, key=lambda g: (len(_labelled(kinds[g])), bool(_TRUTH_WORDS.search(g)), -len(g), g))
    group, sources = kinds[chosen], _sources(kinds[chosen], chosen, name)
    labels = sorted({label for c in group for label in c.labels} or {s.label for s in sources if s.label})
    labelled = _labelled(group)
    rule, n_groups = _grouping(audio, labelled, len(sources) > 1)
    others = {glob: group for glob, group in kinds.items() if glob != chosen}
    remark = _remark(chosen, others)
    return _Corpus(sources, labels, labelled, len(audio), rule, n_groups, remark=remark)


def _from_hums(folder: Path, audio: Sequence[str]) -> _Corpus | None:
    """Calls cut out of clips by the alpaca pipeline, whose names tell the clip and the time; None if there are none."""
    clips = {path: cut_from(path, AnnotationSource(files=path, format="alpaca_hums")) for path in audio}
    hums = {path: clip for path, clip in clips.items() if clip}
    if not hums:
        return None
    others = [path for path in audio if path not in hums]
    index = index_recordings(others)
    labelled = {found for hum, clip in hums.items() if (found := recording_named(index, clip, hum).recording)}
    if not labelled:
        raise DataError(
            f"{folder}: {len(hums)} audio files such as {min(hums)} are named like cut-out calls (format alpaca_hums), "
            "but the recordings that they were cut from are not there; name the folder that holds both."
        )
    short = all(re.search(r"q\d\.[^.]+$", hum, re.IGNORECASE) for hum in hums)
    homes = {_folder(path) for path in others}
    apart = len(homes) <= _MOST_SOURCES and homes.isdisjoint(map(_folder, hums))
    source = _Source(_below(sorted({*map(_folder, hums)}), f"*Q[0-9]{'' if short else '*'}.wav"), "alpaca_hums", None)
    recordings = [_below([home], "*") for home in sorted(homes)] if apart else []
    return _Corpus([source], [HUM], labelled, len(others), "recording", len(_tapes(labelled)), recordings)


def _from_animal_spot(audio: Sequence[str]) -> _Corpus | None:
    """Clips under ANIMAL-SPOT names, which tell the label and the tape; None if none of them is a call."""
    source = AnnotationSource(files="*", format="animal_spot")
    read = {path: read_name(path, source, lambda _: Extent(1.0, 1)) for path in audio}
    clips = {path for path, content in read.items() if not content.problems}
    labels = sorted({row.label for path in clips for row in read[path].rows})
    if not labels:
        return None
    glob = _below(sorted(set(map(_folder, clips))), _ANIMAL_SPOT_NAME)
    drawn_in = [path for path in audio if fnmatch.fnmatch(PurePosixPath(path).name, _ANIMAL_SPOT_NAME)]
    tapes = {path: re.search(_ANIMAL_SPOT_TAPE, path) for path in drawn_in}
    known = {match["group"] for match in tapes.values() if match}
    by_tape = all(tapes.values())
    rule, n_groups = (_ANIMAL_SPOT_TAPE, len(known)) if by_tape else ("recording", len(clips))
    found = _Source(glob, "animal_spot", None)
    return _Corpus([found], labels, clips, len(drawn_in), rule, n_groups, [glob])


def _kinds(folder: Path, tables: Iterable[str], index: RecordingIndex) -> dict[str, list[_Candidate]]:
    """The annotation files among `tables` by the glob for their kind of name."""
    kinds: dict[str, list[_Candidate]] = {}
    for path in tables:
        content = read_annotations(folder / path, AnnotationSource(files=path, label=_NO_LABEL), path)
        if content.format == "unknown":
            continue
        own = recording_of_file(index, path).recording
        named = {row.recording for row in content.rows} or {None}
        found = {recording_named(index, text, path).recording if text else own for text in named}
        labels = frozenset(row.label for row in content.rows) - {_NO_LABEL}
        recordings = frozenset(filter(None, found))
        glob = _name_glob(path, own)
        kinds.setdefault(glob, []).append(_Candidate(path, content.format, recordings, labels, len(content.rows)))
    return kinds


def _name_glob(table: str, recording: str | None) -> str:
    """A glob for files named like `table`: its name without that of its recording, any number for each number."""
    name = PurePosixPath(table).name
    stem = PurePosixPath(recording).name.rpartition(".")[0] if recording else ""
    if stem and name.casefold().startswith(stem.casefold()):
        return "*" + _numbers_open(name[len(stem) :])
    return _numbers_open(name)


def _numbers_open(text: str) -> str:
    return re.sub(r"\d+", "*", _literal(text))


def _literal(text: str) -> str:
    """`text` as a glob that matches only itself."""
    return re.sub(r"([\[*?])", r"[\1]", text)


def _labelled(group: Iterable[_Candidate]) -> set[str]:
    return {recording for candidate in group for recording in candidate.recordings}


def _sources(group: Sequence[_Candidate], glob: str, name: str) -> list[_Source]:
    """One source, or one per folder where no file names a label and the folders have names of their own."""
    formats = {candidate.format for candidate in group}
    format_ = formats.pop() if len(formats) == 1 else "auto"
    folders = sorted({candidate.folder for candidate in group})
    if any(candidate.labels for candidate in group):
        return [_Source(_below(folders, glob), format_, None)]
    words = {re.sub(r"[\W\d_]+", "", PurePosixPath(folder).name) for folder in folders} - {""}
    if 1 < len(folders) <= _MOST_SOURCES and len(words) == len(folders):
        return [_Source(_below([folder], glob), format_, PurePosixPath(folder).name or name) for folder in folders]
    return [_Source(_below(folders, glob), format_, name)]


def _below(folders: Sequence[str], glob: str) -> str:
    if len(folders) > 1:
        return f"**/{glob}"
    return glob if folders[0] == "." else f"{_literal(folders[0])}/{glob}"


def _remark(chosen: str, others: Mapping[str, Sequence[_Candidate]]) -> str | None:
    """A comment on the annotation files that are not used, or that the chosen glob takes in without being meant."""
    drawn_in = [glob for glob, group in others.items() if fnmatch.fnmatch(PurePosixPath(group[0].path).name, chosen)]
    if drawn_in:
        return f"the glob takes in {_named(drawn_in)} as well: move those away if they are not yours"
    return f"not used, though they look like annotations: {_named(list(others))}" if others else None


def _named(globs: Sequence[str]) -> str:
    return ", ".join(sorted(globs)[:_MOST_NAMED]) + (", ..." if len(globs) > _MOST_NAMED else "")


def _yaml(folder: Path, name: str, corpus: _Corpus) -> str:
    """The text of the config."""
    guessed = any(source.label for source in corpus.sources)
    rest = corpus.n_recordings - len(corpus.labelled)
    lines = [
        f"# A first config for {json.dumps(name)}: check every line, above all the labels.",
        f"results_dir: {_scalar(f'results/{name}')}",
        "corpus:",
        f"  root: {_scalar(str(folder))}",
        *([f"  recordings: [{', '.join(map(_scalar, corpus.recordings))}]"] if corpus.recordings else []),
        "  annotations:" + ("  # the files name no label: these are names of folders" if guessed else ""),
        *(f"    - {_source_yaml(source)}" for source in corpus.sources),
        *([f"    # {corpus.remark}"] if corpus.remark else []),
        f"  targets: [{', '.join(map(_scalar, corpus.labels))}]"
        + ("  # take out what is not to be detected: it becomes a confuser" if len(corpus.labels) > 1 else ""),
        f"  unlabelled: exclude  # {rest} of {corpus.n_recordings} recordings have no annotation file; 'negative' if "
        "they hold no call",
        f"  group: {_scalar(corpus.rule)}  # never split across train and test; or 'folder', 'recording', a regular "
        "expression",
        "split:",
        f"  folds: {min(_FOLDS, corpus.n_groups)}",
    ]
    return "\n".join(lines) + "\n"


def _grouping(audio: Sequence[str], labelled: Iterable[str], folders_are_labels: bool) -> tuple[str, int]:
    """The rule for corpus.group and the number of groups with annotations: by folder if folders look like sites."""
    folders = {path: _folder(path) for path in audio}
    distinct, with_labels = set(folders.values()), {folders[path] for path in labelled}
    sites = "." not in distinct and len(distinct) < len(audio) and len(with_labels) >= _FEWEST_GROUPS
    if sites and not folders_are_labels:
        return "folder", len(with_labels)
    return "recording", len(_tapes(labelled))


def _tapes(recordings: Iterable[str]) -> set[str]:
    """The recordings, those that are cut from one raw recording counted as one under its name."""
    pattern = ExtractSettings().pattern
    raw: dict[str, str] = {}
    for path in recordings:
        name = PurePosixPath(path).name
        while match := re.search(pattern, name):
            name = match["parent"]
        raw[path] = name
    cut = {name for path, name in raw.items() if name != PurePosixPath(path).name}
    return {name if name in cut else path for path, name in raw.items()}


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _source_yaml(source: _Source) -> str:
    label = f", label: {_scalar(source.label)}" if source.label else ""
    return f"{{files: {_scalar(source.files)}, format: {source.format}{label}}}"


def _scalar(text: str) -> str:
    """`text` as YAML: plain if nobody can misread it, else in double quotes."""
    plain = re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./-]*( [A-Za-z0-9_./-]+)*", text) and text.lower() not in _YAML_WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
