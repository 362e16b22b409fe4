"""The shape of the project: which files there are, and what may import what."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import unittest

from tests.support import ROOT

MAY_IMPORT = {
    "file_interface": set(),
    "file_protocol": {"file_interface"},
    "file_server": {"file_interface", "file_protocol"},
    "file_thread_pool": {"file_server", "file_protocol"},
    "file_client_cli": {"file_protocol"},
    "file_client_stress_test": {"file_client_cli", "file_protocol"},
    "run_for_test": {"file_client_stress_test", "file_client_cli", "file_protocol"},
}


def imported_by(name: str) -> set[str]:
    """Return the top-level modules that a script imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


class Shape(unittest.TestCase):
    """Seven scripts, one direction, nothing but the standard library."""

    def test_seven_scripts_at_the_top(self) -> None:
        self.assertEqual({name[:-3] for name in os.listdir(ROOT) if name.endswith(".py")}, set(MAY_IMPORT))

    def test_imports_go_one_way(self) -> None:
        for name, allowed in MAY_IMPORT.items():
            ours = (imported_by(name) & set(MAY_IMPORT)) - {name}
            with self.subTest(script=name):
                self.assertLessEqual(ours, allowed)

    def test_nothing_but_the_standard_library(self) -> None:
        for name in MAY_IMPORT:
            with self.subTest(script=name):
                self.assertLessEqual(imported_by(name) - set(MAY_IMPORT), sys.stdlib_module_names)

    def test_importing_does_nothing(self) -> None:
        code = "import sys, threading; before = set(sys.modules); import {}; assert threading.active_count() == 1"
        for name in MAY_IMPORT:
            with self.subTest(script=name):
                done = subprocess.run([sys.executable, "-c", code.format(name)], cwd=ROOT, capture_output=True,
                                      text=True, check=False)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_every_script_has_help(self) -> None:
        for name in set(MAY_IMPORT) - {"file_interface", "file_protocol"}:
            with self.subTest(script=name):
                done = subprocess.run([sys.executable, str(ROOT / f"{name}.py"), "--help"], capture_output=True,
                                      text=True, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertIn(f"contoh: python3 {name}.py", done.stdout)

    def test_the_commands_of_the_course_still_work_on_text(self) -> None:
        code = ("import tempfile, pathlib; from file_interface import *; from file_protocol import *\n"
                "folder = tempfile.TemporaryDirectory()\n"
                "p = FileProtocol(FileInterface(pathlib.Path(folder.name)), dict)\n"
                "for text in ('UPLOAD a QUJD', 'LIST', 'GET a', 'DELETE a', 'LIST', 'X', 'GET a'): "
                "print(p.proses_string(text))")
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 7, done.stderr)
        self.assertEqual(lines[1], '{"status":"OK","data":["a"],"data_ukuran":[3]}')
        self.assertIn('"data_file":"QUJD"', lines[2])
        self.assertEqual(lines[4], '{"status":"OK","data":[],"data_ukuran":[]}')
        self.assertEqual(lines[5], '{"status":"ERROR","data":"request tidak dikenali"}')


if __name__ == "__main__":
    unittest.main()
