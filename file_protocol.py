"""The wire: requests, replies and bodies, as bytes; both directions, for servers and clients.

A `Connection` only buffers; the readers above it consume what it has received, and ask for more. The kernel
keeps the time-outs. Bodies go on in pieces: no file is ever whole in memory. See docs/protocol.md.
"""

from __future__ import annotations

import binascii
import errno
import json
import os
import re
import selectors
import shlex
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple, TextIO

from file_interface import FileError as FileError, FileInterface, check_name as check_name

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 46666
END = b"\r\n\r\n"
LINE_LIMIT_BYTES = 4 * 1024  # a command line, without the body
REPLY_LIMIT_BYTES = 64 * 1024 * 1024  # a reply, without the file in it
SILENCE_S = 0.2  # after this, an unterminated command counts as whole
UNKNOWN_REQUEST = "request tidak dikenali"
MISSING_PARAMETER = "parameter {} kurang"
FILE_PIECE_BYTES = 60 * 1024  # to encode at a time: 3 divides it, so there is no padding inside a body
SENDFILE_PIECE_BYTES = 64 * 1024  # after so many bytes of one sendfile() the kernel's time-out begins anew
SMALL_BUFFER_BYTES = 4 * 1024  # of a connection that carries no file
BUFFER_BYTES = 384 * 1024  # of one that does
TAIL_BYTES = 64  # room for what comes after a body: blanks and an empty line, or the last keys of a reply

_WORD = rb"""(?:"(?:[^"\\\n]|\\[^\n])*"|'[^'\n]*'|\\[^\n]|[^\s"'\\])+"""  # as shlex.split() sees it
_UPLOAD = re.compile(rb"UPLOAD[ \t]+" + _WORD + rb"[ \t]+", re.IGNORECASE)  # up to a body on the same line
_BARE = re.compile(rb"\S+((?:[ \t]+" + _WORD + rb")*)\s*")  # a command without an end
_HTTP = re.compile(rb"HTTP/[0-9.]+\s*\Z", re.IGNORECASE)
_BLANKS = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb"[A-Za-z0-9+/]*")
_PADDED = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
# How a base64 body ends, by the quotation mark it began with; in quotes, an empty line is an error.
_BODY_ENDS = {b"": re.compile(rb"\n\r?\n"), b'"': re.compile(rb'"|\n\r?\n'), b"'": re.compile(rb"'|\n\r?\n")}
_REPLY_END = re.compile(END)
_REPLY_END_OR_FILE = re.compile(END + rb'|"data_file"[ \t\r\n]*:[ \t\r\n]*"')

_PARAMETERS = {"LIST": 0, "STATS": 0, "GET": 1, "DELETE": 1, "GET_RAW": 1, "UPLOAD": 1, "UPLOAD_RAW": 2}
UPLOADS = ("UPLOAD", "UPLOAD_RAW")  # with a body: unless all of it was read, nothing more can be
_ERROR_TEXTS = {
    errno.ENOENT: "tidak ada", errno.EISDIR: "itu folder", errno.ENOTDIR: "itu bukan folder",
    errno.EACCES: "tidak diizinkan", errno.EPERM: "tidak diizinkan", errno.ENOSPC: "disk penuh",
    errno.EDQUOT: "kuota disk habis", errno.EROFS: "disk hanya dapat dibaca", errno.EIO: "disk rusak",
    errno.EMFILE: "terlalu banyak file terbuka", errno.ENOMEM: "memori tidak cukup",
    errno.EADDRINUSE: "port sedang dipakai program lain", errno.ECONNREFUSED: "ditolak",
    errno.EADDRNOTAVAIL: "alamat itu bukan milik mesin ini", errno.ECONNRESET: "diputus di seberang",
    errno.EPIPE: "diputus di seberang",
}


class ProtocolError(Exception):
    """What came is not the protocol, and nothing more can be read after it; the text is for people."""


