import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import otus
from otus import provenance

REPOSITORY = Path(__file__).parents[2]
SOURCES = Path(otus.__file__).parent


@pytest.fixture
def use(monkeypatch):
    """Look at another folder as if it were the package, and see changed files at once."""

    def digest(root, *modules):
        monkeypatch.setattr(provenance, "_ROOT", root)
        provenance.code_digest.cache_clear()
        provenance._imports.cache_clear()
        return provenance.code_digest(*modules)

    yield digest
    monkeypatch.undo()
    provenance.code_digest.cache_clear()
    provenance._imports.cache_clear()


@pytest.fixture
def package(tmp_path):
    files = {
        "__init__.py": "__version__ = '1'\n",
        "top.py": "from otus.room import thing\nfrom otus.hall import seat\nfrom otus.plain import (\n    a,\n)\n",
        "hall/__init__.py": "chairs = 3\n",
        "hall/seat.py": "",
        "plain.py": "import numpy\nimport otus.deep.er as er\n",
        "room/__init__.py": "from otus.room.inner import thing\n",
        "room/inner.py": "def thing():\n    from otus import lazy\n",
        "room/inner.html": "<p>",
        "room/inner.md": "#",
        "room/page.html": "<p>",
        "room/beside.py": "x = 1\n",
        "deep/__init__.py": "",
        "deep/er.py": "from otus.top import back\n",
        "lazy.py": "from otus import __version__\n",
        "other.py": "from otus.lazy import y\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "changed",
    [
        "top.py",
        "hall/__init__.py",
        "hall/seat.py",
        "plain.py",
        "room/__init__.py",
        "room/inner.py",
        "room/inner.html",
        "room/inner.md",
        "deep/er.py",
        "lazy.py",
        "__init__.py",
    ],
)
def test_a_change_in_anything_imported_changes_the_digest(package, use, changed):
    before = use(package, "top")
    (package / changed).write_text((package / changed).read_text() + "# changed\n")
    assert use(package, "top") != before


@pytest.mark.parametrize("changed", ["room/beside.py", "room/page.html", "other.py", "deep/new.py", "new.html.txt"])
def test_a_change_in_anything_else_does_not(package, use, changed):
    before = use(package, "top")
    (package / changed).write_text("z = 2\n")
    assert use(package, "top") == before


def test_the_digest_depends_on_names_and_contents_and_not_on_place_or_order(package, use, tmp_path_factory):
    before = use(package, "top", "other")
    elsewhere = tmp_path_factory.mktemp("copy") / "otus"
    shutil.copytree(package, elsewhere)
    assert use(elsewhere, "other", "top") == before
    assert re.fullmatch("[0-9a-f]{16}", before)
    assert len({before, use(package, "top"), use(package, "other"), use(package, "plain")}) == 3  # top <-> plain


def test_a_new_module_where_a_name_was_imported_from_counts(package, use):
    before = use(package, "other")
    (package / "lazy").mkdir()
    (package / "lazy" / "__init__.py").write_text("y = 1\n")
    assert use(package, "other") != before


@pytest.mark.parametrize("name", ["topp", "room.innner", "room.inner.thing", "otus.top"])
def test_a_name_that_is_no_module_is_refused(package, use, name):
    with pytest.raises(ValueError, match="otus has no module"):
        use(package, name)


@pytest.mark.parametrize(
    ("changed", "rerun", "spared"), [("seeds.py", "datasets", "chunks"), ("datasets/clips.py", "datasets", "inventory")]
)
def test_in_otus_itself(tmp_path, use, changed, rerun, spared):
    copy = tmp_path / "otus"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = [use(copy, rerun), use(copy, spared)]
    assert before == [use(SOURCES, rerun), use(SOURCES, spared)]
    with (copy / changed).open("a") as file:
        file.write("# changed\n")
    assert use(copy, rerun) != before[0] and use(copy, spared) == before[1]


def test_every_module_that_a_rule_names_exists():
    rules = [*REPOSITORY.glob("rules/*.smk"), REPOSITORY / "Snakefile"]
    named = [
        m
        for rule in rules
        for call in re.findall(r"code_digest\(([^)]*)\)", rule.read_text())
        for m in re.findall(r'"([^"]+)"', call)
    ]
    assert len(named) >= 8
    assert all(provenance.code_digest(name) for name in named)


def test_otus_imports_only_what_the_digest_can_see():
    """Relative and dynamic imports would be overlooked."""
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path
            name = getattr(node, "attr", getattr(node, "id", None))
            if path.name not in ("probe.py", "hawkears_driver.py"):  # they ask for packages of others
                assert name not in ("import_module", "__import__"), path


def test_everything_that_is_loaded_is_seen():
    code = (
        "import sys, otus.datasets, otus.chunks; "
        "print(*(m.__file__ for name, m in sys.modules.items() if name.startswith('otus.')), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seen, todo = set(), [provenance._module_file(name) for name in ("datasets", "chunks")]
    while todo:
        seen.add(path := todo.pop())
        todo += [p for p in provenance._imports(path) if p not in seen]
    loaded = {Path(line) for line in done.stdout.splitlines()}
    assert len(loaded) > 8 and not loaded - seen


def test_jobs_find_these_sources_first(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/some/where")
    provenance.share_sources()
    provenance.share_sources()
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(SOURCES.parent)
    assert "/some/where" in os.environ["PYTHONPATH"].split(os.pathsep)
