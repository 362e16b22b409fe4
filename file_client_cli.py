"""The client: one request to a server, as functions, as one-shot commands and as an interactive shell."""

from __future__ import annotations

import argparse
import fnmatch
import glob
import json
import os
import re
import shlex
import signal
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from file_protocol import (
    DEFAULT_HOST, DEFAULT_PORT, END, MISSING_PARAMETER, UNKNOWN_REQUEST, Connection, FileError, ProtocolError,
    Received, Truncated, check_name, crc32_of, encode_request, no_progress, os_error_text, prepare_streams,
    raw_pieces, read_reply, say, send_base64_body, send_raw_body,
)

SHORT_TIMEOUT_S = 5.0  # for what is asked only to help: completion, and whether a server knows the raw verbs
_SIZE = re.compile(rb'"data_ukuran": ?(\d{1,15})\b')
_LAST_WORD = re.compile(r"""((?:"[^"]*"|'[^']*'|[^'"])*\s)?["']?(.*)""")  # and what is before it


class RemoteError(Exception):
    """A request failed; the text is for people, in Indonesian. `cause` is ditolak (nobody there, or busy),
    timeout, putus (the connection ended before the reply did), protokol (the reply is not the protocol's),
    integritas (what came or was stored is not the file) or server (it understood and refused)."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


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


class Transfer(NamedTuple):
    """A file that went over: its size and CRC-32, and where the time went."""

    name: str
    size_bytes: int
    crc32: int
    connect_s: float  # until the connection was open
    queue_s: float | None  # how long the connection waited for a worker, where the server tells
    first_byte_s: float | None  # from the open connection to the first byte of the reply
    total_s: float  # from before connecting until the reply was verified
    checked: bool  # whether the server told the CRC-32 of what it sent or stored

    def __str__(self) -> str:
        return (f"{size_text(self.size_bytes)} dalam {number_text(self.total_s, 2)} detik, "
                f"CRC-32 {self.crc32:08x}{'' if self.checked else ', tidak diperiksa'}")


def _request(server: Server, verb: str, *parameters: str, end: bytes = END,
             talk: Callable[[Connection], Received] = read_reply) -> tuple[dict[str, Any], Transfer]:
    """Send a command on a new connection, and what `talk` adds; return the reply, an OK, and what it took.
    A verb unknown there is tried in lower case. Raises RemoteError, and OSError for a local file."""
    spelled = verb.lower() if verb in server.lower_case else verb
    started_at, connected_at = time.perf_counter(), 0.0
    try:
        with socket.create_connection((server.host, server.port), server.timeout_s) as sock:
            connected_at = time.perf_counter()
            connection = Connection(sock, server.timeout_s, server.timeout_s - (connected_at - started_at))
            connection.send(encode_request(spelled, *parameters) + end)
            reply, size_bytes, crc32 = talk(connection)
    except TimeoutError:
        raise RemoteError("timeout", f"server tidak menjawab dalam {server.timeout_s:g} detik") from None
    except ProtocolError as error:
        raise RemoteError("putus" if isinstance(error, Truncated) else "protokol", str(error)) from None
    except OSError as error:
        reason = os_error_text(error)
        if not connected_at:
            raise RemoteError("ditolak", f"server tidak ada di {server.host}:{server.port} ({reason}); "
                              "jalankan: python3 file_server.py 5 thread") from None
        if not isinstance(error, ConnectionError):
            raise
        raise RemoteError("putus", f"koneksi terputus ({reason})") from None
    if reply["status"] != "OK":
        message = str(reply.get("data") or reply.get("message") or f"status {reply['status']}")
        if UNKNOWN_REQUEST in message.lower() and spelled == verb and not verb.endswith("_RAW"):
            server.lower_case.add(verb)
            return _request(server, verb, *parameters, end=end, talk=talk)
        raise RemoteError("ditolak" if message.startswith("server sibuk") else "server", message)
    name = "".join(parameters[:1])
    for what, key, here in (("nama", "data_namafile", name), ("ukuran", "data_ukuran", size_bytes),
                            ("CRC-32", "data_crc32", f"{crc32:08x}")):
        if parameters and reply.get(key, here) != here:
            raise RemoteError("integritas", f"server menyebut {what} {reply[key]}, di sini {here}")
    queue_s, first_byte_at = reply.get("data_antre_s"), connection.first_byte_at or connected_at
    return reply, Transfer(name, size_bytes, crc32, connected_at - started_at,
                           queue_s if isinstance(queue_s, float) else None, first_byte_at - connected_at,
                           time.perf_counter() - started_at, "data_crc32" in reply)


def remote_list(server: Server) -> list[str]:
    """Return the names of the files on the server. Raises RemoteError."""
    names = _request(server, "LIST")[0].get("data")
    if not isinstance(names, list):
        raise RemoteError("protokol", "jawaban LIST bukan daftar nama")
    return list(map(str, names))


def remote_delete(server: Server, name: str) -> str:
    """Delete a file on the server; return what the server said. Raises RemoteError."""
    return str(_request(server, "DELETE", name)[0].get("data", "OK"))


def remote_stats(server: Server) -> dict[str, Any]:
    """Return the server's counts, see ThreadPoolServer.get_worker_stats(). Raises RemoteError."""
    stats = _request(server, "STATS")[0].get("data")
    if not isinstance(stats, dict) or "succeeded" not in stats:
        raise RemoteError("protokol", "jawaban STATS bukan hitungan server")
    return stats