class BadCommand(ProtocolError):
    """A command that costs only itself: its end is known, so the next one can be read."""


class Truncated(ProtocolError):
    """The peer ended in the middle of a message."""


def no_progress(count: int) -> None:
    """Default progress callback: does nothing."""


class Connection:
    """A connected socket, the bytes received but not yet consumed, and the deadlines.

    Raises TimeoutError where one wait for the peer takes `idle_s` seconds, or all of them `total_s` since the
    last restart_deadline(); ConnectionError where the connection breaks.
    """

    def __init__(self, sock: socket.socket, idle_s: float, total_s: float) -> None:
        self._sock = sock
        sock.setblocking(True)
        self._join_packets(False)
        self._idle_s, self._total_s = idle_s, total_s
        self._limit_s = 0.0  # that the kernel has been told
        self._buffer = bytearray(SMALL_BUFFER_BYTES)
        self._start = self._end = 0  # of what is pending in it
        self.sent_bytes = 0
        self.first_byte_at: float | None = None  # time.perf_counter() of the first byte received
        self.restart_deadline()

    def restart_deadline(self) -> None:
        """Give the next request the full total time."""
        self._deadline = time.monotonic() + self._total_s

    @property
    def pending(self) -> memoryview:
        """The bytes received and not yet consumed; valid until the next receive()."""
        return memoryview(self._buffer)[self._start:self._end]

    def consume(self, count: int) -> None:
        """Drop the first `count` pending bytes."""
        self._start += count

    def take(self, count: int) -> bytes:
        """Return the first `count` pending bytes, and drop them."""
        self._start += count
        return bytes(self._buffer[self._start - count:self._start])

    def receive(self, wait_s: float | None = None) -> bool:
        """Wait `wait_s` (or the idle time) for more pending bytes; return False if the peer has ended."""
        rest, size = self._end - self._start, len(self._buffer)
        if self._end == size or rest < TAIL_BYTES:  # make room: a full small buffer becomes a large one
            larger = BUFFER_BYTES if size < BUFFER_BYTES else 2 * size if rest == size else size
            buffer = bytearray(larger) if self._end == size != larger else self._buffer
            memoryview(buffer)[:rest] = self.pending
            self._buffer, self._start, self._end = buffer, 0, rest
        count = self._wait_for(wait_s, self._sock.recv_into, memoryview(self._buffer)[self._end:])
        if count and self.first_byte_at is None:
            self.first_byte_at = time.perf_counter()
        self._end += count
        return count > 0

    def receive_body(self, wait_s: float | None = None) -> None:
        """Wait for more of a body as receive() does; raises Truncated when the peer has ended."""
        if not self.receive(wait_s):
            raise Truncated("koneksi berakhir di tengah isi file")

    def send(self, data: bytes | memoryview) -> None:
        """Send all of `data`."""
        self.sent_bytes += len(data)
        unsent = memoryview(data)
        while unsent:
            unsent = unsent[self._wait_for(None, self._sock.send, unsent):]

    def send_file(self, file: BinaryIO, count: int, on_bytes: Callable[[int], None] = no_progress) -> None:
        """Send the next `count` bytes of an unbuffered file; raises OSError if there are fewer."""
        if not hasattr(os, "sendfile"):  # Windows
            for part in _file_pieces(file, count):
                self.send(part)
                on_bytes(len(part))
            return
        position, end = file.tell(), file.tell() + count
        self._join_packets(True)  # on loopback a piece is little more than a packet: its end would be another
        while position < end:
            piece = file.fileno(), position, min(SENDFILE_PIECE_BYTES, end - position)
            sent = self._wait_for(None, os.sendfile, self._sock.fileno(), *piece)
            if not sent:
                raise OSError("file menjadi lebih pendek saat dikirim")
            position += sent
            self.sent_bytes += sent
            on_bytes(sent)
        self._join_packets(False)
        file.seek(end)

    def readable(self) -> bool:
        """Return True if the peer has sent data or closed, without blocking."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            return len(selector.select(0)) > 0

    def _join_packets(self, join: bool) -> None:
        """Have a packet that is not full wait for more data, or send it at once as is usual."""
        with suppress(OSError):  # this is not TCP
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not join)

    def _wait_for(self, wait_s: float | None, operation: Callable[..., int], *arguments: object) -> int:
        """Return what a blocking call returns; the kernel ends it after `wait_s` or at the deadline."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("batas waktu total terlampaui")
        limit_s = max(0.001, min(self._idle_s if wait_s is None else wait_s, left_s))  # 0 would be for ever
        if not limit_s <= self._limit_s <= 1.01 * limit_s:  # near the deadline it differs a little each time
            timeval = struct.pack("ll", int(limit_s), int(limit_s % 1 * 1e6))
            if sys.platform == "win32":
                timeval = struct.pack("I", int(limit_s * 1000))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self._sock.setsockopt(socket.SOL_SOCKET, option, timeval)
            self._limit_s = limit_s
        try:
            return operation(*arguments)
        except BlockingIOError:
            raise TimeoutError("waktu tunggu habis") from None


