"""The programs of this course and ours: clients that poll or send junk, servers that lie, and a web page."""

from __future__ import annotations

import base64
import contextlib
import csv
import http.server
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import file_client_cli
import file_client_stress_test
from tests.support import (
    WAIT_S, OtherServer, Relay, RunningServer, for_each_model, read_json, read_to_end, wait_until,
)

SLOW = os.environ.get("TESTS_SLOW") == "1"
CHROMIUM = shutil.which("chromium")
BROWSER_OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update"]
PAGE = r"""<script>
const bodies = ["DELETE a.txt", "DELETE a.txt\r\n", "\r\nDELETE a.txt\r\n", "UPLOAD b QUJD\r\n\r\n"];
Promise.allSettled(bodies.map(body => fetch("http://127.0.0.1:PORT", {method: "POST", mode: "no-cors", body}))
).then(() => fetch("/sent"))
</script>"""


def course_client(host: str, port: int, command: str) -> dict[str, Any]:
    """Ask as the course's client: the bare command, then 16 bytes at a time until the end mark shows up."""
    with socket.create_connection((host, port), WAIT_S) as connection:
        connection.sendall(command.encode())
        received = ""
        while True:
            data = connection.recv(16)
            if not data:
                break
            received += data.decode()
            if "\r\n\r\n" in received:
                break
    reply: dict[str, Any] = json.loads(received)
    return reply


class CourseServer(OtherServer):
    """Answers as the course's server: what one recv(32) brings is one request; no size, no checksum."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.received = b""
        super().__init__(self.converse)

    def converse(self, connection: socket.socket) -> None:
        while data := connection.recv(32):
            reply = self.answer(*shlex.split(data.decode().lower()))
            connection.sendall((json.dumps(reply) + "\r\n\r\n").encode())

    def answer(self, verb: str = "", name: str = "", body: str = "") -> dict[str, Any]:
        try:
            if verb == "list":
                return {"status": "OK", "data": [name for name in self.files if "." in name]}
            if verb == "get":
                content = base64.b64encode(self.files[name]).decode()
                return {"status": "OK", "data_namafile": name, "data_file": content}
            if verb == "delete":
                del self.files[name]
                return {"status": "OK", "data": f"{name} gone"}
        except KeyError as error:
            return {"status": "ERROR", "data": str(error)}
        return {"status": "ERROR", "data": "request tidak dikenali"}


class StudentServer(CourseServer):
    """Takes UPLOAD as many students' servers do; `habits` are what some of them do besides."""

    def __init__(self, *habits: str) -> None:
        self.habits = habits
        super().__init__({"uji.bin": bytes(1000)})

    def converse(self, connection: socket.socket) -> None:
        received = b""
        while piece := connection.recv(1 << 16):
            self.received += piece
            received += piece
            while b"\r\n\r\n" in received:
                text, _, received = received.partition(b"\r\n\r\n")
                if b"STATS" in text and "hangs up on STATS" in self.habits:
                    return
                connection.sendall(json.dumps(self.reply(text.decode())).encode() + b"\r\n\r\n")
                if "closes after each reply" in self.habits:
                    return

    def reply(self, text: str) -> dict[str, Any]:
        if "lower-cases everything" in self.habits:
            text = text.lower()
        words = text.split()
        if "splits at the first line break" in self.habits:
            head, _, body = text.partition("\r\n")
            words = [*head.split()[:2], body]
        if "knows lower case only" not in self.habits:
            words[0] = words[0].lower()
        reply = self.answer(*words)
        if reply["status"] == "ERROR" and "says message" in self.habits:
            reply = {"status": "ERROR", "message": reply["data"]}
        if reply["status"] == "ERROR" and "says FAILED" in self.habits:
            reply["status"] = "FAILED"
        return reply

    def answer(self, verb: str = "", name: str = "", body: str = "") -> dict[str, Any]:
        if verb != "upload":
            return super().answer(verb, name)
        if "stores nothing" not in self.habits:
            self.files[name] = base64.b64decode(body)
        return {"status": "OK", "data": "stored"}


