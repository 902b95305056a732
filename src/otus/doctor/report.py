"""A finding, how it is shown, and the guard that turns a check's crash or silence into a finding."""

import json
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from otus import __version__
from otus.errors import MissingPartError

Status = Literal["ok", "warning", "missing", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What one check found and, unless all is well, what to do about it."""

    name: str
    status: Status
    text: str
    remedy: str = ""


def line(finding: Finding) -> str:
    """Return the finding as one line: status, name, what was found, what to do."""
    text = f"{finding.text} -> {finding.remedy}" if finding.remedy else finding.text
    return f"{finding.status:8} {finding.name:15} {' '.join(text.split())}"


def summary(findings: Sequence[Finding]) -> str:
    """Return the last line: how many warnings there are, and what is missing."""
    warnings = sum(f.status == "warning" for f in findings)
    missing = [f.name for f in findings if f.status == "missing"]
    counted = f"{warnings} warning{'' if warnings == 1 else 's'}"
    return f"{counted}; missing: {', '.join(missing)}" if missing else f"{counted}; nothing is missing"


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 0, or the exit code of a missing part if something needed is missing."""
    return MissingPartError.exit_code if any(f.status == "missing" for f in findings) else 0


def as_json(findings: Sequence[Finding]) -> str:
    """Return all findings as a JSON object."""
    content = {"otus": __version__, "exit_code": exit_code(findings), "findings": [asdict(f) for f in findings]}
    return json.dumps(content, indent=2)


def guarded(name: str, check: Callable[[], Iterable[Finding]], limit_s: float = 60.0) -> list[Finding]:
    """Return what `check` finds within `limit_s` seconds.

    A check that crashes or does not come back ends with a finding called `name` that says so. The thread of a check
    that hangs (a network file system that is gone cannot even be interrupted) is left behind and ends with the process.
    """
    found: list[Finding] = []

    def work() -> None:
        try:
            for finding in check():
                found.append(finding)  # one by one: what came before a crash is kept
        except Exception as error:
            found.append(_crash(name, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        text = f"the check did not come back within {limit_s:g} s"
        return [*found, Finding(name, "missing", text, "see whether a disk, the network or a driver hangs")]
    return found


def _crash(name: str, error: Exception) -> Finding:
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError):
        return Finding(name, "missing", what, "install the packages again (README.md, Set up)")
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    return Finding(name, "warning", f"the check itself failed: {what} ({where})", "report this line as a bug of Otus")
