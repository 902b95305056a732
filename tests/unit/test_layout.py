"""What the HTML pages share."""

import re
import sys
from pathlib import Path

import jinja2
import pytest

import otus
from otus.layout import Table, render_page

PAGES = sorted(Path(otus.__file__).parent.glob("*/page.html"))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes page.html of a package and returns the name of the package."""

    def write(body):
        folder = tmp_path / "shop"
        folder.mkdir()
        (folder / "__init__.py").touch()
        start = '{% extends "layout.html" %}{% from "layout.html" import show_facts, show_table %}'
        (folder / "page.html").write_text(f"{start}{{% block body %}}{body}{{% endblock %}}")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "shop", raising=False)
        return "shop"

    return write


def test_a_page_is_one_escaped_file_without_scripts(package):
    html = render_page(package("<h1>{{ name }}</h1>{{ show_facts(facts) }}"), {"name": "<b>", "facts": [("A", "<i>")]})
    assert html.lstrip().startswith("<!DOCTYPE html>") and html.rstrip().endswith("</html>")
    assert "<h1>&lt;b&gt;</h1>" in html and "<div><dt>A</dt><dd>&lt;i&gt;</dd></div>" in html
    assert "default-src 'none'" in html and "<script" not in html and "http" not in html.split("<style>")[1]


def test_a_name_that_is_not_shown_is_an_error(package):
    with pytest.raises(jinja2.UndefinedError, match="absent"):
        render_page(package("{{ absent }}"), {})


def test_a_table_marks_numbers_paths_sentences_strong_rows_and_draws_bars(package):
    rows = [["a.wav", "why", "1"], ["b.wav", "so", "2"]]
    table = Table(["File", "Why", "N", ""], rows, 2, frozenset({1}), path_column=0, prose_from=1, bars=[1, 0.25])
    html = render_page(package("{{ show_table(table, 'All') }}"), {"table": table})
    cells = re.findall(r"<td[^>]*>", html)
    assert cells == ['<td class="path">', '<td class="prose">', '<td class="n">', '<td class="bar">'] * 2
    assert re.findall(r"<th [^>]*>", html) == ['<th scope="col">'] * 2 + [
        '<th scope="col" class="n">',
        '<th scope="col">',
    ]
    assert re.findall(r"<tr[^>]*>", html) == ["<tr>", "<tr>", '<tr class="strong">']
    assert re.findall(r"width:([^%]*)%", html.split("</style>")[1]) == ["100.0", "25.0"]
    assert '<p class="caption">All</p>' in html


def test_every_page_has_its_frame_from_the_layout():
    assert len(PAGES) == 3
    for page in PAGES:
        text = page.read_text("utf-8")
        assert text.startswith('{% extends "layout.html" %}'), page
        assert "<!DOCTYPE" not in text and "<style" not in text, page