def decode_base64(connection: Connection, quote: bytes = b"", in_json: bool = False) -> Iterator[bytes]:
    """Yield a base64 body, decoded, as it arrives; its end, which is consumed, is `quote` or an empty line.

    Line breaks inside are skipped, and JSON's escapes if `in_json`; after padding a new piece may begin
    (``QUI=QUI=`` is ABAB). Raises ProtocolError for anything else.
    """
    rest, ended = b"", False  # the rest of a group of four characters, where line breaks come in between
    while not ended:
        view = connection.pending
        # Only its end is searched: a2b_base64() skips what is not base64, so the length tells the rest.
        plain = _PLAIN.match(view, max(len(view) - TAIL_BYTES, 0)).end()  # type: ignore[union-attr]
        more, used = plain == len(view), 0 if rest else plain & ~3
        piece = b""
        with suppress(binascii.Error):
            piece = binascii.a2b_base64(view[:used])
        if rest or len(piece) != used // 4 * 3 or not (used or more):
            text, used, ended = _cut_wrapped(bytes(view), quote, in_json)
            text = rest + text
            whole = len(text) if ended else len(text) & ~3
            piece, rest = _decode_padded(text[:whole]), text[whole:]
            more = not ended
        connection.consume(used)
        if piece:
            yield piece
        del piece, view  # the next wait may be long
        if more:
            connection.receive_body()


def _cut_wrapped(text: bytes, quote: bytes, in_json: bool) -> tuple[bytes, int, bool]:
    """Return the base64 characters in `text`, how many bytes are used, and whether the body ends."""
    end = _BODY_ENDS[quote].search(text)
    if end and quote not in end[0]:
        raise ProtocolError("tanda kutip di awal isi file tidak ditutup")
    # What may begin the end, or an escape, is left for next time.
    cut = text[:end.start()].rstrip(b" \t\r\n") if end else text.rstrip(b" \t\r\n\\")
    if not end and len(text) - len(cut) > TAIL_BYTES:
        raise ProtocolError("isi file tidak berakhir dengan baris kosong")
    used = end.end() if end else len(cut)
    if in_json:
        cut = cut.replace(b"\\/", b"/").replace(b"\\n", b"").replace(b"\\r", b"")
    return cut.translate(None, b"\r\n"), used, end is not None


def _decode_padded(text: bytes) -> bytes:
    """Decode whole groups of four, with padding anywhere; raise ProtocolError where the strict rules fail."""
    parts = _PADDED.findall(text)
    if sum(map(len, parts)) < len(text) or any(len(part) % 4 for part in parts):
        raise ProtocolError("isi file bukan base64 yang utuh")
    return b"".join(map(binascii.a2b_base64, parts))


