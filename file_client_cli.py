"""The client: one request to a server, as functions, as one-shot commands and as an interactive shell.

The remote_*() functions open a connection, ask, verify the answer and close. They are what everything else
uses. What goes wrong is a RemoteError whose `cause` is one of six words:

    ditolak     nobody listens there, or the server is too busy
    timeout     the time was up
    putus       the connection ended before the answer did
    protokol    the answer is not the protocol's
    integritas  the answer is, but what came or was stored is not the file
    server      the server understood and refused
"""

from __future__ import annotations

import argparse
import cmd
import fnmatch
import glob
import io
import json
import os
import secrets
import shlex
import shutil
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from file_protocol import (
    DEFAULT_HOST, DEFAULT_PORT, END, MISSING_PARAMETER, UNKNOWN_REQUEST, CommandLine, ProtocolError, Received,
    Truncated, Wire, crc32_of, encode_request, ignore, raw_pieces, read_reply, reason, seconds, send_file_body,
    send_raw_body,
)

try:
    import readline
except ImportError:  # not everywhere: then there is neither history nor completion
    readline = None  # type: ignore[assignment]


class RemoteError(Exception):
    """A request failed; `cause` is one of the words above, the text is for people, in Indonesian."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteError, (self.cause, str(self))  # pickled on its way out of a worker process


@dataclass(frozen=True)
class Server:
    """Where a server is, and how long one request to it may take in all."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Transfer:
    """A file that went over, verified: its size and CRC-32, and where the time went."""

    name: str
    size_bytes: int
    crc32: int
    connect_s: float  # until the connection was open
    wait_s: float | None  # from then until a worker took it up; None where the server does not tell
    total_s: float  # from before connecting until the reply was verified
    checked: bool  # whether the server told the CRC-32 of what it sent or stored


class _Conversation:
    """One connection with one request on it, and the moments that matter."""

    def __init__(self, server: Server) -> None:
        self.started_at = time.perf_counter()
        self.connection = socket.create_connection((server.host, server.port), server.timeout_s)
        self.connected_at = time.perf_counter()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        left_s = server.timeout_s - (self.connected_at - self.started_at)
        self.wire = Wire(self.connection, left_s, left_s)

    def transfer(self, name: str, size_bytes: int, crc32: int, waited_s: object, checked: bool) -> Transfer:
        """Return what was measured, of a file that was verified; `waited_s` as far as it is known."""
        return Transfer(name, size_bytes, crc32, self.connected_at - self.started_at,
                        waited_s if isinstance(waited_s, float) else None,
                        time.perf_counter() - self.started_at, checked)


@contextmanager
def _conversation(server: Server) -> Iterator[_Conversation]:
    """Open a connection for one request; turn whatever fails into a RemoteError."""
    conversation = None
    try:
        conversation = _Conversation(server)
        yield conversation
    except TimeoutError:
        raise RemoteError("timeout", f"server tidak menjawab dalam {server.timeout_s:g} detik") from None
    except Truncated as error:
        raise RemoteError("putus", str(error)) from None
    except ProtocolError as error:
        raise RemoteError("protokol", str(error)) from None
    except ConnectionError as error:
        if conversation is None:
            raise RemoteError("ditolak", f"server tidak ada di {server.host}:{server.port}; jalankan: "
                              "python3 file_server.py 5 thread") from None
        raise RemoteError("putus", f"koneksi terputus ({reason(error)})") from None
    except UnicodeError:
        raise RemoteError("ditolak", f"bukan nama host: {server.host}") from None
    except OSError as error:
        if conversation is None:
            raise RemoteError("ditolak", f"{server.host}:{server.port} tidak dapat dihubungi "
                              f"({reason(error)})") from None
        raise  # a local file, not the connection
    finally:
        if conversation:
            conversation.connection.close()


def _check(received: Received) -> Received:
    reply = received.reply
    if reply["status"] != "OK":
        message = str(reply.get("data"))
        raise RemoteError("ditolak" if message.startswith("server sibuk") else "server", message)
    return received


