"""The client as a person sees it: commands, the shell, several files at once, progress, what it says of failures."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import unittest
from contextlib import redirect_stderr, suppress
from pathlib import Path
from unittest import mock

from file_client_cli import Progress, RemoteError, duration_text, remote_sizes, size_text
from tests.support import ROOT, OtherServer, ServerCase, run_script

try:
    import pty
except ImportError:  # Windows
    pty = None  # type: ignore[assignment]


class Commands(ServerCase):
    """One-shot commands against a real server."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.here = Path(folder.name)

    def client(self, *arguments: object, code: int = 0, said: str = "") -> subprocess.CompletedProcess[str]:
        """Run the client in a folder of its own; check its exit code."""
        done = run_script("file_client_cli.py", "--port", self.running.port, *arguments, cwd=self.here)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        if said:
            self.assertIn(said, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)
        return done

    def test_list(self) -> None:
        self.client("list", said="unggah dengan")
        self.running.write("b b.txt", b"x" * 2048)
        self.running.write("a.txt", b"")
        self.assertEqual(self.client("list").stdout, "a.txt\nb b.txt\n")
        self.assertEqual([line.split(maxsplit=2) for line in self.client("list", "-l").stdout.splitlines()],
                         [["0", "byte", "a.txt"], ["2.0", "KB", "b b.txt"]])

    def test_up_and_down(self) -> None:
        content = self.random.randbytes(100_000)
        (self.here / "source").write_bytes(content)
        for options in ([], ["--raw"]):
            with self.subTest(options=options):
                done = self.client("upload", "source", "--as", "other name", *options)
                self.assertRegex(done.stdout, r"other name diunggah: 97\.7 KB dalam .* detik, .*/detik, CRC-32 \w{8}\n")
                self.assertEqual(done.stderr, "")  # no progress where nobody looks
                self.client("get", "other name", "-o", "target", *options)
                self.assertEqual((self.here / "target").read_bytes(), content)
        self.client("delete", "other name")
        self.client("delete", "other name", code=1, said="gagal (server): file tidak ditemukan: other name")

    def test_several_files_by_pattern(self) -> None:
        for name in ("a.txt", "b.txt", "c.bin", "[d]"):
            (self.here / name).write_text(name)
        (self.here / "e.txt").mkdir()  # a folder is no file to send
        self.client("upload", "*.txt", "c.bin", "[[]d]")
        self.assertEqual(sorted(path.name for path in self.running.directory.iterdir()),
                         ["[d]", "a.txt", "b.txt", "c.bin"])
        target = self.here / "target"
        target.mkdir()
        self.client("get", "?.txt", "[d]", "-o", target)  # the last is the name itself, though it looks like a pattern
        self.assertEqual({path.name: path.read_text() for path in target.iterdir()},
                         {name: name for name in ("a.txt", "b.txt", "[d]")})
        self.client("get", "*.jpg", code=1, said="file tidak ditemukan: *.jpg (lihat nama yang ada: list)")
        self.client("get", "*.txt", "-o", "nowhere", code=1, said="nowhere bukan folder")
        self.client("upload", "*.txt", "--as", "x", code=1, said="--as hanya untuk satu file")
        self.client("upload", "*.jpg", code=1, said="gagal: *.jpg: tidak ada")

    def test_nobody_there_says_what_to_do(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        done = run_script("file_client_cli.py", "--port", port, "list")
        self.assertEqual((done.returncode, done.stderr), (
            1, f"gagal (ditolak): server tidak ada di 127.0.0.1:{port}; jalankan: python3 file_server.py 5 thread\n"))

    def test_the_shell(self) -> None:
        (self.here / "my file").write_text("x")
        lines = ["", "upload 'my file'", "list -l", "get *", "get none", "delete 'my", "bogus", "list --what", "stats",
                 "help get", "quit"]
        done = subprocess.run([sys.executable, str(ROOT / "file_client_cli.py"), "--port", str(self.running.port)],
                              input="\n".join(lines) + "\n", cwd=self.here, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, "(?s)my file diunggah.*1 byte  my file.*diunduh ke my file.*succeeded")
        self.assertIn("NAMA boleh pola", done.stdout)
        for said in ("file tidak ditemukan: none", "tanda kutip tidak berpasangan", "perintah tidak dikenal: bogus",
                     "pilihan tidak dikenal: --what"):
            self.assertIn(said, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 4)

    def test_progress_is_one_line_of_the_terminal(self) -> None:
        if not pty:
            self.skipTest("no pseudo-terminals here")
        inside, outside = pty.openpty()

        def slow(connection: socket.socket) -> None:
            """Answer LIST, then GET_RAW: a byte, and the rest once the client shows that it has come."""
            asked = connection.recv(100)
            if asked.startswith(b"LIST"):
                reply = {"status": "OK", "data": ["file"], "data_ukuran": [1 << 20]}
                connection.sendall(json.dumps(reply).encode() + b"\r\n\r\n")
            else:
                connection.sendall(b'{"status":"OK","data_ukuran":1048576}\r\n\r\n')
                for _ in range(1 << 9):  # until a second has passed: 512 x 2 KiB
                    connection.sendall(bytes(1 << 11))
                    if not shown:
                        connection.settimeout(0.01)
                        with suppress(TimeoutError):
                            connection.recv(1)

        shown: list[bytes] = []
        server = OtherServer(slow)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "file_client_cli.py"), "--port", str(server.port), "get", "--raw", "file"],
            cwd=self.here, stderr=outside, stdout=subprocess.PIPE, env=os.environ | {"COLUMNS": "40", "NO_COLOR": "1"})
        os.close(outside)
        said = b""
        with suppress(OSError):  # the terminal's end, where its last user has left
            while piece := os.read(inside, 4096):
                said += piece
                shown.append(piece)
        out, _ = process.communicate(timeout=60)
        os.close(inside)
        server.close()
        self.assertIn(b"file diunduh", out)
        self.assertRegex(said, rb"^\rfile: \d+% dari 1\.0 MB, [\d.]+ [KM]B/detik")
        self.assertNotIn(b"\x1b", said)
        self.assertLess(max(map(len, re.split(rb"[\r\n]", said))), 40)


