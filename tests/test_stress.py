"""The stress client and the orchestrator: what they measure, count, keep and leave behind."""

from __future__ import annotations

import csv
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import file_client_stress_test as stress
import run_for_test as orchestrator
from file_client_cli import RemoteError, Server, remote_list, remote_stats, upload
from tests.support import (
    ROOT, WAIT_S, OtherServer, RunningServer, ServerProcess, children_of, run_script, wait_until,
)
from tests.test_faults import alive

FIRST_COLUMNS = (
    "nomor,model_server,model_client,operasi,volume_mb,client_worker_pool,server_worker_pool,waktu_total_per_client_s,"
    "throughput_per_client_byte_per_s,client_sukses,client_gagal,server_sukses,server_gagal,server_menganggur,"
    "permintaan_sukses,permintaan_gagal,waktu_dinding_s,throughput_total_byte_per_s,galat")


class Relay:
    """Passes bytes between clients and a server; `spoil` may change what the server sends (None: cut)."""

    def __init__(self, port: int, spoil: Callable[[int, int, bytes], bytes | None]) -> None:
        """`spoil` gets the number of the connection, how many bytes went before, and the bytes."""
        self._target = port
        self._spoil = spoil
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        for number in range(1000):
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._relay, args=(number, client))
            self._threads.append(thread)
            thread.start()

    def _relay(self, number: int, client: socket.socket) -> None:
        seen = 0
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, \
                selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    source, target = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    data: bytes | None = source.recv(1 << 16)
                    if source is server and data:
                        before, seen = seen, seen + len(data)
                        data = self._spoil(number, before, data)
                    if not data:
                        return
                    target.sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)