def remote_get(server: Server, name: str, write: Callable[[bytes | memoryview], object], raw: bool = False,
               progress: Progress | None = None) -> Transfer:
    """Download a file; `write` gets its bytes piece by piece, before they are verified. Raises RemoteError.
    `raw` spares both sides the base64, see knows_raw(). `progress` is told the size, where it is known."""
    def talk(connection: Connection) -> Received:
        if progress and connection.receive() and (told := _SIZE.search(connection.pending[:1024])):
            progress.size_bytes = int(told[1])
        reply, size_bytes, crc32 = read_reply(connection, None if raw else write)
        if raw and reply["status"] == "OK":
            size_bytes = reply.get("data_ukuran", -1)
            if not isinstance(size_bytes, int) or size_bytes < 0:
                raise ProtocolError("jawaban GET_RAW tanpa ukuran")
            for piece in raw_pieces(connection, size_bytes):
                write(piece)
                crc32 = zlib.crc32(piece, crc32)
        elif reply["status"] == "OK" and reply.get("data_file") != "":  # what read_reply() leaves of a file
            raise ProtocolError("jawaban GET tanpa isi file")
        return Received(reply, size_bytes, crc32)

    return _request(server, "GET_RAW" if raw else "GET", name, talk=talk)[1]


def knows_raw(server: Server) -> bool:
    """Return whether a server knows the raw verbs; raises RemoteError if nobody listens there."""
    try:
        _request(replace(server, timeout_s=min(server.timeout_s, SHORT_TIMEOUT_S)), "UPLOAD_RAW")
    except RemoteError as error:
        if error.cause == "ditolak":
            raise
        return str(error) == MISSING_PARAMETER.format("UPLOAD_RAW")
    return False


def remote_upload(server: Server, file: BinaryIO, name: str, raw: bool = False, crc32: int | None = None,
                  on_bytes: Callable[[int], None] = no_progress) -> Transfer:
    """Upload a file that is opened unbuffered; a `crc32` that is known spares reading it twice if `raw`.
    A result that is not `checked` needs read_back(). Raises RemoteError, FileError, OSError."""
    size_bytes = os.fstat(file.fileno()).st_size
    if not size_bytes and file.read(1):
        raise FileError(f"{name} tidak memberi tahu ukurannya")
    known_crc32 = crc32_of(file, size_bytes) if raw and crc32 is None else crc32 or 0

    def talk(connection: Connection) -> Received:
        sent_crc32 = known_crc32
        file.seek(0)
        with suppress(ConnectionError):  # the server may have said why before it hung up
            if raw:
                send_raw_body(connection, file, size_bytes, on_bytes)
            else:
                sent_crc32 = send_base64_body(connection, file, size_bytes, on_bytes)
        return Received(read_reply(connection).reply, size_bytes, sent_crc32)

    if raw:
        return _request(server, "UPLOAD_RAW", name, str(size_bytes), talk=talk)[1]
    return _request(server, "UPLOAD", name, end=b"", talk=talk)[1]  # send_base64_body() ends the line


def read_back(server: Server, transfer: Transfer) -> Transfer:
    """Return `transfer` as `checked` by a download, or as it is where it cannot be read back.
    Raises RemoteError if the server has something else, or knows GET and does not give the file."""
    try:
        stored = remote_get(server, transfer.name, lambda piece: None)
    except RemoteError as error:
        if error.cause not in ("integritas", "server") or UNKNOWN_REQUEST in str(error).lower():
            return transfer
        raise RemoteError("integritas", f"server menjawab OK, tetapi tidak menyimpannya ({error})") from None
    if (stored.size_bytes, stored.crc32) != (transfer.size_bytes, transfer.crc32):
        raise RemoteError("integritas", f"server menjawab OK, tetapi isinya lain ({stored.size_bytes} byte)")
    return transfer._replace(checked=True)


def number_text(value: float, digits: int = 0) -> str:
    """Return a number for people: 1.234,5 (points for thousands, a comma for decimals)."""
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,"))


