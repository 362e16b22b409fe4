"""The client: one request to a server, as functions, as one-shot commands and as an interactive shell.

What goes wrong in a remote_*() function is a RemoteError whose `cause` is one of six words:

    ditolak     nobody listens there, or the server is too busy
    timeout     the time was up
    putus       the connection ended before the reply did
    protokol    the reply is not the protocol's
    integritas  the reply is, but what came or was stored is not the file
    server      the server understood and refused
"""

from __future__ import annotations

import argparse
import cmd
import fnmatch
import glob
import json
import os
import re
import secrets
import shlex
import signal
import socket
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from file_protocol import (
    DEFAULT_HOST, DEFAULT_PORT, END, MISSING_PARAMETER, UNKNOWN_REQUEST, Connection, FileError, ProtocolError,
    Truncated, check_name, crc32_of, encode_request, no_progress, os_error_text, prepare_streams, raw_pieces,
    read_reply, say, send_base64_body, send_raw_body,
)

SHORT_TIMEOUT_S = 5.0  # for what is asked only to help: completion, and whether a server knows the raw verbs
_SIZE = re.compile(rb'"data_ukuran": ?(\d{1,15})\b')
_COMMANDS = ("delete", "exit", "get", "help", "list", "quit", "stats", "upload")
_LAST_WORD = re.compile(r"""((?:"[^"]*"|'[^']*'|[^'"])*\s)(["']?)(.*)""")  # and what is before it
_Result = TypeVar("_Result")


class RemoteError(Exception):
    """A request failed; `cause` is one of the words above, the text is for people, in Indonesian."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteError, (self.cause, str(self))  # pickled on its way out of a worker process


@dataclass(frozen=True)
class Server:
    """Where a server is, and how long one request to it may take. Raises ValueError if out of range."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    timeout_s: float = 600.0
    lower_case: set[str] = field(default_factory=set, compare=False, repr=False)  # verbs it knows only so

    def __post_init__(self) -> None:
        self.host.encode("idna")  # as socket does, with another exception
        if not 1 <= self.port <= 65535:
            raise ValueError("port harus 1 sampai 65535")
        if not 0 < self.timeout_s <= 1e6:
            raise ValueError("batas waktu harus lebih dari 0 dan paling banyak 1.000.000 detik")


@dataclass(frozen=True)
class Transfer:
    """A file that went over: its size and CRC-32, and where the time went."""

    name: str
    size_bytes: int
    crc32: int
    connect_s: float  # until the connection was open
    queue_s: float | None  # how long the connection waited for a worker, where the server tells
    first_byte_s: float | None  # from the open connection to the first byte of the reply
    total_s: float  # from before connecting until the reply was verified
    checked: bool  # whether the server told the CRC-32 of what it sent or stored


class _Conversation(Connection):
    """A new connection to a server, for one request."""

    def __init__(self, server: Server) -> None:
        self.started_at = time.perf_counter()
        self.sock = socket.create_connection((server.host, server.port), server.timeout_s)
        self.connected_at = time.perf_counter()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        left_s = server.timeout_s - (self.connected_at - self.started_at)
        super().__init__(self.sock, left_s, left_s)

    def transfer(self, reply: dict[str, Any], name: str, size_bytes: int, crc32: int) -> Transfer:
        """Return what was measured; raises RemoteError if the server tells another size or CRC-32."""
        said_bytes, said_crc32 = reply.get("data_ukuran", size_bytes), reply.get("data_crc32", f"{crc32:08x}")
        if (said_bytes, said_crc32) != (size_bytes, f"{crc32:08x}"):
            raise RemoteError("integritas", f"server menyebut {said_bytes} byte, CRC-32 {said_crc32}; "
                              f"di sini {size_bytes} byte, CRC-32 {crc32:08x}")
        queue_s = reply.get("data_antre_s")
        return Transfer(name, size_bytes, crc32, self.connected_at - self.started_at,
                        float(queue_s) if isinstance(queue_s, (int, float)) else None,
                        self.first_byte_at - self.connected_at if self.first_byte_at else None,
                        time.perf_counter() - self.started_at, "data_crc32" in reply)


