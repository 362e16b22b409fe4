"""One functional suite for every server model, over real sockets, with real pools."""

from __future__ import annotations

import base64
import os
import socket
import stat
import sys
import tempfile
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ClassVar
from unittest import mock

from file_client_cli import RemoteError, remote_delete, remote_get, remote_list, remote_stats, remote_upload
from file_interface import NewFile
from file_protocol import END, MISSING_PARAMETER, UNKNOWN_REQUEST
from tests.support import WAIT_S, ServerCase, ask_all, read_json, read_to_end, wait_until

BAD_NAMES = [
    "..", ".", "a..b", ".hidden", "../a", "a/b", "/etc/passwd", "a\\b", "C:", "C:a", "C:\\a", "\\\\b\\a",
    "a\x01b", "a\0b", "a\tb", "a\rb", "a\x7fb", "a\u0085b", "", "a" * 256, "ñ" * 128, ".unggah-x",
]
VERBS = ("GET {}", "GET_RAW {}", "DELETE {}", "UPLOAD {} QUJD", "UPLOAD_RAW {} 3\r\n\r\nABC")
REPLIES: tuple[tuple[bytes, dict[str, Any]], ...] = (  # one after the other; None: any time
    (b"GET b", {"status": "OK", "data_namafile": "b", "data_ukuran": 3, "data_antre_s": None,
                "data_file": b"ABC", "data_crc32": "a3830348"}),
    (b"GET_RAW b", {"status": "OK", "data_namafile": "b", "data_ukuran": 3, "data_antre_s": None,
                    "data_file": b"ABC"}),
    (b"UPLOAD A ", {"status": "OK", "data": "A sudah disimpan", "data_namafile": "A", "data_ukuran": 0,
                    "data_crc32": "00000000", "data_antre_s": None}),
    (b"list", {"status": "OK", "data": ["A", "b", "ñ 1"], "data_ukuran": [0, 3, 1]}),
    (b"DELETE b", {"status": "OK", "data": "b sudah dihapus", "data_namafile": "b"}),
    (b"DELETE b", {"status": "ERROR", "data": "file tidak ditemukan: b"}),
    (b"GET b", {"status": "ERROR", "data": "file tidak ditemukan: b"}),
    (b"GET_RAW b", {"status": "ERROR", "data": "file tidak ditemukan: b"}),
    (b"NO b", {"status": "ERROR", "data": UNKNOWN_REQUEST}),
    (b"UPLOAD_RAW", {"status": "ERROR", "data": MISSING_PARAMETER.format("UPLOAD_RAW")}),
)
STATS_KEYS = ("active succeeded failed file_bytes mode workers start_method waiting idle total refused "
              "uptime_s cpu_s memory_bytes peak_memory_bytes per_worker")


class Transfers(ServerCase):
    """Moves files with our client."""

    def put(self, name: str, data: bytes, raw: bool = False) -> None:
        """Upload with our client."""
        with tempfile.TemporaryFile(buffering=0) as source:
            source.write(data)
            source.seek(0)
            remote_upload(self.running.client, source, name, raw)

    def get(self, name: str, raw: bool = False) -> bytes:
        """Download with our client."""
        got = bytearray()
        remote_get(self.running.client, name, got.extend, raw)
        return bytes(got)


