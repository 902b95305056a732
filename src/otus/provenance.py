"""What code a rule depends on (a digest over modules of Otus and all that they import), and where jobs find it.

Edits to an imported module do not trigger a rerun in Snakemake; a digest among the params does.
"""

import ast
import hashlib
import os
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parent


@cache
def code_digest(*modules: str) -> str:
    """Return a digest of the sources of `modules` (dotted names below otus) and of all that they import of Otus.

    Nothing is imported; the sources are parsed. The template of a module (page.html of page.py, or .md) counts too; the
    `__init__` of a package counts where something is imported from it. Raises ValueError for a name that is no module.
    """
    todo, seen = [_module_file(m) for m in modules], set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        todo += _imports(path)
    digest = hashlib.sha256()
    templates = {path.with_suffix(suffix) for path in seen for suffix in (".html", ".md")}
    for path in sorted(seen | {template for template in templates if template.exists()}):
        digest.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def share_sources() -> None:
    """Let the jobs of this process import this very Otus, also in a conda environment that does not hold it."""
    paths = [str(_ROOT.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def _module_file(name: str) -> Path:
    path = _file_of(name.split("."))
    if path not in (_ROOT.joinpath(*name.split("."), "__init__.py"), _ROOT / f"{name.replace('.', '/')}.py"):
        raise ValueError(f"otus has no module {name}")
    return path


def _file_of(parts: list[str]) -> Path:
    """The file of the longest prefix of the dotted name that is a module."""
    here = _ROOT
    for i, part in enumerate(parts):
        if (here / part).is_dir():
            here = here / part
        elif (module := here / f"{part}.py").exists():
            return module
        else:
            return _file_of(parts[:i]) if i else _ROOT / "__init__.py"
    return here / "__init__.py"


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "otus":
            module = node.module.split(".")[1:]
            found += [_file_of([*module, alias.name]) for alias in node.names]
            found.append(_file_of(module))
        elif isinstance(node, ast.Import):
            found += [_file_of(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == "otus"]
    return tuple(found)
