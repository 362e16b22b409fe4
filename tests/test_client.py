"""The client as a person sees it: commands, the shell, what it believes of servers, progress, how it ends."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import unittest
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import file_client_cli
import file_client_stress_test
from file_client_cli import Progress, Server, complete, number_text, printable, size_text
from tests.support import ROOT, WAIT_S, CourseServer, OtherServer, ServerCase

NO = {"status": "ERROR", "data": "request tidak dikenali"}


class ClientCase(ServerCase):
    """Runs the client in a folder of its own."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)
        self.port = self.running.port
        self.environment = mock.patch.dict(os.environ, {"HOME": folder.name})

    def client(self, *arguments: object, code: int = 0, said: str = "", typed: str = "",
               module: Any = file_client_cli) -> str:
        """Run it in this process; check its exit code, and what it says in one line; return its stdout."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), mock.patch("sys.stdin", io.StringIO(typed)), \
                mock.patch("signal.signal"), self.environment:
            done = module.main([f"--port={self.port}", f"--timeout={WAIT_S}", *map(str, arguments)])
        self.err = err.getvalue()
        self.assertEqual(done, code, self.err)
        self.assertIn(said, self.err)
        self.assertTrue(self.err.count("\n") == 1 or not said, self.err)
        return out.getvalue()

    def serve(self, server: OtherServer) -> None:
        """Have the client talk to another server."""
        self.addCleanup(server.close)
        self.port = server.port

    def other(self, answer: Callable[[str], object]) -> None:
        """Have the client talk to a server that answers a verb so."""
        self.server = CourseServer(reply=lambda text: answer(text.split()[0]))
        self.serve(self.server)

    def process(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start it as a process of its own, which ends with the test."""
        command = [sys.executable, str(ROOT / "file_client_cli.py"), "--port", str(self.port), *arguments]
        process = subprocess.Popen(command, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process


class Commands(ClientCase):
    """One-shot commands and the shell, with our server."""

    def test_up_and_down(self) -> None:
        content = self.random.randbytes(2048)
        Path("b b").write_bytes(content)
        self.assertTrue(file_client_cli.knows_raw(self.running.client))
        for options in ([], ["--raw"]):
            sizes = set[int]()  # that progress knows when it is shown
            with mock.patch.object(Progress, "__call__", lambda self, count: sizes.add(self.size_bytes)):
                out = self.client("upload", "b b", *options)
                self.assertEqual(self.err, "")  # no progress where nobody looks
                self.client("get", "b b", "-o", "target", *options)
            self.assertRegex(out, r"^b b diunggah: 2,0 KB dalam 0,.. detik, CRC-32 \w{8}\n$")
            self.assertEqual((sizes, Path("target").read_bytes()), ({2048}, content))
        self.assertEqual(self.client("LIST"), "b b\n")
        self.client("delete", "b b")
        self.client("delete", "b b", code=1, said="gagal (server): file tidak ditemukan: b b\n")

    def test_patterns(self) -> None:
        for name in ("a.txt", "b.txt", "r[1].txt", "r1.txt", "c.bin", "-x"):
            Path(name).write_text(name)
        Path("e.txt").mkdir()  # no file to send
        out = self.client("upload", "[ab].txt", "r[1].txt", "r1.txt", "~/c.b?n", "a.txt", "--", "-x")
        self.assertEqual(out.count("a.txt"), 1)
        self.assertEqual(self.running.names(), ["-x", "a.txt", "b.txt", "c.bin", "r1.txt", "r[1].txt"])
        Path("target").mkdir()
        Path("link").symlink_to("target")
        self.client("get", "?.txt", "r[1].txt", "-o", "link")  # a name may look like a pattern
        self.assertEqual(sorted(os.listdir("target")), ["a.txt", "b.txt", "r[1].txt"])
        for said, *arguments in (("gagal (server): file tidak ditemukan: *.jpg\n", "get", "*.jpg"),
                                 ("nowhere bukan folder", "get", "*.txt", "-o", "nowhere"),
                                 ("gagal: *.jpg: tidak ada\n", "upload", "*.jpg"),
                                 ("file tidak ditemukan: none", "get", "none", "a.txt")):
            out = self.client(*arguments, code=1, said=said)
        self.assertIn("a.txt diunduh", out)  # the others go on

    def test_wrong_usage(self) -> None:
        for arguments in (["--port=0"], ["--timeout=nan"], ["--timeout=-1"], ["--host=a..b"]):
            self.client(*arguments, "list", code=2, said="galat: ")
        for words in (["bogus"], ["get"], ["list", "x"], ["list", "--bogus"]):
            with self.assertRaisesRegex(SystemExit, "^2$"):
                self.client(*words)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.client("list", code=1, said="jalankan: python3 file_server.py 5 thread")

    def test_only_regular_files(self) -> None:
        (self.running.directory / "x").write_bytes(b"new")
        Path("folder").mkdir()
        Path("file").write_text("old")
        Path("link").symlink_to("file")
        Path("x").symlink_to("file")
        os.mkfifo("fifo")
        for target in ("link", "fifo", "/dev/null"):
            self.client("get", "x", "-o", target, code=1, said=f"gagal: x: {target} bukan file biasa")
        self.client("get", "x", code=1, said="x bukan file biasa")
        self.client("get", "x", "-o", "nowhere/y", code=1, said="gagal: x: nowhere/y: tidak ada\n")
        for source in ("folder", "fifo", "/dev/null"):
            self.client("upload", source, code=1, said=f"gagal: {source} bukan file biasa")
        if os.path.exists("/proc/self/status"):
            self.client("upload", "/proc/self/status", code=1, said="status tidak memberi tahu ukurannya")
        self.assertEqual(Path("file").read_text(), "old")
        self.assertEqual(sorted(os.listdir()), ["fifo", "file", "folder", "link", "x"])
        self.assertEqual(self.running.names(), ["x"])

    def test_the_shell(self) -> None:
        Path("my file").write_text("x")
        out = self.client(typed="\nUPLOAD 'my file'\nLIST\nget *\nget none\ndelete 'my\nbogus\nlist --what"
                          "\nstats\n--raw\nHELP\nExit\ndelete 'my file'\n")
        self.assertRegex(out, "(?s)diunggah.*\nfile> my file\n.*diunduh ke my file.*succeeded.*NAMA")
        for said in ("file tidak ditemukan: none", "tanda kutip tidak berpasangan", "bogus", "--what"):
            self.assertIn(said, self.err)
        self.assertEqual(self.running.names(), ["my file"])

    def test_completion(self) -> None:
        Path("my dir").mkdir()
        for name in ("my file", "my other", "plain.txt"):
            (self.running.directory / name).write_bytes(b"")
            Path(name).touch()
            Path("my dir", name).touch()
        for line, expected in (
                ("L", ["list"]), ("get x", []), ("stats x", []), ("get pl", ['get "plain.txt"']),
                ("GET my", ['GET "my file"', 'GET "my other"']), ('get "my f', ['get "my file"']),
                ("delete 'a b' 'my f", ["delete 'a b' \"my file\""]),
                ("upload my", ['upload "my dir/', 'upload "my file"', 'upload "my other"']),
                ('upload "my dir/p', ['upload "my dir/plain.txt"']),
                ("upload ~/pl", [f'upload "{os.getcwd()}/plain.txt"'])):
            with self.subTest(line=line), self.environment:
                self.assertEqual(complete(self.running.client, line), expected)
        self.assertEqual(complete(Server(port=1), "get x"), [])  # nobody there


class OtherServers(ClientCase):
    """What is not believed of a server, and what others of the course do."""

    def test_hostile_names(self) -> None:
        hostile = ["../x", f"{os.getcwd()}/y", ".bashrc", "a\nb", "c:\\z", "\x1b]0;t\x07"]
        self.other(lambda verb: {"data": [*hostile[:3], "good", *hostile[3:]], "data_file": "aGFp"})
        out = self.client("get", "*", code=1)
        self.assertEqual(os.listdir(), ["good"])
        for name in hostile:
            self.assertIn(f"gagal: {printable(name)}: nama file", self.err)
        for text in (out, self.err, self.client("list")):
            self.assertTrue(all(line.isprintable() for line in text.splitlines()), text)
        self.client("get", "../x", code=1, said="../x")
        self.client("get", "../x", "-o", "chosen")
        self.assertTrue(all(map(str.isprintable, complete(Server(port=self.port), "get "))))

    def test_downloads(self) -> None:
        right = {"data_namafile": "x", "data_ukuran": 3, "data_crc32": "f10dc090", "data_file": "aGFp"}
        wrong = [right | {"data_namafile": "y"}, right | {"data_ukuran": 4}, right | {"data_crc32": "0"}]
        for reply in (*wrong, {"data": "x"}, [1], {"data_file": "???"}):
            self.other(lambda verb: reply)
            said = "gagal (integritas): " if reply in wrong else "gagal (protokol): "
            self.client("get", "x", code=1, said=said)
        self.assertEqual((self.server.asked, os.listdir()), (["GET x"], []))  # and no LIST

    def test_an_upload_is_read_back(self) -> None:
        Path("Foto").write_bytes(b"hai")
        same = {"data_file": "aGFp"}
        for got, code in ((same, 0), ({"data_file": ""}, 1), ({"data_file": "SEFJ"}, 1), (NO, 0), ([], 0),
                          ({"status": "ERROR", "data": "tidak ada"}, 1)):
            self.other(lambda verb: {"data": "disimpan"} if verb == "UPLOAD" else got)
            out = self.client("upload", "Foto", code=code, said="gagal (integritas)" if code else "")
            self.assertEqual("tidak diperiksa" in out, not code and got != same)
        self.other(lambda verb: {"data_namafile": "foto"})
        self.client("upload", "Foto", code=1, said="server menyebut nama foto, di sini Foto")

    def test_what_worked_is_kept_and_refusals_are_told(self) -> None:
        self.other(lambda verb: {"data": ["a.txt"], "data_file": "aGFp"} if verb.islower() else NO)
        self.client("get", "--raw", "*.txt", "b")  # raw is asked for once
        self.assertEqual(self.server.asked, ["LIST", "list", "UPLOAD_RAW", "GET a.txt", "get a.txt", "get b"])
        for reply, said in (({"status": "ERROR", "data": "\x1b[2Jno\r\n\x07"}, "gagal (server): ?[2Jno???\n"),
                            ({"status": "ERROR", "data": "server sibuk"}, "gagal (ditolak): server sibuk\n"),
                            ({"data": {}}, "gagal (protokol): ")):
            self.other(lambda verb: reply)
            self.client("stats", code=1, said=said)


class CourseServers(ClientCase):
    """Our clients with the servers of others, commands and rows of the stress test."""

    def measure(self, operation: str, *arguments: object, code: int = 0, said: str = "") -> None:
        """Measure a row; check that it has everything but what only our server tells."""
        with mock.patch.object(file_client_stress_test, "LEAD_S", 0.0):  # here they may begin one by one
            self.client("--operation", operation, "--volume", 1, "--clients", 2, "--folder", ".", *arguments,
                        "--output", "rows.csv", code=code, module=file_client_stress_test)
        row = list(csv.DictReader(Path("rows.csv").read_text().splitlines()))[-1]
        self.assertEqual((row["client_sukses"], row["client_gagal"]), ("0", "2") if code else ("2", "0"))
        unknown = "server_sukses", "server_gagal", "server_menganggur", "cpu_server_s", "antre_rata_s"
        self.assertEqual([row[column] for column in unknown], [""] * len(unknown))
        self.assertIn(said, row["galat"])

    def test_the_courses_own(self) -> None:
        server = CourseServer("takes 32 bytes for a request", "lower-cases everything", "knows no UPLOAD")
        self.serve(server)
        test_file = b"".join(file_client_stress_test.random_blocks("uji-1MB.bin", 1 << 20))
        server.files = {"a.txt": b"short", "uji-1mb.bin": test_file, "noname": b""}
        self.assertEqual(self.client("list"), "a.txt\nuji-1mb.bin\n")
        for raw in ([], ["--raw"]):
            for name, content in server.files.items():
                self.client("get", name, "-o", "got", *raw)
                self.assertEqual(Path("got").read_bytes(), content)
        self.client("get", "no", code=1, said="gagal (server): no\n")
        self.client("upload", "got", code=1, said="got: request tidak dikenali")
        self.client("stats", code=1, said="gagal (server): request tidak dikenali")
        self.measure("download", "--served", "uji-1mb.bin")
        self.measure("list")

    def test_students_servers_that_store_what_they_get(self) -> None:
        content = b"\r\n\r\nDELETE semua\r\n\r\n" + bytes(range(256)) * 40
        Path("Foto1").write_bytes(content)
        for habit in ("", "closes after each reply", "knows lower case only", "says message", "says FAILED",
                      "hangs up on STATS", "splits at the first line break"):
            with self.subTest(habit=habit):
                server = CourseServer(habit)
                self.serve(server)
                self.client("upload", "--raw", "Foto1")
                self.client("get", "--raw", "Foto1", "-o", "got")
                self.assertEqual({server.files["Foto1"], Path("got").read_bytes()}, {content})
                self.assertEqual(self.client("list"), "uji.bin\n")
                self.client("delete", "Nope", code=1, said="gagal (server): Nope\n")
                self.assertEqual(self.client("delete", "Foto1"), "Foto1 of 10260 bytes gone\n")
                self.client("stats", code=1, said="gagal (")
                self.measure("download")
                self.measure("upload")
                self.assertEqual(list(server.files), ["uji.bin"])  # nothing is left, and nothing else is gone
                self.assertNotIn("DELETE semua", server.asked)  # no raw byte came

    def test_students_servers_that_say_ok_and_do_not_store_it(self) -> None:
        for habit, said in (("stores nothing", "tidak menyimpannya"), ("lower-cases everything", "")):
            with self.subTest(habit=habit):
                self.serve(CourseServer(habit))
                self.measure("upload", code=1, said="integritas:2 (server menjawab OK, tetapi " + said)
                self.measure("download", code=1, said="integritas" if not said else "server")


def shown(terminal: int, until: bytes, wait_s: float = WAIT_S) -> bytes:
    """Return what a terminal shows, until this, or until there is nothing more for some time."""
    text = b""
    while until not in text and select.select([terminal], [], [], wait_s)[0]:
        text += os.read(terminal, 1000)
    return text


class Ends(ClientCase):
    """Processes of their own: signals, terminals, pipes and streams that are closed."""

    def hang(self) -> threading.Event:
        """Have the client talk to a server that sends half a file, and return what is set when it has."""
        half_sent = threading.Event()

        def talk(connection: socket.socket) -> None:
            connection.recv(1000)
            connection.sendall(b'{"status":"OK","data_ukuran":6,"data_file":"aGFp')
            half_sent.set()
            connection.recv(1)  # the client's end

        self.serve(OtherServer(talk))
        return half_sent

    def test_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            half_sent = self.hang()
            process = self.process("get", "x", stderr=subprocess.PIPE)
            self.assertTrue(half_sent.wait(WAIT_S))
            process.send_signal(number)
            _, err = process.communicate(timeout=WAIT_S)
            self.assertEqual((process.returncode, err, os.listdir()), (130, b"\n", []))

    def test_ctrl_c_ends_the_transfer_and_not_the_shell(self) -> None:
        half_sent = self.hang()
        inside, outside = pty.openpty()
        self.addCleanup(os.close, inside)
        self.addCleanup(os.close, outside)

        def keys(typed: bytes, until: bytes) -> bytes:
            """Type, each second anew as readline may lose a signal; return what is shown up to `until`."""
            text = b""
            for _ in range(int(WAIT_S)):
                os.write(inside, typed)
                text += shown(inside, until, 1)
                if until in text:
                    return text
            raise AssertionError(f"no {until!r} after {typed!r}, but {text!r}")

        process = self.process(stdin=outside, stdout=outside, stderr=outside, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        keys(b"", b"file> ")
        keys(b"get x\n", b"get x\r\n")
        self.assertTrue(half_sent.wait(WAIT_S))
        self.assertIn(b"dibatalkan", keys(b"\x03", b"file> "))
        keys(b"half a com", b"half a com")
        self.assertIn(b"dibatalkan", keys(b"\x03", b"file> "))
        self.assertNotIn(b"error", keys(b"help\n", b"NAMA"))
        self.assertEqual((process.poll(), os.listdir()), (None, []))

    def test_readers_that_left_and_closed_streams(self) -> None:
        (self.running.directory / "ñ").write_bytes(b"")
        for arguments, typed in ((["list"], b""), ([], b"help\nlist\n")):
            reading, writing = os.pipe()
            os.close(reading)
            process = self.process(*arguments, stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE)
            os.close(writing)
            _, err = process.communicate(typed, timeout=WAIT_S)
            self.assertEqual((process.returncode, err.strip()), (130, b""))
        for command, out in (("list >&- 2>&- <&-", b""), ("get ñ", b"\\xf1 diunduh ke \\xf1: ")):
            command = f"exec {sys.executable} '{ROOT}/file_client_cli.py' --port {self.port} {command}"
            with mock.patch.dict(os.environ, {"PYTHONIOENCODING": "ascii"}):
                done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=WAIT_S)
            self.assertEqual((done.returncode, done.stderr, done.stdout[:len(out)]), (0, b"", out))


class Texts(unittest.TestCase):
    """What people read."""

    def test_progress(self) -> None:
        inside, outside = pty.openpty()
        self.addCleanup(os.close, inside)
        self.addCleanup(os.close, outside)
        for columns, name, size_bytes, expected in (
                (80, "a", 10 << 20, " 20% 2,0 MB  a"), (20, "long" * 9, 10 << 20, " 20% 2,0 MB  longlo"),
                (40, "文" * 12, 0, "2,0 MB  文文文文文文文文文文")):
            fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
            with open(outside, "w", closefd=False) as terminal, redirect_stderr(terminal), \
                    mock.patch("time.monotonic", side_effect=[0.0, 0.9, 2.0, 2.0, 2.1]):
                progress = Progress(name)
                progress.size_bytes = size_bytes
                for _ in range(3):  # under a second nothing is said, and then not too often
                    progress(1 << 20)
                progress.close()
            clear = f"\r{' ' * (columns - 1)}\r"
            whole = (clear + expected + clear).encode()
            self.assertEqual(shown(inside, whole), whole)

    def test_numbers_and_sizes(self) -> None:
        self.assertEqual([number_text(1234567.891, 2), number_text(-1234)], ["1.234.567,89", "-1.234"])
        self.assertEqual([size_text(size) for size in (0, 1023, 1536, 10 << 20, 5 << 30, 5000 << 30)],
                         ["0 byte", "1.023 byte", "1,5 KB", "10,0 MB", "5,0 GB", "5.000,0 GB"])