class Suite(Transfers):
    """What every server must do."""

    def test_what_goes_up_comes_down(self) -> None:
        for length in (2_000_003, 0, 1, 2, 3, 61_440, 61_441, self.random.randint(0, 1 << 20)):
            name = "".join(self.random.choices("aB1 _-'\"()&;$#@!%ñ文😀", k=self.random.randint(1, 30)))
            for raw in (False, True):
                data = self.random.randbytes(length)
                self.put(name, data, raw)
                stored = (self.running.directory / name).read_bytes()
                self.assertTrue(stored == data == self.get(name, raw), (name, raw, length))

    def test_exactly_as_many_workers_as_were_asked_for_and_all_of_them_work(self) -> None:
        size = self.running.table.workers or 5  # of a server without a pool: as many as there are clients
        clients = [self.running.connect() for _ in range(5)]
        wait_until(lambda: [self.running.stats()[key] for key in ("active", "waiting")] == [size, 5 - size],
                   "all workers are active, and the other clients wait")
        for client in clients:
            with client:
                client.sendall(b"LIST\r\n\r\n")
                self.assertEqual(read_json(client)["data"], [])
        workers = self.running.stats()["per_worker"]
        pids = {worker["pid"] for worker in workers}
        expected = (size, False) if self.mode == "process" else (1, True)
        self.assertEqual((len(pids), os.getpid() in pids), expected)
        if self.mode != "legacy":
            self.assertEqual([worker["succeeded"] > 0 for worker in workers], [True] * size)

    def test_bad_names_are_refused_for_every_verb(self) -> None:
        for name in BAD_NAMES:
            quoted = '"' + name.replace("\\", "\\\\") + '"'
            for verb in VERBS:
                sent = verb.format(quoted).encode() + END
                self.assertIn("nama file", self.running.ask(sent)["data"], sent)
        self.assertEqual(self.running.names(), [])

    @unittest.skipUnless(hasattr(os, "mkfifo"), "no FIFOs here")
    def test_only_regular_files_exist(self) -> None:
        folder = self.running.directory
        secret = folder.with_name(f"{folder.name}.secret")
        secret.write_text("secret")
        self.addCleanup(secret.unlink)
        (folder / "link").symlink_to(secret)
        (folder / "broken").symlink_to("nothing")
        os.mkfifo(folder / "fifo")
        (folder / "folder").mkdir()
        self.addCleanup((folder / "folder").rmdir)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(folder / "socket"))
        with suppress(PermissionError):  # only root may
            os.mknod(folder / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # endless zeros
        names = self.running.names()
        self.assertEqual(remote_list(self.running.client), [])
        for sent in (verb.format(name).encode() + END for name in names for verb in VERBS):
            self.assertEqual(self.running.ask(sent)["status"], "ERROR", sent)
        self.assertEqual((secret.read_text(), self.running.names()), ("secret", names))

    def test_what_replies_tell_and_in_which_order(self) -> None:
        for name, content in (("b", b"ABC"), ("ñ 1", b"1"), (".hidden", b"")):
            (self.running.directory / name).write_bytes(content)
        for command, expected in REPLIES:
            reply, = ask_all(self.running.client, command + END)
            waited_s = reply.get("data_antre_s", 0)
            self.assertTrue(0 <= waited_s < WAIT_S)
            told = [(key, waited_s if value is None else value) for key, value in expected.items()]
            self.assertEqual(list(reply.items()), told)

    def test_the_courses_own_client_which_ends_no_command(self) -> None:
        (self.running.directory / "ñ 文").write_bytes(b"x" * 10_000)
        with ThreadPoolExecutor(4) as pool:  # each takes as long as a silence
            names, got, none, again = pool.map(
                self.running.ask, (b"LIST", "GET 'ñ 文'".encode(), b"GET none", b"list"))
        self.assertEqual((names["data"], again), (["ñ 文"], names))
        self.assertEqual((base64.b64decode(got["data_file"]), none["status"]), (b"x" * 10_000, "ERROR"))
        self.assertEqual(self.running.ask("DELETE 'ñ 文'".encode())["status"], "OK")
        self.assertEqual(self.running.names(), [])

    def test_many_requests_on_one_connection(self) -> None:
        (self.running.directory / "a").write_bytes(b"ABC")
        replies = ask_all(
            self.running.client,
            b"GET a\n\nGET_RAW a\r\nNO a\nGET\nUPLOAD b QUJD\n\nUPLOAD c\r\nQUI=QU\r\nI=\r\n\r\n"
            b'UPLOAD d "QUJD"UPLOAD_RAW e 3\r\n\r\nABCGET .\nDELETE a\r\n\r\nLIST')
        self.assertEqual("".join(reply["status"][0] for reply in replies), "OOEEOOOOEOO")
        self.assertEqual(["data_antre_s" in reply for reply in replies], [True] + [False] * 10)
        self.assertEqual(replies[-1]["data"], ["b", "c", "d", "e"])
        self.assertEqual((self.running.directory / "c").read_bytes(), b"ABAB")

    def test_bad_requests_are_answered_once_and_store_nothing(self) -> None:
        for sent in (b"UPLOAD a QUJ!QUJD\r\n\r\n", b'UPLOAD a "QUI=\r\n\r\nLIST\n', b"UPLOAD a QUJD",
                     b"UPLOAD a\r\n\r\n", b"UPLOAD_RAW a 999999999999999\n\n", b"UPLOAD_RAW a 2\r\n\r\nA",
                     b"GET a b\n", b"GET \xff\n", b'GET "a\nb"\n', b"GET " + b"x" * 5000, b"\x16\x03" * 99):
            replies = ask_all(self.running.client, sent)
            self.assertEqual([reply["status"] for reply in replies if reply["data"]], ["ERROR"], sent)
        self.assertEqual(self.running.names(), [])

    def test_a_refusal_reaches_a_client_that_still_sends(self) -> None:
        for sent in (b"UPLOAD .x QUJD", b"UPLOAD x QUJ!", b"UPLOAD_RAW .x 9999999\r\n\r\n", b"GET x"):
            self.assertEqual(self.running.ask(sent, *[b"QUJD" * 10_000] * 100)["status"], "ERROR")
        with tempfile.TemporaryFile(buffering=0) as source:
            source.truncate(200_000_000)
            for raw in (True, False):  # ours stops to send
                source.seek(0)
                with self.assertRaisesRegex(RemoteError, "titik"):
                    remote_upload(self.running.client, source, ".hidden", raw, crc32=0)
                self.assertLess(source.tell(), 200_000_000)

    def test_counts_are_right_the_moment_a_reply_was_read(self) -> None:
        def counts() -> list[int]:
            stats = remote_stats(self.running.client)
            for key in ("succeeded", "failed"):
                self.assertEqual(stats[key], sum(worker[key] for worker in stats["per_worker"]))
            return [stats[key] for key in ("succeeded", "failed", "total", "file_bytes")]

        expected, data = counts(), self.random.randbytes(100_000)
        for number in range(8):
            self.put(f"f{number}", data, raw=number % 2 > 0)
            self.get(f"f{number}", raw=number % 3 > 0)
            self.assertRaises(RemoteError, remote_delete, self.running.client, "no")
            expected = [was + new for was, new in zip(expected, (2, 1, 3, 200_000), strict=True)]
            self.assertEqual(counts(), expected)

    def test_stats(self) -> None:
        stats = self.running.ask(b"STATS\n")["data"]
        self.assertEqual((" ".join(stats), list(stats)), (STATS_KEYS, list(self.running.stats())))
        pool = int(self.mode != "legacy")
        self.assertEqual([stats[key] for key in ("mode", "workers", "active", "waiting", "idle", "refused")],
                         [self.mode, 3 * pool, 1, 0, 2 * pool, 0])  # active is the one who asks
        self.assertEqual(stats["start_method"] is None, self.mode != "process")
        for worker in stats["per_worker"]:
            self.assertEqual(list(worker), ["pid", "succeeded", "failed", "died", "busy"])
            self.assertEqual((worker["died"], worker["busy"]), (0, 0))
        if sys.platform == "linux":
            self.assertGreater(min(stats["memory_bytes"], stats["peak_memory_bytes"]), 1e6)

    def test_a_client_that_leaves_is_counted_and_forgotten(self) -> None:
        failed = self.running.stats()["failed"]
        (self.running.directory / "big").write_bytes(bytes(30_000_000))
        for count, sent in enumerate((b"UPLOAD a " + b"QUJD" * 1000, b"GET big\r\n\r\n"), 1):
            with self.running.connect() as connection:
                connection.sendall(sent)
                wait_until(lambda: self.running.stats()["active"] == 1, "it is served")
            wait_until(lambda: self.running.stats()["failed"] == failed + count, "the failure is counted")
        self.assertEqual(self.running.names(), ["big"])

    def test_of_many_who_upload_one_name_one_wins(self) -> None:
        contents = [self.random.randbytes(300_000 + number) for number in range(12)]
        with ThreadPoolExecutor(len(contents)) as pool:
            list(pool.map(lambda content: self.put("a", content), contents))
        self.assertIn((self.running.directory / "a").read_bytes(), contents)
        self.assertEqual(self.running.names(), ["a"])

    def test_a_reader_sees_old_or_new_during_a_replacement(self) -> None:
        (self.running.directory / "a").write_bytes(b"o" * 20_000_000)
        with self.running.connect() as connection, connection.makefile("rb") as received:
            connection.sendall(b"GET_RAW a\r\n\r\n")
            received.readline()
            self.put("a", b"n" * 1000)
            self.assertTrue(received.readline() + received.read(20_000_000) == b"\r\n" + b"o" * 20_000_000)
        self.assertEqual(self.get("a"), b"n" * 1000)


class LegacyServerTest(Suite):
    """A thread for each client."""

    mode = "legacy"


class ThreadPoolTest(Suite):
    """A pool of threads."""

    mode = "thread"

    def test_a_reply_that_cannot_be_finished_is_not_ended(self) -> None:
        for verb in (b"GET", b"GET_RAW"):
            (self.running.directory / "a").write_bytes(bytes(50_000_000))
            with self.running.connect() as connection, self.assertLogs("server"):
                connection.sendall(verb + b" a\r\n\r\n")
                connection.recv(100)
                os.truncate(self.running.directory / "a", 0)  # as a disk that fails
                self.assertFalse(read_to_end(connection).endswith(END))


class ProcessPoolTest(Suite):
    """A pool of processes."""

    mode = "process"


class HangingDisk(Transfers):
    """Threads that hang in the disk stop nobody else."""

    settings: ClassVar[dict[str, Any]] = {"workers": 4, "total_timeout_s": 0.5}

    def test_two_uploads_hang_and_the_others_go_on(self) -> None:
        mended, hung, really_write = threading.Event(), threading.Semaphore(0), NewFile.write
        self.addCleanup(mended.set)

        def write(file: NewFile, data: bytes | memoryview) -> None:
            if file._path.name == "hangs":
                hung.release()
                mended.wait(WAIT_S)
            really_write(file, data)

        content = self.random.randbytes(200_000)
        slow, *hanging = [self.running.connect() for _ in range(3)]
        with mock.patch.object(NewFile, "write", write), slow, hanging[0], hanging[1]:
            for connection in hanging:
                connection.sendall(b"UPLOAD hangs " + base64.b64encode(content) + END)
                self.assertTrue(hung.acquire(timeout=WAIT_S))
            slow.sendall(b"UPLOAD a QUJD")
            for raw in (False, True):
                self.put("a", content, raw)
                self.assertTrue(self.get("a", raw) == content)
            self.assertIn("waktu habis", read_json(slow)["data"])  # its deadline has come, and no later
            self.assertEqual(sum(worker["busy"] for worker in self.running.stats()["per_worker"]), 2)
            mended.set()
            for connection in hanging:
                self.assertIn("waktu habis", read_json(connection)["data"])


del Suite  # only the classes that run it, each against another server, are to be found
