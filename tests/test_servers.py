"""One functional suite for every server model, over real sockets, with real pools."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import stat
import threading
import unittest
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Any, ClassVar

from file_client_cli import (
    RemoteError, Server, download, remote_delete, remote_get, remote_list, remote_stats, remote_upload, upload,
)
from file_interface import TEMPORARY_PREFIX
from file_protocol import encode_request
from tests.support import WAIT_S, ServerCase, read_json, wait_until
from tests.test_framing import BAD, BASE64, BODY, MIME, PIECES

BAD_NAMES = [
    "..", ".", "a..b", ".hidden", "../a", "a/b", "/etc/passwd", "a\\b", "C:", "C:a", "C:\\a", "\\\\host\\share",
    "a\x01b", "a\0b", "a\tb", "a\nb", "a\rb", "a\x7fb", "a\u0085b", "", "a" * 256, "ñ" * 128, TEMPORARY_PREFIX + "x",
]


class Functional:
    """Hides the suite from discovery; the classes below run it, each against another server."""

    class Suite(ServerCase):
        """What every server must do."""

        def put(self, name: str, data: bytes, raw: bool = False) -> None:
            path = self.running.directory.parent / f"{self.running.directory.name}.upload"
            path.write_bytes(data)
            try:
                transfer = upload(self.running.client, path, name, raw)
            finally:
                path.unlink()
            self.assertEqual((transfer.size_bytes, transfer.crc32), (len(data), zlib.crc32(data)))

        def get(self, name: str, raw: bool = False) -> bytes:
            got = io.BytesIO()
            transfer = remote_get(self.running.client, name, got.write, raw)
            self.assertEqual((transfer.size_bytes, transfer.crc32), (len(got.getvalue()), zlib.crc32(got.getvalue())))
            return got.getvalue()

        def assert_refused(self, cause: str, function: Any, *arguments: Any) -> str:
            with self.assertRaises(RemoteError) as caught:
                function(*arguments)
            self.assertEqual(caught.exception.cause, cause)
            return str(caught.exception)

        def test_list_names_regular_files_sorted(self) -> None:
            self.assertEqual(remote_list(self.running.client), [])
            for name in ("b.txt", "A.txt", "ñ 1.txt", ".hidden", TEMPORARY_PREFIX + "1"):
                self.running.write(name, b"x")
            self.assertEqual(remote_list(self.running.client), ["A.txt", "b.txt", "ñ 1.txt"])

        def test_what_goes_up_comes_down(self) -> None:
            for raw in (False, True):
                for length in (0, 1, 2, 3, 61_440, 61_441, 2_000_003):
                    with self.subTest(raw=raw, length=length):
                        data = self.random.randbytes(length)
                        self.put("ñ 'a' \"b\".bin", data, raw)
                        self.assertEqual(self.running.read("ñ 'a' \"b\".bin"), data)
                        self.assertEqual(self.get("ñ 'a' \"b\".bin", raw), data)

        def test_an_upload_replaces(self) -> None:
            self.put("a", b"long before")
            self.put("a", b"after")
            self.assertEqual(self.get("a"), b"after")
            self.assertEqual(os.listdir(self.running.directory), ["a"])

        def test_delete(self) -> None:
            self.running.write("a", b"x")
            remote_delete(self.running.client, "a")
            self.assertEqual(remote_list(self.running.client), [])
            self.assert_refused("server", remote_delete, self.running.client, "a")

        def test_bad_names_are_refused_for_every_verb(self) -> None:
            outside = self.running.directory.parent / "outside.txt"
            for name in BAD_NAMES:
                quoted = '"' + name.replace("\\", "\\\\") + '"'
                for sent in (f"GET {quoted}", f"DELETE {quoted}", f"GET_RAW {quoted}", f"UPLOAD {quoted} QUJD",
                             f"UPLOAD_RAW {quoted} 3\r\n\r\nABC"):
                    with self.subTest(sent=sent[:50]):
                        reply = self.running.ask(sent.encode() + b"\r\n\r\n")
                        self.assertEqual(reply["status"], "ERROR")
            self.assertEqual(os.listdir(self.running.directory), [])
            self.assertFalse(outside.exists())

        @unittest.skipUnless(hasattr(os, "mkfifo"), "no FIFOs here")
        def test_only_regular_files_exist(self) -> None:
            folder = self.running.directory
            secret = folder.parent / f"{folder.name}.secret"
            secret.write_text("secret")
            try:
                (folder / "link").symlink_to(secret)
                (folder / "broken").symlink_to(folder / "nothing")
                os.mkfifo(folder / "fifo")
                (folder / "folder").mkdir()
                with socket.socket(socket.AF_UNIX) as unix:
                    unix.bind(str(folder / "socket"))
                names = ["broken", "fifo", "folder", "link", "socket"]
                with suppress(PermissionError):  # only root may
                    os.mknod(folder / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # endless zeros
                    names.insert(1, "device")
                self.assertEqual(remote_list(self.running.client), [])
                for name in names:
                    for sent in (f"GET {name}", f"GET_RAW {name}", f"DELETE {name}", f"UPLOAD {name} QUJD",
                                 f"UPLOAD_RAW {name} 3\r\n\r\nABC"):
                        with self.subTest(sent=sent):
                            reply = self.running.ask(sent.encode() + b"\r\n\r\n")
                            self.assertEqual(reply["status"], "ERROR")
                            self.assertNotIn("secret", json.dumps(reply))
                self.assertEqual(secret.read_text(), "secret")
                self.assertEqual(sorted(os.listdir(folder)), names)
            finally:
                (folder / "folder").rmdir()
                secret.unlink()

        def test_the_forms_of_the_courses_clients(self) -> None:
            uploads = {
                "4": b"UPLOAD a.txt " + BASE64 + b"\r\n\r\n", "5": b'UPLOAD a.txt "' + BASE64 + b'"',
                "6": b"UPLOAD a.txt\r\n" + BASE64 + b"\r\n\r\n", "7": b"upload a.txt " + PIECES + b"\r\n\r\n",
                "8": b"UPLOAD a.txt " + MIME + b"\r\n\r\n",
            }
            for form, sent in uploads.items():
                with self.subTest(form=form):
                    reply = self.running.ask(sent)
                    self.assertEqual(reply["status"], "OK", reply)
                    self.assertEqual(reply["data_ukuran"], len(BODY))
                    self.assertEqual(self.running.read("a.txt"), BODY)
                    (self.running.directory / "a.txt").unlink()
            self.running.write("a.txt", BODY)
            for sent in (b"GET a.txt", b"GET a.txt\n", b"GET a.txt\r\n", b"get 'a.txt'\r\n\r\n"):
                with self.subTest(sent=sent):
                    reply = self.running.ask(sent)
                    self.assertEqual(list(reply), ["status", "data_namafile", "data_ukuran", "data_file", "data_crc32"])
                    self.assertEqual(base64.b64decode(reply["data_file"], validate=True), BODY)
                    self.assertEqual(reply["data_crc32"], f"{zlib.crc32(BODY):08x}")
            self.assertEqual(self.running.ask(b"LIST")["data"], ["a.txt"])
            self.assertEqual(self.running.ask(b"LI", b"ST", end=True)["data"], ["a.txt"])
            self.assertEqual(self.running.ask(b"DELETE a.txt")["status"], "OK")

        def test_every_form_cut_at_every_offset(self) -> None:
            body = bytes(range(40, 60))
            text = base64.b64encode(body)
            pieces = b"".join(base64.b64encode(body[at:at + 7]) for at in range(0, 20, 7))
            forms = [b"LIST", b"GET kept", b"GET kept\n", b"GET kept\r\n", b"get 'kept'\r\n\r\n", b"DELETE none",
                     b"UPLOAD %s " + text + b"\r\n\r\n", b'UPLOAD %s "' + text + b'"', b"UPLOAD %s\r\n" + text +
                     b"\r\n\r\n", b"upload %s " + pieces + b"\r\n\r\n", b"UPLOAD %s " + text[:8] + b"\r\n" + text[8:] +
                     b"\r\n\r\n", b"UPLOAD_RAW %s 20\r\n\r\n" + body]
            self.running.write("kept", body)

            def one(form: int, cut: int) -> None:
                sent = forms[form].replace(b"%s", b"f%d-%d" % (form, cut))
                reply = self.running.ask(*filter(None, (sent[:cut], sent[cut:])))
                if b"none" in sent:
                    self.assertIn("tidak ditemukan", reply["data"], sent)
                    return
                self.assertEqual(reply["status"], "OK", (sent, cut))
                if "data_file" in reply:
                    self.assertEqual(base64.b64decode(reply["data_file"]), body)
                elif "data_crc32" in reply:
                    self.assertEqual(self.running.read(reply["data_namafile"]), body)

            with ThreadPoolExecutor(16) as pool:
                done = [pool.submit(one, number, cut) for number, form in enumerate(forms)
                        for cut in range(len(form) + 1)]
            for future in done:
                future.result()

        def test_random_files_go_up_and_come_down_bit_for_bit(self) -> None:
            letters = "aB1 _-'\"()&;$#@!%ñ文😀."
            for turn in range(30):
                name = "".join(self.random.choices(letters, k=self.random.randint(1, 30)))
                name = name.strip(".").replace("..", "-") + "x"
                data = self.random.randbytes(self.random.choice((turn, self.random.randint(0, 1 << 20))))
                sent = encode_request("UPLOAD", name) + b' "' + base64.b64encode(data) + b'"\r\n\r\n'
                cuts = sorted(self.random.choices(range(len(sent)), k=self.random.randint(0, 30)))
                with self.subTest(turn=turn, name=name, length=len(data)):
                    reply = self.running.ask(*(sent[start:end] for start, end in pairwise([0, *cuts, len(sent)])))
                    self.assertEqual((reply["status"], reply["data_namafile"]), ("OK", name), reply)
                    self.assertEqual(self.get(name, raw=bool(turn % 2)), data)

        def test_an_unknown_verb_gets_exactly_this(self) -> None:
            with self.running.connect() as connection:
                connection.sendall(b"HELLO there\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                received = b"".join(iter(lambda: connection.recv(100), b""))
            self.assertEqual(received, b'{"status":"ERROR","data":"request tidak dikenali"}\r\n\r\n')

        def test_many_requests_on_one_connection_sent_before_any_reply_is_read(self) -> None:
            self.running.write("a.txt", BODY)
            requests = [b"LIST\r\n\r\n", b"GET a.txt\r\n\r\n", b"NO\r\n\r\n", b"UPLOAD b " + BASE64 + b"\r\n\r\n",
                        b'UPLOAD c "' + BASE64 + b'"', b"UPLOAD_RAW d 3\r\n\r\nABC", b"DELETE a.txt\r\n\r\n", b"LIST\n"]
            with self.running.connect() as connection:
                connection.sendall(b"".join(requests))
                replies = [read_one(connection) for _ in requests]
            self.assertEqual([reply["status"] for reply in replies], ["OK", "OK", "ERROR"] + ["OK"] * 5)
            self.assertEqual(replies[-1]["data"], ["b", "c", "d"])

        def test_a_quote_that_is_not_closed_is_answered_at_once(self) -> None:
            self.assertIn("tanda kutip", self.running.ask(b'UPLOAD a "QUI=\r\n\r\nLIST\r\n\r\n')["data"])

        def test_a_size_that_no_disk_has_room_for_is_refused(self) -> None:
            self.assertIn("disk", self.running.ask(b"UPLOAD_RAW a 999999999999999\r\n\r\n")["data"])

        def test_a_file_named_like_a_key(self) -> None:
            self.put("data_file", b"content")
            self.assertEqual(self.get("data_file"), b"content")

        def test_bad_requests_are_answered_and_store_nothing(self) -> None:
            for name, sent in BAD.items():
                with self.subTest(bad=name):
                    reply = self.running.ask(sent, end=True)
                    self.assertEqual(reply["status"], "ERROR")
                    self.assertIsInstance(reply["data"], str)
                    self.assertEqual(os.listdir(self.running.directory), [])
            self.assertEqual(remote_list(self.running.client), [])

        def test_a_refusal_reaches_a_client_that_still_sends(self) -> None:
            for sent in (b"UPLOAD .x QUJD", b"UPLOAD x QUJ!", b"UPLOAD_RAW .x 99999999\r\n\r\n",
                         b"GET " + b"x" * 70_000):
                with self.subTest(sent=sent[:20]), self.running.connect() as connection:
                    connection.sendall(sent)
                    for _ in range(200):
                        connection.sendall(b"QUJD" * 10_000)  # not reset: somebody reads on
                    self.assertEqual(read_json(connection)["status"], "ERROR")

        def test_upload_refused_early_says_why(self) -> None:
            message = ""
            for raw in (False, True):
                with self.subTest(raw=raw), self.assertRaises(RemoteError) as caught:
                    self.put(".hidden", bytes(30_000_000), raw)
                self.assertEqual(caught.exception.cause, "server", caught.exception)
                message = str(caught.exception)
            self.assertIn("titik", message)

        def test_an_upload_that_is_refused_is_not_sent_to_its_end(self) -> None:
            size_bytes = 300_000_000
            path = self.running.directory / "sparse"
            with open(path, "wb") as file:
                file.truncate(size_bytes)
            with open(path, "rb", buffering=0) as source:
                self.assert_refused("server", remote_upload, self.running.client, source, ".hidden")
                self.assertLess(source.tell(), size_bytes)

        def test_missing_file(self) -> None:
            for raw in (False, True):
                message = self.assert_refused("server", remote_get, self.running.client, "no", lambda piece: None, raw)
                self.assertIn("tidak ditemukan", message)

        def test_a_download_appears_only_when_it_is_whole(self) -> None:
            target = self.running.directory / "target"
            self.running.write("source", b"content")
            download(self.running.client, "source", target)
            self.assertEqual(target.read_bytes(), b"content")
            with self.assertRaises(RemoteError):
                download(self.running.client, "no", target)
            self.assertEqual(target.read_bytes(), b"content")
            self.assertEqual(sorted(os.listdir(self.running.directory)), ["source", "target"])

        def test_counts_are_right_the_moment_a_reply_was_read(self) -> None:
            before = remote_stats(self.running.client)
            data = self.random.randbytes(100_000)
            for number in range(1, 11):
                self.put(f"f{number}", data)
                self.get(f"f{number}")
                stats = self.running.stats()
                self.assertEqual(stats["succeeded"] - before["succeeded"], 2 * number)
                self.assertEqual(stats["file_bytes"] - before["file_bytes"], 2 * number * len(data))
            self.assert_refused("server", remote_delete, self.running.client, "no")
            after = remote_stats(self.running.client)
            self.assertEqual(after["failed"] - before["failed"], 1)
            self.assertEqual(after["total"], after["succeeded"] + after["failed"])
            for key in ("succeeded", "failed"):
                self.assertEqual(after[key], sum(worker[key] for worker in after["per_worker"]))

        def test_a_client_that_leaves_is_counted_and_forgotten(self) -> None:
            failed = self.running.stats()["failed"]
            with self.running.connect() as connection:
                connection.sendall(b"UPLOAD a " + b"QUJD" * 1000)
            wait_until(lambda: self.running.stats()["failed"] == failed + 1, "the failure is counted")
            self.running.write("big", bytes(50_000_000))
            with self.running.connect() as connection:
                connection.sendall(b"GET big\r\n\r\n")
                connection.recv(1000)
            wait_until(lambda: self.running.stats()["failed"] == failed + 2, "the failure is counted")
            self.assertEqual(os.listdir(self.running.directory), ["big"])

        def test_many_clients_at_once(self) -> None:
            datas = {f"f{number}": self.random.randbytes(300_000 + number) for number in range(20)}

            def one(name: str) -> bool:
                self.running.write(f"{name}.up", datas[name])
                upload(self.running.client, self.running.directory / f"{name}.up", name)
                return self.get(name) == datas[name]

            with ThreadPoolExecutor(20) as pool:
                self.assertTrue(all(pool.map(one, datas)))

        def test_clients_that_stall_in_the_middle_of_a_file_keep_nobody_else_waiting(self) -> None:
            content = self.random.randbytes(200_000)
            begun_bytes = self.running.stats()["file_bytes"]
            with self.running.connect() as one, self.running.connect() as two:
                for connection in (one, two):
                    connection.sendall(b"UPLOAD never " + base64.b64encode(content))
                wait_until(lambda: self.running.stats()["file_bytes"] >= begun_bytes + 2 * 199_000, "both have begun")
                self.put("file", content)
                self.assertEqual(self.get("file"), content)

        def test_one_whole_file_wins(self) -> None:
            versions = [bytes([number]) * 500_000 for number in range(8)]
            for number, version in enumerate(versions):
                self.running.write(f"v{number}", version)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda number: upload(
                    self.running.client, self.running.directory / f"v{number}", "same"), range(8)))
            self.assertIn(self.running.read("same"), versions)

        def test_a_reader_sees_old_or_new_during_a_replacement(self) -> None:
            old, new = b"o" * 3_000_000, b"n" * 3_000_000
            self.running.write("a", old)
            with self.running.connect() as connection:
                connection.sendall(b"GET_RAW a\r\n\r\n")
                received = connection.recv(1000)
                self.put("a", new)
                while len(received) < 3_000_000:
                    piece = connection.recv(1 << 20)
                    if not piece:
                        break
                    received += piece
            self.assertEqual(received.partition(b"\r\n\r\n")[2].strip(b"o")[:10], b"")
            self.assertEqual(self.get("a"), new)

        def test_stats_over_the_wire_are_those_inside(self) -> None:
            stats = remote_stats(self.running.client)
            self.assertEqual(stats.keys(), self.running.stats().keys())
            self.assertEqual(stats["mode"], self.mode)
            self.assertEqual(stats["active"], 1)  # the one who asks
            self.assertEqual(stats["waiting"], 0)


def read_one(connection: socket.socket) -> dict[str, Any]:
    """Read exactly one reply of several, a byte at a time."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            raise AssertionError(f"connection ended after {received[-100:]!r}")
        received += piece
    reply: dict[str, Any] = json.loads(received)
    return reply