class OursAgainstTheirs(unittest.TestCase):
    """Our clients with the servers of others."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.source = self.folder / "source"
        self.source.write_bytes(b"\r\n\r\nDELETE semua\r\n\r\n" + bytes(range(256)) * 40)

    def serve(self, server: CourseServer) -> CourseServer:
        self.server = server
        self.addCleanup(server.close)
        return server

    def run_main(self, module: Any, code: int, *arguments: object, said: str = "") -> None:
        """Run a client's main(); check its exit code and part of what it says."""
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told), mock.patch("signal.signal"):
            found = module.main(["--timeout=9", f"--port={self.server.port}", *map(str, arguments)])
        self.assertEqual(found, code, told.getvalue())
        self.assertIn(said, told.getvalue())
        self.assertNotIn("Traceback", told.getvalue())

    def measure(self, operation: str, code: int, *arguments: object, said: str = "") -> None:
        """Measure a row; check that it has everything but what only our server tells."""
        path = self.folder / "rows.csv"
        self.run_main(file_client_stress_test, code, "--operation", operation, "--volume", 1, "--clients", 2,
                      "--folder", self.folder, "--output", path, *arguments)
        with open(path, newline="", encoding="utf-8") as file:
            row = list(csv.DictReader(file))[-1]
        self.assertEqual((row["client_sukses"], row["client_gagal"]), ("0", "2") if code else ("2", "0"))
        for column in ("server_sukses", "server_gagal", "server_menganggur", "cpu_server_s", "antre_rata_s"):
            self.assertEqual(row[column], "", column)
        self.assertIn(said, row["galat"])

    def test_the_courses_own(self) -> None:
        client = file_client_cli
        test_file = b"".join(file_client_stress_test.random_blocks("uji-1MB.bin", 1 << 20))
        big = bytes(range(256)) * 4000
        files = {"a.txt": b"short", "big.jpg": big, "noname": b"", "uji-1mb.bin": test_file}
        self.serve(CourseServer(files))
        self.run_main(client, 0, "list", said="a.txt\nbig.jpg\nuji-1mb.bin\n")
        for raw in ([], ["--raw"]):
            for name, content in files.items():
                self.run_main(client, 0, "get", name, "-o", self.folder / "got", *raw, said=f"{name} diunduh")
                self.assertEqual((self.folder / "got").read_bytes(), content)
        self.run_main(client, 1, "get", "no", said="gagal (server): 'no'")
        self.run_main(client, 1, "upload", self.source, said="source: request tidak dikenali")
        self.run_main(client, 1, "stats", said="gagal (server): request tidak dikenali")
        self.measure("download", 0, "--served", "uji-1mb.bin")
        self.measure("list", 0)

    def test_students_servers_that_store_what_they_get(self) -> None:
        for habit in ("", "closes after each reply", "knows lower case only", "says message", "says FAILED",
                      "hangs up on STATS", "splits at the first line break"):
            with self.subTest(habit=habit):
                server = self.serve(StudentServer(habit))
                self.run_main(file_client_cli, 0, "upload", "--raw", self.source, "--as", "Foto1")
                self.assertEqual(server.files["Foto1"], self.source.read_bytes())
                self.run_main(file_client_cli, 0, "get", "--raw", "Foto1", "-o", self.folder / "got")
                self.assertEqual((self.folder / "got").read_bytes(), self.source.read_bytes())
                self.run_main(file_client_cli, 0, "list", said="uji.bin\n")
                self.run_main(file_client_cli, 1, "delete", "Nope", said="gagal (server): 'Nope'")
                self.run_main(file_client_cli, 0, "delete", "Foto1", said="Foto1 gone")
                self.run_main(file_client_cli, 1, "stats", said="gagal (")
                self.measure("download", 0)
                self.measure("upload", 0)
                self.assertEqual(list(server.files), ["uji.bin"])  # nothing is left, and nothing else is gone
                self.assertNotIn(b"DELETE semua", server.received)  # no raw byte came

    def test_students_servers_that_say_ok_and_do_not_store_it(self) -> None:
        for habit, said in (("stores nothing", "tidak menyimpannya"), ("lower-cases everything", "")):
            with self.subTest(habit=habit):
                self.serve(StudentServer(habit))
                self.run_main(file_client_cli, 1, "upload", self.source, said="gagal (integritas): ")
                self.measure("upload", 1, said="integritas:2 (server menjawab OK, tetapi " + said)
                self.measure("download", 1, said="integritas" if not said else "server")