def size_text(size_bytes: float) -> str:
    """Return a size for people: 1,5 MB, where 1 MB is 1,048,576 bytes as everywhere in this project."""
    power = min(max(int(size_bytes).bit_length() - 1, 0) // 10, 3)
    return f"{number_text(size_bytes / 1024**power, 1 if power else 0)} {('byte', 'KB', 'MB', 'GB')[power]}"


def printable(text: str) -> str:
    """Return `text` with "?" for each character that could control a terminal, or does not show."""
    return "".join(character if character.isprintable() else "?" for character in text)


class Progress:
    """Shows on a terminal how far a transfer is, once it takes a second; call it with counts of bytes."""

    def __init__(self, name: str) -> None:
        self._name = printable(name)
        self._done_bytes = self.size_bytes = 0  # the size is set where it is known
        self._next_at = time.monotonic() + 1.0

    def __call__(self, count: int) -> None:
        self._done_bytes += count
        if time.monotonic() > self._next_at:
            self._next_at = time.monotonic() + 0.2
            share = f"{min(self._done_bytes / self.size_bytes, 1):4.0%} " if self.size_bytes else ""
            self.close(f"{share}{size_text(self._done_bytes)}  {self._name}")

    def close(self, text: str = "") -> None:
        """Clear the line, for `text` that fits: no character is wider than it has bytes."""
        with suppress(OSError):  # no terminal, or one that has been closed
            columns = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
            say(f"\r{'':{columns}}\r{text.encode()[:columns].decode(errors='ignore')}", end="")


def upload(server: Server, path: Path, name: str | None = None, raw: bool = False) -> Transfer:
    """Upload a file, read back unless the server tells its CRC-32. Raises RemoteError, FileError, OSError."""
    if path.exists() and not path.is_file():
        raise FileError(f"{path} bukan file biasa")
    with open(path, "rb", buffering=0) as file, closing(Progress(name or path.name)) as progress:
        progress.size_bytes = path.stat().st_size
        transfer = remote_upload(server, file, name or path.name, raw, on_bytes=progress)
    return transfer if transfer.checked else read_back(server, transfer)


def _expand(server: Server, options: argparse.Namespace, given: str) -> list[str]:
    """Return the names that a name or pattern stands for; what exists under that name is no pattern."""
    if options.command == "upload" and not os.path.lexists(given):
        given = os.path.expanduser(given)  # a shell has done that, ours has not
        return sorted(filter(os.path.isfile, glob.glob(given))) or [given]
    if options.command == "get" and set(given) & set("*?["):
        names = remote_list(server)
        return [given] if given in names else fnmatch.filter(names, given) or [given]
    return [given]


def _get(server: Server, options: argparse.Namespace, name: str) -> list[str]:
    """Download a file, which appears only when it is whole and right, and replaces only a regular file."""
    path: Path = options.output
    if path.is_dir():
        check_name(name)
        path = path / name
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise FileError(f"{path} bukan file biasa, jadi tidak diganti")
    temporary = path.parent / f".{os.urandom(8).hex()}.unduh"
    try:
        with open(temporary, "xb") as file, closing(Progress(name)) as progress:
            result = remote_get(server, name, lambda part: progress(file.write(part)), options.raw, progress)
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"{path}: {os_error_text(error)}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return [f"{name} diunduh ke {path}: {result}"]


COMMANDS: dict[str, Callable[[Server, argparse.Namespace, str], list[str]]] = {  # what is said of each name
    "list": lambda at, options, _: remote_list(at),
    "get": _get,
    "upload": lambda at, options, path: [f"{path} diunggah: {upload(at, Path(path), raw=options.raw)}"],
    "delete": lambda at, options, name: [remote_delete(at, name)],
    "stats": lambda at, options, _: json.dumps(remote_stats(at), indent=2).splitlines(),
}


@contextmanager
def _reported(failed: list[str], item: str = "") -> Iterator[None]:
    """Say what goes wrong with an item, and add it to `failed`."""
    try:
        yield
    except (RemoteError, FileError, OSError, ValueError) as error:  # ValueError: no name on this system
        failed.append(item)
        text = os_error_text(error) if isinstance(error, OSError) else str(error)
        cause = f" ({error.cause})" if isinstance(error, RemoteError) else ""
        say(printable(f"gagal{cause}: {text if item in text else f'{item}: {text}'}"))


def run_command(server: Server, options: argparse.Namespace) -> int:
    """Run a command for each file, whatever becomes of the others; return the exit code, 1 if any failed."""
    failed: list[str] = []
    with _reported(failed):
        items = dict.fromkeys(item for given in options.names for item in _expand(server, options, given))
        if len(items) > 1 and not options.output.is_dir():
            raise FileError(f"{options.output} bukan folder, padahal ada {len(items)} file")
        options.raw = options.raw and knows_raw(server)
        for item in items:
            with _reported(failed, item):
                for line in COMMANDS[options.command](server, options, item):
                    say(printable(line), sys.stdout)
    return min(len(failed), 1)


def parse(words: list[str] | None) -> argparse.Namespace:
    """Return the command in `words`, and the options; raises SystemExit, having said what is wrong."""
    parser = argparse.ArgumentParser(epilog="contoh: python3 file_client_cli.py get contoh.txt -o lain.txt")
    parser.add_argument("command", nargs="?", type=str.lower, choices=COMMANDS, help="bawaan: interaktif")
    parser.add_argument("names", nargs="*", default=[""], metavar="NAMA", help="nama file, atau pola *.txt")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="PATH", help="tempat hasil get")
    parser.add_argument("--raw", action="store_true", help="tanpa base64, kalau server mengenalnya")
    parser.add_argument("--host", default=DEFAULT_HOST, help="alamat server (bawaan: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port server (bawaan: %(default)s)")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="DETIK", help="untuk satu permintaan")
    options = parser.parse_intermixed_args(words)
    if (options.names != [""]) != (options.command in ("get", "upload", "delete")):
        parser.error("NAMA diperlukan untuk get, upload dan delete, dan hanya untuk itu")
    return options