def raw_pieces(connection: Connection, size_bytes: int) -> Iterator[memoryview]:
    """Yield the next `size_bytes` as they arrive, each piece valid until the next; raises Truncated."""
    while size_bytes:
        while not (view := connection.pending[:size_bytes]):
            connection.receive_body()
        yield view
        connection.consume(len(view))
        size_bytes -= len(view)


def _file_pieces(file: BinaryIO, size_bytes: int) -> Iterator[memoryview]:
    """Yield the next `size_bytes` of an unbuffered file, in one buffer; raises OSError if there are fewer."""
    view = memoryview(bytearray(min(FILE_PIECE_BYTES, size_bytes)))
    while size_bytes:
        filled, want = 0, min(len(view), size_bytes)
        while filled < want:  # a full buffer each time: a length that 3 divides needs no padding
            count: int = file.readinto(view[filled:want])  # type: ignore[attr-defined]
            if not count:
                raise OSError("file menjadi lebih pendek saat dibaca")
            filled += count
        yield view[:want]
        size_bytes -= want


def crc32_of(file: BinaryIO, size_bytes: int) -> int:
    """Return the CRC-32 of the next `size_bytes` of an unbuffered file; raises OSError if there are fewer."""
    crc32 = 0
    for piece in _file_pieces(file, size_bytes):
        crc32 = zlib.crc32(piece, crc32)
    return crc32


class Request(NamedTuple):
    """A command, and its body where it has one: pieces of file bytes, to be used before the next command."""

    verb: str
    parameters: list[str]
    body: Iterator[bytes | memoryview]