class LyingServer(OtherServer):
    """Speaks the protocol, says OK, and has stored something else."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self._reply = json.dumps(reply).encode() + b"\r\n\r\n"
        super().__init__(self._converse)

    def _converse(self, connection: socket.socket) -> None:
        last = b""
        while not last.endswith(b"\r\n\r\n"):
            piece = connection.recv(1 << 20)
            if not piece:
                return
            last = (last + piece)[-10:]
        connection.sendall(self._reply)


def row_of(port: int, operation: str = "download", clients: int = 3, pool: str = "thread", **more: Any) -> stress.Row:
    return stress.Row(Server("127.0.0.1", port, 5.0), operation, 1, clients, pool, **more)


class OneRow(unittest.TestCase):
    """One row against servers of all kinds."""

    def check(self, result: dict[str, Any], volume_bytes: int) -> None:
        """Hold a row to the arithmetic that any reader can do."""
        self.assertEqual(result["client_sukses"] + result["client_gagal"], result["client_worker_pool"])
        if result["server_worker_pool"]:
            self.assertEqual(result["server_sukses"] + result["server_gagal"] + result["server_menganggur"],
                             result["server_worker_pool"])
        self.assertEqual(result["permintaan_sukses"] + result["permintaan_gagal"], result["client_worker_pool"])
        self.assertLessEqual(result["total_min_s"], result["total_p50_s"])
        self.assertLessEqual(result["total_p50_s"], result["total_p95_s"])
        self.assertLessEqual(result["total_p95_s"], result["total_maks_s"])
        self.assertLessEqual(result["total_maks_s"], result["waktu_dinding_s"] + 1e-6)
        if volume_bytes:
            product = result["waktu_total_per_client_s"] * result["throughput_per_client_byte_per_s"]
            self.assertLess(abs(product / volume_bytes - 1), 0.001)

    def test_every_operation_pool_encoding_and_server(self) -> None:
        for mode in ("legacy", "thread", "process"):
            running = RunningServer(mode, workers=2)
            try:
                running.write("mine", b"untouched")
                for pool in ("thread", "process") if mode == "thread" else ("thread",):
                    for operation in stress.OPERATIONS:
                        for encoding in stress.ENCODINGS:
                            with self.subTest(mode=mode, pool=pool, operation=operation, encoding=encoding):
                                measured = stress.measure(row_of(running.port, operation, 3, pool, encoding=encoding))
                                result = stress.summarise(measured)
                                self.assertEqual((result["client_sukses"], result["galat"]), (3, ""))
                                self.assertEqual((result["server_gagal"], result["permintaan_sukses"]), (0, 3))
                                self.assertEqual(result["model_server"], mode)
                                self.check(result, 0 if operation == "list" else stress.MB)
                                self.assertEqual(len({one.process for one in measured.outcomes}),
                                                 3 if pool == "process" else 1)
                                self.assertEqual(remote_list(running.client), ["mine"])
            finally:
                running.stop()

    def test_one_worker_and_many_clients_shows_as_queueing(self) -> None:
        running = RunningServer("thread", workers=1)
        try:
            for operation in ("download", "upload"):
                result = stress.summarise(stress.measure(row_of(running.port, operation, 8)))
                self.assertGreater(result["antre_rata_s"], result["transfer_rata_s"])
                self.assertEqual((result["server_sukses"], result["server_menganggur"]), (1, 0))
        finally:
            running.stop()

    def test_a_flipped_byte_is_found(self) -> None:
        def flip(number: int, before: int, data: bytes) -> bytes:
            if number != 3 or not before <= 500_000 < before + len(data):
                return data  # connections 0 and 1 prepare: the file, the counts
            at = 500_000 - before
            return data[:at] + (b"A" if data[at:at + 1] != b"A" else b"B") + data[at + 1:]

        self.assert_one_failure("integritas", flip)

    def test_a_cut_connection_is_found(self) -> None:
        self.assert_one_failure("putus", lambda number, before, data: None if number == 3 and before else data)

    def assert_one_failure(self, cause: str, spoil: Callable[[int, int, bytes], bytes | None]) -> None:
        running = RunningServer("thread", workers=2)
        relay = Relay(running.port, spoil)
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "row.csv")
                done = run_script("file_client_stress_test.py", "--port", relay.port, "--operation", "download",
                                  "--volume", 1, "--clients", 4, "--output", path)
                self.assertEqual(done.returncode, 1, done.stderr)
                with open(path, newline="", encoding="utf-8") as file:
                    row, = csv.DictReader(file)
            self.assertEqual((row["client_sukses"], row["client_gagal"], row["galat"]), ("3", "1", f"{cause}:1"))
            self.assertNotIn("Traceback", done.stderr)
            self.assertEqual(remote_list(running.client), [])
        finally:
            relay.close()
            running.stop()

    def test_a_server_that_lies_about_uploads_is_found(self) -> None:
        for reply, cause in (({"status": "OK", "data": "x", "data_ukuran": 5}, "integritas"),
                             ({"status": "OK", "data": "x", "data_crc32": "00000000"}, "integritas"),
                             ({"status": "ERROR", "data": "no"}, "server"), ({"status": "YES"}, "protokol")):
            lying = LyingServer(reply)
            try:
                measured = stress.measure(row_of(lying.port, "upload", 1))
                self.assertEqual([one.cause for one in measured.outcomes], [cause])
                with self.assertRaises(RemoteError) as caught:
                    upload(lying.client, ROOT / "README.md")
                self.assertEqual(caught.exception.cause, cause)
                result = stress.summarise(measured)
                self.assertIsNone(result["server_sukses"])
                self.assertIsNone(result["waktu_total_per_client_s"])
            finally:
                lying.close()

    def test_a_server_that_stores_short_files_and_says_just_ok_is_found(self) -> None:
        lying = LyingServer({"status": "OK", "data": "stored", "data_file": "QUJD"})
        try:
            result = stress.summarise(stress.measure(row_of(lying.port, "upload", 2)))
            self.assertEqual((result["client_sukses"], result["galat"]), (0, "integritas:2"))
        finally:
            lying.close()

    def test_a_server_that_says_nothing_costs_the_timeout(self) -> None:
        running = RunningServer("thread", workers=1)
        try:
            with running.connect() as holder:
                holder.sendall(b"UPLOAD a QUJD")
                row = stress.Row(Server("127.0.0.1", running.port, 0.5), "list", 1, 2, "thread")
                with self.assertRaises(RemoteError) as caught:
                    stress.measure(row)
                self.assertEqual(caught.exception.cause, "timeout")
        finally:
            running.stop()

    def test_the_test_file_is_random_and_repeatable(self) -> None:
        first = b"".join(stress.test_blocks("seed", 3 * stress.MB + 5))
        self.assertEqual(first, b"".join(stress.test_blocks("seed", 3 * stress.MB + 5)))
        self.assertEqual(len(first), 3 * stress.MB + 5)
        blocks = {first[at:at + stress.MB] for at in range(0, len(first), stress.MB)}
        self.assertEqual(len(blocks), 4)
        self.assertGreater(min(Counter(first[:stress.MB]).values()), 3700)  # of 4096 expected of each byte value
        self.assertNotEqual(first, b"".join(stress.test_blocks("other", 3 * stress.MB + 5)))


def outcome(client: int, total_s: float, cause: str = "", **more: Any) -> stress.Outcome:
    fields: dict[str, Any] = {
        "client": client, "cause": cause, "message": "", "file_bytes": 0 if cause else stress.MB, "crc32": "",
        "checked": True,
        "late_s": 0.0, "connect_s": 0.001, "wait_s": 0.1, "total_s": total_s, "process": "h/1", "cpu_from_s": 1.0,
        "cpu_to_s": 2.0, "peak_rss_bytes": 1000}
    return stress.Outcome(**fields | more)


class Arithmetic(unittest.TestCase):
    """The sums, on numbers made up here."""

    def summary(self, outcomes: list[stress.Outcome], before: Any = None, after: Any = None) -> dict[str, Any]:
        return stress.summarise(stress.Measured(row_of(1, clients=len(outcomes)), outcomes, before, after))

    def test_failed_clients_do_not_count_towards_time_or_bytes(self) -> None:
        result = self.summary([outcome(0, 1.0), outcome(1, 3.0), outcome(2, 50.0, "timeout", late_s=0.5)])
        self.assertEqual(result["waktu_total_per_client_s"], 2.0)
        self.assertEqual(result["throughput_per_client_byte_per_s"], stress.MB / 2)
        self.assertEqual((result["client_sukses"], result["client_gagal"], result["galat"]), (2, 1, "timeout:1"))
        self.assertEqual(result["waktu_dinding_s"], 50.5)
        self.assertEqual((result["total_min_s"], result["total_maks_s"]), (1.0, 3.0))
        self.assertEqual((result["antre_rata_s"], result["transfer_rata_s"]), (0.1, 1.899))

    def test_nobody_succeeded(self) -> None:
        result = self.summary([outcome(0, 1.0, "putus"), outcome(1, 1.0, "ditolak")])
        self.assertEqual(result["galat"], "ditolak:1 putus:1")
        for column in ("waktu_total_per_client_s", "throughput_per_client_byte_per_s", "throughput_total_byte_per_s",
                       "total_p50_s", "antre_rata_s", "server_sukses", "permintaan_sukses"):
            self.assertIsNone(result[column])

    def test_workers_are_told_apart(self) -> None:
        def stats(*workers: tuple[int, int, int]) -> dict[str, Any]:
            keys = ("succeeded", "failed", "died")
            return {"mode": "process", "workers": 5, "cpu_s": 1.0, "peak_rss_bytes": 1, "active": 0, "waiting": 0,
                    "succeeded": sum(worker[0] for worker in workers), "failed": sum(worker[1] for worker in workers),
                    "per_worker": [dict(zip(keys, worker, strict=True)) for worker in workers]}

        before = stats((3, 1, 0), (1, 0, 0), (0, 0, 0), (0, 0, 0), (7, 0, 0))
        after = stats((5, 1, 0), (1, 0, 0), (4, 1, 0), (0, 0, 1), (8, 0, 0))
        result = self.summary([outcome(0, 1.0)], before, after)
        self.assertEqual((result["server_sukses"], result["server_gagal"], result["server_menganggur"]), (2, 2, 1))
        self.assertEqual((result["permintaan_sukses"], result["permintaan_gagal"]), (7, 1))

    def test_processes_are_paid_once(self) -> None:
        result = self.summary([outcome(0, 1.0), outcome(1, 1.0, cpu_to_s=4.0, peak_rss_bytes=3000),
                               outcome(2, 1.0, process="h/2", cpu_from_s=0.5, cpu_to_s=1.0)])
        self.assertEqual((result["cpu_client_s"], result["memori_client_byte"]), (3.5, 4000))

    def test_columns(self) -> None:
        self.assertEqual(",".join(stress.COLUMNS[:19]), FIRST_COLUMNS)
        self.assertEqual(stress.COLUMNS[-1], "encoding")
        self.assertEqual(tuple(self.summary([outcome(0, 1.0)])), stress.COLUMNS)

    def test_a_list_is_measured_once_whatever_the_volumes(self) -> None:
        rows = orchestrator.combinations(SimpleNamespace(  # type: ignore[arg-type]
            encodings=["base64"], server_models=["process"], client_models=["thread"], operations=["list", "upload"],
            volumes=[10, 50, 100], client_workers=[1, 5], server_workers=[2]))
        self.assertEqual([(row.nomor, row.operation, row.volume_mb) for row in rows if row.clients == 5],
                         [(2, "list", 10), (4, "upload", 10), (6, "upload", 50), (8, "upload", 100)])


def copy_scripts(folder: Path) -> None:
    """Copy the scripts, and nothing else of the project, so that one of them may be spoilt."""
    for script in ROOT.glob("*.py"):
        shutil.copy(script, folder)


class WholeTable(unittest.TestCase):
    """run_for_test.py, as a person runs it."""

    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.output = Path(self.folder.name, "hasil")

    def rows(self) -> list[dict[str, str]]:
        with open(self.output / "rekap.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def test_a_small_table(self) -> None:
        before = sorted(os.listdir(ROOT / "files"))
        done = run_script("run_for_test.py", "--quick", "--client-workers", "3", "--server-workers", "2",
                          "--output", self.output, cwd=self.folder.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = self.rows()
        self.assertEqual(len(rows), 8)
        self.assertEqual(list(rows[0]), list(stress.COLUMNS))
        self.assertEqual([int(row["nomor"]) for row in rows], [1, 2] * 4)
        self.assertEqual([(row["model_server"], row["model_client"]) for row in rows[::2]],
                         [("thread", "thread"), ("thread", "process"), ("process", "thread"), ("process", "process")])
        self.assertEqual([row["operasi"] for row in rows[:2]], ["download", "upload"])
        for row in rows:
            self.assertEqual((row["client_gagal"], row["server_gagal"], row["permintaan_gagal"]), ("0", "0", "0"))
            self.assertEqual(row["permintaan_sukses"], row["client_worker_pool"])
        self.assertEqual(sorted(os.listdir(self.output)),
                         ["laporan.html", "lingkungan.json", "log.txt", "mentah.jsonl", "rekap.csv", "rekap.md"])
        self.assertEqual(sorted(os.listdir(ROOT / "files")), before)
        recap = (self.output / "rekap.md").read_text(encoding="utf-8")
        self.assertEqual(recap.count("\n## "), 4)
        tables = [line for line in recap.splitlines() if line.startswith("| ")]
        self.assertEqual(len(tables), 12)
        self.assertTrue(all(line.count("|") == 10 for line in tables))
        self.assertIn("[8/8]", done.stderr)
        self.assertIn("8 dari 8 baris", done.stdout)

    @unittest.skipUnless(sys.platform == "linux", "looks into /proc")
    def test_interrupted_it_keeps_what_is_done_and_leaves_nothing_running(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number), tempfile.TemporaryDirectory() as folder:
                self.output = Path(folder)
                process = subprocess.Popen(
                    [sys.executable, str(ROOT / "run_for_test.py"), "--volumes", "20", "--client-workers", "1,20",
                     "--server-workers", "2", "--server-models", "process", "--output", folder],
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    env=os.environ | {"TMPDIR": temporary.name},
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell ignores it for &
                assert process.stderr
                while "[2/" not in process.stderr.readline():
                    pass
                wait_until(lambda: len(children_of(process.pid)) > 4, "server and client run")
                children = children_of(process.pid)
                process.send_signal(number)
                out, err = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 130, err)
                self.assertNotIn("Traceback", err)
                wait_until(lambda: not alive(children), "nothing runs any more")
                self.assertEqual(len(self.rows()), 1)
                self.assertIn("1 dari 8 baris", out)
                self.assertTrue((self.output / "laporan.html").exists())
                self.assertFalse(list(self.output.glob("files-*")))

    @unittest.skipUnless(sys.platform == "linux", "looks into /proc")
    def test_killed_it_is_resumed_with_the_rows_that_are_missing(self) -> None:
        arguments = [sys.executable, str(ROOT / "run_for_test.py"), "--quick", "--server-models", "process",
                     "--client-models", "thread", "--operations", "upload", "--output", str(self.output)]
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        while "[3/4]" not in process.stderr.readline():
            pass
        children = children_of(process.pid)
        process.kill()
        process.communicate()
        wait_until(lambda: not alive(children), "nothing runs any more")
        with open(self.output / "mentah.jsonl", "a", encoding="utf-8") as journal:
            journal.write('{"jenis": "client", "nomor"')  # as if cut in the middle of a write
        self.assertEqual(len(self.rows()), 2)
        first = self.rows()
        done = run_script("run_for_test.py", "--resume", self.output)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([row["nomor"] for row in self.rows()], ["1", "2", "3", "4"])
        self.assertEqual(self.rows()[:2], first)
        self.assertIn("[2/2]", done.stderr)
        self.assertFalse(list(self.output.glob("files-*")))
        before = (self.output / "rekap.csv").read_bytes()
        self.assertEqual(run_script("run_for_test.py", "--resume", self.output).returncode, 0)  # nothing is missing
        self.assertEqual((self.output / "rekap.csv").read_bytes(), before)

        lines = (self.output / "mentah.jsonl").read_bytes()
        table = orchestrator.combinations(SimpleNamespace(
            encodings=["base64"], server_models=["process"], client_models=["thread"], operations=["upload"],
            volumes=[1], client_workers=[1, 5], server_workers=[1, 5]))  # type: ignore[arg-type]
        path = self.output / "cut.jsonl"
        ends = [at + 1 for at, byte in enumerate(lines) if byte == 10]
        for cut in range(0, len(lines) + 1, 97):
            path.write_bytes(lines[:cut])
            journal_rows, whole_bytes = orchestrator.read_journal(path)
            self.assertIn(whole_bytes, [0, *ends])
            self.assertLessEqual(whole_bytes, cut)
            self.assertEqual([row for row, _ in journal_rows], table[:len(journal_rows)])
        self.assertEqual(len(orchestrator.read_journal(self.output / "mentah.jsonl")[0]), 4)
        recomputed = orchestrator.table_of(orchestrator.read_journal(self.output / "mentah.jsonl")[0], table, 1)
        for row in recomputed:
            stress.append_csv(self.output / "again.csv", row)
        self.assertEqual((self.output / "again.csv").read_bytes(), before)

        environment = json.loads((self.output / "lingkungan.json").read_text(encoding="utf-8"))
        self.assertEqual(environment["inti_cpu"], os.cpu_count())
        for name in ("python", "host"):
            (self.output / "lingkungan.json").write_text(json.dumps(environment | {name: "other"}), encoding="utf-8")
            refused = run_script("run_for_test.py", "--resume", self.output)
            self.assertEqual(refused.returncode, 2)
            self.assertIn(name, refused.stderr)
        self.assertEqual(run_script("run_for_test.py", "--quick", "--output", self.output).returncode, 2)

    def test_repeats(self) -> None:
        done = run_script("run_for_test.py", "--quick", "--repeat", 3, "--seed", 5, "--server-models", "thread",
                          "--client-models", "thread", "--server-workers", 1, "--client-workers", 2,
                          "--output", self.output)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = self.rows()
        self.assertEqual(sorted(int(row["nomor"]) for row in rows), [1, 2])
        self.assertEqual({row["ulangan"] for row in rows}, {"3"})
        self.assertTrue(all(float(row["sebaran_waktu_s"]) > 0 for row in rows))
        journal, _ = orchestrator.read_journal(self.output / "mentah.jsonl")
        self.assertEqual(sorted(repeat for _, repeat in journal), sorted([1, 2, 3] * 2))
        self.assertNotEqual([(row.nomor, repeat) for row, repeat in journal],
                            sorted((row.nomor, repeat) for row, repeat in journal))

    def test_the_row_of_several_repeats(self) -> None:
        def result(time_s: float | None, failed: int = 0) -> dict[str, Any]:
            return {"waktu_total_per_client_s": time_s, "client_gagal": failed, "server_gagal": 0, "catatan": ""}

        chosen = orchestrator.median_of([result(3.0), result(1.0), result(2.0)])
        self.assertEqual((chosen["waktu_total_per_client_s"], chosen["sebaran_waktu_s"]), (2.0, 2.0))
        chosen = orchestrator.median_of([result(3.0), result(1.0, failed=2), result(2.0)])
        self.assertEqual((chosen["client_gagal"], chosen["catatan"]), (2, "1 dari 3 ulangan gagal"))

    def test_a_server_that_dies_during_a_row_costs_that_row(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy_scripts(Path(folder))
            script = Path(folder, "file_thread_pool.py")  # this one dies in the middle of the first row
            honest = script.read_text(encoding="utf-8")
            deadly = honest.replace("        return server\n", """
        def die():
            while sum(slot.file_bytes for slot in server.table.slots) < 30_000_000:
                time.sleep(0.001)
            os._exit(9)

        threading.Thread(target=die, daemon=True).start()
        return server
