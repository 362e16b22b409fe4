"""The shape of the project: which files there are, what may import what, and how long they may be."""

from __future__ import annotations

import ast
import importlib
import io
import runpy
import subprocess
import sys
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from tests.support import ROOT

MAY_IMPORT = {  # of ours
    "file_interface": set(), "file_protocol": {"file_interface"}, "file_client_cli": {"file_protocol"},
    "file_server": {"file_interface", "file_protocol"}, "file_thread_pool": {"file_server", "file_protocol"},
    "file_client_stress_test": {"file_client_cli", "file_protocol", "file_server"},
    "run_for_test": {"file_client_stress_test", "file_client_cli", "file_protocol", "laporan"},
    "laporan/__init__": set(), "laporan/temuan": {"file_client_cli"},
    "laporan/halaman": {"file_client_cli", "laporan"}}
ONLY = {"file_server": {"make_pool", "START_METHOD"}, "file_client_cli": {"number_text"}}  # of those
SCRIPTS = [name for name in MAY_IMPORT if "/" not in name]
LINES = {  # at most, in all files of a pattern together
    "file_interface.py": 190, "file_protocol.py": 600, "file_server.py": 756, "file_thread_pool.py": 80,
    "file_client_cli.py": 430, "file_client_stress_test.py": 420, "run_for_test.py": 380, "*.py": 2848,
    "laporan/*.py": 300, "laporan/templat.html": 550, "tests/*.py": 4000, "README.md": 150}
POOLS = ["ProcessPoolExecutor", "ThreadPoolExecutor"]
NODES = {name: list(ast.walk(ast.parse((ROOT / f"{name}.py").read_bytes()))) for name in MAY_IMPORT}
OLD_PYTHONS = [*Path.home().glob(".pyenv/versions/3.[89].*/bin/python"), *Path("/usr").glob("*/python3.[89]")]


class Shape(unittest.TestCase):
    """Seven scripts and a package, one direction, nothing but the standard library."""

    def test_imports_go_one_way_and_the_rest_is_the_standard_library(self) -> None:
        found = {str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.py"), *ROOT.glob("laporan/*.py"))}
        self.assertEqual(found, {f"{name}.py" for name in MAY_IMPORT})
        for name, allowed in MAY_IMPORT.items():
            imported: dict[str, set[str]] = {}
            for node in NODES[name]:
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0]: {"all of it"} for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names = {alias.name for alias in node.names}
                    imported.setdefault((node.module or ".").partition(".")[0], set()).update(names)
            self.assertLessEqual(imported.keys() - sys.stdlib_module_names - {name}, allowed, name)
            self.assertFalse(name == "file_protocol" and imported.keys() & {"argparse", "multiprocessing"})
            if name == "file_client_stress_test" or name not in SCRIPTS:
                module = "file_server" if name in SCRIPTS else "file_client_cli"
                self.assertLessEqual(imported.get(module, set()), ONLY[module], name)

    def test_pools_are_made_in_one_place(self) -> None:
        for name in SCRIPTS:
            used = {getattr(node, "id", getattr(node, "attr", "")) for node in NODES[name]}
            self.assertEqual(sorted(used.intersection(POOLS)), POOLS if name == "file_server" else [], name)

    def test_nothing_is_longer_than_it_may_be(self) -> None:
        for pattern, limit in LINES.items():
            lines = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob(pattern)).splitlines()
            with self.subTest(pattern):
                self.assertLessEqual(len(lines), limit)
                scripts = ".py" in pattern and "tests" not in pattern
                self.assertEqual([line for line in lines if len(line) > 110 and scripts], [])
        long = {f"{name}.{node.name}" for name, nodes in NODES.items() for node in nodes
                if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 45}
        self.assertEqual(long, set())  # of more than 45 lines: a table might be named here, three at most

    def test_importing_does_nothing(self) -> None:
        state = "(os.getcwd(), {**os.environ}, sys.argv, threading.active_count())"
        code = f"import os, sys, threading; was = {state}; import {', '.join(SCRIPTS)}; assert was == {state}"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))

    def test_every_script_has_help(self) -> None:
        for name in SCRIPTS[2:]:
            with redirect_stdout(io.StringIO()) as out, self.assertRaises(SystemExit) as end:
                importlib.import_module(name).main(["--help"])
            self.assertEqual(end.exception.code, 0, name)
            self.assertIn(f"contoh: python3 {name}.py", out.getvalue())

    def test_an_old_python_is_told_so(self) -> None:
        told = []
        for name in SCRIPTS:
            with mock.patch.dict(sys.modules), mock.patch("sys.version_info", (3, 9, 18)), \
                    redirect_stderr(io.StringIO()) as err, self.assertRaises(SystemExit) as end:
                for script in SCRIPTS:
                    sys.modules.pop(script, None)
                runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
            told.append((end.exception.code, err.getvalue()))
            for python in OLD_PYTHONS:
                done = subprocess.run([python, ROOT / f"{name}.py"], stderr=subprocess.PIPE, check=False)
                told.append((done.returncode, done.stderr.decode()))
        for code, said in told:
            self.assertRegex(f"{code} {said}", r"\A2 [^\n]*3\.10[^\n]*\n\Z")
        if not OLD_PYTHONS:
            self.skipTest("only simulated: no Python 3.8 or 3.9 here")