def _request(server: Server, verb: str, parameters: tuple[str, ...], talk: Callable[[_Conversation], _Result],
             end: bytes = END) -> _Result:
    """Send a command on a new connection and return talk(connection); if the server does not know the verb,
    once more in lower case. Raises RemoteError for whatever fails there, OSError for a local file."""
    spelled = verb.lower() if verb in server.lower_case else verb
    connection = None
    try:
        connection = _Conversation(server)
        with connection.sock:
            connection.send(encode_request(spelled, *parameters) + end)
            return talk(connection)
    except RemoteError as error:
        if UNKNOWN_REQUEST not in str(error).lower() or spelled != verb:
            raise
    except TimeoutError:
        raise RemoteError("timeout", f"server tidak menjawab dalam {server.timeout_s:g} detik") from None
    except ProtocolError as error:
        raise RemoteError("putus" if isinstance(error, Truncated) else "protokol", str(error)) from None
    except OSError as error:
        reason = os_error_text(error)
        if not connection:
            raise RemoteError("ditolak", f"server tidak ada di {server.host}:{server.port} ({reason}); "
                              "jalankan: python3 file_server.py 5 thread") from None
        if not isinstance(error, ConnectionError):
            raise
        raise RemoteError("putus", f"koneksi terputus ({reason})") from None
    server.lower_case.add(verb)
    return _request(server, verb, parameters, talk, end)


def _accept(reply: dict[str, Any], *parameters: str) -> dict[str, Any]:
    """Return `reply` if it is OK, and names the file asked for if it names one; raises RemoteError."""
    if reply["status"] != "OK":
        message = str(reply.get("data") or reply.get("message") or f"status {reply['status']}")
        raise RemoteError("ditolak" if message.startswith("server sibuk") else "server", message)
    if parameters and reply.get("data_namafile", parameters[0]) != parameters[0]:
        raise RemoteError("integritas", f"server menyebut file lain: {reply['data_namafile']}")
    return reply


def _ask(server: Server, verb: str, *parameters: str) -> dict[str, Any]:
    """Send a request without a file and return the reply. Raises RemoteError."""
    return _request(server, verb, parameters,
                    lambda connection: _accept(read_reply(connection).reply, *parameters))


def remote_sizes(server: Server) -> dict[str, int | None]:
    """Return the sizes of the files on the server in bytes, None where not told. Raises RemoteError."""
    reply = _ask(server, "LIST")
    names, sizes_bytes = reply.get("data"), reply.get("data_ukuran")
    if not isinstance(names, list):
        raise RemoteError("protokol", "jawaban LIST bukan daftar nama")
    if not isinstance(sizes_bytes, list) or len(sizes_bytes) != len(names):
        sizes_bytes = [None] * len(names)  # a server of the course knows only names
    told = zip(names, sizes_bytes, strict=True)
    return {str(name): size_bytes if isinstance(size_bytes, int) else None for name, size_bytes in told}


def remote_list(server: Server) -> list[str]:
    """Return the names of the files on the server. Raises RemoteError."""
    return list(remote_sizes(server))


def remote_delete(server: Server, name: str) -> str:
    """Delete a file on the server; return what the server said. Raises RemoteError."""
    return str(_ask(server, "DELETE", name).get("data", "OK"))


def remote_stats(server: Server) -> dict[str, Any]:
    """Return the server's counts, see ThreadPoolServer.get_worker_stats(). Raises RemoteError."""
    stats = _ask(server, "STATS").get("data")
    if not isinstance(stats, dict) or "succeeded" not in stats:
        raise RemoteError("protokol", "jawaban STATS bukan hitungan server")
    return stats


