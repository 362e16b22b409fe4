"""Bytes that nobody meant: valid requests and replies, mutated at random from a fixed seed, to readers and servers.

A case that fails is in the message, with its number, and comes again in every run.
"""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from file_client_cli import remote_list
from file_interface import is_valid_name
from file_protocol import _PARAMETERS, END, ProtocolError, Request, RequestReader, Truncated, Wire, read_reply
from tests.support import WAIT_S, ServerProcess
from tests.test_framing import Script

READER_CASES = 15_000
REPLY_CASES = 3_200
LIVE_CASES = 600  # for each kind of server
CASES_PER_CONNECTION = 8  # at most
SECRET = bytes(range(240, 256))  # in no request

NAMES = [b"a", b"b.txt", b"'my file'", b'"my file"', b"kept", b"link", b"folder", b"../secret", b".hidden", b"''",
         "ñ文😀".encode(), b"a\\ b", b"folder/inner"]
TOKENS = [b"\0", b'"', b"'", b"\\", b"\\\n", b"\r", b"\n", b"\r\n", END, b"\n\n", b"=", b"====", b" ", b"\t", b"#",
          b"\xff\xfe", b"\xc3", b"\x85", b"../", b"/", b"..", b"-1", b"99999999999999999999", b"999999999999999",
          b"LIST\n", b"UPLOAD ", b"upload_raw a 3\r\n\r\n", b"GET_RAW ", b'""', b"'\"'", b"QUJD", b"Q===", b"x" * 300,
          b'"data_file":"', b"\\n", b"\\/", b"\\u0041", b"{", b"}", b"[", b",", b'"OK"', b"NaN", b"1e999"]
HUGE = [b"A" * 70_000, b"QUJD" * 17_000, b" " * 70_000, b"a " * 33_000, b"\r\n" * 400, b"[" * 40_000, b"9" * 6_000]


def valid_request(rng: random.Random) -> bytes:
    """Return a request in one of the forms that clients send."""
    name = rng.choice(NAMES)
    body = rng.randbytes(rng.choice((0, 1, 2, 3, 20, 57, 58, 200)))
    text = base64.b64encode(body) or b'""'
    padded = b"".join(base64.b64encode(body[at:at + 7]) for at in range(0, len(body), 7)) or b"''"
    wrapped = base64.encodebytes(body).replace(b"\n", rng.choice((b"\n", b"\r\n"))).rstrip() or b'""'
    bare = rng.choice((b"LIST", b"STATS", b"GET " + name, b"get " + name, b"DELETE " + name, b"GET_RAW " + name))
    return rng.choice((
        bare, bare + b"\n", bare + b"\r\n", bare + END, b"UPLOAD %s %s" % (name, text) + END,
        b'UPLOAD %s "%s"' % (name, text.strip(b'"')), b"UPLOAD %s\r\n%s" % (name, text) + END,
        b"Upload %s %s" % (name, padded) + END, b"UPLOAD %s %s" % (name, wrapped) + END,
        b"UPLOAD_RAW %s %d" % (name, len(body)) + END + body, b"UPLOAD_RAW\r\n", b"HELLO\r\n",
    ))


def valid_reply(rng: random.Random) -> bytes:
    """Return a reply of some server to some request."""
    text = base64.encodebytes(rng.randbytes(rng.choice((0, 1, 2, 3, 60, 200)))).decode()
    if rng.random() < 0.7:
        text = text.replace("\n", "")
    fields = [("status", rng.choice(("OK", "OK", "OK", "ERROR"))), ("data_namafile", "data_file"), ("data_file", text),
              ("data_ukuran", rng.randint(-1, 300)), ("data_crc32", "12345678"), ("data", ["a", {"b": 'data_file":"'}])]
    chosen = rng.sample(fields, rng.randint(1, len(fields)))
    dumped = json.dumps(dict(chosen), indent=rng.choice((None, 1))).encode()
    return (dumped.replace(b"/", b"\\/") if rng.random() < 0.2 else dumped) + END


