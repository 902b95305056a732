"""What runs on a CPU partition never loads torch, which takes seconds and memory of every job."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
LIGHT = (
    "evaluate_external",
    "evaluate_model",
    "export_model",
    "filter_selections",
    "make_chunks",
    "make_dataset",
    "measure_model",
    "merge_metrics",
    "take_inventory",
    "write_inventory_page",
    "write_report",
)


@pytest.mark.parametrize("name", LIGHT)
def test_the_imports_of_a_script_bring_no_torch(name):
    tree = ast.parse((SCRIPTS / f"{name}.py").read_text())
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert any("otus" in line for line in imports)
    code = "; ".join([*imports, "import sys", "print('torch' in sys.modules)"])
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
