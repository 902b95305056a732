"""Runner `command`: any program, started once for every sound file."""

from collections.abc import Callable
from pathlib import Path

from otus.config import ExternalSettings
from otus.external.programs import absolute_words, child_environment, filled_words, run_program
from otus.external.results import OUTPUT_NAMES, Found, read_result, result_file


class CommandRunner:
    """Runs the program of `settings` on one sound file after the other, each in a fresh folder.

    `stop` is asked while a program runs. Raises MissingPartError if its environment is missing.
    """

    def __init__(self, settings: ExternalSettings, only_label: str | None, stop: Callable[[], bool]) -> None:
        self.settings, self.only_label, self.stop = settings, only_label, stop
        self.words = absolute_words(settings.command)
        self.variables = child_environment(settings.threads, settings.environment)

    def find(self, sound: Path, folder: Path) -> list[Found]:
        """Return what the program finds in the file `sound`; `folder` is empty, and its own.

        Raises ProgramError if the program fails, takes too long, writes no result or one that cannot be read.
        """
        name = self.settings.output or OUTPUT_NAMES.get(self.settings.format, "found.csv")
        values = {
            "input": str(sound),
            "output": str(folder / name),
            "folder": str(folder),
            "threads": str(self.settings.threads),
        }
        words = filled_words(self.words, values)
        run_program(words, folder, self.variables, self.settings.timeout_s, self.stop)
        return read_result(result_file(folder, name), self.settings, self.only_label)

    def close(self) -> None:
        """Nothing is left running between two files."""