class RequestReader:
    """Finds the requests in what a Connection receives, in every form in which clients send them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._guessed = b""  # the last commands, as far as only silence ended them

    @property
    def has_partial_request(self) -> bool:
        """True if part of the next request has arrived. Blanks in front of it are dropped."""
        self._connection.consume(_BLANKS.match(self._connection.pending).end())  # type: ignore[union-attr]
        return len(self._connection.pending) > 0

    def next(self) -> Request | None:
        """Return the next request, or None when the client has ended; raises ProtocolError."""
        while not (line := self._line()):
            may_be_whole = self._may_be_whole()
            try:
                if self._connection.receive(SILENCE_S if may_be_whole else None):
                    continue
            except TimeoutError:
                if not may_be_whole:
                    raise
            line = self._connection.take(len(self._connection.pending))
            return self._parse(line, guessed=True) if line else None
        return self._parse(line)

    def _line(self) -> bytes:
        """Take the command, up to its line break or its body on the same line; b"" if it is not complete."""
        if not self.has_partial_request:
            return b""
        head = bytes(self._connection.pending[:LINE_LIMIT_BYTES + 1])
        if head.startswith(b"\x16\x03"):
            raise ProtocolError("ini server file tanpa TLS")
        upload = _UPLOAD.match(head)
        line_bytes = upload.end() if upload else head.find(b"\n") + 1  # even inside quotes: no name has any
        if not line_bytes and len(head) > LINE_LIMIT_BYTES:
            raise ProtocolError(f"baris perintah lebih dari {LINE_LIMIT_BYTES} byte")
        return self._connection.take(line_bytes)

    def _may_be_whole(self) -> bool:
        """Return True if the unterminated line has all that its verb needs, or its verb is unknown."""
        line = bytes(self._connection.pending)
        verb = re.split(rb"\s", line)[0].decode("ascii", "replace").upper()
        bare = _BARE.fullmatch(line)  # None while a quotation mark is still open
        if verb not in _PARAMETERS:
            return len(line) > 0
        return verb not in UPLOADS and bare is not None and bool(bare[1] or not _PARAMETERS[verb])

    def _parse(self, line: bytes, guessed: bool = False) -> Request:
        # A web page can have a browser post text here. Its first line may come in parts, each after silence.
        if _HTTP.search(self._guessed + line):
            raise ProtocolError("ini server file, bukan server web")
        self._guessed = (self._guessed + line)[-LINE_LIMIT_BYTES:] if guessed else b""
        try:
            verb, *parameters = shlex.split(line.decode("utf-8"))
        except ValueError:
            raise ProtocolError("perintah bukan UTF-8 yang sah, atau tanda kutip tak berpasangan") from None
        verb, count = verb.upper(), len(parameters)
        needed = _PARAMETERS.get(verb)
        end_is_unknown = guessed if needed is None else verb in UPLOADS and count > 0
        error = ProtocolError if end_is_unknown else BadCommand
        if needed is None:
            raise error(UNKNOWN_REQUEST)
        if count < needed:  # a bare UPLOAD_RAW is how a client asks whether it is known
            raise error(MISSING_PARAMETER.format(verb))
        if count > needed > 0:
            raise error(f"parameter {verb} terlalu banyak; nama berspasi perlu tanda kutip")
        if verb == "UPLOAD":
            return Request(verb, parameters, self._base64_body(same_line=not line.endswith(b"\n")))
        if verb == "UPLOAD_RAW":
            if not re.fullmatch("[0-9]{1,15}", parameters[1]):
                raise ProtocolError(f"ukuran tidak sah: {parameters[1][:32]}")
            return Request(verb, parameters, self._raw_body(int(parameters[1])))
        return Request(verb, parameters, iter(()))

    def _base64_body(self, same_line: bool) -> Iterator[bytes]:
        """Yield the body of an UPLOAD, quoted or not; an empty line instead is that of an empty file."""
        first, line_breaks = b"", 0
        while not first.strip(b" \t\r\n"):
            no_body = line_breaks > 0 and not same_line  # unless another line break comes soon
            while not self._connection.pending:
                self._connection.receive_body(SILENCE_S if no_body else None)
            first = bytes(self._connection.pending[:1])
            if first in b"\"' \t\r\n":
                self._connection.consume(1)
            line_breaks += first == b"\n"
            if line_breaks == 2:
                return
        if no_body:
            raise ProtocolError("isi file tidak ada")
        yield from decode_base64(self._connection, first if first in _BODY_ENDS else b"")

    def _raw_body(self, size_bytes: int) -> Iterator[memoryview]:
        while len(self._connection.pending) < 2:
            self._connection.receive_body()
        if self._connection.take(2) != b"\r\n":
            raise ProtocolError("UPLOAD_RAW harus diikuti baris kosong")
        yield from raw_pieces(self._connection, size_bytes)


def encode_reply(status: str, data: object = None, **fields: object) -> bytes:
    """Return a whole reply: `status`, then `data` and `fields`, all without those that are None."""
    reply = {"status": status, "data": data} | fields
    told = {name: value for name, value in reply.items() if value is not None}
    return json.dumps(told, separators=(",", ":")).encode("ascii") + END  # clients may decode any part of it


class FileProtocol:
    """Answers requests with the files of a folder; `stats` returns what STATS answers."""

    def __init__(self, files: FileInterface, stats: Callable[[], dict[str, Any]],
                 on_bytes: Callable[[int], None] = no_progress) -> None:
        self._files, self._stats, self._on_bytes = files, stats, on_bytes

    def answer(self, request: Request, connection: Connection, waited_s: float | None) -> tuple[bytes, bool]:
        """Do what was asked, send the reply (a refusal as well) but for its tail, and return (tail, ok).

        The caller sends the tail after counting: whoever has read it has been counted. `waited_s` is how long
        the connection waited for a worker. Raises ConnectionError or TimeoutError when the client is gone,
        OSError when the disk fails under a reply that has begun and must not be ended.
        """
        sent_bytes = connection.sent_bytes
        try:
            return self._answer(request, connection, waited_s), True
        except (FileError, ProtocolError) as refusal:
            message = str(refusal)
        except OSError as error:
            message = f"server tidak dapat mengerjakannya: {os_error_text(error)}"
            if isinstance(error, TimeoutError) and request.verb in UPLOADS:
                message = "waktu habis sebelum isi file lengkap"
            elif isinstance(error, (ConnectionError, TimeoutError)) or connection.sent_bytes > sent_bytes:
                raise
        return encode_reply("ERROR", message), False

    def proses_string(self, string_datamasuk: str) -> str:
        """Run one whole command and return the reply, as the course's FileProtocol does."""
        here, there = socket.socketpair()
        connection = Connection(there, idle_s=60, total_s=3600)

        def serve() -> None:
            try:
                request = RequestReader(connection).next()
                connection.send(self.answer(request, connection, None)[0] if request else b"")
            except ProtocolError as error:
                connection.send(encode_reply("ERROR", str(error)))
            finally:
                there.shutdown(socket.SHUT_RDWR)

        with here, there:
            threading.Thread(target=serve).start()
            with suppress(ConnectionError):  # it may be refused before all of it has gone
                here.sendall(string_datamasuk.encode("utf-8") + END)
                here.shutdown(socket.SHUT_WR)
            reply = here.makefile("rb").read()
        return reply.removesuffix(END).decode("utf-8", "replace")

    def _answer(self, request: Request, connection: Connection, waited_s: float | None) -> bytes:
        name = request.parameters[0] if request.parameters else ""
        if request.verb in UPLOADS:
            return self._upload(name, request, waited_s)
        if request.verb == "GET":
            return self._get(name, connection, waited_s)
        if request.verb == "GET_RAW":
            return self._get_raw(name, connection, waited_s)
        if request.verb == "LIST":
            sizes_bytes = self._files.list()
            return encode_reply("OK", list(sizes_bytes), data_ukuran=list(sizes_bytes.values()))
        if request.verb == "DELETE":
            self._files.delete(name)
            return encode_reply("OK", f"{name} sudah dihapus", data_namafile=name)
        return encode_reply("OK", self._stats())

    def _get(self, name: str, connection: Connection, waited_s: float | None) -> bytes:
        file, size_bytes = self._files.get(name)
        told = {"data_namafile": name, "data_ukuran": size_bytes, "data_antre_s": waited_s, "data_file": ""}
        unsent, crc32 = encode_reply("OK", **told).removesuffix(b'"}' + END), 0
        with file:
            for piece in _file_pieces(file, size_bytes):
                connection.send(unsent)
                crc32 = zlib.crc32(piece, crc32)
                unsent = binascii.b2a_base64(piece, newline=False)
                self._on_bytes(len(piece))
        return unsent + b'","data_crc32":"%08x"}' % crc32 + END

    def _get_raw(self, name: str, connection: Connection, waited_s: float | None) -> bytes:
        file, size_bytes = self._files.get(name)
        unsent = encode_reply("OK", data_namafile=name, data_ukuran=size_bytes, data_antre_s=waited_s)
        last_bytes = min(size_bytes, FILE_PIECE_BYTES)  # the tail, which the caller sends
        with file:
            if size_bytes > last_bytes:
                connection.send(unsent)
                connection.send_file(file, size_bytes - last_bytes, self._on_bytes)
                unsent = b""
            unsent += b"".join(map(bytes, _file_pieces(file, last_bytes)))
        self._on_bytes(last_bytes)
        return unsent

    def _upload(self, name: str, request: Request, waited_s: float | None) -> bytes:
        size_bytes = crc32 = 0
        expected_bytes = int(request.parameters[1]) if request.verb == "UPLOAD_RAW" else 0  # else unknown
        with self._files.upload(name, expected_bytes) as file:
            for piece in request.body:
                crc32 = zlib.crc32(piece, crc32)
                file.write(piece)
                size_bytes += len(piece)
                self._on_bytes(len(piece))
                del piece
            file.commit()
        return encode_reply("OK", f"{name} sudah disimpan", data_namafile=name, data_ukuran=size_bytes,
                            data_crc32=f"{crc32:08x}", data_antre_s=waited_s)