def mutated(rng: random.Random, valid: Callable[[random.Random], bytes]) -> bytes:
    """Return valid bytes, or what some accidents leave of them."""
    data = valid(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        at = rng.randint(0, len(data))
        to = min(len(data), at + rng.choice((1, 1, 2, 5, 30)))
        token = rng.choice(HUGE) if rng.random() < 0.002 else rng.choice(TOKENS)
        data = rng.choice((
            lambda: data[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in data[at:to]) + data[to:],
            lambda: data[:at] + token + data[at:],
            lambda: data[:at] + token + data[to:],
            lambda: data[:at] + data[to:],
            lambda: data[:to] + data[at:],
            lambda: data[:at] + valid(rng)[-rng.randint(1, 60):],
            lambda: data[:at],
            lambda: data[:at] + rng.randbytes(to - at) + data[to:],
            lambda: data[at:],
            lambda: data + valid(rng),
        ))()
    return data


def fragments(rng: random.Random, data: bytes) -> list[bytes]:
    """Cut bytes into pieces, at random."""
    count = rng.choice((1, 2, 5, min(len(data), 400)))
    cuts = sorted(rng.choices(range(len(data) + 1), k=count))
    return [data[start:end] for start, end in pairwise([0, *cuts, len(data)]) if start < end]


class BoundedWire(Wire):
    """Fails a reader that looks at its bytes far more often than there are bytes: it would never end."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(cast(socket.socket, Script(*pieces)), 9.0, 60.0)
        self.looks_left = 20 * sum(map(len, pieces)) + 1000

    @property
    def pending(self) -> memoryview:
        self.looks_left -= 1
        assert self.looks_left, "the reader does not end"
        return super().pending


def requests_until_the_end(pieces: list[bytes]) -> list[Any]:
    """Return what a server understands: each request, and each refusal with what it costs."""
    reader = RequestReader(BoundedWire(pieces))
    found: list[Any] = []
    while True:
        try:
            request = reader.next()
            if request is None:
                return found
            assert isinstance(request, Request) and request.verb in _PARAMETERS, request
            body = b"".join(bytes(piece) for piece in request.body)
            found.append((request.verb, request.parameters, body, request.guessed))
        except ProtocolError as error:
            assert str(error)
            found.append((isinstance(error, Truncated), error.framing_lost))
            if error.framing_lost:
                return found


def reply_or_refusal(pieces: list[bytes]) -> Any:
    """Return what a client understands: a reply and its file, or that there is none."""
    got = bytearray()
    try:
        received = read_reply(BoundedWire(pieces), got.extend)
    except ProtocolError as error:
        assert str(error)
        return isinstance(error, Truncated)
    assert received.size_bytes == len(got)
    return repr(received.reply), bytes(got)


class Readers(unittest.TestCase):
    """Whatever comes is understood or refused, with no other exception, and however it is cut."""

    def run_cases(self, count: int, valid: Callable[[random.Random], bytes],
                  outcome: Callable[[list[bytes]], Any]) -> None:
        rng = random.Random(count)
        outcomes = set()
        for number in range(count):
            sent = mutated(rng, valid)
            pieces = fragments(rng, sent)
            try:
                whole, cut = outcome([sent] if sent else []), outcome(pieces)
            except Exception as error:
                raise AssertionError(f"case {number}: {error!r} after {sent!r}") from error
            if whole != cut:
                self.fail(f"case {number}: {whole} of {sent!r}, but {cut} of {pieces}")
            outcomes.add(repr(whole))
        self.assertGreater(len(outcomes), count / 10, "most cases end alike: they test little")

    def test_requests(self) -> None:
        self.run_cases(READER_CASES, valid_request, requests_until_the_end)

    def test_replies(self) -> None:
        self.run_cases(REPLY_CASES, valid_reply, reply_or_refusal)


def replies_in(received: bytes) -> list[dict[str, Any]]:
    """Return the replies that a server sent on one connection; raise ValueError unless all are whole."""
    replies = []
    while received:
        text, end, received = received.partition(END)
        reply = json.loads(text)
        if not end or reply["status"] not in ("OK", "ERROR"):
            raise ValueError(f"no whole reply: {text!r}")
        if reply.keys() == {"status", "data_namafile", "data_ukuran"}:  # of GET_RAW: the file follows
            if len(received) < reply["data_ukuran"]:
                raise ValueError("a file that is not whole")
            received = received[reply["data_ukuran"]:]
        replies.append(reply)
    return replies


def contents(folder: Path) -> dict[str, bytes | str]:
    """Return what is in a folder: the content of files, the aim of links, by relative path."""
    return {str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()}


@unittest.skipUnless(os.name == "posix", "links and signals as on POSIX")
class LiveServers(unittest.TestCase):
    """The same bytes to servers: only whole answers, nothing outside the folder, nothing left over."""

    def fuzz(self, mode: str) -> None:
        server = ServerProcess(3, mode, script="file_server.py")
        self.addCleanup(server.close)
        (server.outside / "secret").write_bytes(SECRET)
        (server.directory / "folder").mkdir()
        for name in ("folder/inner", ".hidden", "kept", "a"):
            (server.directory / name).write_text("inside")
        (server.directory / "link").symlink_to("../secret")
        before = contents(server.outside)

        def converse(case: tuple[int, list[bytes]]) -> int:
            number, pieces = case
            received = b""
            try:
                with socket.create_connection((server.client.host, server.client.port), WAIT_S) as connection:
                    for piece in pieces:
                        connection.sendall(piece)
                    connection.shutdown(socket.SHUT_WR)
                    while piece := connection.recv(1 << 16):
                        received += piece
                if SECRET in received or base64.b64encode(SECRET) in received:
                    raise ValueError("a file outside was read")
                return len(replies_in(received))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise AssertionError(f"connection {number}: {error!r} after {b''.join(pieces)!r}") from error

        rng = random.Random(mode)
        connections: list[tuple[int, list[bytes]]] = []
        left = LIVE_CASES
        while left:
            count = min(left, rng.randint(1, CASES_PER_CONNECTION))
            left -= count
            sent = b"".join(mutated(rng, valid_request) for _ in range(count))
            connections.append((len(connections), fragments(rng, sent)[:20]))
        with ThreadPoolExecutor(8) as pool:
            answered = sum(pool.map(converse, connections))
        self.assertGreater(answered, len(connections))
        files = {name for name in os.listdir(server.directory) if is_valid_name(name)} - {"folder", "link"}
        self.assertEqual(remote_list(server.client), sorted(files))
        after = contents(server.outside)
        for name in files | {"a", "kept"}:  # these may have come, changed or gone
            before.pop(f"files/{name}", None)
            after.pop(f"files/{name}", None)
        self.assertEqual(after, before)
        server.process.terminate()
        code, stats = server.end()
        self.assertEqual((code, stats["active"]), (0, 0))
        self.assertEqual(server.stderr().count("\n"), 1, server.stderr())

    def test_thread(self) -> None:
        self.fuzz("thread")

    def test_process(self) -> None:
        self.fuzz("process")

    def test_legacy(self) -> None:
        self.fuzz("legacy")


if __name__ == "__main__":
    unittest.main()
