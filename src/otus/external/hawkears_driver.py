"""Run by the Python that has HawkEars: loads its networks once and analyses the sound files that Otus hands it.

It stands alone: nothing of Otus is imported. Arguments: the options of hawkears.commands.analyze as JSON, and the paths
of the sound files as JSON, of which none need exist yet. Before each file it writes {"next": path} to standard output
and waits for a line: "go" once the file is there, anything else (or the end) if there is no more. After each it writes
{"found": [...]} or {"failed": reason}; {"fatal": reason} if HawkEars cannot work at all.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(options: dict[str, Any], paths: list[str]) -> None:
    """Analyse the files; after one that fails, the rest with HawkEars started anew."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what HawkEars prints is no answer

    def tell(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        analyze = importlib.import_module("hawkears.commands").analyze
    except Exception as error:
        tell(fatal=f"the package hawkears cannot be imported ({type(error).__name__}: {error})")
        return
    done, busy, over = 0, False, False
    folder = Path(paths[0]).parent

    def ask() -> bool:
        """Called by HawkEars before each file: whether to stop."""
        nonlocal busy, over
        if not over:
            tell(next=paths[done])
            busy = sys.stdin.readline().strip() == "go"
            over = not busy
        return over

    def take(result: Any) -> None:
        """Called by HawkEars after each file, with what it found there."""
        nonlocal done, busy
        rows = [
            {"start": float(d.start_time), "end": float(d.end_time), "label": str(d.species), "score": float(d.score)}
            for d in result.detections
        ]
        done, busy = done + 1, False
        tell(found=rows)

    while done < len(paths) and not over:
        before = done
        try:
            analyze(
                input_path=str(folder),
                output_path=str(folder / "hawkears"),
                rtype=None,
                quiet=True,
                num_threads=1,
                raise_errors=True,
                return_results=False,
                recording_paths=paths[done:],
                recording_callback=take,
                cancellation_callback=ask,
                **options,
            )
            reason = "HawkEars ended without analysing the file"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if busy:
            done, busy = done + 1, False
            tell(failed=reason)
        elif done == before and not over:
            tell(fatal=reason)
            return


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, whose modules have names that others may have too
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
