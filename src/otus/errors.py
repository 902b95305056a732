"""The errors that a user is meant to read: one sentence each, with the exit code of the `otus` command."""


class OtusError(Exception):
    """An expected failure: its text says which file, which row, what is wrong and what to do."""

    exit_code = 1


class DataError(OtusError):
    """The config, a recording, a table or a label cannot be used as it is."""

    exit_code = 3


class StageError(OtusError):
    """A stage of the pipeline could not do its work (training diverged, too many failed chunks)."""

    exit_code = 4


class MissingPartError(OtusError):
    """The machine lacks something: a package, a driver, a writable folder."""

    exit_code = 5
