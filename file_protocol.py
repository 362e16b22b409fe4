"""The wire: requests, replies and bodies, as bytes; both directions, for servers and clients.

Strategy. A `Wire` is a connected socket with one buffer, which the kernel fills in place, and with
deadlines. Above it are readers that take from the buffer what they understand, remember where they
stopped, and return None when they need more, so every byte is looked at once. A body is decoded and
handed on piece by piece: no file is ever whole in memory, on either side.

A request is ``VERB [PARAMETER ...]``; an answer is one JSON object and an empty line:

    LIST                                        {"status":"OK","data":["name", ...],"data_ukuran":[N, ...]}
    GET name                                    {"status":"OK", ... "data_file":"<base64>","data_crc32":"..."}
    UPLOAD name <base64>                        {"status":"OK","data":"...", ... "data_crc32":"..."}
    DELETE name                                 {"status":"OK","data":"...","data_namafile":"name"}
    STATS                                       {"status":"OK","data":{...}}
    GET_RAW name                                {"status":"OK", ... "data_ukuran":N}, then N bytes
    UPLOAD_RAW name N, then N bytes             as UPLOAD
"""

from __future__ import annotations

import argparse
import binascii
import errno
import json
import multiprocessing
import multiprocessing.connection
import os
import re
import selectors
import shlex
import signal
import socket
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

from file_interface import FileError, FileInterface

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 46666

END = b"\r\n\r\n"
LINE_LIMIT_BYTES = 64 * 1024  # a command line, without the body
REPLY_LIMIT_BYTES = 64 * 1024 * 1024  # a reply, without the file in it
SILENCE_S = 0.2  # after this, an unterminated command counts as whole
UNKNOWN_REQUEST = "request tidak dikenali"
MISSING_PARAMETER = "parameter {} kurang"

# Sizes chosen by measuring. b2a_base64() first takes twice the room: 60 KiB keeps that below the 128 KiB from
# which malloc maps fresh memory for every object. A large receive buffer makes a thread give up the GIL less often.
FILE_PIECE_BYTES = 60 * 1024  # 3 divides it: no padding inside a body
SMALL_BUFFER_BYTES = 4 * 1024  # until more is known to come
BUFFER_BYTES = 384 * 1024
TURN_BUFFER_BYTES = 1536 * 1024  # while decoding: larger, for there are only as many as there are turns
SWITCH_INTERVAL_S = 0.1  # for sys.setswitchinterval(): 50 threads that wait for the GIL wake up this often, in vain,
# because whoever holds it lets go by itself at its next read or write, a millisecond from now
CODERS = 2  # threads of a process that encode or decode at a time: more would only pass the GIL around
TURN_BYTES = 4 * 1024 * 1024  # on the wire, for each of them, when others wait for a turn
UNSENT_BYTES = 256 * 1024  # to encode ahead of what goes out; more would be for clients whose turn is late
TAIL_BYTES = 64  # of what is pending: room for the keys after a file in an answer, so for an empty line too
SENDFILE_PIECE_BYTES = 1024 * 1024  # between two looks at the clock

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")
_PLAIN = re.compile(rb"[A-Za-z0-9+/]*")
_PADDED = re.compile(rb"[^=]*={0,2}")
_BLANK = b" \t\r\n"

_VERB = re.compile(rb"[A-Za-z_]{1,16}")
_FILE_VALUE = re.compile(rb'"data_file"[ \t\r\n]*:[ \t\r\n]*"')

_REASONS = {
    errno.ENOENT: "tidak ada", errno.EISDIR: "itu folder", errno.ENOTDIR: "itu bukan folder",
    errno.EACCES: "tidak diizinkan", errno.EPERM: "tidak diizinkan", errno.ENOSPC: "disk penuh",
    errno.EDQUOT: "kuota disk habis", errno.EADDRINUSE: "port sedang dipakai program lain",
    errno.EADDRNOTAVAIL: "alamat itu bukan milik mesin ini", errno.EMFILE: "terlalu banyak file terbuka",
    errno.ECONNREFUSED: "ditolak", errno.ECONNRESET: "diputus di seberang", errno.EPIPE: "diputus di seberang",
    errno.EROFS: "disk hanya dapat dibaca", errno.EFBIG: "file terlalu besar", errno.EIO: "disk rusak",
}

_PARAMETERS = {"LIST": 0, "STATS": 0, "GET": 1, "DELETE": 1, "GET_RAW": 1, "UPLOAD": 1, "UPLOAD_RAW": 2}
_SENT_BARE = {"LIST", "STATS", "GET", "DELETE", "GET_RAW"}  # some clients end these by silence alone