def remote_get(server: Server, name: str, write: Callable[[bytes | memoryview], object], raw: bool = False,
               on_size: Callable[[int], None] = no_progress) -> Transfer:
    """Download a file; `write` gets its bytes piece by piece, before they are verified. Raises RemoteError.

    `raw` spares both sides the base64; ask knows_raw() first. `on_size` is told the size in bytes before the
    first piece, where the server tells it.
    """
    def talk(connection: _Conversation) -> Transfer:
        if connection.receive() and (told := _SIZE.search(connection.pending[:1024])):
            on_size(int(told[1]))
        reply, size_bytes, crc32 = read_reply(connection, None if raw else write)
        _accept(reply, name)
        if raw:
            size_bytes = reply.get("data_ukuran", -1)
            if not isinstance(size_bytes, int) or size_bytes < 0:
                raise ProtocolError("jawaban GET_RAW tanpa ukuran")
            for piece in raw_pieces(connection, size_bytes):
                write(piece)
                crc32 = zlib.crc32(piece, crc32)
        elif reply.get("data_file") != "":  # read_reply() leaves this of a file that has come
            raise ProtocolError("jawaban GET tanpa isi file")
        return connection.transfer(reply, name, size_bytes, crc32)

    return _request(server, "GET_RAW" if raw else "GET", (name,), talk)


def _impatient(server: Server) -> Server:
    return replace(server, timeout_s=min(server.timeout_s, SHORT_TIMEOUT_S))


def knows_raw(server: Server) -> bool:
    """Return whether a server knows the raw verbs, asked on a connection of its own by a command that does
    nothing. Raises RemoteError if nobody listens there."""
    missing = MISSING_PARAMETER.format("UPLOAD_RAW")
    try:
        return _request(_impatient(server), "UPLOAD_RAW", (),
                        lambda connection: bool(read_reply(connection).reply.get("data") == missing))
    except RemoteError as error:
        if error.cause == "ditolak":
            raise
        return False


def remote_upload(server: Server, file: BinaryIO, name: str, raw: bool = False, crc32: int | None = None,
                  on_bytes: Callable[[int], None] = no_progress) -> Transfer:
    """Upload the rest of `file`, a real one, opened unbuffered, under `name`. Raises RemoteError, OSError.

    `raw` as for remote_get(); then `crc32`, where it is known already, spares reading the file once more.
    `on_bytes` is told of file bytes as they go. If the result is not `checked`, ask read_back() as well.
    """
    position = file.tell()
    size_bytes = os.fstat(file.fileno()).st_size - position
    known_crc32 = crc32_of(file, size_bytes) if raw and crc32 is None else crc32 or 0

    def talk(connection: _Conversation) -> Transfer:
        file.seek(position)
        sent_crc32 = known_crc32
        try:
            if raw:
                send_raw_body(connection, file, size_bytes, on_bytes)
            else:
                sent_crc32 = send_base64_body(connection, file, size_bytes, on_bytes)
        except ConnectionError:
            with suppress(OSError, ProtocolError):  # it may have said why before it hung up
                _accept(read_reply(connection).reply)
            raise
        reply = _accept(read_reply(connection).reply, name)
        return connection.transfer(reply, name, size_bytes, sent_crc32)

    if raw:
        return _request(server, "UPLOAD_RAW", (name, str(size_bytes)), talk)
    return _request(server, "UPLOAD", (name,), talk, end=b"")  # send_base64_body() goes on in the same line


def read_back(server: Server, transfer: Transfer) -> Transfer:
    """Download what was uploaded, and return it as `checked`; unchanged if it cannot be read back.

    Raises RemoteError if the server has something else, or knows GET and does not give the file.
    """
    try:
        stored = remote_get(server, transfer.name, lambda piece: None)
    except RemoteError as error:
        if error.cause not in ("integritas", "server") or UNKNOWN_REQUEST in str(error).lower():
            return transfer
        raise RemoteError("integritas", f"server menjawab OK, tetapi tidak menyimpannya ({error})") from None
    if (stored.size_bytes, stored.crc32) != (transfer.size_bytes, transfer.crc32):
        raise RemoteError("integritas", f"server menjawab OK, tetapi isinya lain ({stored.size_bytes} byte)")
    return replace(transfer, checked=True)


# ---- for people


def number_text(value: float, digits: int = 0) -> str:
    """Return a number for people: 1.234,5 (points for thousands, a comma for decimals)."""
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,"))


