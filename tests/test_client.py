"""The client as a person sees it: commands, the shell, what it believes of servers, progress, how it ends."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
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
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import file_client_cli
from file_client_cli import Progress, Server, Shell, duration_text, number_text, printable, size_text
from file_protocol import END
from tests.support import ROOT, WAIT_S, OtherServer, ServerCase


def no(message: str = "request tidak dikenali") -> dict[str, str]:
    """Return a refusal."""
    return {"status": "ERROR", "data": message}


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

    def client(self, *arguments: object, code: int = 0, said: str = "", typed: str = "") -> str:
        """Run it in this process; check its exit code, and what it says in one line; return its stdout."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), mock.patch("sys.stdin", io.StringIO(typed)), \
                mock.patch("file_client_cli.interrupt_on_signals"), self.environment:
            done = file_client_cli.main(["--port", str(self.port), *map(str, arguments)])
        self.err = err.getvalue()
        self.assertEqual(done, code, self.err)
        self.assertIn(said, self.err)
        self.assertTrue(self.err.count("\n") == 1 or not said, self.err)
        return out.getvalue()

    def serve(self, talk: Callable[[socket.socket], None]) -> None:
        """Have the client talk to another server."""
        server = OtherServer(talk)
        self.addCleanup(server.close)
        self.port = server.port

    def other(self, answer: Callable[[str], object]) -> None:
        """Have the client talk to a server that answers a verb with these fields, or anything else."""
        self.asked: list[str] = []

        def talk(connection: socket.socket) -> None:
            received = b""
            while END not in received:
                received += connection.recv(1 << 16) or END  # if the client has left
            self.asked.append(received.decode().split("\r\n")[0].strip())
            reply = answer(self.asked[-1].split()[0])
            whole = {"status": "OK"} | reply if isinstance(reply, dict) else reply
            connection.sendall(json.dumps(whole).encode() + END)
            connection.recv(1)  # the client's end

        self.serve(talk)

    def process(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start it as a process of its own."""
        script = str(ROOT / "file_client_cli.py")
        return subprocess.Popen([sys.executable, script, "--port", str(self.port), *arguments], **options)

    def names(self, folder: object = ".") -> list[str]:
        return sorted(os.listdir(str(folder)))


class Commands(ClientCase):
    """One-shot commands and the shell, with our server."""

    def test_up_and_down(self) -> None:
        content = self.random.randbytes(2048)
        Path("source").write_bytes(content)
        for options in ([], ["--raw"]):
            out = self.client("upload", "source", "--as", "b b", *options)
            self.assertRegex(out, r"^b b diunggah: 2,0 KB dalam 0,.. detik, CRC-32 \w{8}\n$")
            self.assertEqual(self.err, "")  # no progress where nobody looks
            self.client("get", "b b", "-o", "target", *options)
            self.assertEqual(Path("target").read_bytes(), content)
            told: list[object] = []  # the size, before the first piece
            file_client_cli.remote_get(self.running.client, "b b", told.append, bool(options), told.append)
            self.assertEqual(told[0], 2048)
        self.assertEqual(self.client("list"), "b b\n")
        self.assertEqual(self.client("list", "-l").split(maxsplit=2), ["2,0", "KB", "b b\n"])
        self.client("delete", "b b")
        self.client("delete", "b b", code=1, said="gagal (server): file tidak ditemukan: b b\n")

    def test_patterns(self) -> None:  # 14
        for name in ("a.txt", "b.txt", "r[1].txt", "r1.txt", "c.bin", "-x"):
            Path(name).write_text(name)
        Path("e.txt").mkdir()  # no file to send
        self.client("upload", "[ab].txt", "r[1].txt", "r1.txt", "~/c.b?n", "a.txt", "--", "-x")
        stored = self.names(self.running.directory)
        self.assertEqual(stored, ["-x", "a.txt", "b.txt", "c.bin", "r1.txt", "r[1].txt"])
        self.assertEqual(self.running.read("r[1].txt"), b"r[1].txt")
        Path("target").mkdir()
        Path("link").symlink_to("target")
        self.client("get", "?.txt", "r[1].txt", "-o", "link")  # a name may look like a pattern
        self.assertEqual(self.names("target"), ["a.txt", "b.txt", "r[1].txt"])
        for said, *arguments in (("*.jpg (lihat nama yang ada: list)", "get", "*.jpg"),
                                 ("nowhere bukan folder", "get", "*.txt", "-o", "nowhere"),
                                 ("--as hanya untuk satu file", "upload", "*.txt", "--as", "x"),
                                 ("gagal: *.jpg: tidak ada\n", "upload", "*.jpg"),
                                 ("file tidak ditemukan: none", "get", "none", "a.txt")):
            out = self.client(*arguments, code=1, said=said)
        self.assertIn("a.txt diunduh", out)  # the others go on

    def test_wrong_usage(self) -> None:
        for arguments in (["--port", 0], ["--timeout", "nan"], ["--timeout", -1], ["--host", "a..b"]):
            self.client(*arguments, "list", code=2, said="galat: ")
        with self.assertRaisesRegex(SystemExit, "^2$"):
            self.client("bogus")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.client("list", code=1, said="jalankan: python3 file_server.py 5 thread")

    def test_only_regular_files(self) -> None:  # 15, 16
        self.running.write("x", b"new")
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
        self.assertEqual(self.names(), ["fifo", "file", "folder", "link", "x"])
        self.assertEqual(self.names(self.running.directory), ["x"])

    def test_the_shell(self) -> None:
        Path("my file").write_text("x")
        out = self.client(typed="\nUPLOAD 'my file'\nlist -l\nget *\nget none\ndelete 'my\nbogus\nlist --what"
                          "\nstats\nhelp get\nHELP\nExit\ndelete 'my file'\n")
        self.assertRegex(out, "(?s)diunggah.* 1 byte  my file.*diunduh ke my file.*succeeded.*NAMA.*Ctrl-D")
        for said in ("file tidak ditemukan: none", "tanda kutip tidak berpasangan", "bogus", "--what"):
            self.assertIn(said, self.err)
        self.assertEqual(self.names(self.running.directory), ["my file"])

    def test_completion(self) -> None:  # 16
        for name in ("my file", "my other", "plain.txt"):
            self.running.write(name, b"")
            Path(name).touch()
        Path("my dir").mkdir()
        Path("my dir", "in it").touch()
        shell = Shell(Server(port=self.port))
        for line, expected in (
                ("L", ["list"]), ("get x", []),
                ("get pl", ["get plain.txt"]), ("GET my", ['GET "my file"', 'GET "my other"']),
                ("delete a 'my f", ["delete a 'my file'"]), ('get "my f', ['get "my file"']), ("stats x", []),
                ("upload my", ['upload "my dir/', 'upload "my file"', 'upload "my other"']),
                ('upload "my dir/', ['upload "my dir/in it"']), ("upload ~/pl", ["upload ~/plain.txt"])):
            with self.subTest(line=line), self.environment:
                self.assertEqual(shell.completenames(line), expected)
        self.assertEqual(Shell(Server(port=1)).completenames("get x"), [])  # nobody there


class OtherServers(ClientCase):
    """What is not believed of a server, and what others of the course do."""

    def test_hostile_names(self) -> None:  # 13
        hostile = ["../x", f"{os.getcwd()}/y", ".bashrc", "a\nb", "c:\\z", "\x1b]0;t\x07"]
        self.other(lambda verb: {"data": [*hostile[:3], "good", *hostile[3:]], "data_file": "aGFp"})
        out = self.client("get", "*", code=1)
        self.assertEqual(self.names(), ["good"])
        for name in hostile:
            self.assertIn(f"gagal: {printable(name)}: nama file", self.err)
        for text in (out, self.err, self.client("list")):
            self.assertTrue(all(line.isprintable() for line in text.splitlines()), text)
        self.client("get", "../x", code=1, said="../x")
        self.client("get", "../x", "-o", "chosen")
        self.other(lambda verb: no("\x1b[2Jno\r\n\x07"))
        self.client("delete", "x", code=1, said="gagal (server): ?[2Jno???\n")

    def test_downloads(self) -> None:  # 27
        self.other(lambda verb: {"data_file": "aGFp"} if verb == "GET" else no())
        self.client("get", "x")
        self.assertEqual((self.asked, Path("x").read_bytes()), (["GET x"], b"hai"))  # and no LIST
        right = {"data_namafile": "x", "data_ukuran": 3, "data_crc32": "f10dc090", "data_file": "aGFp"}
        wrong = [right | {"data_namafile": "y"}, right | {"data_ukuran": 4}, right | {"data_crc32": "0"}]
        for reply in (*wrong, {"data": "x"}, [1], {"data_file": "???"}):
            self.other(lambda verb: reply)
            said = "gagal (integritas): " if reply in wrong else "gagal (protokol): "
            self.client("get", "x", code=1, said=said)
        self.assertEqual(self.names(), ["x"])
        self.other(lambda verb: right)
        self.client("get", "x")

    def test_an_upload_is_read_back(self) -> None:  # 25
        Path("Foto").write_bytes(b"hai")
        same = {"data_file": "aGFp"}
        for got, code in ((same, 0), ({"data_file": ""}, 1), ({"data_file": "SEFJ"}, 1), (no("tidak ada"), 1),
                          (no(), 0), ([], 0)):
            self.other(lambda verb: {"data": "disimpan"} if verb == "UPLOAD" else got)
            out = self.client("upload", "Foto", code=code, said="gagal (integritas)" if code else "")
            self.assertEqual("tidak diperiksa" in out, not code and got != same)
        self.other(lambda verb: {"data_namafile": "foto"})
        self.client("upload", "Foto", code=1, said="server menyebut file lain: foto")

    def test_lower_case_messages_and_other_words(self) -> None:  # 28, 29, 30
        self.other(lambda verb: {"data": ["a.txt"], "data_file": "aGFp"} if verb.islower() else no())
        self.client("get", "*.txt", "b")
        self.assertEqual(self.asked, ["LIST", "list", "GET a.txt", "get a.txt", "get b"])
        for reply, said in (({"status": "ERROR", "message": "tidak boleh"}, "gagal (server): tidak boleh\n"),
                            ({"status": "FAILED"}, "gagal (server): status FAILED\n"),
                            (no("server sibuk, coba lagi"), "gagal (ditolak): server sibuk"),
                            ({"data": {}}, "gagal (protokol): ")):
            self.other(lambda verb: reply)
            self.client("stats", code=1, said=said)
        for told, expected in (([1, 2], "?"), (["x"], "?"), ([7], "7 byte")):
            self.other(lambda verb: {"data": ["a"], "data_ukuran": told})
            self.assertEqual(self.client("list", "-l").strip(), f"{expected}  a")

    def test_raw_falls_back(self) -> None:
        Path("x").write_bytes(b"\r\n\r\nDELETE y\r\n\r\n")
        self.other(lambda verb: {"data_file": "aGFp"} if verb in ("GET", "UPLOAD") else no())
        self.client("get", "--raw", "y")
        self.client("upload", "--raw", "x", code=1)  # for it gives back something else
        self.assertEqual(self.asked, ["UPLOAD_RAW", "GET y", "UPLOAD_RAW", "UPLOAD x", "GET x"])
        self.assertTrue(file_client_cli.knows_raw(self.running.client))


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

        self.serve(talk)
        return half_sent

    def test_signals(self) -> None:  # 6
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            half_sent = self.hang()
            with self.process("get", "x", stderr=subprocess.PIPE) as process:
                self.assertTrue(half_sent.wait(WAIT_S))
                process.send_signal(number)
                _, err = process.communicate(timeout=WAIT_S)
            self.assertEqual((process.returncode, err, self.names()), (130, b"\n", []))

    def test_ctrl_c_ends_the_transfer_and_not_the_shell(self) -> None:  # 16
        half_sent = self.hang()
        inside, outside = pty.openpty()
        said = b""

        def after(text: bytes, keys: bytes) -> None:
            """Wait until the shell has said this, then type."""
            nonlocal said
            while text not in said:
                said += os.read(inside, 1000)
            said = said.partition(text)[2]
            os.write(inside, keys)

        with self.process(stdin=outside, stdout=outside, stderr=outside, start_new_session=True,
                          preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) as process:
            os.close(outside)
            after(b"file> ", b"get x\n")
            self.assertTrue(half_sent.wait(WAIT_S))
            os.write(inside, b"\x03")
            after(b"dibatalkan\r\n", b"")
            after(b"file> ", b"half a com")
            after(b"half a com", b"\x03")
            after(b"file> ", b"exit\n")
            with suppress(OSError):  # the terminal's end, where its last user has left
                while piece := os.read(inside, 1000):
                    said += piece
            self.assertEqual(process.wait(WAIT_S), 0)
        os.close(inside)
        self.assertEqual((said.strip(), self.names()), (b"exit", []))

    def test_readers_that_left_and_closed_streams(self) -> None:  # 5, 11
        self.running.write("ñ", b"")
        for arguments, typed in ((["list"], b""), ([], b"help\nlist\n")):
            reading, writing = os.pipe()
            os.close(reading)
            with self.process(*arguments, stdin=subprocess.PIPE, stdout=writing,
                              stderr=subprocess.PIPE) as process:
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
        for columns, name, size_bytes, expected in (
                (80, "a", 10 << 20, " 20% 2,0 MB  a"), (20, "long" * 9, 10 << 20, " 20% 2,0 MB  longlo"),
                (40, "文" * 12, 0, "2,0 MB  文文文文文文文文文文")):
            fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
            with open(outside, "w", closefd=False) as terminal, redirect_stderr(terminal), \
                    mock.patch("time.monotonic", side_effect=[0.0, 0.9, 2.0, 2.0, 2.1]):
                progress = Progress(name)
                progress.expect(size_bytes)
                for _ in range(3):  # under a second nothing is said, and then not too often
                    progress(1 << 20)
                progress.close()
            clear = f"\r{' ' * (columns - 1)}\r"
            shown = b""
            while shown.count(b"\r") < 4:
                shown += os.read(inside, 1000)
            self.assertEqual(shown.decode(), clear + expected + clear)
        os.close(inside)
        os.close(outside)

    def test_numbers_sizes_and_durations(self) -> None:
        self.assertEqual([number_text(1234567.891, 2), number_text(-1234)], ["1.234.567,89", "-1.234"])
        self.assertEqual([size_text(size) for size in (0, 1023, 1536, 10 << 20, 5 << 30, 5000 << 30)],
                         ["0 byte", "1.023 byte", "1,5 KB", "10,0 MB", "5,0 GB", "5.000,0 GB"])
        self.assertEqual([duration_text(time_s) for time_s in (0.123, 9.99, 59.6, 125)],
                         ["0,12 detik", "9,99 detik", "1 menit 0 detik", "2 menit 5 detik"])


if __name__ == "__main__":
    unittest.main()