def encode_request(verb: str, *parameters: str) -> bytes:
    """Return a command line without its end; raises ProtocolError for what no line can carry."""
    if any("\r" in parameter or "\n" in parameter for parameter in parameters):
        raise ProtocolError("nama file tidak boleh memuat ganti baris")
    try:
        return shlex.join([verb, *parameters]).encode("utf-8")
    except UnicodeEncodeError:
        raise ProtocolError("nama file bukan UTF-8 yang sah") from None


def send_base64_body(connection: Connection, file: BinaryIO, size_bytes: int,
                     on_bytes: Callable[[int], None] = no_progress) -> int:
    """Send the body of an UPLOAD, or less of it if a refusal comes; return the CRC-32 of the file."""
    crc32 = 0
    connection.send(b" \r\n")  # suits servers that split at either
    for number, piece in enumerate(_file_pieces(file, size_bytes)):
        if number % 16 == 0 and connection.readable():  # about each megabyte
            return crc32
        crc32 = zlib.crc32(piece, crc32)
        connection.send(binascii.b2a_base64(piece, newline=False))
        on_bytes(len(piece))
    connection.send(END)
    return crc32


def send_raw_body(connection: Connection, file: BinaryIO, size_bytes: int,
                  on_bytes: Callable[[int], None] = no_progress) -> None:
    """Send the body of an UPLOAD_RAW, or less of it if a refusal comes."""
    while size_bytes and not connection.readable():
        piece_bytes = min(size_bytes, 16 * SENDFILE_PIECE_BYTES)
        connection.send_file(file, piece_bytes, on_bytes)
        size_bytes -= piece_bytes