""")
            self.assertNotEqual(honest, deadly)
            script.write_text(deadly, encoding="utf-8")
            done = subprocess.run([sys.executable, str(Path(folder, "run_for_test.py")), "--volumes", "20",
                                   "--operations", "upload", "--server-models", "thread", "--client-models", "thread",
                                   "--client-workers", "5,1", "--server-workers", "5", "--output", str(self.output)],
                                  capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        died, fine = self.rows()
        self.assertEqual(int(died["client_sukses"]) + int(died["client_gagal"]), 5)
        self.assertRegex(died["galat"], r"^(ditolak:\d )?putus:\d$")
        self.assertEqual((died["server_sukses"], died["server_gagal"]), ("0", "5"))
        self.assertIn("server mati (9)", died["catatan"])
        self.assertEqual((fine["client_sukses"], fine["server_gagal"]), ("1", "0"))

    def test_a_server_that_will_not_start(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy_scripts(Path(folder))
            Path(folder, "file_thread_pool.py").write_text("raise SystemExit('broken')\n", encoding="utf-8")
            done = subprocess.run([sys.executable, str(Path(folder, "run_for_test.py")), "--quick", "--output",
                                   str(self.output)], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 3)
        self.assertNotIn("Traceback", done.stderr)
        self.assertIn("server tidak mau mulai", done.stderr)
        self.assertIn("laporan.html tidak dapat ditulis", done.stderr)  # its template was not copied
        self.assertIn("broken", (self.output / "log.txt").read_text(encoding="utf-8"))


@unittest.skipUnless(sys.platform == "linux", "memory as Linux tells it")
class Memory(unittest.TestCase):
    """What a server needs must not depend on how large a file is."""

    def test_large_files_stream(self) -> None:
        for mode in ("thread", "process"):
            for encoding in stress.ENCODINGS:
                server = ServerProcess(1, mode)
                self.addCleanup(server.close)
                peaks = []
                for volume_mb in (1, 32):
                    for operation in ("upload", "download"):
                        row = stress.Row(server.client, operation, volume_mb, 1, "thread", encoding)
                        self.assertEqual(stress.summarise(stress.measure(row))["galat"], "")
                    peaks.append(remote_stats(server.client)["peak_rss_bytes"])
                with self.subTest(mode=mode, encoding=encoding):
                    self.assertLess(peaks[1] - peaks[0], 4 * stress.MB)


class OneRowCsv(unittest.TestCase):
    """The stress client by hand."""

    def test_the_csv_of_the_stress_client_grows(self) -> None:
        server = ServerProcess(2, "thread")
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "rows.csv")
                for _ in range(2):
                    done = run_script("file_client_stress_test.py", "--port", server.client.port, "--operation", "list",
                                      "--clients", 2, "--output", path)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertIn("2 sukses 0 gagal", done.stdout)
                self.assertEqual(len(path.read_text(encoding="utf-8").splitlines()), 3)
        finally:
            server.close()


if __name__ == "__main__":
    unittest.main()