def _verify(reply: dict[str, Any], size_bytes: int, crc32: int) -> None:
    """Compare what the server says of a file with what it is; a server of the course says nothing."""
    said_bytes, said_crc32 = reply.get("data_ukuran", size_bytes), reply.get("data_crc32", f"{crc32:08x}")
    if said_bytes != size_bytes:
        raise RemoteError("integritas", f"ukuran berbeda: server {said_bytes}, di sini {size_bytes} byte")
    if said_crc32 != f"{crc32:08x}":
        raise RemoteError("integritas", f"CRC-32 berbeda: server {said_crc32}, di sini {crc32:08x}")


def _ask(server: Server, verb: str, *parameters: str) -> dict[str, Any]:
    with _conversation(server) as conversation:
        conversation.wire.send(encode_request(verb, *parameters) + END)
        return _check(read_reply(conversation.wire)).reply


def remote_sizes(server: Server) -> dict[str, int | None]:
    """Return the files on the server: their sizes in bytes, None where it does not tell. Raises RemoteError."""
    reply = _ask(server, "LIST")
    names, sizes_bytes = reply.get("data"), reply.get("data_ukuran")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RemoteError("protokol", "jawaban LIST bukan daftar nama")
    if not isinstance(sizes_bytes, list) or len(sizes_bytes) != len(names):
        sizes_bytes = [None] * len(names)  # a server of the course knows only names
    return {name: size if isinstance(size, int) else None for name, size in zip(names, sizes_bytes, strict=True)}


def remote_list(server: Server) -> list[str]:
    """Return the names of the files on the server. Raises RemoteError."""
    return list(remote_sizes(server))


def remote_delete(server: Server, name: str) -> str:
    """Delete a file on the server; return what the server said. Raises RemoteError."""
    return str(_ask(server, "DELETE", name).get("data"))


def remote_stats(server: Server) -> dict[str, Any]:
    """Return the server's counts: ThreadPoolServer.get_worker_stats() tells what they mean. Raises RemoteError."""
    stats = _ask(server, "STATS").get("data")
    if not isinstance(stats, dict):
        raise RemoteError("protokol", "jawaban STATS bukan objek")
    return stats


def remote_get(server: Server, name: str, write: Callable[[bytes | memoryview], object],
               raw: bool = False) -> Transfer:
    """Download a file; `write` gets its bytes piece by piece, before they are verified. Raises RemoteError.

    `raw` spares both sides the base64; a server that does not know the raw verbs is asked again without.
    """
    with _conversation(server) as conversation:
        wire = conversation.wire
        wire.send(encode_request("GET_RAW" if raw else "GET", name) + END)
        received = read_reply(wire, None if raw else write)
        if not (raw and received.reply.get("data") == UNKNOWN_REQUEST):
            reply, size_bytes, crc32 = _check(received)
            if raw:
                said_bytes = reply.get("data_ukuran")
                if not isinstance(said_bytes, int) or said_bytes < 0:
                    raise ProtocolError("jawaban GET_RAW tanpa ukuran")
                size_bytes = said_bytes
                for piece in raw_pieces(wire, size_bytes):
                    write(piece)
                    crc32 = zlib.crc32(piece, crc32)
            elif reply.get("data_file") != "":  # read_reply() leaves this of a file that has come
                raise ProtocolError("jawaban GET tanpa isi file")
            _verify(reply, size_bytes, crc32)
            waited_s = wire.first_byte_at - conversation.connected_at if wire.first_byte_at else None
            return conversation.transfer(name, size_bytes, crc32, waited_s, "data_crc32" in reply)
    return remote_get(server, name, write)