class ProtocolError(Exception):
    """What came is not the protocol; the text is for people, in Indonesian.

    `framing_lost` tells that the end of the bad message is unknown: nothing more can be read after it.
    """

    def __init__(self, message: str, framing_lost: bool = True) -> None:
        super().__init__(message)
        self.framing_lost = framing_lost


class Truncated(ProtocolError):
    """The other side ended in the middle of a message."""


_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)  # poll() knows no largest descriptor


def has_gil() -> bool:
    """Tell whether only one thread at a time runs Python here: not so in a free-threaded build, since 3.13."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


class _Turns:
    """A semaphore that is strictly first come, first served: so threads share the time evenly.

    It keeps the buffers for those whose turn it is, and hands on the one that was used last.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Lock] = deque()
        self._spare_buffers: list[bytearray] = []

    def take(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            given = threading.Lock()
            given.acquire()
            self._waiting.append(given)
        given.acquire()

    def end(self, buffer: bytearray | None = None) -> None:
        """End a turn, and give back the buffer that was lent for it, if any."""
        with self._lock:
            if buffer is not None:
                self._spare_buffers.append(buffer)
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def lend(self) -> bytearray:
        """Return a buffer for the length of a turn."""
        with self._lock:
            return self._spare_buffers.pop() if self._spare_buffers else bytearray(TURN_BUFFER_BYTES)


_turns = _Turns(CODERS if has_gil() else sys.maxsize)  # as global as the GIL, which it spares


def ignore(count: int) -> None:
    """Nobody wants to know."""


class Wire:
    """A connected socket, the bytes received but not yet used, and the deadlines.

    Every wait for the other side ends after `idle_s` seconds, and all waits together at the moment set
    by restart_deadline(). Then TimeoutError is raised. A connection that breaks raises ConnectionError.
    """

    def __init__(self, connection: socket.socket, idle_s: float, total_s: float) -> None:
        self.connection = connection
        connection.setblocking(False)
        self._idle_s = idle_s
        self._total_s = total_s
        self._buffer = bytearray(SMALL_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._turn_left_bytes: int | None = None  # while coding()
        self._lent: bytearray | None = None  # a large buffer, until the turn ends
        self.sent_bytes = 0
        self.first_byte_at: float | None = None  # time.perf_counter() of the first byte received
        self.restart_deadline()

    def restart_deadline(self) -> None:
        """Give the next request the full total time."""
        self._deadline = time.monotonic() + self._total_s

    @property
    def pending(self) -> memoryview:
        """The bytes received and not yet used; valid until the next receive()."""
        return self._view[self._start:self._end]

    def use(self, count: int) -> None:
        """Drop the first `count` pending bytes."""
        self._start += count

    def skip(self, characters: bytes) -> None:
        """Drop pending bytes as long as they are among `characters`."""
        while self._start < self._end and self._buffer[self._start] in characters:
            self._start += 1

    def find(self, wanted: bytes, offset: int) -> int:
        """Return where `wanted` begins in pending, looked for from `offset` on, or -1."""
        at = self._buffer.find(wanted, self._start + max(offset, 0), self._end)
        return at - self._start if at >= 0 else -1

    def receive(self, wait_s: float | None = None) -> bool:
        """Wait for bytes and append them to pending; return False when the other side has ended.

        The wait is at most `wait_s` seconds, where given, instead of the idle time.
        """
        count = self._attempt(selectors.EVENT_READ, self._fill, wait_s)
        if count and self.first_byte_at is None:
            self.first_byte_at = time.perf_counter()
        self._end += count
        return count > 0

    def receive_body(self) -> None:
        """Wait for more of a body; raises Truncated when the other side has ended."""
        if not self.receive():
            raise Truncated("koneksi berakhir di tengah isi file")

    def send(self, data: bytes | memoryview) -> None:
        """Send all of `data`."""
        self.sent_bytes += len(data)
        unsent = memoryview(data)
        while unsent:
            unsent = unsent[self._attempt(selectors.EVENT_WRITE, partial(self.connection.send, unsent)):]

    def send_file(self, file: BinaryIO, count: int, moved: Callable[[int], None] = ignore) -> None:
        """Send the next `count` bytes of `file` without a copy in this process, where the system can."""
        position = file.tell()
        end = position + count
        while position < end:
            self.connection.settimeout(self._left_s())  # sendfile() wants a socket that waits
            try:
                sent = self.connection.sendfile(file, position, min(SENDFILE_PIECE_BYTES, end - position))
            finally:
                self.connection.setblocking(False)
            if not sent:
                raise OSError("file menjadi lebih pendek saat dikirim")
            position += sent
            self.sent_bytes += sent
            moved(sent)

    @contextmanager
    def coding(self) -> Iterator[None]:
        """Take turns with other threads at encoding or decoding; a turn ends at the latest when this wire must wait."""
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with suppress(OSError):  # not TCP
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._take_turn()
        try:
            yield
        finally:
            self._end_turn()

    def _take_turn(self) -> None:
        _turns.take()
        self._turn_left_bytes = TURN_BYTES

    def _end_turn(self) -> None:
        lent, self._lent = self._lent, None
        if lent is not None:
            self._move_to(bytearray(max(SMALL_BUFFER_BYTES, len(self.pending))))
        self._turn_left_bytes = None
        _turns.end(lent)

    def has_answer(self) -> bool:
        """Tell, without waiting, whether the other side has said something (or left)."""
        try:
            self.connection.recv(1, socket.MSG_PEEK)
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True

    def make_room(self, count: int) -> None:
        """Have a buffer for `count` bytes that are to come, or as large a one as a wire may have for itself."""
        if len(self._buffer) < min(count, BUFFER_BYTES):
            self._move_to(bytearray(min(count, BUFFER_BYTES)))

    def _move_to(self, buffer: bytearray) -> None:
        """Go on at the start of `buffer`, the same or another, which has room for all that is pending."""
        rest, view = self._end - self._start, memoryview(buffer)
        view[:rest] = self.pending
        self._buffer, self._view = buffer, view
        self._start, self._end = 0, rest

    def _fill(self) -> int:
        """Receive what is there, in the room behind pending; return how many bytes that was."""
        rest = self._end - self._start
        if self._turn_left_bytes is not None and self._lent is None and rest < TURN_BUFFER_BYTES:
            self._lent = _turns.lend()
            self._move_to(self._lent)
        elif self._start and (rest < 64 or self._end == len(self._buffer)):
            self._move_to(self._buffer)
        if self._end == len(self._buffer):
            self._move_to(bytearray(max(BUFFER_BYTES, 2 * len(self._buffer))))
        return self.connection.recv_into(self._view[self._end:])

    def _left_s(self, wait_s: float | None = None) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("batas waktu total terlampaui")
        return min(self._idle_s if wait_s is None else wait_s, left_s)

    def _attempt(self, event: int, operation: Callable[[], int], wait_s: float | None = None) -> int:
        """Receive or send what is possible: at once, or else when the socket is ready for `event`.

        A socket with a timeout would do the waiting for us, but asks the kernel twice for every piece, and each
        time lets go of the GIL, which 50 other threads are after.
        """
        left_s = self._left_s(wait_s)
        if self._turn_left_bytes is not None and self._turn_left_bytes < 0:
            self._end_turn()
            self._take_turn()
        while True:
            try:
                count = operation()
            except BlockingIOError:
                self._wait(event, left_s)
            except (TimeoutError, ConnectionError):
                raise
            except OSError as error:
                raise ConnectionError(str(error)) from error
            else:
                if self._turn_left_bytes is not None:
                    self._turn_left_bytes -= count
                return count

    def _wait(self, event: int, most_s: float) -> None:
        coding = self._turn_left_bytes is not None
        if coding:
            self._end_turn()
        try:
            with _Selector() as selector:
                selector.register(self.connection, event)
                if not selector.select(most_s):
                    raise TimeoutError("waktu tunggu habis")
        finally:
            if coding:
                self._take_turn()


def decode_base64(wire: Wire, quote: bytes | None, in_json: bool = False) -> Iterator[bytes]:
    """Yield a base64 body, decoded, as it arrives; use it up to its end, and the end too.

    The end is `quote`, or an empty line where `quote` is None. Line breaks inside are skipped, and so are
    JSON's escapes for them if `in_json`. After padding a new piece may begin (``QUI=QUI=`` is ABAB).
    Raises ProtocolError for anything else, Truncated if the other side ends first.
    """
    rest = b""  # of a group of four characters; only once the body is known to be wrapped
    wrapped = False
    while True:
        if not wrapped:
            view = wire.pending  # where a body ends, what follows is short: decode only up to there
            clean = _PLAIN.match(view, max(len(view) - TAIL_BYTES, 0)).end()  # type: ignore[union-attr]
            try:
                piece = binascii.a2b_base64(view[:clean & ~3])
            except binascii.Error:
                piece = b""
            if len(piece) != clean // 4 * 3:  # something was skipped, so not all of it is base64
                clean = _PLAIN.match(view).end()  # type: ignore[union-attr]
                piece = binascii.a2b_base64(view[:clean & ~3])
            if piece:
                yield piece
                del piece  # the next wait may be long, and there may be many of us
                wire.use(clean & ~3)
            if clean == len(view):
                wire.receive_body()
                continue
        text = bytes(wire.pending)
        empty_line = None if in_json else _EMPTY_LINE.search(text)
        if quote:
            end, after = text.find(quote), text.find(quote) + 1
            if empty_line and not 0 <= end < empty_line.start():
                raise ProtocolError("tanda kutip di awal isi file tidak ditutup")
        else:
            end, after = empty_line.span() if empty_line else (-1, 0)
        ended = end >= 0
        if not ended:
            wrapped = True
            unsure, most = (b"\\", 1) if in_json else (b"\r\n", 3)  # what may go on in the next bytes
            end = after = max(len(text.rstrip(unsure)), len(text) - most)
        text = text[:end]
        if in_json and b"\\" in text:
            text = text.replace(b"\\/", b"/").replace(b"\\n", b"").replace(b"\\r", b"")
        text = rest + text.translate(None, b"\r\n")
        whole = len(text) if ended else len(text) & ~3
        if whole:
            yield _decode_padded(text[:whole])
        rest = text[whole:]
        wire.use(after)
        if ended:
            return
        wire.receive_body()


def _decode_padded(text: bytes) -> bytes:
    """Decode whole groups of four, with padding anywhere; raise ProtocolError where the strict rules fail."""
    if text.translate(None, _ALPHABET + b"="):
        raise ProtocolError("isi file bukan base64: ada karakter di luar alfabetnya")
    pieces = []
    for part in _PADDED.findall(text):
        if len(part) % 4:
            raise ProtocolError("isi file bukan base64: ada kelompok yang tidak utuh")
        pieces.append(binascii.a2b_base64(part))
    return b"".join(pieces)


def raw_pieces(wire: Wire, count: int) -> Iterator[memoryview]:
    """Yield the next `count` bytes as they arrive, each piece valid until the next; raises Truncated."""
    wire.make_room(count)
    while count:
        view = wire.pending[:count]
        if view:
            yield view
            wire.use(len(view))
            count -= len(view)
        else:
            wire.receive_body()


class Request(NamedTuple):
    """A command, and its body where it has one: pieces of file bytes, to be used before the next command.

    `guessed` tells that nothing ended the command but silence, or the end of what the client sends.
    """

    verb: str
    parameters: list[str]
    body: Iterator[bytes | memoryview]
    guessed: bool


class RequestReader:
    """Finds the requests in what a Wire receives: every form in which the clients of this course send them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._forget()

    def _forget(self) -> None:
        self._scanned = 0  # pending bytes that were looked at
        self._words = 0  # words that ended, the verb among them
        self._in_word = self._escaped = False
        self._quote = 0

    @property
    def begun(self) -> bool:
        """Whether part of a request is here already."""
        return len(self._wire.pending) > 0

    def next(self) -> Request | None:
        """Return the next request, or None when the client has ended.

        Raises ProtocolError, TimeoutError and ConnectionError.
        """
        while (line := self._command()) is None:
            whole = self._could_be_whole()
            try:
                more = self._wire.receive(SILENCE_S if whole else None)
            except TimeoutError:
                if not whole:
                    raise
                more = False
            if not more:  # silence after a whole command, or the client half-closed: this is all of it
                if not self.begun:
                    return None
                return self._parse(*self._take(len(self._wire.pending)), guessed=True)
        return self._parse(*line)

    def _command(self) -> tuple[bytes, bool] | None:
        """Look at the bytes that are new; return the command if it is complete, and whether a body follows it
        on the same line. The rules for quotes are those of shlex, which parses the whole command later."""
        wire = self._wire
        if not self._scanned:
            wire.skip(_BLANK)
        pending = wire.pending
        for at in range(self._scanned, len(pending)):
            byte = pending[at]
            if byte == 0x0A:  # a line ends even inside quotes: no valid name goes on
                return self._take(at + 1)
            if self._escaped:
                self._escaped = False
            elif self._quote:
                self._escaped = byte == 0x5C and self._quote == 0x22
                if byte == self._quote:
                    self._quote = 0
            elif byte in b" \t":
                self._words += self._in_word
                if self._in_word and self._words == 2 and self._verb() == "UPLOAD":
                    return self._take(at + 1, same_line=True)
                self._in_word = False
            else:
                self._in_word = True
                self._escaped = byte == 0x5C
                self._quote = byte if byte in b"\"'" else 0
        self._scanned = len(pending)
        if self._scanned > LINE_LIMIT_BYTES:
            self._take(self._scanned)  # raises
        return None

    def _take(self, count: int, same_line: bool = False) -> tuple[bytes, bool]:
        if count > LINE_LIMIT_BYTES:
            raise ProtocolError(f"baris perintah lebih dari {LINE_LIMIT_BYTES} byte")
        line = bytes(self._wire.pending[:count])
        self._wire.use(count)
        self._forget()
        return line, same_line

    def _verb(self) -> str:
        match = _VERB.match(self._wire.pending)
        return match.group().decode("ascii").upper() if match else ""

    def _could_be_whole(self) -> bool:
        """Whether the unterminated line is a known command with all it needs, as far as one can see."""
        if not self.begun or self._quote or self._escaped:
            return False
        verb = self._verb()
        return verb in _SENT_BARE and self._words + self._in_word > _PARAMETERS[verb]

    def _parse(self, line: bytes, same_line: bool, guessed: bool = False) -> Request:
        try:
            verb, *parameters = shlex.split(line.decode("utf-8"))
        except UnicodeDecodeError:
            raise ProtocolError("perintah bukan UTF-8 yang sah") from None
        except ValueError:
            raise ProtocolError("tanda kutip dalam perintah tidak berpasangan") from None
        verb = verb.upper()
        if verb not in _PARAMETERS:
            raise ProtocolError(UNKNOWN_REQUEST, framing_lost=False)
        if len(parameters) < _PARAMETERS[verb]:
            # A bare UPLOAD_RAW is how a client finds out whether it is known here.
            raise ProtocolError(MISSING_PARAMETER.format(verb), framing_lost="UPLOAD" in verb and bool(parameters))
        if len(parameters) > _PARAMETERS[verb] > 0:
            raise ProtocolError(f"parameter {verb} terlalu banyak; nama berspasi perlu tanda kutip",
                                framing_lost="UPLOAD" in verb)
        if verb == "UPLOAD":
            return Request(verb, parameters, self._base64_body(same_line), guessed)
        if verb == "UPLOAD_RAW":
            if not re.fullmatch("[0-9]{1,15}", parameters[1]):
                raise ProtocolError(f"ukuran tidak sah: {parameters[1][:32]}")
            return Request(verb, parameters, self._raw_body(int(parameters[1])), guessed)
        return Request(verb, parameters, iter(()), guessed)

    def _peek(self) -> int:
        """Return the next byte without using it; raises Truncated."""
        while not self.begun:
            if not self._wire.receive():
                raise Truncated("koneksi berakhir sebelum isi file")
        return self._wire.pending[0]

    def _base64_body(self, same_line: bool) -> Iterator[bytes]:
        while (byte := self._peek()) in b" \t":
            self._wire.use(1)
        if byte in b"\"'":
            self._wire.use(1)
            yield from decode_base64(self._wire, bytes([byte]))
        elif byte in b"\r\n" and not same_line:
            raise ProtocolError("isi file tidak ada")  # to store an empty file, send an empty pair of quotes
        else:
            yield from decode_base64(self._wire, None)

    def _raw_body(self, size_bytes: int) -> Iterator[memoryview]:
        for expected in b"\r\n":
            if self._peek() != expected:
                raise ProtocolError("UPLOAD_RAW harus diikuti baris kosong")
            self._wire.use(1)
        yield from raw_pieces(self._wire, size_bytes)


class Reply(NamedTuple):
    """The end of a reply. The rest has been sent; these last bytes are left to the caller, who counts first:
    so whoever has read a reply to its end is already in the counts."""

    tail: bytes
    ok: bool
    framing_lost: bool = False  # the request was not used up: nothing more can be read after it


def encode_reply(status: str, data: object = None, **fields: object) -> bytes:
    """Return a whole reply: `status`, then `data` unless None, then `fields`."""
    reply = {"status": status} | ({} if data is None else {"data": data}) | fields
    # ASCII only, because the course's client decodes 16 bytes at a time.
    return json.dumps(reply, separators=(",", ":")).encode("ascii") + END


def error_reply(message: str) -> bytes:
    """Return a whole reply that refuses."""
    return encode_reply("ERROR", message)


class FileProtocol:
    """Answers requests with the files of one folder."""

    def __init__(self, files: FileInterface, stats: Callable[[], dict[str, Any]],
                 moved: Callable[[int], None] = ignore) -> None:
        """`stats` gives what STATS answers; `moved` is told of file bytes as they go over, either way."""
        self._files = files
        self._stats = stats
        self._moved = moved
        self._handlers: dict[str, Callable[[Request, Wire], Reply]] = {
            "LIST": self._list, "GET": self._get, "GET_RAW": self._get_raw, "DELETE": self._delete,
            "STATS": self._send_stats,
        }

    def answer(self, request: Request, wire: Wire, waited_s: float = 0.0) -> Reply:
        """Do what was asked and send the reply, all but its tail.

        `waited_s` is how long the client waited for a worker, which an uploader cannot see by itself.
        An expected refusal is a reply as well. Raises ConnectionError or TimeoutError when the client is
        gone, and OSError when the disk fails under a reply that has begun, which then must not be ended.
        """
        sent_bytes = wire.sent_bytes
        try:
            if "UPLOAD" in request.verb:
                return self._upload(request, wire, waited_s)
            return self._handlers[request.verb](request, wire)
        except FileError as refusal:
            message = str(refusal)
        except OSError as error:
            if isinstance(error, (ConnectionError, TimeoutError)) or wire.sent_bytes > sent_bytes:
                raise
            message = f"server tidak dapat mengerjakannya: {reason(error)}"
        return Reply(error_reply(message), ok=False, framing_lost="UPLOAD" in request.verb)

    def proses_string(self, string_datamasuk: str) -> str:
        """Run one whole command and return the reply as text, without the empty line at its end.

        This is the way in that the course's FileProtocol had; the servers use answer().
        """
        text = _Text(string_datamasuk.encode("utf-8") + END)
        wire = Wire(cast(socket.socket, text), idle_s=1, total_s=3600)
        try:
            request = RequestReader(wire).next()
            textual = request and not request.verb.endswith("_RAW")
            reply = self.answer(request, wire).tail if request and textual else error_reply(UNKNOWN_REQUEST)
        except ProtocolError as error:
            reply = error_reply(str(error))
        return (bytes(text.sent) + reply).removesuffix(END).decode("ascii")

    def _list(self, request: Request, wire: Wire) -> Reply:
        sizes_bytes = self._files.sizes()
        return Reply(encode_reply("OK", list(sizes_bytes), data_ukuran=list(sizes_bytes.values())), ok=True)

    def _delete(self, request: Request, wire: Wire) -> Reply:
        name = request.parameters[0]
        self._files.delete(name)
        return Reply(encode_reply("OK", f"{name} sudah dihapus", data_namafile=name), ok=True)

    def _send_stats(self, request: Request, wire: Wire) -> Reply:
        return Reply(encode_reply("OK", self._stats()), ok=True)

    def _get(self, request: Request, wire: Wire) -> Reply:
        name = request.parameters[0]
        file, size_bytes = self._files.open(name)
        with file:
            unsent = encode_reply("OK", data_namafile=name, data_ukuran=size_bytes, data_file="")
            unsent = unsent.removesuffix(b'"}' + END)
            crc32 = 0
            with wire.coding():
                for piece in _file_pieces(file, size_bytes):
                    wire.send(unsent)
                    crc32 = zlib.crc32(piece, crc32)
                    unsent = binascii.b2a_base64(piece, newline=False)
                    self._moved(len(piece))
        return Reply(unsent + b'","data_crc32":"%08x"}' % crc32 + END, ok=True)

    def _get_raw(self, request: Request, wire: Wire) -> Reply:
        name = request.parameters[0]
        file, size_bytes = self._files.open(name)
        with file:
            head = encode_reply("OK", data_namafile=name, data_ukuran=size_bytes)
            last_bytes = min(size_bytes, FILE_PIECE_BYTES)  # the tail, which the caller sends
            if size_bytes > last_bytes:
                wire.send(head)
                wire.send_file(file, size_bytes - last_bytes, self._moved)
                head = b""
            tail = b"".join(bytes(piece) for piece in _file_pieces(file, last_bytes))
        self._moved(last_bytes)
        return Reply(head + tail, ok=True)

    def _upload(self, request: Request, wire: Wire, waited_s: float) -> Reply:
        name = request.parameters[0]
        size_bytes = crc32 = 0
        announced_bytes = int(request.parameters[1]) if request.verb == "UPLOAD_RAW" else 0
        try:
            with self._files.create(name, announced_bytes) as file:
                with wire.coding() if request.verb == "UPLOAD" else nullcontext():
                    for piece in request.body:
                        crc32 = zlib.crc32(piece, crc32)
                        file.write(piece)
                        size_bytes += len(piece)
                        self._moved(len(piece))
                        del piece
                file.commit()
        except ProtocolError as error:
            return Reply(error_reply(str(error)), ok=False, framing_lost=True)
        except TimeoutError:
            return Reply(error_reply("waktu habis sebelum isi file lengkap"), ok=False, framing_lost=True)
        return Reply(encode_reply("OK", f"{name} sudah disimpan", data_namafile=name, data_ukuran=size_bytes,
                                  data_crc32=f"{crc32:08x}", data_antre_s=round(waited_s, 6)), ok=True)


def _file_pieces(file: BinaryIO, size_bytes: int) -> Iterator[memoryview]:
    """Yield the next `size_bytes` of an unbuffered file through one buffer; raises OSError if there are fewer."""
    view = memoryview(bytearray(min(FILE_PIECE_BYTES, size_bytes)))
    while size_bytes:
        want = min(len(view), size_bytes)
        filled = 0
        while filled < want:  # a full buffer each time: a length that 3 divides needs no padding
            count: int = file.readinto(view[filled:want])  # type: ignore[attr-defined]
            if not count:
                raise OSError("file menjadi lebih pendek saat dibaca")
            filled += count
        yield view[:want]
        size_bytes -= want


class _Text:
    """Looks like a connected socket to a Wire; receives from a text and keeps what is sent."""

    def __init__(self, text: bytes) -> None:
        self._left = text
        self.sent = bytearray()

    def setblocking(self, flag: bool) -> None:
        """Nothing here waits."""

    def setsockopt(self, *option: int) -> None:
        """Nothing here is sent."""

    def recv_into(self, view: memoryview) -> int:
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def send(self, data: memoryview) -> int:
        self.sent += data
        return len(data)


# ---- the client's side


def encode_request(verb: str, *parameters: str) -> bytes:
    """Return a command line without its end; raises ProtocolError for what no line can carry."""
    if any("\r" in parameter or "\n" in parameter for parameter in parameters):
        raise ProtocolError("nama file tidak boleh memuat ganti baris")
    try:
        return shlex.join([verb, *parameters]).encode("utf-8")
    except UnicodeEncodeError:
        raise ProtocolError("nama file bukan UTF-8 yang sah") from None


def send_file_body(wire: Wire, file: BinaryIO, size_bytes: int, moved: Callable[[int], None] = ignore) -> int:
    """Send the body of an UPLOAD after its command, as base64; return the CRC-32 of the file's bytes.

    `moved` is told of file bytes as they go. Stops early if an answer comes before the end: it can only be a refusal.
    """
    crc32 = 0
    wire.send(b" " if size_bytes else b' ""')
    with wire.coding():
        for piece in _file_pieces(file, size_bytes):
            if wire.has_answer():
                return crc32
            crc32 = zlib.crc32(piece, crc32)
            wire.send(binascii.b2a_base64(piece, newline=False))
            moved(len(piece))
    wire.send(END)
    return crc32


def send_raw_body(wire: Wire, file: BinaryIO, size_bytes: int, moved: Callable[[int], None] = ignore) -> None:
    """Send the body of an UPLOAD_RAW after its command; `moved` and stopping early as send_file_body()."""
    while size_bytes and not wire.has_answer():
        piece_bytes = min(size_bytes, SENDFILE_PIECE_BYTES)
        wire.send_file(file, piece_bytes, moved)
        size_bytes -= piece_bytes


def crc32_of(file: BinaryIO, size_bytes: int) -> int:
    """Return the CRC-32 of the next `size_bytes` of an unbuffered file. Raises OSError if there are fewer."""
    crc32 = 0
    for piece in _file_pieces(file, size_bytes):
        crc32 = zlib.crc32(piece, crc32)
    return crc32


class Received(NamedTuple):
    """A reply; and of the file in it, if there was one, the size in bytes and the CRC-32."""

    reply: dict[str, Any]
    size_bytes: int
    crc32: int


def read_reply(wire: Wire, write: Callable[[bytes], object] | None = None) -> Received:
    """Read one reply; the file in its `data_file` is decoded as it arrives and goes to `write` in pieces.

    The order of the keys does not matter. Raises Truncated, ProtocolError, TimeoutError, ConnectionError.
    """
    size_bytes = crc32 = scanned = 0
    before = b""
    while True:
        end = wire.find(END, scanned - len(END))
        value = _FILE_VALUE.search(wire.pending, max(scanned - 64, 0)) if write and not before else None
        if write and value and (end < 0 or value.start() < end):
            before = bytes(wire.pending[:value.end()])
            wire.use(value.end())
            with wire.coding():
                for piece in decode_base64(wire, b'"', in_json=True):
                    write(piece)
                    crc32 = zlib.crc32(piece, crc32)
                    size_bytes += len(piece)
                    del piece
            scanned = 0
            continue
        if end >= 0:
            text = before + (b'"' if before else b"") + bytes(wire.pending[:end])
            wire.use(end + len(END))
            break
        scanned = len(wire.pending)
        if scanned > REPLY_LIMIT_BYTES:
            raise ProtocolError("jawaban server terlalu panjang")
        if not wire.receive():
            raise Truncated("server memutus koneksi sebelum jawabannya lengkap")
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("jawaban server bukan JSON") from None
    if not isinstance(reply, dict) or reply.get("status") not in ("OK", "ERROR"):
        raise ProtocolError("jawaban server tanpa status")
    return Received(reply, size_bytes, crc32)


# ---- what servers and clients say and measure of themselves, alike


def default_start_method() -> str:
    """Return how worker processes are started: never by a plain fork, which is unsafe once threads are about."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def reason(error: OSError) -> str:
    """Return why the system refused, for people: in Indonesian where it is common, else as the system says it."""
    if isinstance(error, socket.gaierror):
        return "nama host tidak dikenal"
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def depend_on_parent() -> None:
    """Make this worker process leave Ctrl-C to its parent, and end at once when the parent is gone: killed,
    a parent cannot stop its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for worker processes"

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def forget_main_file() -> None:
    """Have worker processes begin without running the script that was started once more. For a script whose
    functions are all sent to them under the name of a module, and before it starts the first of them."""
    vars(sys.modules["__main__"]).pop("__file__", None)


def peak_rss_bytes(pids: Iterable[int]) -> int | None:
    """Return the largest resident memory that each living process ever had, added up; None off Linux."""
    if not os.path.exists("/proc/self/status"):
        return None
    total_bytes = 0
    for pid in set(pids):
        with suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            total_bytes += sum(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    return total_bytes


class CommandLine(argparse.ArgumentParser):
    """argparse in Indonesian, with complaints of one line."""

    _WORDS = (
        ("argument ", ""), ("expected one argument", "nilainya belum ditulis"),
        ("unrecognized arguments", "pilihan tidak dikenal"), ("not allowed with", "tidak dapat bersama"),
        ("invalid choice:", "bukan pilihan:"), ("choose from", "pilih dari"),
        ("the following arguments are required", "masih kurang"),
    )

    _HEADINGS = (
        ("usage: ", "pemakaian: "), ("positional arguments:", "argumen:"), ("options:", "pilihan:"),
        ("show this help message and exit", "tampilkan bantuan ini"),
    )

    hint = "lihat --help"

    def format_help(self) -> str:
        text = super().format_help()
        for english, indonesian in self._HEADINGS:
            text = text.replace(english, indonesian)
        return text

    def error(self, message: str) -> NoReturn:
        for english, indonesian in self._WORDS:
            message = message.replace(english, indonesian)
        self.exit(2, f"galat: {message} ({self.hint})\n")

    def add_address(self, default_port: int | None, warning: str = "") -> None:
        """Add --host and --port; `warning` tells what another host than loopback means."""
        self.add_argument("--host", default=DEFAULT_HOST, help=f"alamat server (bawaan: %(default)s) {warning}")
        self.add_argument("--port", default=default_port, type=whole_number(0 if warning else 1, 65535),
                          required=default_port is None, help="port server (bawaan: %(default)s)")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a type for argparse: a whole number from `low` to `high`."""
    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} bukan bilangan bulat {low} sampai {high}")
        return int(text)
    return parse


def seconds(text: str) -> float:
    """A type for argparse: a time in seconds, more than 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} bukan jumlah detik yang sah")
    return value


def one_of(choices: Iterable[str]) -> Callable[[str], str]:
    """Return a type for argparse: one of `choices`."""
    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} bukan salah satu dari: {', '.join(choices)}")
        return text
    return parse
