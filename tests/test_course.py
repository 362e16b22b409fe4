"""The course's own client and server, byte for byte, against ours."""

from __future__ import annotations

import base64
import io
import json
import shlex
import socket
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from file_client_cli import RemoteError, download, remote_get, remote_list, remote_stats, upload
from tests.support import WAIT_S, OtherServer, RunningServer


class CourseServer(OtherServer):
    """Answers as the course's server: what one recv(32) brings is one request; no size, no checksum."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        super().__init__(self._converse)

    def _converse(self, connection: socket.socket) -> None:
        while data := connection.recv(32):
            connection.sendall((json.dumps(self._process(data.decode())) + "\r\n\r\n").encode())

    def _process(self, text: str) -> dict[str, Any]:
        try:
            verb, *parameters = shlex.split(text.lower())
            if verb == "list":
                return {"status": "OK", "data": list(self._files)}
            if verb == "get":
                content = base64.b64encode(self._files[parameters[0]]).decode()
                return {"status": "OK", "data_namafile": parameters[0], "data_file": content}
        except (ValueError, KeyError) as error:
            return {"status": "ERROR", "data": str(error)}
        return {"status": "ERROR", "data": "request tidak dikenali"}


class PlainServer(OtherServer):
    """Takes UPLOAD name base64, as many students' servers do; knows no raw verb and tells no checksum."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.received = b""
        super().__init__(self._converse)

    def _converse(self, connection: socket.socket) -> None:
        received = b""
        while piece := connection.recv(1 << 16):
            self.received += piece
            received += piece
            while b"\r\n\r\n" in received:
                text, _, received = received.partition(b"\r\n\r\n")
                verb, *parameters = text.decode().split(" ")
                reply = {"status": "ERROR", "data": "request tidak dikenali"}
                if verb == "UPLOAD":
                    self.stored[parameters[0]] = base64.b64decode(parameters[1])
                    reply = {"status": "OK", "data": "stored"}
                connection.sendall(json.dumps(reply).encode() + b"\r\n\r\n")


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


class OursAgainstTheCourses(unittest.TestCase):
    """Our client with the course's server."""

    def setUp(self) -> None:
        self.files = {"a.txt": b"short", "pokijan.jpg": bytes(range(256)) * 4000, "empty": b""}
        self.server = CourseServer(self.files)
        self.addCleanup(self.server.close)

    def test_list_and_get(self) -> None:
        self.assertEqual(remote_list(self.server.client), list(self.files))
        for raw in (False, True):
            for name, content in self.files.items():
                with self.subTest(name=name, raw=raw):
                    got = io.BytesIO()
                    remote_get(self.server.client, name, got.write, raw)
                    self.assertEqual(got.getvalue(), content)

    def test_what_it_does_not_know_it_refuses(self) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder, "x")
            path.write_bytes(b"")
            with self.assertRaises(RemoteError):
                download(self.server.client, "no", Path(folder, "no"))
            for raw in (False, True):
                with self.assertRaises(RemoteError) as caught:
                    upload(self.server.client, path, raw=raw)
                self.assertEqual(caught.exception.cause, "server")
        with self.assertRaises(RemoteError):
            remote_stats(self.server.client)


    def test_a_server_without_the_raw_verbs_never_sees_raw_bytes(self) -> None:
        server = PlainServer()
        self.addCleanup(server.close)
        content = b"\r\n\r\nDELETE everything\r\n\r\n" * 10_000
        with TemporaryDirectory() as folder:
            path = Path(folder, "x")
            path.write_bytes(content)
            self.assertFalse(upload(server.client, path, raw=True).checked)
        self.assertEqual(server.stored, {"x": content})
        self.assertNotIn(b"DELETE", server.received)


class TheCoursesAgainstOurs(unittest.TestCase):
    """The course's client with our servers."""

    def test_list_get_delete(self) -> None:
        for mode in ("legacy", "thread", "process"):
            running = RunningServer(mode)
            try:
                running.write("a.txt", b"short")
                running.write("ñ 文.jpg", bytes(range(256)) * 40)
                with self.subTest(mode=mode):
                    self.assertEqual(course_client(running.host, running.port, "LIST")["data"], ["a.txt", "ñ 文.jpg"])
                    reply = course_client(running.host, running.port, "GET 'ñ 文.jpg'")
                    self.assertEqual(reply["data_namafile"], "ñ 文.jpg")
                    self.assertEqual(base64.b64decode(reply["data_file"]), bytes(range(256)) * 40)
                    self.assertEqual(course_client(running.host, running.port, "DELETE a.txt")["status"], "OK")
                    self.assertEqual(course_client(running.host, running.port, "GET a.txt")["status"], "ERROR")
                    self.assertEqual(course_client(running.host, running.port, "list")["data"], ["ñ 文.jpg"])
            finally:
                running.stop()


if __name__ == "__main__":
    unittest.main()