class Texts(unittest.TestCase):
    """What people read."""

    def test_progress(self) -> None:
        now_s = 0.0
        terminal = io.StringIO()
        with mock.patch.object(terminal, "isatty", lambda: True), redirect_stderr(terminal), \
                mock.patch.dict(os.environ, {"COLUMNS": "80"}), Progress("a", 10 << 20, lambda: now_s) as progress:
            now_s = 0.9
            progress(1 << 20)
            self.assertEqual(terminal.getvalue(), "")  # under a second nothing is said
            now_s = 2.0
            progress(1 << 20)
            line = "a: 20% dari 10.0 MB, 1.0 MB/detik, sisa 8.00 detik"
            self.assertEqual(terminal.getvalue(), "\r" + line)
            now_s = 2.1
            progress(1 << 20)  # not again so soon
            self.assertEqual(terminal.getvalue().count("\r"), 1)
        self.assertEqual(terminal.getvalue().count("\r"), 3)
        self.assertTrue(terminal.getvalue().endswith("\r" + " " * len(line) + "\r"))  # and the line is clean again

    def test_progress_is_silent_off_a_terminal(self) -> None:
        now_s = 0.0
        with redirect_stderr(io.StringIO()) as redirected, Progress("a", None, lambda: now_s) as progress:
            now_s = 5.0
            progress(1000)
        self.assertEqual(redirected.getvalue(), "")

    def test_sizes_and_durations(self) -> None:
        self.assertEqual([size_text(size) for size in (0, 1023, 1536, 10 << 20, 5 << 30)],
                         ["0 byte", "1023 byte", "1.5 KB", "10.0 MB", "5.0 GB"])
        self.assertEqual([duration_text(time_s) for time_s in (0.123, 9.99, 59.6, 125)],
                         ["0.12 detik", "9.99 detik", "1 menit 0 detik", "2 menit 5 detik"])

    def test_a_server_that_tells_no_sizes_or_nonsense(self) -> None:
        for told, expected in (({}, {"a": None}), ({"data_ukuran": [1, 2]}, {"a": None}),
                               ({"data_ukuran": ["x"]}, {"a": None}), ({"data_ukuran": [7]}, {"a": 7})):
            def talk(connection: socket.socket, told: object = told) -> None:
                connection.recv(100)
                reply = {"status": "OK", "data": ["a"]} | dict(told)  # type: ignore[call-overload]
                connection.sendall(json.dumps(reply).encode() + b"\r\n\r\n")

            server = OtherServer(talk)
            try:
                self.assertEqual(remote_sizes(server.client), expected)
            finally:
                server.close()
        server = OtherServer(lambda connection: connection.sendall(b'{"status":"OK","data":[1]}\r\n\r\n'))
        try:
            with self.assertRaises(RemoteError):
                remote_sizes(server.client)
        finally:
            server.close()


if __name__ == "__main__":
    unittest.main()
