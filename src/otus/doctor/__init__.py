"""`otus doctor`: is everything here that a run needs, and if not, what to do.

Light at import, and of the standard library only: it must run where packages are missing.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from otus.doctor.report import Finding, as_json, exit_code, guarded, line, summary

__all__ = ["Finding", "as_json", "examine", "exit_code", "line", "summary"]


def examine(*, slurm: bool | None, folder: Path) -> Iterator[Finding]:
    """Yield the findings of all checks, in the order in which a user can act on them; never raises.

    `slurm`: True if Slurm is needed, False to leave it out, None to look at it where it is. `folder` is where the
    workflow writes.
    """
    from otus.doctor import decoders, files, gpu, machine, python
    from otus.doctor.slurm import slurm_findings

    checks: list[tuple[str, Callable[[], Iterable[Finding]], float]] = [
        ("Python", python.python_version, 60),
        ("Otus", lambda: python.otus_in_use(Path.cwd()), 60),
        ("packages", lambda: python.packages(Path.cwd()), 60),
        ("imports", lambda: python.imports(Path.cwd()), 180),
        ("Snakemake", python.programs, 60),
        ("GPU", gpu.gpu_findings, 180),
        ("cores", machine.machine_findings, 60),
        ("decoders", decoders.decoder_findings, 60),
        ("files", lambda: files.file_findings(folder), 60),
        ("Slurm", lambda: slurm_findings(slurm), 180),
    ]
    for name, check, limit_s in checks:
        yield from guarded(name, check, limit_s)
