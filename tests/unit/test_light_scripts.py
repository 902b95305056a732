"""What runs on a CPU partition never loads torch, which takes seconds and memory of every job."""

import ast
import subprocess
import sys
from pathlib import Path

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


def test_the_imports_of_no_light_script_bring_torch():
    lines = ["import sys"]
    for name in LIGHT:
        tree = ast.parse((SCRIPTS / f"{name}.py").read_text())
        imports = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert any("otus" in line for line in imports)
        lines += [*imports, f"if 'torch' in sys.modules: sys.exit('{name}')"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
