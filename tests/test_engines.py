"""The engines that run the clients: the interface on some made here, and Dask and MPI where they are."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import threading
import unittest
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import file_client_stress_test as stress
from tests.support import ROOT, RunningServer, ServerProcess, at_once, run_script
from tests.test_stress import result_of

ENGINES_PYTHON = os.environ.get("ENGINES_PYTHON", "")  # one that has distributed and mpi4py
CLUSTER = """
import distributed, sys
with distributed.LocalCluster(n_workers=2, threads_per_worker=10, dashboard_address=None) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


class OwnExecutor(Executor):
    """An engine of the smallest kind: what goes to a worker or comes from it travels as bytes; no call may
    equal another; shutdown() knows no cancel_futures, as in Dask. `run` is what a worker does with a task."""

    def __init__(self, max_workers: int, run: Callable[..., Any] = lambda task, *given: task(*given)) -> None:
        self.slots, self._run = max_workers, run
        self._threads = ThreadPoolExecutor(max_workers)
        self._seen: set[bytes] = set()

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        task = pickle.dumps((function, arguments))
        if task in self._seen or len(task) > 1000:
            raise AssertionError("the same call again, or a large one")
        self._seen.add(task)
        return self._threads.submit(
            lambda: pickle.loads(pickle.dumps(self._run(function, *pickle.loads(task)[1]))))

    def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
        self._threads.shutdown(wait)


class Dying(OwnExecutor):
    """An engine whose workers have died: nobody ever answers, or it gives up."""

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if arguments[0].client % 2:
            future.cancel()
            future.set_running_or_notify_cancel()
        return future

    def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
        if wait:
            raise AssertionError("waits for what never comes")


def broken() -> Executor:
    return OwnExecutor(1 // 0)  # the bug that is to be found


def stuck() -> Executor:
    threading.Thread(target=threading.Event().wait).start()  # what would keep a process from ending
    raise OSError("no cluster there")


fixed = partial(OwnExecutor, 2)
elsewhere = partial(OwnExecutor, run=lambda function, row, start_at, lead_s: function(  # its clock is behind
    replace(row, path="/nowhere/uji-1MB.bin"), start_at + 1000.0, lead_s))  # and the test file is not there
refusing = partial(OwnExecutor, 1, lambda task, *given: pickle.loads(b"cnot_there\nrun\n."))


class Interface(unittest.TestCase):
    """Any callable that returns an Executor is an engine; what is wrong with one is said in one line."""

    def test_rows_on_engines_of_every_kind(self) -> None:
        def check(engine: str, operation: str, galat: str = "", catatan: str = "") -> None:
            server = RunningServer("thread", workers=4)
            self.addCleanup(server.close)
            timeout_s = 0.2 if engine == "Dying" else 5.0
            result = result_of(server.port, operation, 6, f"tests.test_engines:{engine}", timeout_s)
            self.assertEqual((result["galat"], result["client_sukses"]), (galat, 0 if galat else 6))
            self.assertIn(catatan, result["catatan"])
            self.assertIsNone(result["memori_client_byte"])

        with patch.multiple(stress, START_TIMEOUT_S=0.1, MARGIN_S=0.1):
            at_once(self, check, ("OwnExecutor", "list"), ("fixed", "download"),
                    ("elsewhere", "upload", "", "mulai tidak serempak"),
                    ("refusing", "upload", "client:6 (No module named 'not_there')"),
                    ("Dying", "list", "client:6 (mesin beban tidak menjawab)"))

    def test_it_is_told_the_size_if_it_wants_to_know_and_its_mistakes_are_said(self) -> None:
        for name, slots in (("OwnExecutor", 7), ("fixed", 2)):
            executor = stress.make_executor(f"tests.test_engines:{name}", 7)
            self.addCleanup(executor.shutdown)
            self.assertEqual(executor.slots, slots)
        line = Path(__file__).read_text(encoding="utf-8").split("1 // 0")[0].count("\n") + 1
        for engine, words in (("os:not_there", "AttributeError"), ("os:sep", "not callable"),
                              ("builtins:object", "bukan Executor"), ("not.there:x", "ModuleNotFoundError"),
                              ("tests.test_engines:broken", f"test_engines.py:{line}")):
            with self.subTest(engine=engine), self.assertRaisesRegex(ValueError, words):
                stress.make_executor(engine, 1)

    def test_a_program_ends_although_a_thread_hangs(self) -> None:
        done = run_script("file_client_stress_test.py", "--operation", "list", "--executor",
                          "tests.test_engines:stuck", cwd=ROOT)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^galat: mesin beban .* OSError: no cluster there .*\n$")


@unittest.skipUnless(ENGINES_PYTHON, "ENGINES_PYTHON: one with .ci/requirements-engines.txt")
class RealEngines(unittest.TestCase):
    """Engines that people already run, as the documentation says, against a process server."""

    def setUp(self) -> None:
        self.server = ServerProcess(5, "process")
        self.addCleanup(self.server.close)

    def check(self, command: list[str], engine: str, operation: str, clients: int, used: int) -> None:
        done = subprocess.run(
            [*command, str(ROOT / "file_client_stress_test.py"), "--port", str(self.server.client.port),
             "--operation", operation, "--volume", "1", "--clients", str(clients), "--executor", engine,
             "--json"], cwd=self.server.outside, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        raw = json.loads(done.stdout)
        row = stress.summarise(raw)
        self.assertEqual([row[name] for name in ("client_sukses", "server_gagal", "permintaan_sukses")],
                         [clients, 0, clients])
        self.assertEqual(len({outcome["process"] for outcome in raw["outcomes"]}), used)

    def test_dask(self) -> None:
        text = (ROOT / "docs" / "many-hosts.md").read_text(encoding="utf-8")
        engine, = re.findall(r"```python\n(.*?distributed.*?)```", text, re.DOTALL)
        with subprocess.Popen([ENGINES_PYTHON, "-c", CLUSTER], cwd=self.server.outside, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cluster:
            assert cluster.stdout
            engine, count = re.subn(r"tcp://[0-9.]+:8786", cluster.stdout.readline().strip(), engine)
            self.assertEqual(count, 1)
            engine = engine.replace("/path/to/repository", str(ROOT))
            (self.server.outside / "dask_engine.py").write_text(engine, encoding="utf-8")
            self.check([ENGINES_PYTHON], "dask_engine:cluster", "upload", 20, 2)
            self.check([ENGINES_PYTHON], "dask_engine:cluster", "download", 32, 2)  # on 20 threads

    def test_mpi(self) -> None:
        mpiexec = str(Path(ENGINES_PYTHON).with_name("mpiexec"))
        for processes, operation in ((6, "download"), (3, "upload")):
            self.check([mpiexec, "-n", str(processes), ENGINES_PYTHON, "-m", "mpi4py.futures"],
                       "mpi4py.futures:MPIPoolExecutor", operation, 5, processes - 1)