def size_text(size_bytes: float) -> str:
    """Return a size for people: 1,5 MB, where 1 MB is 1,048,576 bytes as everywhere in this project."""
    power = min(max(int(size_bytes).bit_length() - 1, 0) // 10, 3)
    return f"{number_text(size_bytes / 1024**power, 1 if power else 0)} {('byte', 'KB', 'MB', 'GB')[power]}"


def duration_text(duration_s: float) -> str:
    """Return a duration for people."""
    if duration_s < 10:
        return f"{number_text(duration_s, 2)} detik"
    minutes, whole_s = divmod(round(duration_s), 60)
    return f"{number_text(minutes)} menit {whole_s} detik" if minutes else f"{whole_s} detik"


def printable(text: str) -> str:
    """Return `text` with "?" for each character that could control a terminal, or does not show."""
    return "".join(character if character.isprintable() else "?" for character in text)


class Progress:
    """Tells on a terminal how far a transfer is, once it takes a second; call it with counts of bytes."""

    def __init__(self, name: str) -> None:
        self._name = printable(name)
        self._size_bytes = self._done_bytes = 0
        self._next_at = time.monotonic() + 1.0
        self._shown = False

    def expect(self, size_bytes: int) -> None:
        """Tell how many bytes there will be, once that is known."""
        self._size_bytes = size_bytes

    def __call__(self, count: int) -> None:
        self._done_bytes += count
        if time.monotonic() > self._next_at and sys.stderr.isatty():
            self._next_at = time.monotonic() + 0.2
            share = f"{min(self._done_bytes / self._size_bytes, 1):4.0%} " if self._size_bytes else ""
            self._show(f"{share}{size_text(self._done_bytes)}  {self._name}")

    def close(self) -> None:
        """Clear the line."""
        if self._shown:
            self._show("")

    def _show(self, text: str) -> None:
        """Put `text` in the place of the last one, on one line: no character is wider than it has bytes."""
        self._shown = True
        with suppress(OSError):  # the terminal may have been closed
            columns = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
            say(f"\r{'':{columns}}\r{text.encode()[:columns].decode(errors='ignore')}", end="")


def download(server: Server, name: str, path: Path, raw: bool = False) -> Transfer:
    """Download into `path`, which appears only when it is whole and right; show progress on a terminal.

    Raises RemoteError, and FileError for what cannot be written, or be replaced as it is no regular file.
    """
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise FileError(f"{path} bukan file biasa, jadi tidak diganti")
    temporary = path.parent / f".{secrets.token_hex(8)}.unduh"
    try:
        with open(temporary, "xb") as file, closing(Progress(name)) as progress:
            def write(piece: bytes | memoryview) -> None:
                file.write(piece)
                progress(len(piece))

            transfer = remote_get(server, name, write, raw, progress.expect)
        os.replace(temporary, path)
        return transfer
    except OSError as error:
        raise FileError(f"{path}: {os_error_text(error)}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def upload(server: Server, path: Path, name: str | None = None, raw: bool = False) -> Transfer:
    """Upload the file at `path`, under its own name unless another is given; show progress on a terminal.

    Raises RemoteError, OSError, and FileError if it is not a regular file that tells its size.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileError(f"{path} bukan file biasa")
    with open(path, "rb", buffering=0) as file, closing(Progress(name or path.name)) as progress:
        size_bytes = os.fstat(file.fileno()).st_size
        if not size_bytes and file.read(1):
            raise FileError(f"{path} tidak memberi tahu ukurannya")
        progress.expect(size_bytes)
        return remote_upload(server, file, name or path.name, raw, on_bytes=progress)


# ---- commands


def _tell(*lines: str) -> None:
    say("\n".join(map(printable, lines)), sys.stdout)


def _each(items: Iterable[Any], work: Callable[[Any], int | None]) -> int:
    """Do the work for each item, whatever becomes of the others; return the exit code, 1 if any failed."""
    code = 0
    for item in items:
        try:
            code |= work(item) or 0
        except (RemoteError, FileError, OSError, ValueError) as error:  # ValueError: no name on this system
            code = 1
            text = os_error_text(error) if isinstance(error, OSError) else str(error)
            cause = f" ({error.cause})" if isinstance(error, RemoteError) else ""
            say(printable(f"gagal{cause}: {text if str(item) in text else f'{item}: {text}'}"))
    return code


def _tell_transfer(done: str, transfer: Transfer) -> None:
    duration, checked = duration_text(transfer.total_s), "" if transfer.checked else ", tidak diperiksa"
    _tell(f"{transfer.name} {done}: {size_text(transfer.size_bytes)} dalam {duration}, "
          f"CRC-32 {transfer.crc32:08x}{checked}")


def _names(server: Server, given: str) -> list[str]:
    """Return the names on the server that a name or a pattern stands for. Raises RemoteError."""
    if not set(given) & set("*?["):
        return [given]
    names = remote_list(server)
    found = [given] if given in names else fnmatch.filter(names, given)
    if not found:
        raise RemoteError("server", f"file tidak ditemukan: {given} (lihat nama yang ada: list)")
    return found


def _paths(given: str) -> list[str]:
    """Return the files here that a path or a pattern stands for; a path that exists is no pattern."""
    if os.path.lexists(given):
        return [given]
    given = os.path.expanduser(given)  # a shell has done that, ours has not
    return sorted(filter(os.path.isfile, glob.glob(given))) or [given]


def _list(server: Server, options: argparse.Namespace) -> None:
    for name, size_bytes in remote_sizes(server).items():
        size = f"{'?' if size_bytes is None else size_text(size_bytes):>12}  " if options.long else ""
        _tell(size + name)


def _get(server: Server, options: argparse.Namespace) -> int:
    names = dict.fromkeys(name for given in options.names for name in _names(server, given))
    into_folder = options.output.is_dir()
    if len(names) > 1 and not into_folder:
        raise FileError(f"{options.output} bukan folder, padahal ada {len(names)} file")
    raw = options.raw and knows_raw(server)

    def get(name: str) -> None:
        if into_folder:
            check_name(name)
        path = options.output / name if into_folder else options.output
        _tell_transfer(f"diunduh ke {path}", download(server, name, path, raw))

    return _each(names, get)


def _upload(server: Server, options: argparse.Namespace) -> int:
    paths = dict.fromkeys(path for given in options.paths for path in _paths(given))
    if options.name and len(paths) > 1:
        raise FileError("--as hanya untuk satu file")
    raw = options.raw and knows_raw(server)

    def send(path: str) -> None:
        transfer = upload(server, Path(path), options.name, raw)
        _tell_transfer("diunggah", transfer if transfer.checked else read_back(server, transfer))

    return _each(paths, send)


def _delete(server: Server, options: argparse.Namespace) -> None:
    _tell(remote_delete(server, options.name))


def _stats(server: Server, options: argparse.Namespace) -> None:
    _tell(*json.dumps(remote_stats(server), indent=2).splitlines())


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands that a person can give, on the command line as in the shell."""
    commands = parser.add_subparsers(title="perintah", metavar="PERINTAH")

    def add(run: Callable[[Server, argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(run.__name__[1:], help=text, description=text)
        command.set_defaults(run=run)
        return command

    listing = add(_list, "tampilkan nama file di server")
    listing.add_argument("-l", "--long", action="store_true", help="dengan ukurannya")
    get = add(_get, "unduh file")
    get.add_argument("names", nargs="+", metavar="NAMA", help="nama di server, atau pola '*.txt'")
    get.add_argument("-o", "--output", type=Path, default=Path(), metavar="PATH", help="simpan di sini")
    put = add(_upload, "unggah file")
    put.add_argument("paths", nargs="+", metavar="PATH", help="file di sini, atau pola *.txt")
    put.add_argument("--as", dest="name", metavar="NAMA", help="nama di server")
    for command in (get, put):
        command.add_argument("--raw", action="store_true", help="tanpa base64, kalau server mengenalnya")
    add(_delete, "hapus file di server").add_argument("name", metavar="NAMA", help="nama file di server")
    add(_stats, "tampilkan hitungan server")


def run_command(server: Server, options: argparse.Namespace) -> int:
    """Run a parsed command; return the exit code."""
    return _each([""], lambda _: options.run(server, options))


class Shell(cmd.Cmd):
    """The interactive client."""

    prompt = "file> "

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._parser = argparse.ArgumentParser(prog="file>", epilog=(
            "help PERINTAH: rinciannya; exit, quit atau Ctrl-D: keluar; nama berspasi diberi tanda kutip"))
        add_commands(self._parser)

    def run(self) -> None:
        """Read commands until the user leaves. On a terminal, Ctrl-C ends a command and not the shell."""
        with suppress(ImportError):  # not everywhere: then there is neither history nor completion
            import readline
            readline.set_completer_delims("")  # so that a whole line is completed, see completenames()
        _tell(f"Client server file {self._server.host}:{self._server.port}; ketik help untuk bantuan.")
        while True:
            try:
                self.cmdloop()
                return _tell("")  # after Ctrl-D
            except BrokenPipeError:  # cmd itself has written to a reader that has left
                raise KeyboardInterrupt from None
            except KeyboardInterrupt as interrupt:
                if interrupt.args or not sys.stdin.isatty():
                    raise
                say("\ndibatalkan")

    def precmd(self, line: str) -> str:
        command, blank, rest = line.strip().partition(" ")
        return command.lower() + blank + rest

    def default(self, line: str) -> None:
        try:
            run_command(self._server, self._parser.parse_args(shlex.split(line)))
        except ValueError:
            say("gagal: tanda kutip tidak berpasangan")
        except SystemExit:
            pass  # the parser has said what was wrong

    def do_help(self, arg: str) -> None:
        self.default(f"{arg} -h")

    def do_quit(self, arg: str) -> bool:
        return True

    do_exit = do_eof = do_quit

    def emptyline(self) -> bool:
        return False  # and not the last command again

    def completenames(self, text: str, *ignored: Any) -> list[str]:
        """Return the lines that `text`, a line, may become: its last word is a command, a name or a path."""
        match = _LAST_WORD.fullmatch(text)
        if not match:
            return [name for name in _COMMANDS if name.startswith(text.lower())]
        before, quote, word = match.groups()
        command, found = before.split()[0].lower(), list[str]()
        if command == "upload":
            start = os.path.expanduser(word)
            found = [word + path[len(start):] + "/" * os.path.isdir(path)
                     for path in sorted(glob.glob(glob.escape(start) + "*"))]
        elif command in ("get", "delete"):
            with suppress(RemoteError):
                found = [name for name in remote_list(_impatient(self._server)) if name.startswith(word)]
        if any(set(name) & set(" '\"\\") for name in found):  # all alike, as readline compares
            quote = quote or '"'
        return [before + quote + name + quote * (not name.endswith("/"))  # a folder goes on
                for name in found if printable(name) == name and (not quote or quote not in name)]


def interrupt_on_signals() -> None:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt, with their number, unless they are ignored (nohup).

    Only the first of them does, lest the next one ends what cleans up.
    """
    numbers = [number for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
               if signal.getsignal(number) == signal.SIG_DFL]

    def interrupt(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    for number in numbers:
        signal.signal(number, interrupt)


def main(argv: list[str] | None = None) -> int:
    """Run one command, or the shell if none is given; return the exit code: 0, 1 failed, 2 wrong usage."""
    prepare_streams()
    parser = argparse.ArgumentParser(
        description="Client untuk server file; tanpa PERINTAH: mode interaktif.",
        epilog="contoh: python3 file_client_cli.py --port 46666 get contoh.txt -o salinan.txt")
    parser.add_argument("--host", default=DEFAULT_HOST, help="alamat server (bawaan: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port server (bawaan: %(default)s)")
    parser.add_argument("--timeout", type=float, default=Server.timeout_s, metavar="DETIK",
                        help="batas waktu satu permintaan (bawaan: %(default)g)")
    parser.set_defaults(run=lambda server, options: Shell(server).run())
    add_commands(parser)
    options = parser.parse_args(argv)
    try:
        server = Server(options.host, options.port, options.timeout)
    except ValueError as error:
        say(f"galat: {error}")
        return 2
    interrupt_on_signals()
    try:
        return run_command(server, options)
    except KeyboardInterrupt:
        with suppress(KeyboardInterrupt, OSError):
            say("", sys.stdout, end="")  # notices a reader that has left
            say("")
        return 130


if __name__ == "__main__":
    sys.exit(main())
