"""The engines that run the clients: the interface on some made here, and Dask and MPI where they are."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import tempfile
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
from file_client_cli import Server
from tests.support import ROOT, RunningServer, ServerProcess, alive, children_of, run_script, wait_until

HERE = "tests.test_engines"
ENGINES_PYTHON = os.environ.get("ENGINES_PYTHON", "")  # one that has distributed and mpi4py


class OwnExecutor(Executor):
    """An engine of the smallest kind: what goes to a worker or comes from it travels as bytes; no call may
    equal another, and shutdown() knows no cancel_futures, as in Dask."""

    def __init__(self, max_workers: int, run: Callable[..., Any] = lambda task, *given: task(*given)) -> None:
        """`run` is what a worker does with a task."""
        self.slots = max_workers
        self._threads = ThreadPoolExecutor(max_workers)
        self._run = run
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


def elsewhere(max_workers: int) -> Executor:
    """An engine on another host, whose clock is wrong and where the test file is not."""
    def run(function: Any, job: stress.Job, *times_s: float) -> Any:
        moved = [times_s[0] - 1000.0, *times_s[1:]] if times_s else []
        return function(replace(job, path="/nowhere/uji-1MB.bin"), *moved)

    return OwnExecutor(max_workers, run)


def broken() -> Executor:
    return OwnExecutor(1 // 0)  # the bug that is to be found


class Dying(OwnExecutor):
    """An engine whose workers have died: nobody ever answers."""

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        return Future() if function is stress.run_client else super().submit(function, *arguments, **options)

    def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
        if wait:
            raise AssertionError("waits for what never comes")


def stuck() -> Executor:
    threading.Thread(target=threading.Event().wait).start()  # what would keep a process from ending
    raise OSError("no cluster there")


fixed = partial(OwnExecutor, 2)
refusing = partial(OwnExecutor, 1, lambda task, *given: pickle.loads(b"cnot_there\nrun\n."))
no_executor = object
nothing_to_call = "text"


class Interface(unittest.TestCase):
    """Any callable that returns an Executor is an engine."""

    def setUp(self) -> None:
        self.server = RunningServer("thread", workers=4)
        self.addCleanup(self.server.stop)

    def measure(self, engine: str, operation: str = "upload", timeout_s: float = 5.0) -> dict[str, Any]:
        server, volume_mb = Server("127.0.0.1", self.server.port, timeout_s), int(operation != "list")
        row = stress.Row(server, operation, volume_mb, 6, f"{HERE}:{engine}")
        return stress.summarise(stress.measure(row))

    def test_it_is_told_the_size_if_it_wants_to_know(self) -> None:
        for name, slots in (("OwnExecutor", 7), ("fixed", 2)):
            executor = stress.make_executor(f"{HERE}:{name}", 7)
            self.addCleanup(executor.shutdown)
            self.assertEqual(getattr(executor, "slots", None), slots)

    def test_every_operation_on_every_kind(self) -> None:
        for operation, engine in (("list", "OwnExecutor"), ("download", "fixed"), ("upload", "elsewhere")):
            with self.subTest(operation=operation, engine=engine):
                result = self.measure(engine, operation)
                self.assertEqual((result["client_sukses"], result["galat"], result["model_client"]),
                                 (6, "", f"{HERE}:{engine}"))
                self.assertLess(result["waktu_dinding_s"], 100)  # whatever that clock said
                self.assertIsNone(result["memori_client_byte"])

    def test_one_whose_worker_dies_costs_the_time_out_and_a_little(self) -> None:
        with patch.object(stress, "MARGIN_S", 0.2):
            result = self.measure("Dying", timeout_s=0.3)
        self.assertEqual((result["client_sukses"], result["galat"]), (0, f"client:6 ({stress.NO_ANSWER})"))

    def test_one_that_does_not_start(self) -> None:
        with patch.multiple(stress, START_TIMEOUT_S=0.05, run_client=stress.get_ready), \
                self.assertRaisesRegex(stress.EngineError, "tidak siap"):
            self.measure("Dying")

    def test_one_whose_workers_lack_our_modules(self) -> None:
        with self.assertRaisesRegex(stress.EngineError, "ModuleNotFoundError"):
            self.measure("refusing")


class Mistakes(unittest.TestCase):
    """What may be wrong with an engine: one line, and no traceback."""

    def test_they_are_said(self) -> None:
        line = Path(__file__).read_text(encoding="utf-8").split("1 // 0")[0].count("\n") + 1
        for engine, words in (("not_there", "AttributeError"), ("nothing_to_call", "not callable"),
                              ("no_executor", "bukan Executor"), ("broken", f"test_engines.py:{line}")):
            with self.subTest(engine=engine), self.assertRaisesRegex(stress.EngineError, words):
                stress.make_executor(f"{HERE}:{engine}", 1)

    def test_a_program_ends_although_a_thread_hangs(self) -> None:
        done = run_script("file_client_stress_test.py", "--executor", f"{HERE}:stuck", "--operation", "list",
                          cwd=ROOT)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^galat: mesin beban .* OSError: no cluster there .*\n$")


@unittest.skipUnless(ENGINES_PYTHON, "ENGINES_PYTHON: one with .ci/requirements-engines.txt")
class RealEngines(unittest.TestCase):
    """Engines that people already run, as the documentation says, against a process server."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.server = ServerProcess(5, "process")
        self.addCleanup(self.server.close)

    def assert_works(self, command: list[str], engine: str, operation: str, clients: int, used: int) -> None:
        """Measure a row, and hold it to how many processes it used."""
        done = subprocess.run(
            [*command, str(ROOT / "file_client_stress_test.py"), "--port", str(self.server.client.port),
             "--operation", operation, "--volume", "1", "--clients", str(clients), "--executor", engine,
             "--json"], cwd=self.folder, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        raw = json.loads(done.stdout)
        row = stress.summarise(raw)
        self.assertEqual([row[name] for name in ("client_sukses", "server_gagal", "permintaan_sukses")],
                         [clients, 0, clients])
        self.assertEqual(len({outcome["process"] for outcome in raw["outcomes"]}), used)

    def run_in_background(self, *arguments: str) -> Path:
        """Run a module until the test ends; return its log."""
        log = self.folder / f"{arguments[0]}.log"
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen([ENGINES_PYTHON, "-m", *arguments], cwd=self.folder,
                                       stdin=subprocess.DEVNULL, stdout=file, stderr=file)

        def stop() -> None:
            children = children_of(process.pid)
            process.terminate()
            process.wait(60)
            wait_until(lambda: not alive(children), f"{arguments[0]} is gone")

        self.addCleanup(stop)
        return log

    def test_dask(self) -> None:
        text = (ROOT / "docs" / "many-hosts.md").read_text(encoding="utf-8")
        engine, = re.findall(r"```python\n(.*?distributed.*?)```", text, re.DOTALL)
        found = self.folder / "scheduler.json"
        self.run_in_background("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                               "--no-dashboard", "--scheduler-file", str(found))
        wait_until(found.exists, "the scheduler listens")
        log = self.run_in_background("distributed.cli.dask_worker", "--scheduler-file", str(found), "--host",
                                     "127.0.0.1", "--nworkers", "2", "--nthreads", "10", "--no-dashboard")
        wait_until(lambda: log.read_text(encoding="utf-8").count("Registered to:") == 2, "two workers")
        address = json.loads(found.read_text(encoding="utf-8"))["address"]
        engine, count = re.subn(r"tcp://[0-9.]+:8786", address, engine)
        self.assertEqual(count, 1)
        engine = engine.replace("/path/to/repository", str(ROOT))
        (self.folder / "dask_engine.py").write_text(engine, encoding="utf-8")
        self.assert_works([ENGINES_PYTHON], "dask_engine:cluster", "upload", 20, 2)
        self.assert_works([ENGINES_PYTHON], "dask_engine:cluster", "download", 32, 2)  # on 20 threads

    def test_mpi(self) -> None:
        mpiexec = str(Path(ENGINES_PYTHON).with_name("mpiexec"))
        for processes, operation in ((6, "download"), (3, "upload")):
            self.assert_works([mpiexec, "-n", str(processes), ENGINES_PYTHON, "-m", "mpi4py.futures"],
                              "mpi4py.futures:MPIPoolExecutor", operation, 5, processes - 1)


if __name__ == "__main__":
    unittest.main()