def remote_upload(server: Server, file: BinaryIO, name: str, raw: bool = False, crc32: int | None = None,
                  moved: Callable[[int], None] = ignore) -> Transfer:
    """Upload the rest of `file`, a real one, opened unbuffered, under `name`. Raises RemoteError, OSError.

    `raw` as for remote_get(); then `crc32`, where it is known already, spares reading the file once more.
    `moved` is told of file bytes as they go.
    """
    position = file.tell()
    size_bytes = os.fstat(file.fileno()).st_size - position
    if raw and crc32 is None:
        crc32 = crc32_of(file, size_bytes)
        file.seek(position)
    with _conversation(server) as conversation:
        wire = conversation.wire
        if raw:
            # To a server that does not know the verb, the bytes of a file might look like commands.
            wire.send(encode_request("UPLOAD_RAW") + END)
            received = read_reply(wire)
            raw = received.reply.get("data") != UNKNOWN_REQUEST
            if raw and received.reply.get("data") != MISSING_PARAMETER.format("UPLOAD_RAW"):
                _check(received)  # too busy, or stopping: nothing more will be heard
        try:
            if raw:
                wire.send(encode_request("UPLOAD_RAW", name, str(size_bytes)) + END)
                send_raw_body(wire, file, size_bytes, moved)
            else:
                wire.send(encode_request("UPLOAD", name))
                crc32 = send_file_body(wire, file, size_bytes, moved)
        except ConnectionError:
            with suppress(OSError, ProtocolError):  # it may have said why before it hung up
                _check(read_reply(wire))
            raise
        reply = _check(read_reply(wire)).reply
        _verify(reply, size_bytes, crc32 or 0)
        return conversation.transfer(name, size_bytes, crc32 or 0, reply.get("data_antre_s"), "data_crc32" in reply)


# ---- for people


def size_text(size_bytes: float) -> str:
    """Return a size for people: 1.5 MB, where 1 MB is 1,048,576 bytes as everywhere in this project."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} byte"
    for unit in ("KB", "MB"):
        size_bytes /= 1024
        if size_bytes < 1024:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1024:.1f} GB"


def duration_text(duration_s: float) -> str:
    """Return a duration for people."""
    if duration_s < 10:
        return f"{duration_s:.2f} detik"
    minutes, whole_s = divmod(round(duration_s), 60)
    return f"{minutes} menit {whole_s} detik" if minutes else f"{whole_s} detik"


class Progress:
    """Tells on a terminal how far a transfer is, if it takes longer than a second; call it with each count of bytes."""

    def __init__(self, name: str, size_bytes: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`size_bytes` is None if nobody knows; `clock` tells seconds."""
        self._name, self._size_bytes, self._clock = name, size_bytes, clock
        self._done_bytes = 0
        self._begun_at = clock()
        self._next_at = self._begun_at + 1.0
        self._shown = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._show("")

    def __call__(self, count: int) -> None:
        self._done_bytes += count
        now_at = self._clock()
        if now_at < self._next_at or not sys.stderr.isatty():
            return
        self._next_at = now_at + 0.2
        rate = self._done_bytes / (now_at - self._begun_at)
        if self._size_bytes:
            left_s = max(0, self._size_bytes - self._done_bytes) / rate
            self._show(f"{self._name}: {self._done_bytes / self._size_bytes:.0%} dari {size_text(self._size_bytes)}, "
                       f"{size_text(rate)}/detik, sisa {duration_text(left_s)}")
        else:
            self._show(f"{self._name}: {size_text(self._done_bytes)}, {size_text(rate)}/detik")

    def _show(self, text: str) -> None:
        """Put `text` in the place of the last one, on one line of the terminal however narrow it is."""
        text = text[:shutil.get_terminal_size().columns - 1]
        if text or self._shown:
            print("\r" + text.ljust(len(self._shown)), end="" if text else "\r", file=sys.stderr, flush=True)
        self._shown = text


def download(server: Server, name: str, path: Path, raw: bool = False,
             moved: Callable[[int], None] = ignore) -> Transfer:
    """Download into `path`, which appears only when it is whole and right. Raises RemoteError, OSError."""
    temporary = path.parent / f".{secrets.token_hex(8)}.unduh"
    try:
        with open(temporary, "xb") as file:
            def write(piece: bytes | memoryview) -> None:
                file.write(piece)
                moved(len(piece))

            transfer = remote_get(server, name, write, raw)
        os.replace(temporary, path)
        return transfer
    finally:
        temporary.unlink(missing_ok=True)


