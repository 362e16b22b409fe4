"""The engines that run the clients: the interface on one made here, and Dask and MPI where they are installed."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import file_client_stress_test as stress
from tests.support import ROOT, RunningServer, ServerProcess, children_of, run_script, wait_until
from tests.test_faults import alive
from tests.test_stress import row_of

HERE = "tests.test_engines"
WAITED = "client baru mendapat tempat"
ENGINES_PYTHON = os.environ.get("ENGINES_PYTHON", sys.executable)  # one that has distributed and mpi4py
HAS_ENGINES = "ENGINES_PYTHON" in os.environ or bool(
    importlib.util.find_spec("distributed") and importlib.util.find_spec("mpi4py"))


# ---- an engine of the smallest kind, and what may be wrong with one


class OwnExecutor(Executor):
    """Whatever goes to a worker, or comes from it, travels as bytes; no call may equal another, as in Dask; and
    shutdown() knows no cancel_futures, as there."""

    def __init__(self, slots: int, run: Callable[..., Any] = lambda function, *arguments: function(*arguments)) -> None:
        """`run` is what a worker does with a task."""
        self.slots = slots
        self._threads = ThreadPoolExecutor(slots)
        self._run = run
        self._seen: set[bytes] = set()

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        task = pickle.dumps((function, arguments))
        if task in self._seen:
            raise AssertionError("the same call again")
        self._seen.add(task)
        return self._threads.submit(lambda: pickle.loads(pickle.dumps(self._run(*_unpacked(task)))))

    def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
        self._threads.shutdown(wait)


def _unpacked(task: bytes) -> list[Any]:
    function, arguments = pickle.loads(task)
    return [function, *arguments]


def sized(max_workers: int) -> Executor:
    return OwnExecutor(max_workers)


def fixed() -> Executor:
    return OwnExecutor(2)


def ahead(max_workers: int) -> Executor:
    return OwnExecutor(max_workers, lambda function, *arguments: on_clock(1000.0, function, *arguments))


def behind(max_workers: int) -> Executor:
    return OwnExecutor(max_workers, lambda function, *arguments: on_clock(-1000.0, function, *arguments))


def on_clock(skew_s: float, function: Any, *arguments: Any) -> Any:
    """Run a task as a host would whose clock is `skew_s` ahead: to it, all other clocks are as much behind."""
    if function is not stress.run_client:
        return function(*arguments)
    job, = arguments
    outcome = stress.run_client(replace(job, start_at=job.start_at - skew_s, sent_at=job.sent_at - skew_s))
    return replace(outcome, sent_at=outcome.sent_at + skew_s, taken_at=outcome.taken_at + skew_s,
                   done_at=outcome.done_at + skew_s)


def elsewhere(max_workers: int) -> Executor:
    """An engine on another host: the test file is not there."""
    def run(function: Any, *arguments: Any) -> Any:
        if function is stress.run_client:
            return function(replace(arguments[0], path="/nowhere/uji.bin"))
        return function("/nowhere/uji.bin", *arguments[1:])
    return OwnExecutor(max_workers, run)


def no_executor() -> object:
    return object()


def broken() -> Executor:
    return OwnExecutor(1 // 0)  # the bug that is to be found


def refusing() -> Executor:
    return OwnExecutor(1, lambda function, *arguments: pickle.loads(b"cnot_there\nrun\n."))


class Silent(OwnExecutor):
    """An engine that never answers."""

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        return Future()

    def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
        if wait:
            raise AssertionError("waits for what never comes")


def silent() -> Executor:
    return Silent(1)


def stuck() -> Executor:
    threading.Thread(target=threading.Event().wait).start()  # what would keep a process from ending
    raise OSError("no cluster there")


nothing_to_call = "text"


class Interface(unittest.TestCase):
    """Any callable that returns an Executor is an engine."""

    def setUp(self) -> None:
        self.server = RunningServer("thread", workers=4)
        self.addCleanup(self.server.stop)

    def measure(self, engine: str, operation: str = "upload", clients: int = 6) -> dict[str, Any]:
        measured = stress.measure(row_of(self.server.port, operation, clients, f"{HERE}:{engine}"))
        result = stress.summarise(measured)
        self.assertEqual((result["client_sukses"], result["galat"], result["model_client"]),
                         (clients, "", f"{HERE}:{engine}"))
        return result

    def test_it_is_told_the_size_if_it_wants_to_know(self) -> None:
        for name, slots in (("sized", 7), ("fixed", 2)):
            executor = stress.make_executor(f"{HERE}:{name}", 7)
            self.addCleanup(executor.shutdown)
            self.assertEqual(getattr(executor, "slots", None), slots)
        executor = stress.make_executor("concurrent.futures:ThreadPoolExecutor", 7)
        self.addCleanup(executor.shutdown)
        self.assertEqual(getattr(executor, "_max_workers", None), 7)

    def test_every_operation(self) -> None:
        for operation in stress.OPERATIONS:
            with self.subTest(operation=operation):
                result = self.measure("sized", operation)
                self.assertNotIn(WAITED, result["catatan"])
                self.assertNotIn("jam host", result["catatan"])
                self.assertEqual(result["selisih_jam_maks_s"], 0)

    def test_too_few_slots_are_counted_and_said(self) -> None:
        result = self.measure("fixed")
        self.assertIn(f"4 {WAITED}", result["catatan"])
        self.assertIn(f"4 {WAITED}", stress.row_text(result))

    def test_clocks_that_disagree(self) -> None:
        for engine in ("ahead", "behind"):
            with self.subTest(engine=engine):
                result = self.measure(engine)
                self.assertGreater(result["selisih_jam_maks_s"], 900)
                self.assertLessEqual(result["selisih_jam_maks_s"], 1000)
                self.assertRegex(result["catatan"], r"jam host berbeda sedikitnya [0-9.]+ s")
                self.assertLess(result["selisih_mulai_maks_s"], 100)  # of the true time
                self.assertLess(result["waktu_dinding_s"], 100)
                self.assertNotIn(WAITED, result["catatan"])

    def test_where_the_test_file_is_not_it_is_made_before_the_start(self) -> None:
        blocks = stress.test_blocks
        jobs: list[stress.Job] = []

        def slow_blocks(seed: str, volume_bytes: int) -> Iterator[bytes]:
            time.sleep(0.3)  # a large file
            return blocks(seed, volume_bytes)

        submit = stress._submit

        def see(executor: Executor, back_at: dict[int, float], job: stress.Job) -> Future[stress.Outcome]:
            jobs.append(job)
            return submit(executor, back_at, job)

        with patch.object(stress, "test_blocks", slow_blocks), patch.object(stress, "_submit", see):
            self.measure("elsewhere", clients=3)
        self.assertGreater(jobs[0].start_at - jobs[0].sent_at, 0.9)  # one after another, if need be

    def test_an_engine_that_never_answers(self) -> None:
        with patch.object(stress, "START_TIMEOUT_S", 0.05), self.assertRaisesRegex(stress.EngineError, "tidak siap"):
            self.measure("silent")

    def test_only_plain_and_little_data_travels(self) -> None:
        job = stress.Job(1, self.server.client, "upload", "a", 100 * stress.MB, 1, "/x", "seed", True, 1.0, 1.0)
        outcome = stress.failed_outcome(1, "client", "x")
        for one in (job, outcome):
            self.assertEqual(json.loads(json.dumps(asdict(one))), asdict(one))
            self.assertEqual(pickle.loads(pickle.dumps(one)), one)
            self.assertLess(len(pickle.dumps(one)), 1000)
        self.assertLess(len(pickle.dumps(stress.run_client)), 100)  # its name


class Mistakes(unittest.TestCase):
    """What may be wrong with an engine: one line, and no traceback."""

    def assert_refused(self, engine: str, *words: str, script: str = "file_client_stress_test.py") -> None:
        needed = ["--operation", "list"] if script == "file_client_stress_test.py" else []
        done = run_script(script, *needed, "--executor", engine, "--port" if needed else "--volumes", 1)
        with self.subTest(engine=engine, script=script):
            self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertTrue(done.stderr.startswith("galat: "), done.stderr)
            for word in (engine, *words):
                self.assertIn(word, done.stderr)

    def test_they_are_said(self) -> None:
        line = (ROOT / "tests" / "test_engines.py").read_text(encoding="utf-8").split("1 // 0")[0].count("\n") + 1
        self.assert_refused("threads", "thread", "process", "MODUL:FUNGSI")
        self.assert_refused("not_there:run", "ModuleNotFoundError", "not_there")
        self.assert_refused(f"{HERE}:not_there", "AttributeError")
        self.assert_refused(f"{HERE}:nothing_to_call", "bukan fungsi")
        self.assert_refused(f"{HERE}:no_executor", "bukan Executor")
        self.assert_refused(f"{HERE}:broken", "ZeroDivisionError", f"test_engines.py:{line}")
        self.assert_refused(f"{HERE}:stuck", "OSError: no cluster there")
        self.assert_refused(f"{HERE}:refusing", "ModuleNotFoundError")  # what a worker says that lacks our modules
        self.assert_refused("not_there:run", "ModuleNotFoundError", script="run_for_test.py")


class WholeTable(unittest.TestCase):
    """run_for_test.py with an engine of the user's own, in the user's folder."""

    def test_an_engine_in_the_current_directory_is_a_client_model(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "mine.py").write_text("from concurrent.futures import ThreadPoolExecutor as pool\n")
            output = Path(folder, "hasil")
            done = run_script("run_for_test.py", "--quick", "--operations", "upload", "--client-workers", 3,
                              "--server-workers", 2, "--server-models", "thread", "--host",
                              "127.0.0.2" if sys.platform == "linux" else "127.0.0.1",
                              "--executor", "thread,mine:pool", "--output", output, cwd=folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(output / "rekap.csv", newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            self.assertEqual([(row["model_client"], row["client_sukses"]) for row in rows],
                             [("thread", "3"), ("mine:pool", "3")])
            Path(folder, "mine.py").write_text("def pool():\n    raise OSError('no cluster there')\n")
            gone = run_script("run_for_test.py", "--quick", "--client-workers", 1, "--server-workers", 1,
                              "--executor", "mine:pool", "--output", Path(folder, "gone"), cwd=folder)
            self.assertEqual(gone.returncode, 3, gone.stderr)
            self.assertIn("mesin beban mine:pool tidak dapat dipakai", gone.stderr)
            self.assertIn("no cluster there", Path(folder, "gone", "log.txt").read_text(encoding="utf-8"))
            self.assertEqual(Path(folder, "gone", "mentah.jsonl").read_bytes(), b"")  # nothing that was not run
            again = run_script("run_for_test.py", "--resume", output, cwd=ROOT)  # from where it cannot be found
            self.assertEqual((again.returncode, "mine" in again.stderr), (2, True), again.stderr)


@unittest.skipUnless(HAS_ENGINES, "needs distributed and mpi4py: .ci/requirements-engines.txt, ENGINES_PYTHON")
class RealEngines(unittest.TestCase):
    """Engines that people already run, as the README says, against a process server."""

    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.server = ServerProcess(5, "process")
        self.addCleanup(self.server.close)

    def row(self, command: list[str], engine: str, operation: str, clients: int) -> tuple[dict[str, Any], set[str]]:
        """Run one row; return its columns, and the processes that its clients were in."""
        output = Path(self.folder.name, f"{operation}-{clients}.csv")
        done = subprocess.run(
            [*command, str(ROOT / "file_client_stress_test.py"), "--port", str(self.server.client.port), "--operation",
             operation, "--volume", "1", "--clients", str(clients), "--executor", engine, "--output", str(output),
             "--json"], cwd=self.folder.name, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(output, newline="", encoding="utf-8") as file:
            row, = csv.DictReader(file)
        self.assertEqual((row["client_sukses"], row["server_gagal"], row["permintaan_sukses"], row["model_client"]),
                         (str(clients), "0", str(clients), engine))
        self.assertEqual(row["selisih_jam_maks_s"], "0.0")  # it is one clock
        return row, {outcome["process"] for outcome in json.loads(done.stdout)["outcomes"]}

    def run_in_background(self, *arguments: str) -> Path:
        """Run a module until the test ends; return its log."""
        log = Path(self.folder.name, f"{arguments[0]}.log")
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen([ENGINES_PYTHON, "-m", *arguments], cwd=self.folder.name,
                                       stdin=subprocess.DEVNULL, stdout=file, stderr=file)

        def stop() -> None:
            children = children_of(process.pid)
            process.terminate()
            process.wait(60)
            wait_until(lambda: not alive(children), f"{arguments[0]} is gone")

        self.addCleanup(stop)
        return log

    def test_dask(self) -> None:
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        engine, = re.findall(r"```python\n(.*?distributed.*?)```", readme, re.DOTALL)
        found = Path(self.folder.name, "scheduler.json")
        self.run_in_background("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                               "--scheduler-file", str(found))
        wait_until(found.exists, "the scheduler listens")
        log = self.run_in_background("distributed.cli.dask_worker", "--scheduler-file", str(found), "--host",
                                     "127.0.0.1", "--nworkers", "2", "--nthreads", "10", "--no-dashboard")
        wait_until(lambda: log.read_text(encoding="utf-8").count("Registered to:") == 2, "two workers")
        address = json.loads(found.read_text(encoding="utf-8"))["address"]
        engine, count = re.subn(r"tcp://[0-9.]+:8786", address, engine)
        self.assertEqual(count, 1)
        engine = engine.replace("/path/to/repository", str(ROOT))
        Path(self.folder.name, "dask_engine.py").write_text(engine, encoding="utf-8")

        row, processes = self.row([ENGINES_PYTHON], "dask_engine:cluster", "upload", 20)
        self.assertEqual(len(processes), 2)
        self.assertNotIn(WAITED, row["catatan"])
        row, processes = self.row([ENGINES_PYTHON], "dask_engine:cluster", "download", 32)  # on 20 threads
        self.assertEqual(len(processes), 2)
        self.assertIn(f"12 {WAITED}", row["catatan"])

    def test_mpi(self) -> None:
        mpiexec = str(Path(ENGINES_PYTHON).with_name("mpiexec"))
        for processes, waiting in ((6, 0), (3, 3)):
            row, used = self.row([mpiexec, "-n", str(processes), ENGINES_PYTHON, "-m", "mpi4py.futures"],
                                 "mpi4py.futures:MPIPoolExecutor", "upload" if waiting else "download", 5)
            self.assertEqual(len(used), processes - 1)
            self.assertEqual(f"{waiting} {WAITED}" in row["catatan"], waiting > 0, row["catatan"])


if __name__ == "__main__":
    unittest.main()