class LegacyServerTest(Functional.Suite):
    """A thread for each client."""

    mode = "legacy"


class ThreadPoolTest(Functional.Suite):
    """A pool of threads."""

    mode = "thread"

    def test_the_pool_has_exactly_its_size(self) -> None:
        workers = [thread for thread in threading.enumerate() if thread.name.startswith("worker")]
        self.assertEqual(len(workers), 3)
        self.assertEqual(remote_stats(self.running.client)["idle"], 2)


class ProcessPoolTest(Functional.Suite):
    """A pool of processes, started by a fork server where there is one."""

    mode = "process"

    def test_the_pool_has_exactly_its_size(self) -> None:
        pids = {worker["pid"] for worker in remote_stats(self.running.client)["per_worker"]}
        self.assertEqual(len(pids), 3)
        self.assertNotIn(os.getpid(), pids)

    def test_all_workers_work(self) -> None:
        held = [self.running.connect() for _ in range(3)]
        for connection in held:
            connection.sendall(b"LI")
        wait_until(lambda: self.running.stats()["active"] == 3, "all workers are active")
        for connection in held:
            connection.sendall(b"ST\r\n\r\n")
            self.assertEqual(read_json(connection)["data"], [])
            connection.close()
        self.assertTrue(all(worker["succeeded"] for worker in self.running.stats()["per_worker"]))


class SpawnedProcessPoolTest(ProcessPoolTest):
    """A pool of processes, each started from scratch."""

    settings: ClassVar[dict[str, Any]] = {"start_method": "spawn"}


class Unreachable(unittest.TestCase):
    """No server at all."""

    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        for call in (remote_list, remote_stats):
            with self.assertRaises(RemoteError) as caught:
                call(Server("127.0.0.1", port, WAIT_S))
            self.assertEqual(caught.exception.cause, "ditolak")
            self.assertIn("file_server.py", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