class Received(NamedTuple):
    """A reply, and what came of the file in it."""

    reply: dict[str, Any]
    size_bytes: int
    crc32: int


def read_reply(connection: Connection, write: Callable[[bytes], object] | None = None) -> Received:
    """Read one reply; the file in it goes to `write` in pieces. Raises ProtocolError and OSError."""
    size_bytes = crc32 = 0
    text = _take_through(connection, _REPLY_END_OR_FILE if write else _REPLY_END)
    if write and not text.endswith(END):
        for piece in decode_base64(connection, b'"', in_json=True):
            write(piece)
            crc32 = zlib.crc32(piece, crc32)
            size_bytes += len(piece)
            del piece
        text += b'"' + _take_through(connection, _REPLY_END)
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("jawaban server bukan JSON") from None
    if not isinstance(reply, dict) or not isinstance(reply.get("status"), str):
        raise ProtocolError("jawaban server tanpa status")
    return Received(reply, size_bytes, crc32)


def _take_through(connection: Connection, pattern: re.Pattern[bytes]) -> bytes:
    """Return the bytes up to the end of what `pattern` finds."""
    scanned = 0
    while not (found := pattern.search(connection.pending, max(scanned - TAIL_BYTES, 0))):
        scanned = len(connection.pending)
        if scanned > REPLY_LIMIT_BYTES:
            raise ProtocolError("jawaban server terlalu panjang")
        if not connection.receive():
            raise Truncated("server memutus koneksi sebelum jawabannya lengkap")
    return connection.take(found.end())


def os_error_text(error: BaseException) -> str:
    """Return why the system refused: in Indonesian where it is common, else as the error says it."""
    if isinstance(error, socket.gaierror):
        return "nama host tidak dikenal"
    text = _ERROR_TEXTS.get(getattr(error, "errno", 0)) or getattr(error, "strerror", None) or str(error)
    return text or type(error).__name__


def prepare_streams() -> None:
    """Have closed standard streams lead to os.devnull, and escape what the locale cannot encode."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "rww"[number]))  # takes its number: no socket may get it
        elif number and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print to `stream` (sys.stderr) and flush; raises KeyboardInterrupt, once, when its reader has left."""
    stream = stream or sys.stderr
    try:
        print(text, file=stream, end=end, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise KeyboardInterrupt from None
