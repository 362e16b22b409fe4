"""The stress client: one row, against servers of all kinds and through networks that are not kind."""

from __future__ import annotations

import csv
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import file_client_stress_test as stress
from file_client_cli import Server, remote_list
from tests.support import ROOT, OtherServer, Relay, RunningServer, ServerProcess, run_script, wait_until


def row_of(port: int, operation: str = "download", clients: int = 3, pool: str = "thread",
           timeout_s: float = 5.0, volume_mb: int = 1, **more: Any) -> stress.Row:
    return stress.Row(Server("127.0.0.1", port, timeout_s), operation,
                      volume_mb * (operation != "list"), clients, pool, **more)


def some(result: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(result[name] for name in names)


def result_of(row: stress.Row, **options: Any) -> dict[str, Any]:
    return stress.summarise(stress.measure(row, **options))


def answering(answer: Callable[[bytes], bytes]) -> OtherServer:
    """Run a server that is not ours: `answer` returns what it says to a request, b"" for hanging up."""
    def talk(connection: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            piece = connection.recv(1 << 20)
            if not piece:
                return
            request += piece
        connection.sendall(answer(request))

    return OtherServer(talk)


def reply(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\r\n\r\n"


class EveryServer(unittest.TestCase):
    """Every operation, pool and encoding against each of our servers."""

    def check(self, result: dict[str, Any], volume_bytes: int) -> None:
        """Hold a row to the arithmetic that any reader can do."""
        self.assertEqual(some(result, "client_sukses", "client_gagal", "galat"), (3, 0, ""))
        self.assertEqual(some(result, "server_gagal", "permintaan_sukses", "permintaan_gagal"), (0, 3, 0))
        self.assertNotIn("hitungan", result["catatan"])
        if workers := result["server_worker_pool"]:
            self.assertEqual(result["server_sukses"] + result["server_menganggur"], workers)
        order = [result[f"total_{name}_s"] for name in ("min", "p50", "p95", "maks")]
        self.assertEqual(order, sorted(order))
        self.assertLessEqual(order[-1], result["waktu_dinding_s"] + 1e-5)
        if volume_bytes:
            product = result["waktu_total_per_client_s"] * result["throughput_per_client_byte_per_s"]
            self.assertLess(abs(product / volume_bytes - 1), 0.001)
            for column in ("koneksi_rata_s", "antre_rata_s", "byte_pertama_rata_s", "transfer_rata_s"):
                self.assertGreater(result[column], 0)
        if sys.platform == "linux":
            for column in ("memori_server_byte", "memori_client_byte", "memori_puncak_client_byte"):
                self.assertGreater(result[column], 1 << 20)

    def test_every_operation_pool_encoding_and_server(self) -> None:
        for mode, pools in (("legacy", "t"), ("thread", "tp"), ("process", "t")):
            running = RunningServer(mode, workers=2)
            self.addCleanup(running.stop)
            running.write("mine", b"untouched")
            for pool in ({"t": "thread", "p": "process"}[letter] for letter in pools):
                for operation in stress.OPERATIONS:
                    for encoding in stress.ENCODINGS[:2 if operation != "list" else 1]:
                        with self.subTest(mode=mode, pool=pool, operation=operation, encoding=encoding):
                            raw = stress.measure(row_of(running.port, operation, 3, pool, encoding=encoding))
                            result = stress.summarise(json.loads(json.dumps(raw)))
                            self.check(result, 0 if operation == "list" else stress.MB)
                            self.assertEqual((result["model_server"], tuple(result)), (mode, stress.COLUMNS))
                            self.assertEqual(len({one["process"] for one in raw["outcomes"]}),
                                             3 if pool == "process" else 1)
                            self.assertEqual(remote_list(running.client), ["mine"])

    def test_one_worker_and_many_clients_shows_as_queueing(self) -> None:
        running = RunningServer("thread", workers=1)
        self.addCleanup(running.stop)
        for operation in ("download", "upload"):
            result = result_of(row_of(running.port, operation, 8))
            self.assertGreater(result["antre_rata_s"], result["transfer_rata_s"])
            self.assertEqual((result["server_sukses"], result["server_menganggur"]), (1, 0))

    def test_the_file_in_the_folder_is_made_once_and_the_served_one_is_used(self) -> None:
        running = RunningServer("thread", workers=2)
        self.addCleanup(running.stop)
        with tempfile.TemporaryDirectory() as name:
            path = stress.make_test_file(Path(name), 1)
            running.write("here.bin", path.read_bytes())
            inode = path.stat().st_ino
            result = result_of(row_of(running.port, served="here.bin"), folder=Path(name))
            self.assertEqual((result["client_sukses"], path.stat().st_ino), (3, inode))
            path.write_bytes(b"cut")
            self.assertEqual(stress.make_test_file(Path(name), 1).stat().st_size, stress.MB)
        self.assertEqual(remote_list(running.client), ["here.bin"])

    def test_the_test_file_is_random_and_repeatable(self) -> None:
        first, again, other = (b"".join(stress.random_blocks(seed, 3 * stress.MB + 5)) for seed in "aab")
        self.assertEqual((first, len(first)), (again, 3 * stress.MB + 5))
        self.assertEqual(len({first[at:at + stress.MB] for at in range(0, len(first), stress.MB)}), 4)
        self.assertGreater(min(Counter(first[:stress.MB]).values()), 3700)  # of 4096 expected of each
        self.assertNotEqual(first, other)


class Faults(unittest.TestCase):
    """What a proxy between clients and server does to one of them shows in the right column."""

    def through(self, spoil: Callable[[int, int, bytes], bytes | None], **more: Any) -> dict[str, Any]:
        """Measure 4 downloads; connections 0 and 1 prepare, the file and the counts."""
        running = RunningServer("thread", workers=4)
        self.addCleanup(running.stop)
        relay = Relay(running.port, spoil)
        self.addCleanup(relay.close)
        result = result_of(row_of(relay.port, clients=4, **more))
        self.assertEqual((result["client_sukses"], result["client_gagal"]), (3, 1))
        self.assertEqual(remote_list(running.client), [])
        return result

    def test_a_flipped_byte(self) -> None:
        def flip(number: int, before: int, data: bytes) -> bytes:
            if number != 3 or not before <= 500_000 < before + len(data):
                return data
            at = 500_000 - before
            return data[:at] + (b"A" if data[at:at + 1] != b"A" else b"B") + data[at + 1:]

        result = self.through(flip)
        self.assertRegex(result["galat"], r"^integritas:1 \(.*CRC-32.*\)$")
        self.assertIn("hitungan berbeda: client 3, server 4", result["catatan"])

    def test_a_cut(self) -> None:
        result = self.through(lambda number, before, data: None if number == 3 and before else data)
        self.assertRegex(result["galat"], r"^putus:1 \(.+\)$")

    def test_doubled_bytes(self) -> None:
        result = self.through(lambda number, before, data: data * 2 if number == 3 and before else data)
        self.assertRegex(result["galat"], r"^(integritas|protokol):1 \(.+\)$")

    def test_a_stall_longer_than_the_time_out(self) -> None:
        over = threading.Event()
        self.addCleanup(over.set)  # first, as clean-ups go backwards: see below

        def stall(number: int, before: int, data: bytes) -> bytes:
            if number == 3 and before:
                over.wait(20.0)
            return data

        with patch.object(stress, "SETTLE_S", 0.5):
            running = RunningServer("thread", workers=4)
            relay = Relay(running.port, stall)
            try:
                result = result_of(row_of(relay.port, clients=4, timeout_s=1.5, volume_mb=12))
            finally:
                over.set()
                relay.close()
                running.stop()
        self.assertRegex(result["galat"], r"^timeout:1 \(.+\)$")
        self.assertEqual(some(result, "server_sukses", "server_gagal", "server_menganggur"), (3, 1, 0))
        self.assertIn("1 worker masih sibuk di akhir", result["catatan"])

    def test_somebody_else_on_the_server(self) -> None:
        running = RunningServer("thread", workers=2)
        self.addCleanup(running.stop)
        honest = stress._run_clients

        def with_others(*arguments: Any) -> Any:
            for _ in range(8):
                remote_list(running.client)
            return honest(*arguments)

        with patch.object(stress, "_run_clients", with_others):
            result = result_of(row_of(running.port, clients=2))
        self.assertIn("hitungan berbeda: client 2, server 10", result["catatan"])


class OtherServers(unittest.TestCase):
    """Servers of others: what they do not tell is blank, and what they say is not believed."""

    def upload_to(self, *replies: bytes) -> dict[str, Any]:
        """Measure an upload to a server that says the same to everything, or to GET the second."""
        server = answering(lambda request: replies[-1] if request.startswith(b"GET") else replies[0])
        self.addCleanup(server.close)
        result = result_of(row_of(server.port, "upload", 2))
        self.assertIsNone(result["server_sukses"])
        return result

    def test_who_lies_about_uploads_is_found(self) -> None:
        for replies, cause in (
                ([reply(status="OK", data="x", data_ukuran=5)], "integritas"),
                ([reply(status="OK", data="x", data_crc32="00000000")], "integritas"),
                ([reply(status="ERROR", data="no")], "server"),
                ([reply(status="FAILED", message="no")], "server"),
                ([reply(status="OK", data="stored", data_file="QUJD")], "integritas"),
                ([reply(status="OK"), reply(status="ERROR", data="tidak ada")], "integritas")):
            with self.subTest(replies=replies):
                result = self.upload_to(*replies)
                self.assertEqual((result["client_sukses"], result["galat"].partition(":")[0]), (0, cause))
                self.assertIsNone(result["waktu_total_per_client_s"])

    def test_what_cannot_be_read_back_is_said(self) -> None:
        result = self.upload_to(reply(status="OK", data="stored"), b"")
        self.assertEqual((result["client_sukses"], result["catatan"]), (2, "tidak diperiksa"))

    def test_stats_that_are_none(self) -> None:
        refusal = reply(status="ERROR", data="request tidak dikenali")
        for said in (b"", b"?", refusal, reply(status="OK", data={}), reply(status="FAILED", message="no")):
            def answer(request: bytes, said: bytes = said) -> bytes:
                return said if b"STATS" in request else reply(status="OK", data=["a.txt"])

            with self.subTest(said=said):
                server = answering(answer)
                self.addCleanup(server.close)
                result = result_of(row_of(server.port, "list"))
                self.assertEqual(some(result, "client_sukses", "server_sukses"), (3, None))
        done = run_script("file_client_stress_test.py", "--port", server.port, "--operation", "list")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("client 1 sukses 0 gagal", done.stdout)

    def test_raw_is_not_measured_where_it_is_not_known(self) -> None:
        server = answering(lambda request: reply(status="ERROR", data="request tidak dikenali"))
        self.addCleanup(server.close)
        done = run_script("file_client_stress_test.py", "--port", server.port, "--operation", "upload",
                          "--encoding", "raw", "--volume", 1)
        self.assertEqual((done.returncode, done.stdout), (3, ""), done.stderr)
        self.assertRegex(done.stderr, r"^galat: baris raw tidak dapat diukur: .*\n$")


def outcome(total_s: float, cause: str = "", **more: Any) -> stress.Outcome:
    fields: dict[str, Any] = {
        "cause": cause, "message": "", "size_bytes": 0 if cause else stress.MB, "checked": True,
        "connect_s": 0.001, "queue_s": 0.1, "first_byte_s": 0.2, "total_s": total_s, "process": "h/1",
        "cpu_from_s": 1.0, "cpu_to_s": 2.0}
    return stress.Outcome(**fields | more)


def stats(*workers: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
    keys = ("succeeded", "failed", "died", "busy")
    return {"mode": "process", "workers": 5, "cpu_s": 1.0, "memory_bytes": 7, "peak_memory_bytes": 5,
            "succeeded": sum(worker[0] for worker in workers), "failed": sum(worker[1] for worker in workers),
            "per_worker": [dict(zip(keys, worker, strict=True)) for worker in workers]} | more


class Arithmetic(unittest.TestCase):
    """The sums, on numbers made up here."""

    def summary(self, *outcomes: stress.Outcome, **more: Any) -> dict[str, Any]:
        raw: dict[str, Any] = {
            "model_client": "thread", "operasi": "upload", "volume_mb": 1, "encoding": "base64",
            "client_worker_pool": len(outcomes), "elapsed_s": 1e3, "cores": None, "before": None,
            "after": None, "outcomes": [asdict(one) for one in outcomes]}
        return stress.summarise(raw | more)

    def test_failed_clients_do_not_count_towards_time_or_bytes(self) -> None:
        result = self.summary(outcome(1.0), outcome(3.0), outcome(50.0, "timeout", late_s=0.5))
        self.assertEqual(result["waktu_total_per_client_s"], 2.0)
        self.assertEqual(result["throughput_per_client_byte_per_s"], stress.MB / 2)
        self.assertEqual(some(result, "client_sukses", "client_gagal", "galat"), (2, 1, "timeout:1 ()"))
        self.assertEqual(result["waktu_dinding_s"], 50.5)
        self.assertEqual(some(result, "total_min_s", "total_p50_s", "total_maks_s"), (1.0, 2.0, 3.0))
        self.assertEqual(some(result, "antre_rata_s", "byte_pertama_rata_s"), (0.1, 0.2))
        self.assertEqual(result["transfer_rata_s"], 1.899)

    def test_nobody_succeeded(self) -> None:
        result = self.summary(*(outcome(1.0, cause, message=message) for cause, message in (
            [("putus", "a\nb"), ("ditolak", "x"), ("putus", "z"), ("putus", "a b")])))
        self.assertEqual(result["galat"], "ditolak:1 (x); putus:3 (a b)")
        for column in ("waktu_total_per_client_s", "throughput_per_client_byte_per_s", "total_p50_s",
                       "throughput_total_byte_per_s", "antre_rata_s", "server_sukses", "permintaan_sukses"):
            self.assertIsNone(result[column])
        self.assertEqual(stress.row_text(result), "client gagal: 4 dari 4 (x); putus:3 (a b)")

    def test_workers_are_told_apart(self) -> None:
        pairs = (((3, 1, 0, 0), (5, 1, 0, 0)), ((1, 0, 0, 0), (1, 0, 0, 0)), ((0, 0, 0, 0), (4, 1, 0, 0)),
                 ((0, 0, 0, 0), (0, 0, 1, 0)), ((7, 0, 0, 0), (8, 0, 0, 0)), ((2, 0, 0, 0), (2, 0, 0, 1)))
        before, after = (stats(*column) for column in zip(*pairs, strict=True))
        result = self.summary(outcome(1.0), before=before, after=after | {"cpu_s": 3.5})
        self.assertEqual(some(result, "server_sukses", "server_gagal", "server_menganggur"), (2, 3, 1))
        self.assertEqual(some(result, "permintaan_sukses", "permintaan_gagal", "cpu_server_s"), (7, 1, 2.5))
        self.assertEqual(some(result, "memori_server_byte", "memori_puncak_server_byte"), (7, 5))
        self.assertIn("1 worker masih sibuk", result["catatan"])

    def test_processes_are_paid_once(self) -> None:
        result = self.summary(outcome(1.0), outcome(1.0, cpu_to_s=4.0),
                              outcome(1.0, process="h/2", cpu_from_s=0.5, cpu_to_s=1.0))
        self.assertEqual(result["cpu_client_s"], 3.5)

    def test_remarks(self) -> None:
        def remarks(cpu_s: float, clients: int = 5, **more: Any) -> str:
            ones = [outcome(10.0, cpu_to_s=1.0 + cpu_s) for number in range(clients)]
            return str(self.summary(*ones, before=stats((0, 0, 0, 0)), after=stats((clients, 0, 0, 0)),
                                    **{"cores": 2} | more)["catatan"])

        self.assertEqual(remarks(9.9), "mesin dipakai pihak lain")
        for ours in (remarks(10.1), remarks(9.9, 4), remarks(9.9, encoding="raw"), remarks(9.9, cores=None)):
            self.assertEqual(ours, "")
        for total_s, remark in ((1.0, "mulai tidak serempak"), (9.0, "")):
            self.assertEqual(self.summary(outcome(total_s), outcome(total_s, late_s=0.2))["catatan"], remark)
        self.assertEqual(self.summary(outcome(1.0, late_s=1e6), elapsed_s=2.0)["waktu_dinding_s"], 2.0)


class ByHand(unittest.TestCase):
    """file_client_stress_test.py, as a person runs it."""

    def stress(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return run_script("file_client_stress_test.py", *arguments, **options)

    def test_the_csv_grows(self) -> None:
        server = ServerProcess(2, "thread")
        self.addCleanup(server.close)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "rows.csv")
            for _ in range(2):
                done = self.stress("--port", server.client.port, "--operation", "list", "--clients", 2,
                                   "--output", path)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertIn("client 2 sukses 0 gagal; server ", done.stdout)
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        self.assertEqual((len(rows), tuple(rows[0])), (2, stress.COLUMNS))

    def test_wrong_usage_and_no_server(self) -> None:
        for code, arguments in ((2, ["--clients", 0]), (2, ["--volume", 0]), (2, ["--timeout", 0]),
                                (3, ["--port", 1]), (3, ["--folder", "/nowhere", "--port", 1])):
            with self.subTest(arguments=arguments):
                done = self.stress("--operation", "upload", *arguments)
                self.assertEqual((done.returncode, done.stdout), (code, ""))
                self.assertRegex(done.stderr, r"^galat: .*\n$")

    @unittest.skipUnless(sys.platform == "linux", "limits as Linux has them")
    def test_limits_of_the_system(self) -> None:
        import resource

        server = ServerProcess(2, "thread")
        self.addCleanup(server.close)
        done = self.stress("--port", server.client.port, "--operation", "list", "--clients", 150,
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 4096)))
        self.assertEqual(done.returncode, 0, done.stderr)
        begun_at = time.monotonic()
        done = self.stress("--port", server.client.port, "--operation", "list", "--clients", 400,
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29)))
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (3, 1), done.stderr)
        self.assertLess(time.monotonic() - begun_at, 20.0)

    @unittest.skipUnless(sys.platform == "linux", "looks for what is left")
    def test_interrupted_it_leaves_nothing_here_or_on_the_server(self) -> None:
        for pool, number in (("thread", signal.SIGTERM), ("process", signal.SIGINT)):
            with self.subTest(pool=pool), tempfile.TemporaryDirectory() as temporary:
                server = ServerProcess(1, "thread")
                self.addCleanup(server.close)
                port, script = str(server.client.port), str(ROOT / "file_client_stress_test.py")
                process = subprocess.Popen(
                    [sys.executable, script, "--port", port, "--operation", "upload", "--volume", "50",
                     "--clients", "8", "--pool", pool],
                    stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": temporary},
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
                folder = functools.partial(os.listdir, server.directory)
                wait_until(folder, "uploads have begun")
                process.send_signal(number)
                _, err = process.communicate(timeout=20)
                self.assertEqual((process.returncode, err, os.listdir(temporary)), (130, "", []))
                wait_until(lambda folder=folder: not folder(), "nothing is left")  # type: ignore[misc]


if __name__ == "__main__":
    unittest.main()
