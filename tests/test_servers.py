"""One functional suite for every server model, over real sockets, with real pools."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import sys
import tempfile
import threading
import unittest
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ClassVar
from unittest import mock

from file_client_cli import RemoteError, remote_delete, remote_list, remote_stats, remote_upload
from file_interface import FileInterface
from file_protocol import END, MISSING_PARAMETER, UNKNOWN_REQUEST, encode_request
from tests.support import BASE64, BODY, MIME, PIECES, WAIT_S, ServerCase, read_json, read_to_end, wait_until

BAD_NAMES = [
    "..", ".", "a..b", ".hidden", "../a", "a/b", "/etc/passwd", "a\\b", "C:", "C:a", "C:\\a", "\\\\b\\a",
    "a\x01b", "a\0b", "a\tb", "a\rb", "a\x7fb", "a\u0085b", "", "a" * 256, "ñ" * 128, ".unggah-x",
]
VERBS = ("GET {}", "GET_RAW {}", "DELETE {}", "UPLOAD {} QUJD", "UPLOAD_RAW {} 3\r\n\r\nABC")
REPLY_KEYS = {
    "GET a": "status data_namafile data_ukuran data_antre_s data_file data_crc32",
    "GET_RAW a": "status data_namafile data_ukuran data_antre_s",
    "UPLOAD b QUJD": "status data data_namafile data_ukuran data_crc32 data_antre_s",
}
STATS_KEYS = ("mode workers start_method active waiting idle succeeded failed total refused file_bytes "
              "throughput_byte_per_s uptime_s cpu_s memory_bytes peak_memory_bytes per_worker")


class Files(ServerCase):
    """Files go there and come back."""

    def test_what_goes_up_comes_down(self) -> None:
        for length in (2_000_003, 0, 1, 2, 3, 61_440, 61_441, self.random.randint(0, 1 << 20)):
            name = "".join(self.random.choices("aB1 _-'\"()&;$#@!%ñ文😀", k=self.random.randint(1, 30)))
            for raw in (False, True):
                data = self.random.randbytes(length)
                self.put(name, data, raw)
                self.assertTrue(self.running.read(name) == data == self.get(name, raw), (name, raw, length))
            self.running.ask(encode_request("DELETE", name) + END)
        self.assertEqual(self.running.names(), [])

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


class Suite(Files):
    """What every server must do."""

    def test_list_and_delete(self) -> None:
        self.assertEqual(remote_list(self.running.client), [])
        for name in ("b.txt", "A.txt", "ñ 1.txt", ".hidden"):
            self.running.write(name, name.encode())
        listed = {"status": "OK", "data": ["A.txt", "b.txt", "ñ 1.txt"], "data_ukuran": [5, 5, 8]}
        self.assertEqual(self.running.ask(b"list\n"), listed)
        self.assertEqual(self.running.ask(b"DELETE b.txt\n")["data_namafile"], "b.txt")
        for verb in (b"DELETE", b"GET", b"GET_RAW"):
            self.assertIn("tidak ditemukan", self.running.ask(verb + b" b.txt\n")["data"])

    def test_bad_names_are_refused_for_every_verb(self) -> None:
        for name in BAD_NAMES:
            quoted = '"' + name.replace("\\", "\\\\") + '"'
            commands = [verb.format(quoted) + "\r\n\r\n" for verb in VERBS]
            for sent, count in (("".join(commands[:3]), 3), (commands[3], 1), (commands[4], 1)):
                replies = self.running.ask_all(sent.encode())
                refused = [reply["status"] for reply in replies if "nama file" in reply["data"]]
                self.assertEqual((len(replies), refused), (count, ["ERROR"] * count), sent)
        self.assertEqual(self.running.names(), [])

    @unittest.skipUnless(hasattr(os, "mkfifo"), "no FIFOs here")
    def test_only_regular_files_exist(self) -> None:
        folder = self.running.directory
        secret = folder.parent / f"{folder.name}.secret"
        secret.write_text("secret")
        self.addCleanup(secret.unlink)
        (folder / "link").symlink_to(secret)
        (folder / "broken").symlink_to(folder / "nothing")
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

    def test_each_form_of_an_upload(self) -> None:
        bodies = [b" " + BASE64 + END, b' "' + BASE64 + b'"', b"\r\n" + BASE64 + END, b" " + PIECES + END,
                  b" " + MIME + END, b" \r\n" + BASE64 + END, b" " + BASE64 + b" \r\n\r\n"]
        empty = [b" \r\n\r\n", b"\r\n\r\n\r\n", b" \r\n\r\n\r\n", b' ""']
        for number, body in enumerate(bodies + empty):
            content = BODY if body in bodies else b""
            reply = self.running.ask(b"upload f%d" % number, body)
            self.assertLessEqual({"status": "OK", "data_namafile": f"f{number}", "data_ukuran": len(content),
                                  "data_crc32": f"{zlib.crc32(content):08x}"}.items(), reply.items(), body)
            self.assertEqual(self.running.read(f"f{number}"), content, body)

    def test_commands_without_an_end(self) -> None:
        self.running.write("a", BODY)
        unknown = {"status": "ERROR", "data": UNKNOWN_REQUEST}
        with ThreadPoolExecutor(6) as pool:
            got, names, *others = pool.map(self.running.ask, (
                b"GET a", b"LIST", b"HELLO", b"HAPUS a", b"\xef\xbb\xbfLIST", b"\0\0"))
        self.assertEqual((got["data_file"], names["data"]), (BASE64.decode(), ["a"]))
        self.assertEqual(others, [unknown] * 4)
        self.assertEqual(self.running.ask(b"LI", b"ST", end=True)["data"], ["a"])

    def test_what_a_reply_tells_and_in_which_order(self) -> None:
        self.running.write("a", BODY)
        for command, keys in REPLY_KEYS.items():
            file = BODY if "RAW" in command else b""
            with self.running.connect() as connection, connection.makefile("rb") as replies:
                connection.sendall((command + "\r\n\r\n").encode() * 2 + b"LIST\r\n\r\n")
                for expected in (keys, keys.replace(" data_antre_s", "")):
                    reply = json.loads(replies.readline() + replies.readline())
                    self.assertEqual(" ".join(reply), expected)
                    self.assertTrue(0 <= reply.get("data_antre_s", 0) < WAIT_S)
                    self.assertEqual(replies.read(len(file)), file)
                self.assertEqual(json.loads(replies.readline())["status"], "OK")

    def test_many_requests_on_one_connection(self) -> None:
        self.running.write("a", BODY)
        replies = self.running.ask_all(b"LIST\r\n\r\nGET a\n\nNO a\nGET\nUPLOAD_RAW\r\n\r\nUPLOAD b QUJD\n\n"
                               b'UPLOAD c "QUJD"UPLOAD_RAW d 3\r\n\r\nABCGET .\nDELETE a\r\n\r\nLIST\n')
        self.assertEqual("".join(reply["status"][0] for reply in replies), "OOEEEOOOEOO")
        self.assertEqual(replies[2], {"status": "ERROR", "data": UNKNOWN_REQUEST})
        self.assertEqual(replies[4]["data"], MISSING_PARAMETER.format("UPLOAD_RAW"))
        self.assertEqual(replies[-1]["data"], ["b", "c", "d"])

    def test_bad_requests_are_answered_once_and_store_nothing(self) -> None:
        for sent in (b"UPLOAD a QUJ!QUJD\r\n\r\n", b'UPLOAD a "QUI=\r\n\r\nLIST\n', b"UPLOAD a QUJD",
                     b"UPLOAD a\r\n\r\n", b"UPLOAD_RAW a 999999999999999\n\n", b"UPLOAD_RAW a 2\r\n\r\nA",
                     b"GET a b\n", b"GET \xff\n", b'GET "a\nb"\n', b"GET " + b"x" * 5000, b"\x16\x03" * 99):
            replies = self.running.ask_all(sent)
            self.assertEqual([reply["status"] for reply in replies if reply["data"]], ["ERROR"], sent)
        self.assertEqual(self.running.names(), [])

    def test_no_command_in_an_http_request_runs(self) -> None:
        self.running.write("a.txt", BODY)
        sent = b"POST / HTTP/1.1\r\nHost: x\r\nDELETE a.txt\r\n\r\nDELETE a.txt\r\nUPLOAD b QUJD\r\n\r\n"
        for cut in (0, 7, 17, 30):
            with self.running.connect() as connection:
                connection.sendall(sent[:cut])
                connection.sendall(sent[cut:])
                self.assertEqual(read_json(connection)["status"], "ERROR")
                self.assertEqual(connection.recv(1), b"")  # closed, though the client has not ended
        self.assertEqual(self.running.names(), ["a.txt"])

    def test_a_refusal_reaches_a_client_that_still_sends(self) -> None:
        for sent in (b"UPLOAD .x QUJD", b"UPLOAD x QUJ!", b"UPLOAD_RAW .x 9999999\r\n\r\n", b"GET x"):
            self.assertEqual(self.running.ask(sent, *[b"QUJD" * 10_000] * 100)["status"], "ERROR")

    def test_an_upload_that_is_refused_is_not_sent_to_its_end(self) -> None:
        with tempfile.TemporaryFile(buffering=0) as source:
            source.truncate(200_000_000)
            for raw in (True, False):
                source.seek(0)
                with self.assertRaisesRegex(RemoteError, "titik"):
                    remote_upload(self.running.client, source, ".hidden", raw, crc32=0)
                self.assertLess(source.tell(), 200_000_000)

    def test_counts_are_right_the_moment_a_reply_was_read(self) -> None:
        before = remote_stats(self.running.client)
        data = self.random.randbytes(100_000)
        for number in range(1, 9):
            self.put(f"f{number}", data, number % 2 > 0)
            self.get(f"f{number}", number % 3 > 0)
            stats = self.running.stats()
            self.assertEqual(stats["succeeded"] - before["succeeded"], 2 * number)
            self.assertEqual(stats["file_bytes"] - before["file_bytes"], 2 * number * len(data))
        self.assertRaises(RemoteError, remote_delete, self.running.client, "no")
        after = remote_stats(self.running.client)
        self.assertEqual((after["failed"] - before["failed"], after["total"] - before["total"]), (1, 17))
        for key in ("succeeded", "failed"):
            self.assertEqual(after[key], sum(worker[key] for worker in after["per_worker"]))

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
        self.running.write("big", bytes(30_000_000))
        for count, sent in enumerate((b"UPLOAD a " + b"QUJD" * 1000, b"GET big\r\n\r\n"), 1):
            with self.running.connect() as connection:
                connection.sendall(sent)
                wait_until(lambda: self.running.stats()["active"] == 1, "it is served")
            wait_until(lambda: self.running.stats()["failed"] == failed + count, "the failure is counted")
        self.assertEqual(self.running.names(), ["big"])

    def test_many_clients_at_once(self) -> None:
        datas = {f"f{number}": self.random.randbytes(300_000 + number) for number in range(12)}

        def one(name: str) -> bool:
            self.put("same", datas[name])
            self.put(name, datas[name])
            return self.get(name) == datas[name]

        with ThreadPoolExecutor(12) as pool:
            self.assertTrue(all(pool.map(one, datas)))
        self.assertIn(self.running.read("same"), datas.values())  # one whole file wins
        self.assertEqual(self.running.names(), sorted([*datas, "same"]))

    def test_a_reader_sees_old_or_new_during_a_replacement(self) -> None:
        self.running.write("a", b"o" * 20_000_000)
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
            self.running.write("a", bytes(50_000_000))
            with self.running.connect() as connection, self.assertLogs("server"):
                connection.sendall(verb + b" a\r\n\r\n")
                connection.recv(100)
                os.truncate(self.running.directory / "a", 0)  # as a disk that fails
                self.assertFalse(read_to_end(connection).endswith(END))


class ProcessPoolTest(Suite):
    """A pool of processes, started by a fork server where there is one."""

    mode = "process"


class SpawnedProcessPoolTest(Files):
    """A pool of processes, each started from scratch."""

    mode = "process"
    settings: ClassVar[dict[str, Any]] = {"start_method": "spawn"}


class HangingDisk(Files):
    """Threads that hang in the disk stop nobody else."""

    settings: ClassVar[dict[str, Any]] = {"workers": 4, "total_timeout_s": 1.0}

    def test_two_uploads_hang_and_the_others_go_on(self) -> None:
        mended, hung = threading.Event(), threading.Semaphore(0)
        original = FileInterface.upload

        def write(piece: bytes) -> None:
            hung.release()
            mended.wait(WAIT_S)

        def upload(files: FileInterface, name: str, size_bytes: int = 0) -> Any:
            file: Any = original(files, name, size_bytes)
            file.write = write if name == "hangs" else file.write
            return file

        content = self.random.randbytes(1_000_000)
        slow, *hanging = [self.running.connect() for _ in range(3)]
        with mock.patch.object(FileInterface, "upload", upload), slow, hanging[0], hanging[1]:
            try:
                for connection in hanging:
                    connection.sendall(b"UPLOAD hangs " + base64.b64encode(content) + END)
                    self.assertTrue(hung.acquire(timeout=WAIT_S))
                slow.sendall(b"UPLOAD a QUJD")
                for raw in (False, True):
                    self.put("a", content, raw)
                    self.assertTrue(self.get("a", raw) == content)
                self.assertIn("waktu habis", read_json(slow)["data"])  # its deadline has come, and no later
                self.assertEqual(sum(worker["busy"] for worker in self.running.stats()["per_worker"]), 2)
            finally:
                mended.set()
            for connection in hanging:
                self.assertIn("waktu habis", read_json(connection)["data"])


del Files, Suite  # only the classes that run them, each against another server, are to be found