def complete(server: Server, line: str) -> list[str]:
    """Return the lines that `line` may become: its last word is a command, a name or a path."""
    before, word = _LAST_WORD.findall(line)[0]
    command, found = before.lower().split()[:1], list[str]()
    if not command:
        return [name for name in (*COMMANDS, "help", "exit") if name.startswith(word.lower())]
    if command == ["upload"]:
        paths = sorted(glob.glob(glob.escape(os.path.expanduser(word)) + "*"))
        found = [path + "/" * os.path.isdir(path) for path in paths]
    elif command in (["get"], ["delete"]):
        with suppress(RemoteError):
            names = remote_list(replace(server, timeout_s=SHORT_TIMEOUT_S))
            found = [name for name in names if name.startswith(word)]
    return [f'{before}"{name}' + '"' * (not name.endswith("/"))  # a folder goes on
            for name in found if printable(name) == name and '"' not in name]


def run_shell(server: Server) -> int:
    """Read commands until the user leaves. On a terminal, Ctrl-C ends a command and not the shell."""
    found: list[str | None] = []

    def completer(line: str, number: int) -> str | None:
        if number == 0:
            found[:] = [*complete(server, line), None]
        return found[number]

    with suppress(ImportError):  # not everywhere: then there is neither history nor completion
        import readline
        readline.set_completer_delims("")  # so that a whole line is completed
        readline.set_completer(completer)
        readline.parse_and_bind("tab: complete")
    say(f"Client server file {server.host}:{server.port}; ketik help atau exit.", sys.stdout)
    while True:
        try:
            words = shlex.split(input("file> "))
            command = "".join(words[:1]).lower()
            if command in ("exit", "quit"):
                raise EOFError
            options = parse(["--help"] if command == "help" else words)
            if options.command:
                run_command(server, options)
        except ValueError:
            say("gagal: tanda kutip tidak berpasangan")
        except SystemExit:
            pass  # the parser has said what was wrong
        except EOFError:
            say("", sys.stdout)  # notices a reader that has left, as input() does not
            return 0
        except KeyboardInterrupt as interrupt:
            if interrupt.args or not sys.stdin.isatty():
                raise
            say("\ndibatalkan")


def interrupt_on_signals(*more: int) -> None:
    """Have the first SIGTERM, SIGHUP or one of `more`, unless ignored (nohup), raise KeyboardInterrupt with
    its number; the next ones do nothing."""
    numbers = [number for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM), *more)
               if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)]

    def interrupt(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)  # lest the next one ends what cleans up
        raise KeyboardInterrupt(number)

    for number in numbers:
        signal.signal(number, interrupt)


def main(argv: list[str] | None = None) -> int:
    """Run one command, or the shell if none is given; return the exit code: 0, 1 failed, 2 wrong usage."""
    prepare_streams()
    options = parse(argv)
    interrupt_on_signals()
    try:
        server = Server(options.host, options.port, options.timeout)
        return run_command(server, options) if options.command else run_shell(server)
    except ValueError as error:
        say(f"galat: {error}")
        return 2
    except KeyboardInterrupt:
        with suppress(KeyboardInterrupt, OSError):
            say("", sys.stdout, end="")
            say("")
        return 130


if __name__ == "__main__":
    sys.exit(main())
