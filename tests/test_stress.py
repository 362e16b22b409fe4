"""The stress client: one row, against servers of all kinds and through networks that are not kind."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import file_client_stress_test as stress
from file_client_cli import Server, remote_list
from tests.support import ROOT, CourseServer, Relay, RunningServer, at_once, run_script, wait_until

LINUX = unittest.skipUnless(sys.platform == "linux", "limits and leftovers as Linux has them")
run_row = partial(run_script, "file_client_stress_test.py")
SERVER_COUNTS = ("server_sukses", "server_gagal", "server_menganggur")


def measure(port: int, operation: str = "download", clients: int = 3, pool: str = "thread",
            timeout_s: float = 5.0, volume_mb: int = 1, folder: str = "", **more: Any) -> dict[str, Any]:
    """Measure a row; return its raw data, as they reach run_for_test.py."""
    row = stress.Row(Server("127.0.0.1", timeout_s=timeout_s), operation, volume_mb * (operation != "list"),
                     clients, pool, **more)
    with tempfile.TemporaryDirectory() as temporary, \
            stress.measure(row, Path(folder or temporary), lambda: port) as raw:
        return dict(json.loads(json.dumps(raw)))


def result_of(port: int, *arguments: Any, **more: Any) -> dict[str, Any]:
    return stress.summarise(measure(port, *arguments, **more))


def some(result: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(result[name] for name in names)


class Case(unittest.TestCase):
    def serve(self, mode: str = "thread", workers: int = 2) -> RunningServer:
        running = RunningServer(mode, workers=workers)
        self.addCleanup(running.close)
        return running

    def serve_other(self, reply: Callable[[str], object] | None = None) -> int:
        """Run a server that is not ours, see CourseServer; return its port."""
        server = CourseServer("closes after each reply", reply=reply)
        self.addCleanup(server.close)
        return server.port


class EveryServer(Case):
    """Every operation, pool and encoding against each of our servers."""

    def check(self, result: dict[str, Any]) -> None:
        """Hold a row to the arithmetic that any reader can do."""
        self.assertEqual(some(result, "client_sukses", "client_gagal", "galat"), (3, 0, ""), result)
        counts = some(result, "server_gagal", "permintaan_sukses", "permintaan_gagal")
        self.assertEqual(counts, (0, 3, 0), result)
        self.assertNotIn("hitungan", result["catatan"])
        if workers := result["server_worker_pool"]:
            self.assertEqual(result["server_sukses"] + result["server_menganggur"], workers)
        order = some(result, "total_min_s", "total_p50_s", "total_p95_s", "total_maks_s", "waktu_dinding_s")
        self.assertEqual(list(order), sorted(order))
        if volume_mb := result["volume_mb"]:
            product = result["waktu_total_per_client_s"] * result["throughput_per_client_byte_per_s"]
            self.assertLess(abs(product / (volume_mb * stress.MB) - 1), 0.001)
            self.assertGreater(min(some(result, "koneksi_rata_s", "antre_rata_s", "byte_pertama_rata_s")), 0)
            self.assertGreaterEqual(result["transfer_rata_s"], 0)
        if sys.platform == "linux":
            for column in ("memori_server_byte", "memori_client_byte", "memori_puncak_client_byte"):
                self.assertGreater(result[column], 1 << 20)

    def test_every_operation_pool_encoding_and_server(self) -> None:
        def check(*pairs: tuple[str, str]) -> None:
            for mode, pool in pairs:
                running = self.serve(mode)
                (running.directory / "mine").write_bytes(b"untouched")
                for operation, encoding in itertools.product(stress.OPERATIONS, stress.ENCODINGS):
                    raw = measure(running.port, operation, pool=pool, encoding=encoding)
                    result = stress.summarise(raw)
                    self.check(result)
                    self.assertEqual((result["model_server"], tuple(result)), (mode, stress.COLUMNS))
                    processes = {one["process"] for one in raw["outcomes"]}
                    self.assertEqual(len(processes), 3 if pool == "process" else 1, (operation, encoding))
                    self.assertEqual(remote_list(running.client), ["mine"])

        at_once(self, check, [("legacy", "thread"), ("thread", "thread")],
                [("thread", "process"), ("process", "thread")])  # one pool of processes at a time

    def test_one_worker_and_many_clients_shows_as_queueing(self) -> None:
        running = self.serve(workers=1)
        for operation in ("download", "upload"):
            result = result_of(running.port, operation, 8)
            self.assertGreater(result["antre_rata_s"], result["transfer_rata_s"])
            self.assertEqual(some(result, *SERVER_COUNTS), (1, 0, 0))

    def test_the_file_in_the_folder_is_made_once_and_the_served_one_is_used(self) -> None:
        running = self.serve()
        with tempfile.TemporaryDirectory() as name:
            path = stress.make_test_file(Path(name), 1)
            (running.directory / "here.bin").write_bytes(path.read_bytes())
            inode = path.stat().st_ino
            result = result_of(running.port, name="here.bin", folder=name)
            self.assertEqual((result["client_sukses"], path.stat().st_ino), (3, inode))
            path.write_bytes(b"cut")
            self.assertEqual(stress.make_test_file(Path(name), 1).stat().st_size, stress.MB)
        self.assertEqual(remote_list(running.client), ["here.bin"])

    def test_the_test_file_is_random_and_repeatable(self) -> None:
        first, again, other = (b"".join(stress.random_blocks(seed, 3 * stress.MB + 5)) for seed in "aab")
        self.assertEqual((first, len(first)), (again, 3 * stress.MB + 5))
        self.assertEqual(len({first[at:at + stress.MB] for at in range(0, len(first), stress.MB)}), 4)
        self.assertGreater(min(map(first[:stress.MB].count, range(256))), 3700)  # of 4096 expected of each
        self.assertNotEqual(first, other)


class Others(Case):
    """Servers of others, whose words are not believed, and a proxy that spoils what one client gets."""

    def test_one_of_four_clients_has_bad_luck(self) -> None:
        def check(galat: str, catatan: str, spoil: Callable[[int, bytes], Any], more: Any) -> None:
            def spoil_one(number: int, before: int, data: bytes) -> Any:
                return spoil(before, data) if number == 3 and before else data  # 0 and 1 prepare the row

            running = self.serve(workers=4)
            relay = Relay(running.port, spoil_one)
            self.addCleanup(relay.close)
            self.addCleanup(over.set)  # first, as clean-ups go backwards
            result = result_of(relay.port, clients=4, **more)
            self.assertRegex(result["galat"], rf"^({galat})\)$")
            self.assertEqual(some(result, "client_sukses", "client_gagal"), (3, 1))
            self.assertIn(catatan, result["catatan"])
            self.assertEqual(remote_list(running.client), [])
            if more:
                self.assertEqual(some(result, *SERVER_COUNTS), (3, 1, 0))  # the one that is stuck

        over, both = threading.Event(), "client 3 sukses 1 gagal, server 4 sukses 0 gagal"
        with patch.object(stress, "SETTLE_S", 0.5):
            at_once(self, check,
                    (r"integritas:1 \(.*CRC-32.*", both, lambda _, data: data.replace(b"A", b"B", 1), {}),
                    (r"putus:1 \(.+", "", lambda before, data: None, {}),
                    (r"(integritas|protokol):1 \(.+", "", lambda before, data: data * 2, {}),
                    (r"timeout:1 \(.+", "1 worker masih sibuk di akhir",
                     lambda before, data: over.wait(20.0) and data,
                     {"timeout_s": 1.5, "volume_mb": 16, "encoding": "raw"}))

    def test_what_is_said_of_uploads_is_not_believed(self) -> None:
        def check(said: object, succeeded: int, why: str) -> None:
            port = self.serve_other(lambda request: b"" if request.startswith("GET") else said)
            result = result_of(port, "upload", 2)
            self.assertEqual(some(result, "client_sukses", "server_sukses"), (succeeded, None))
            self.assertEqual(result["waktu_total_per_client_s"] is None, not succeeded)
            self.assertIn(why, (result["galat"].partition(":")[0], result["catatan"]))

        at_once(self, check, ({"data_crc32": "00000000"}, 0, "integritas"),
                ({"status": "FAILED", "message": "no"}, 0, "server"),
                ({"data": "stored"}, 2, "tidak diperiksa"))

    def test_stats_that_are_none(self) -> None:
        def check(said: object) -> None:
            port = self.serve_other(lambda request: said if request == "STATS" else {"data": ["a.txt"]})
            result = result_of(port, "list")
            self.assertEqual(some(result, "client_sukses", "server_sukses"), (3, None))

        at_once(self, check, (b"?",), ({"data": {}},), ({"status": "FAILED", "message": "no"},))
        done = run_row("--port", self.serve_other(), "--operation", "list")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^0,\d+ detik; client_sukses 1; client_gagal 0\n$")


def outcome(total_s: float, cause: str = "", **more: Any) -> stress.Outcome:
    fields: dict[str, Any] = {
        "cause": cause, "size_bytes": 0 if cause else stress.MB, "checked": True, "connect_s": 0.001,
        "queue_s": 0.1, "first_byte_s": 0.2, "total_s": total_s, "process": "h/1", "cpu_from_s": 1.0,
        "cpu_to_s": 2.0}
    return stress.Outcome(**fields | more)


def stats(*workers: tuple[int, int, int, int]) -> dict[str, Any]:
    keys = ("succeeded", "failed", "died", "busy")
    return {"mode": "process", "workers": 5, "cpu_s": 1.0, "memory_bytes": 7, "peak_memory_bytes": 5,
            "succeeded": sum(worker[0] for worker in workers), "failed": sum(worker[1] for worker in workers),
            "per_worker": [dict(zip(keys, worker, strict=True)) for worker in workers]}


class Arithmetic(unittest.TestCase):
    """The sums, on numbers made up here."""

    def summary(self, *outcomes: stress.Outcome, **more: Any) -> dict[str, Any]:
        raw: dict[str, Any] = {
            "model_client": "thread", "operasi": "upload", "volume_mb": 1, "encoding": "base64",
            "client_worker_pool": len(outcomes), "cores": None, "before": None, "after": None,
            "outcomes": [asdict(one) for one in outcomes]}
        return stress.summarise(raw | more)

    def test_failed_clients_do_not_count_towards_time_or_bytes_but_cpu(self) -> None:
        result = self.summary(outcome(1.0), outcome(3.0, cpu_to_s=4.0), outcome(
            50.0, "timeout", late_s=0.5, process="h/2", cpu_from_s=0.5, cpu_to_s=1.0))
        self.assertEqual(some(result, "waktu_total_per_client_s", "waktu_dinding_s"), (2.0, 50.5))
        self.assertEqual(result["throughput_per_client_byte_per_s"], stress.MB / 2)
        self.assertEqual(some(result, "client_sukses", "client_gagal", "galat"), (2, 1, "timeout:1 ()"))
        self.assertEqual(some(result, "total_min_s", "total_p50_s", "total_maks_s"), (1.0, 2.0, 3.0))
        self.assertEqual(some(result, "antre_rata_s", "byte_pertama_rata_s"), (0.1, 0.2))
        self.assertEqual(some(result, "transfer_rata_s", "cpu_client_s"), (1.899, 3.5))

    def test_nobody_succeeded(self) -> None:
        result = self.summary(*(outcome(1.0, cause, message=message) for cause, message in (
            [("putus", "a b"), ("ditolak", "x"), ("putus", "z"), ("putus", "a b")])))
        self.assertEqual(result["galat"], "ditolak:1 (x); putus:3 (a b)")
        for name in ("waktu_total_per_client_s", "throughput_total_byte_per_s", "total_p50_s"):
            self.assertIsNone(result[name])
        self.assertEqual(stress.row_text(result), "client gagal: 4 dari 4 (x); putus:3 (a b)")

    def test_workers_are_told_apart(self) -> None:
        pairs = (((3, 1, 0, 0), (5, 1, 0, 0)), ((1, 0, 0, 0), (1, 0, 0, 0)), ((0, 0, 0, 0), (4, 1, 0, 0)),
                 ((0, 0, 0, 0), (0, 0, 1, 0)), ((7, 0, 0, 0), (8, 0, 0, 0)), ((2, 0, 0, 0), (2, 0, 0, 1)))
        before, after = (stats(*column) for column in zip(*pairs, strict=True))
        result = self.summary(outcome(1.0), before=before, after=after | {"cpu_s": 3.5})
        self.assertEqual(some(result, *SERVER_COUNTS), (2, 3, 1))
        self.assertEqual(some(result, "permintaan_sukses", "permintaan_gagal", "cpu_server_s"), (7, 1, 2.5))
        self.assertEqual(some(result, "memori_server_byte", "memori_puncak_server_byte"), (7, 5))
        self.assertIn("1 worker masih sibuk", result["catatan"])

    def test_remarks(self) -> None:
        def remarks(cpu_s: float, clients: int = 5, **more: Any) -> str:
            ones = [outcome(10.0, cpu_to_s=1.0 + cpu_s) for number in range(clients)]
            return str(self.summary(*ones, before=stats((0, 0, 0, 0)), **{
                "cores": 2, "after": stats((clients, 0, 0, 0))} | more)["catatan"])

        self.assertEqual(remarks(9.9), "mesin dipakai pihak lain")
        for others in ((6, 0, 0, 0), (5, 1, 0, 0)):
            self.assertRegex(remarks(10.1, after=stats(others)), "^hitungan berbeda: client 5 sukses 0 gagal")
        for ours in (remarks(10.1), remarks(9.9, 4), remarks(9.9, encoding="raw"), remarks(9.9, cores=None)):
            self.assertEqual(ours, "")
        for total_s, remark in ((1.0, "mulai tidak serempak"), (9.0, "")):
            self.assertEqual(self.summary(outcome(total_s), outcome(total_s, late_s=0.2))["catatan"], remark)


class ByHand(Case):
    """file_client_stress_test.py, as a person runs it."""

    def test_what_keeps_it_from_starting_is_said(self) -> None:
        other = self.serve_other()

        def check(code: int, words: str, *arguments: object) -> None:
            done = run_row("--operation", "upload", *arguments)
            self.assertEqual((done.returncode, done.stdout), (code, ""))
            self.assertRegex(done.stderr, rf"^galat: {words}.*\n$")

        at_once(self, check, (2, "volume harus", "--clients", 0), (2, "volume harus", "--volume", 0),
                (2, "batas waktu", "--timeout", 0), (3, "server tidak ada", "--port", 1),
                (3, "/nowhere", "--folder", "/nowhere", "--port", 1),
                (3, "baris raw tidak dapat diukur", "--port", other, "--encoding", "raw"))

    @LINUX
    def test_limits_of_the_system(self) -> None:
        import resource

        def check(clients: int, kind: int, limits: tuple[int, int], code: int, said: str) -> None:
            done = run_row("--port", port, "--operation", "list", "--clients", clients, timeout_s=20.0,
                           preexec_fn=lambda: resource.setrlimit(kind, limits))
            self.assertEqual((done.returncode, done.stderr.count("\n")), (code, code // 3), done.stderr)
            self.assertIn(said, done.stdout)

        port = self.serve().port
        at_once(self, check, (400, resource.RLIMIT_AS, (1 << 29, 1 << 29), 3, ""),
                (150, resource.RLIMIT_NOFILE, (200, 4096), 0,
                 "detik; client_sukses 150; client_gagal 0; server_"))

    @LINUX
    def test_interrupted_it_leaves_nothing_here_or_on_the_server(self) -> None:
        def check(pool: str, number: int) -> None:
            with tempfile.TemporaryDirectory() as temporary:
                running = self.serve(workers=1)
                process = subprocess.Popen(
                    [sys.executable, str(ROOT / "file_client_stress_test.py"), "--port", str(running.port),
                     "--operation", "upload", "--volume", "50", "--clients", "8", "--pool", pool],
                    stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": temporary})
                wait_until(running.names, "uploads have begun")
                process.send_signal(number)
                _, err = process.communicate(timeout=20)
                self.assertEqual((process.returncode, err, os.listdir(temporary)), (130, "", []))
                wait_until(lambda: not running.names(), "nothing is left")

        at_once(self, check, ("thread", signal.SIGTERM), ("process", signal.SIGINT))