class TheirsAgainstOurs(unittest.TestCase):
    """The clients of others with our servers."""

    def test_the_courses_own(self) -> None:
        def check(running: RunningServer) -> None:
            def ask(command: str) -> dict[str, Any]:
                return course_client(running.host, running.port, command)

            running.write("a.txt", b"short")
            running.write("ñ 文.jpg", bytes(range(256)) * 40)
            self.assertEqual(ask("LIST")["data"], ["a.txt", "ñ 文.jpg"])
            reply = ask("GET 'ñ 文.jpg'")
            self.assertEqual((reply["status"], reply["data_namafile"]), ("OK", "ñ 文.jpg"))
            self.assertEqual(base64.b64decode(reply["data_file"]), running.read("ñ 文.jpg"))
            self.assertEqual((ask("DELETE a.txt")["status"], ask("GET a.txt")["status"]), ("OK", "ERROR"))
            self.assertEqual(ask("list")["data"], ["ñ 文.jpg"])

        for_each_model(self, check)

    def test_no_command_in_a_web_request_runs_however_it_is_cut(self) -> None:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n"
        requests = [(b"DELETE a HTTP/1.1\r\n", b"\r\n"), (b"POST /%s HTTP/1.1\n" % (b"x" * 5000), b"LIST\n"),
                    (b"get / http/1.0\n\n", b"DELETE a"), (b"\x16\x03\x01\0\xa5\x01\0", b"DELETE a\r\n")]
        for body in (b"DELETE a\r\n", b"UPLOAD b QUJD\r\n\r\n", b"DELETE a"):
            requests += [(head[:at], head[at:] + body) for at in (0, 2, 4, 5, 6, 10, 14, 16, 17, 22, -2)]
            requests.append((head, body))

        def check(running: RunningServer) -> None:
            def send(pieces: tuple[bytes, ...]) -> bytes:
                with running.connect() as connection, suppress(ConnectionError):
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(0.3)  # after 0.2 s of silence the first piece is taken for a command
                    return read_to_end(connection)  # we do not end it: the server does
                return b"ERROR"

            running.write("a", b"kept")
            with ThreadPoolExecutor(len(requests)) as pool:
                for pieces, said in zip(requests, pool.map(send, requests), strict=True):
                    self.assertIn(b"ERROR", said, pieces)
            self.assertEqual((os.listdir(running.directory), running.read("a")), (["a"], b"kept"))

        for_each_model(self, check, workers=len(requests))

    def test_junk_frees_its_worker(self) -> None:
        junk = (b"HELLO", b"HAPUS a.txt", b"PUT a", b"x" * 70_000, b"\x16\x03\x01\0\xa5\x01" + bytes(150),
                b"\xef\xbb\xbfLIST", bytes(10), b"\xff\xfe")

        def check(running: RunningServer) -> None:
            held = [running.connect() for _ in junk]
            for connection, sent in zip(held, junk, strict=True):
                connection.sendall(sent)
            for connection, sent in zip(held, junk, strict=True):
                self.assertEqual(read_json(connection)["status"], "ERROR", sent)
            wait_until(lambda: running.stats()["active"] == 0, "the workers are free, though nobody has left")
            for connection in held:
                connection.close()

        for_each_model(self, check, workers=len(junk))

    @unittest.skipUnless(CHROMIUM and SLOW, "TESTS_SLOW is not 1" if CHROMIUM else "no chromium here")
    def test_a_real_page_posts_commands_and_nothing_happens(self) -> None:
        running, answered, sent = RunningServer("thread"), set(), threading.Event()
        self.addCleanup(running.stop)
        running.write("a.txt", b"kept")

        def note(number: int, before: int, data: bytes) -> bytes:
            answered.add(number)
            return data

        class Page(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/sent":
                    sent.set()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(PAGE.replace("PORT", str(relay.port)).encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        relay = Relay(running.port, note)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as site, TemporaryDirectory() as profile:
            threading.Thread(target=site.serve_forever).start()
            address = f"http://127.0.0.1:{site.server_address[1]}/"
            command = [CHROMIUM or "", *BROWSER_OPTIONS, f"--user-data-dir={profile}", address]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as browser:
                self.addCleanup(relay.close)
                self.assertTrue(sent.wait(60))
                browser.terminate()
            site.shutdown()
        self.assertGreaterEqual(len(answered), 4)
        self.assertEqual((os.listdir(running.directory), running.read("a.txt")), (["a.txt"], b"kept"))


if __name__ == "__main__":
    unittest.main()