def upload(server: Server, path: Path, name: str | None = None, raw: bool = False,
           moved: Callable[[int], None] = ignore) -> Transfer:
    """Upload the file at `path`, under its own name unless another is given. Raises RemoteError, OSError."""
    with open(path, "rb", buffering=0) as file:
        return remote_upload(server, file, name or path.name, raw, moved=moved)


def _transfer_text(done: str, transfer: Transfer) -> str:
    return (f"{transfer.name} {done}: {size_text(transfer.size_bytes)} dalam {duration_text(transfer.total_s)}, "
            f"{size_text(transfer.size_bytes / transfer.total_s)}/detik, CRC-32 {transfer.crc32:08x}")


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that a pattern stands for. Raises RemoteError if there is none."""
    if pattern in names:
        return [pattern]  # a name may look like a pattern
    found = fnmatch.filter(names, pattern)
    if not found:
        raise RemoteError("server", f"file tidak ditemukan: {pattern} (lihat nama yang ada: list)")
    return found


def _list(server: Server, options: argparse.Namespace) -> None:
    sizes_bytes = remote_sizes(server)
    for name, size_bytes in sizes_bytes.items():
        print(f"{'?' if size_bytes is None else size_text(size_bytes):>12}  {name}" if options.long else name)
    if not sizes_bytes:
        print("(belum ada file di server; unggah dengan: upload PATH)", file=sys.stderr)


def _get(server: Server, options: argparse.Namespace) -> None:
    sizes_bytes = remote_sizes(server)
    wanted = [name for pattern in options.names for name in _matching(pattern, sizes_bytes)]
    if len(wanted) > 1 and options.output and not options.output.is_dir():
        raise argparse.ArgumentTypeError(f"{options.output} bukan folder, padahal ada {len(wanted)} file")
    for name in wanted:
        path = options.output or Path(name)
        if path.is_dir():
            path = path / name
        with Progress(name, sizes_bytes[name]) as progress:
            transfer = download(server, name, path, options.raw, progress)
        print(_transfer_text(f"diunduh ke {path}", transfer))


def _upload(server: Server, options: argparse.Namespace) -> None:
    paths = [path for given in options.paths for path in _local(given)]
    if options.name and len(paths) > 1:
        raise argparse.ArgumentTypeError("--as hanya untuk satu file")
    for path in paths:
        with Progress(path.name, path.stat().st_size) as progress:
            transfer = upload(server, path, options.name, options.raw, progress)
        print(_transfer_text("diunggah", transfer))


def _local(given: str) -> list[Path]:
    """Return the files here that a path or a pattern stands for (a shell does that, ours and Windows' do not)."""
    return [Path(path) for path in sorted(glob.glob(given)) if os.path.isfile(path)] or [Path(given)]


def _delete(server: Server, options: argparse.Namespace) -> None:
    print(remote_delete(server, options.name))


def _stats(server: Server, options: argparse.Namespace) -> None:
    print(json.dumps(remote_stats(server), indent=2))


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands that a person can give, on the command line as in the shell."""
    commands = parser.add_subparsers(title="perintah", metavar="PERINTAH")
    for run, text in ((_list, "tampilkan nama file di server"), (_get, "unduh file"),
                      (_upload, "unggah file"), (_delete, "hapus sebuah file di server"),
                      (_stats, "tampilkan hitungan server")):
        command = commands.add_parser(run.__name__.strip("_"), help=text, description=text)
        command.set_defaults(run=run)
        if run is _list:
            command.add_argument("-l", "--long", action="store_true", help="dengan ukurannya")
        if run is _delete:
            command.add_argument("name", metavar="NAMA", help="nama file di server")
        if run is _get:
            command.add_argument("names", nargs="+", metavar="NAMA", help="nama di server, atau pola seperti '*.txt'")
            command.add_argument("-o", "--output", type=Path, metavar="PATH", help="simpan di sini")
        if run is _upload:
            command.add_argument("paths", nargs="+", metavar="PATH", help="file yang diunggah, atau pola seperti *.txt")
            command.add_argument("--as", dest="name", metavar="NAMA", help="nama di server")
        if run in (_get, _upload):
            command.add_argument("--raw", action="store_true", help="tanpa base64: lebih cepat")


def run_command(server: Server, options: argparse.Namespace) -> int:
    """Run a parsed command; return 0, or 1 after saying in one line why not."""
    try:
        options.run(server, options)
    except RemoteError as error:
        print(f"gagal ({error.cause}): {error}", file=sys.stderr)
    except argparse.ArgumentTypeError as error:
        print(f"gagal: {error}", file=sys.stderr)
    except OSError as error:
        print(f"gagal: {error.filename or 'file'}: {reason(error)}", file=sys.stderr)
    else:
        return 0
    return 1


class _ShellLine(CommandLine):
    hint = "ketik help"


class Shell(cmd.Cmd):
    """The interactive client."""

    prompt = "file> "
    doc_header = "Perintah (help PERINTAH untuk rinciannya; nama berspasi diberi tanda kutip):"

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._parser = _ShellLine(prog="", add_help=False)
        add_commands(self._parser)

    def _run(self, line: str) -> None:
        try:
            options = self._parser.parse_args(shlex.split(line))
        except ValueError:
            print("gagal: tanda kutip tidak berpasangan", file=sys.stderr)
        except SystemExit:
            pass  # the parser has said what was wrong
        else:
            run_command(self._server, options)

    def do_list(self, line: str) -> None:
        """list [-l]: tampilkan nama file di server, dengan -l juga ukurannya"""
        self._run(f"list {line}")

    def do_get(self, line: str) -> None:
        """get NAMA... [-o PATH] [--raw]: unduh file; NAMA boleh pola, misalnya *.txt"""
        self._run(f"get {line}")

    def do_upload(self, line: str) -> None:
        """upload PATH... [--as NAMA] [--raw]: unggah file; PATH boleh pola, misalnya *.txt"""
        self._run(f"upload {line}")

    def do_delete(self, line: str) -> None:
        """delete NAMA: hapus sebuah file di server"""
        self._run(f"delete {line}")

    def do_stats(self, line: str) -> None:
        """stats: tampilkan hitungan server"""
        self._run(f"stats {line}")

    def do_quit(self, line: str) -> bool:
        """quit: keluar (juga Ctrl-D)"""
        return True

    def do_EOF(self, line: str) -> bool:  # noqa: N802 (the name is cmd's)
        print()
        return True

    def get_names(self) -> list[str]:
        return [name for name in super().get_names() if name != "do_EOF"]  # no command to type

    def emptyline(self) -> bool:
        return False  # and not the last command again

    def default(self, line: str) -> None:
        print(f"perintah tidak dikenal: {line.split()[0]} (ketik help)", file=sys.stderr)

    def complete_get(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Complete the name of a file on the server."""
        try:
            return [shlex.quote(name) for name in remote_list(self._server) if name.startswith(text)]
        except RemoteError:
            return []

    complete_delete = complete_get

    def complete_upload(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Complete the path of a file here."""
        return [path + "/" * os.path.isdir(path) for path in glob.glob(glob.escape(text) + "*")]


def main(argv: list[str] | None = None) -> int:
    """Run one command, or the shell if none is given; return the exit code: 0, 1 failed, 2 wrong usage."""
    parser = CommandLine(description="Client untuk server file; tanpa PERINTAH: mode interaktif.",
                         epilog="contoh: python3 file_client_cli.py --port 46666 get contoh.txt -o salinan.txt")
    parser.add_address(DEFAULT_PORT)
    parser.add_argument("--timeout", type=seconds, default=Server.timeout_s, metavar="DETIK",
                        help="batas waktu satu permintaan (bawaan: %(default)g)")
    add_commands(parser)
    options = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # any name can be listed on any terminal
    server = Server(options.host, options.port, options.timeout)
    try:
        if hasattr(options, "run"):
            return run_command(server, options)
        if readline:
            readline.set_completer_delims(" \t\n")
        Shell(server).cmdloop(f"Client server file {server.host}:{server.port}; ketik help untuk bantuan.")
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
