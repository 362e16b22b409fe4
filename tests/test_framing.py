"""The readers of file_protocol, fed from a script instead of a socket: every form, cut at every offset."""

from __future__ import annotations

import base64
import binascii
import json
import random
import socket
import threading
import unittest
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast
from unittest import mock

import file_protocol
from file_protocol import (
    LINE_LIMIT_BYTES, ProtocolError, Request, RequestReader, Truncated, Wire, encode_request, read_reply,
)
from tests.support import WAIT_S, wait_until

SILENCE = None  # in a script: nothing comes for a while


class Script:
    """Looks like a connected socket; gives the pieces of a script, one a receive, then the end."""

    def __init__(self, *pieces: bytes | None) -> None:
        self.pieces = list(pieces)

    def setblocking(self, flag: bool) -> None:
        """Nothing here waits."""

    def setsockopt(self, *option: int) -> None:
        """Nothing here is sent."""

    def recv_into(self, view: memoryview) -> int:
        if not self.pieces:
            return 0
        piece = self.pieces.pop(0)
        if piece is None:
            raise TimeoutError
        count = min(len(view), len(piece))
        view[:count] = piece[:count]
        if piece[count:]:
            self.pieces.insert(0, piece[count:])
        return count


def wire_of(*pieces: bytes | None) -> Wire:
    return Wire(cast(socket.socket, Script(*pieces)), idle_s=9.0, total_s=60.0)


def requests_in(*pieces: bytes | None) -> list[tuple[str, list[str], bytes]]:
    """Return all requests in a script: verb, parameters, body."""
    reader = RequestReader(wire_of(*pieces))
    found = []
    while request := reader.next():
        found.append((request.verb, request.parameters, b"".join(bytes(piece) for piece in request.body)))
    return found


BODY = bytes(range(256)) + b"\xff\xfe"
BASE64 = base64.b64encode(BODY)
MIME = base64.encodebytes(BODY).replace(b"\n", b"\r\n").rstrip()
PIECES = b"".join(base64.b64encode(BODY[at:at + 7]) for at in range(0, len(BODY), 7))
UPLOADED = [("UPLOAD", ["a.txt"], BODY)]

# What a client sends, whether silence follows and not the end, and the requests in it.
FORMS: dict[str, tuple[bytes, list[tuple[str, list[str], bytes]]]] = {
    "1 bare LIST": (b"LIST", [("LIST", [], b"")]),
    "1 bare GET": (b"GET a.txt", [("GET", ["a.txt"], b"")]),
    "1 bare DELETE": (b"DELETE a.txt", [("DELETE", ["a.txt"], b"")]),
    "2 newline": (b"LIST\n", [("LIST", [], b"")]),
    "2 carriage return, newline": (b"GET a.txt\r\n", [("GET", ["a.txt"], b"")]),
    "3 empty line": (b"GET a.txt\r\n\r\n", [("GET", ["a.txt"], b"")]),
    "3 quotes": (b'GET "my file.pdf"\r\n\r\n', [("GET", ["my file.pdf"], b"")]),
    "3 other quotes": (b"GET 'my \"file\".pdf'\r\n\r\n", [("GET", ['my "file".pdf'], b"")]),
    "3 backslashes": (b'GET "a\\"b" \r\n\r\n', [("GET", ['a"b'], b"")]),
    "3 case of verbs and names": (b"gEt A.Txt\r\n\r\n", [("GET", ["A.Txt"], b"")]),
    "3 unicode": ("GET 'ñ 文.txt'\r\n\r\n".encode(), [("GET", ["ñ 文.txt"], b"")]),
    "4 upload": (b"UPLOAD a.txt " + BASE64 + b"\r\n\r\n", UPLOADED),
    "4 upload, quoted name": (b'upload "a b" ' + BASE64 + b"\r\n\r\n", [("UPLOAD", ["a b"], BODY)]),
    "4 empty file": (b"UPLOAD a.txt \r\n\r\n", [("UPLOAD", ["a.txt"], b"")]),
    "5 quoted body": (b'UPLOAD a.txt "' + BASE64 + b'"', UPLOADED),
    "5 quoted body, single": (b"UPLOAD a.txt '" + BASE64 + b"'\r\n\r\n", UPLOADED),
    "5 quoted empty body": (b'UPLOAD a.txt ""\r\n\r\n', [("UPLOAD", ["a.txt"], b"")]),
    "6 body on the next line": (b"UPLOAD a.txt\r\n" + BASE64 + b"\r\n\r\n", UPLOADED),
    "7 padded pieces": (b"UPLOAD a.txt " + PIECES + b"\r\n\r\n", UPLOADED),
    "8 line breaks": (b"UPLOAD a.txt\r\n" + MIME + b"\r\n\r\n", UPLOADED),
    "8 line breaks, newline only": (b"UPLOAD a.txt " + base64.encodebytes(BODY) + b"\n", UPLOADED),
    "back to back": (
        b"LIST\r\n\r\nGET a\r\n\r\nUPLOAD a.txt " + BASE64 + b'\r\n\r\nUPLOAD a.txt "' + BASE64 + b'"DELETE a\nSTATS',
        [("LIST", [], b""), ("GET", ["a"], b""), *UPLOADED, *UPLOADED, ("DELETE", ["a"], b""), ("STATS", [], b"")]),
    "raw": (b"UPLOAD_RAW a.txt 6\r\n\r\n\r\n\r\nABLIST\r\n\r\n", [("UPLOAD_RAW", ["a.txt", "6"], b"\r\n\r\nAB"),
                                                                 ("LIST", [], b"")]),
    "raw, empty": (b"UPLOAD_RAW a.txt 0\r\n\r\n", [("UPLOAD_RAW", ["a.txt", "0"], b"")]),
    "nothing": (b"\r\n \r\n", []),
}

BAD = {
    "character outside the alphabet": b"UPLOAD a QUJ-QUJD\r\n\r\n",
    "space in the body": b"UPLOAD a QUJD QUJD\r\n\r\n",
    "broken last group": b"UPLOAD a QUJDQUI\r\n\r\n",
    "broken last group before the quote": b'UPLOAD a "QUJDQ"',
    "padding in the wrong place": b"UPLOAD a Q=JD\r\n\r\n",
    "too much padding": b"UPLOAD a Q===\r\n\r\n",
    "only padding": b"UPLOAD a ====\r\n\r\n",
    "body that stops": b"UPLOAD a QUJD",
    "quoted body with an empty line": b'UPLOAD a "QUJD\r\n\r\n"',
    "quoted body that stops": b'UPLOAD a "QUJD\r\n\r\n',
    "no body": b"UPLOAD a\r\n\r\n",
    "no name": b"GET\r\n\r\n",
    "no parameters": b"UPLOAD\r\n\r\n",
    "two names": b"GET a b\r\n\r\n",
    "unbalanced quotes": b'GET "a\r\n\r\n',
    "not UTF-8": b"GET \xff\xfe\r\n\r\n",
    "unknown verb": b"FOO a\r\n\r\n",
    "unknown verb at the end": b"FOO",
    "negative size": b"UPLOAD_RAW a -1\r\n\r\n",
    "absurd size": b"UPLOAD_RAW a 99999999999999999999\r\n\r\n",
    "size that is no number": b"UPLOAD_RAW a 1e3\r\n\r\n",
    "raw body that stops": b"UPLOAD_RAW a 5\r\n\r\nABCD",
    "raw body without the empty line": b"UPLOAD_RAW a 5\r\nABCDE",
    "line over the limit": b"GET " + b"a" * LINE_LIMIT_BYTES + b"\r\n\r\n",
    "line over the limit, unended": b"GET " + b"a" * LINE_LIMIT_BYTES,
}


class RequestForms(unittest.TestCase):
    """Each form in which the clients of the course send requests."""

    def test_every_form_cut_at_every_offset(self) -> None:
        for name, (sent, expected) in FORMS.items():
            for cut in range(len(sent) + 1):
                with self.subTest(form=name, cut=cut):
                    self.assertEqual(requests_in(*filter(None, (sent[:cut], sent[cut:]))), expected)

    def test_every_form_byte_by_byte(self) -> None:
        for name, (sent, expected) in FORMS.items():
            with self.subTest(form=name):
                self.assertEqual(requests_in(*(sent[at:at + 1] for at in range(len(sent)))), expected)

    def test_silence_completes_a_bare_command_and_nothing_else(self) -> None:
        for sent in (b"LIST", b"GET a.txt", b"DELETE 'a b'", b"STATS", b"GET_RAW a"):
            with self.subTest(sent=sent):
                reader = RequestReader(wire_of(sent, SILENCE))
                self.assertEqual(cast(Request, reader.next()).verb, sent.split()[0].decode())
        for sent in (b"GET", b"GET 'a b", b"GET a\\", b"LIS", b"UPLOAD a", b"UPLOAD_RAW a 5", b"FOO a"):
            with self.subTest(sent=sent), self.assertRaises(TimeoutError):
                RequestReader(wire_of(sent, SILENCE)).next()
        with self.assertRaises(TimeoutError):
            requests_in(b"UPLOAD a QUJD", SILENCE)
        with self.assertRaises(ProtocolError):
            requests_in(b"GET my file.pdf", SILENCE)

    def test_silence_is_short_only_when_the_command_could_be_whole(self) -> None:
        class Patient(Wire):
            def receive(self, wait_s: float | None = None) -> bool:
                self.last_wait_s = wait_s
                return super().receive(wait_s)

        for sent, wait_s in ((b"GET a", 0.2), (b"GET 'a", None), (b"UPLOAD a QUJD", None)):
            wire = Patient(cast(socket.socket, Script(sent, SILENCE)), 9.0, 60.0)
            with self.subTest(sent=sent):
                with suppress(TimeoutError):
                    for _ in cast(Request, RequestReader(wire).next()).body:
                        pass
                self.assertEqual(wire.last_wait_s, wait_s)

    def test_the_total_deadline_holds_for_a_client_that_never_pauses(self) -> None:
        class Endless(Script):
            def recv_into(self, view: memoryview) -> int:
                return len(view)

        wire = Wire(cast(socket.socket, Endless()), idle_s=9.0, total_s=0.05)
        with self.assertRaises(TimeoutError):
            for _ in range(10_000_000):
                wire.receive()
                wire.use(len(wire.pending))

    def test_bad_requests_cut_at_every_offset(self) -> None:
        for name, sent in BAD.items():
            step = max(1, len(sent) // 50)
            for cut in range(0, len(sent), step):
                with self.subTest(bad=name, cut=cut), self.assertRaises(ProtocolError) as caught:
                    requests_in(*filter(None, (sent[:cut], sent[cut:])))
                self.assertTrue(str(caught.exception))

    def test_a_bad_line_costs_only_itself(self) -> None:
        reader = RequestReader(wire_of(b"FOO\r\n\r\nGET\r\n\r\nLIST\r\n\r\n"))
        for _ in range(2):
            with self.assertRaises(ProtocolError) as caught:
                reader.next()
            self.assertFalse(caught.exception.framing_lost)
        self.assertEqual(cast(Request, reader.next()).verb, "LIST")

    def test_random_bodies_in_random_pieces(self) -> None:
        rng = random.Random(2)
        for length in [*range(40), 3000, 3001, 3002, 100_000, 1_000_001]:
            body = rng.randbytes(length)
            sent = b"UPLOAD 'a b' " + (base64.b64encode(body) or b'""') + b"\r\n\r\nLIST\r\n\r\n"
            pieces = []
            while sent:
                count = rng.choice((1, 2, 3, 5, 100, 1460, 70_000))
                pieces.append(sent[:count])
                sent = sent[count:]
            with self.subTest(length=length):
                self.assertEqual(requests_in(*pieces), [("UPLOAD", ["a b"], body), ("LIST", [], b"")])

    def test_what_the_client_sends_is_what_the_server_reads(self) -> None:
        rng = random.Random(3)
        letters = "ab \"'\\$#;&|*?~`!ñ文😀-=."
        for _ in range(500):
            name = "".join(rng.choices(letters, k=rng.randint(1, 20)))
            self.assertEqual(requests_in(encode_request("GET", name) + b"\r\n\r\n"), [("GET", [name], b"")])
        with self.assertRaises(ProtocolError):
            encode_request("GET", "a\r\nDELETE b")

    def test_the_work_grows_with_the_bytes_and_no_faster(self) -> None:
        class Counting(Wire):
            looked_at = 0

            @property
            def pending(self) -> memoryview:
                view = super().pending
                self.looked_at += len(view)
                return view

        for start in (b"", b"QUJD\n", b"QUI="):  # what follows has neither line break nor padding
            for size in (5_000, 10_000, 20_000):
                sent = b"UPLOAD a " + start + base64.b64encode(bytes(size)) + b"\r\n\r\n"
                wire = Counting(cast(socket.socket, Script(*(sent[at:at + 1] for at in range(len(sent))))), 9.0, 60.0)
                request = cast(Request, RequestReader(wire).next())
                with self.subTest(start=start, size=size):
                    self.assertEqual(sum(map(len, request.body)), size + start.count(b"D") * 3 + start.count(b"=") * 2)
                    self.assertLess(wire.looked_at, 20 * len(sent))


def reply_bytes(pairs: list[tuple[str, Any]], spaced: bool = False) -> bytes:
    return json.dumps(dict(pairs), indent=1 if spaced else None).encode() + b"\r\n\r\n"


class Replies(unittest.TestCase):
    """The client's side: a reply of any shape."""

    FIELDS = (("status", "OK"), ("data_namafile", "data_file"), ("data_x", 'x"data_file":"y'),
              ("data_file", BASE64.decode()), ("data_crc32", "12345678"))

    def read(self, *pieces: bytes) -> tuple[dict[str, Any], bytes]:
        got = bytearray()
        received = read_reply(wire_of(*pieces), got.extend)
        self.assertEqual((received.size_bytes, received.crc32), (len(got), zlib.crc32(got)))
        return received.reply, bytes(got)

    def test_any_order_of_keys_any_spacing_cut_at_every_offset(self) -> None:
        for first in range(5):
            for spaced in (False, True):
                pairs = [*self.FIELDS[first:], *self.FIELDS[:first]]
                sent = reply_bytes(pairs, spaced)
                for cut in range(len(sent)):
                    reply, got = self.read(sent[:cut] or b"", sent[cut:]) if cut else self.read(sent)
                    self.assertEqual(got, BODY)
                    self.assertEqual(reply, dict(pairs) | {"data_file": ""})

    def test_byte_by_byte(self) -> None:
        sent = reply_bytes(list(self.FIELDS))
        self.assertEqual(self.read(*(sent[at:at + 1] for at in range(len(sent))))[1], BODY)

    def test_escapes_that_other_json_writers_put_into_base64(self) -> None:
        text = base64.encodebytes(BODY).decode()
        for dumped in (json.dumps(text), json.dumps(text).replace("/", "\\/"),
                       json.dumps(text.replace("\n", "\r\n"))):
            sent = b'{"status":"OK","data_file":' + dumped.encode() + b"}\r\n\r\n"
            for cut in range(1, len(sent)):
                self.assertEqual(self.read(sent[:cut], sent[cut:])[1], BODY)

    def test_a_reply_without_its_end_is_no_reply(self) -> None:
        sent = reply_bytes(list(self.FIELDS))
        for cut in range(len(sent)):
            with self.subTest(cut=cut), self.assertRaises(Truncated):
                self.read(*filter(None, [sent[:cut]]))

    def test_what_is_not_a_reply(self) -> None:
        for sent in (b"hello\r\n\r\n", b"[]\r\n\r\n", b"{}\r\n\r\n", b'{"status":1}\r\n\r\n', b"\xff\r\n\r\n",
                     b"[" * 200_000 + b"\r\n\r\n",
                     b'{"status":"OK","data_file":"QUJ"}\r\n\r\n', b'{"status":"OK","data_file":"Q!JD"}\r\n\r\n'):
            with self.subTest(sent=sent), self.assertRaises(ProtocolError):
                self.read(sent)

    def test_a_large_list(self) -> None:
        names = [f"file-{number}" for number in range(20_000)]
        sent = reply_bytes([("status", "OK"), ("data", names)])
        pieces = [sent[at:at + 1460] for at in range(0, len(sent), 1460)]
        self.assertEqual(read_reply(wire_of(*pieces)).reply["data"], names)


class Work(unittest.TestCase):
    """How often the bytes of a body are gone through."""

    def test_no_part_of_a_long_body_is_decoded_twice(self) -> None:
        body = base64.b64encode(random.Random(1).randbytes(300_000))
        decode = binascii.a2b_base64
        for quote, after in ((None, b"\r\n\r\n"), (b'"', b'","data_crc32":"01234567"}\r\n\r\n')):
            with self.subTest(after=after), mock.patch("binascii.a2b_base64", side_effect=decode) as decoder:
                wire = wire_of(*(body[at:at + 100_000] for at in range(0, len(body), 100_000)), after)
                wire.make_room(file_protocol.BUFFER_BYTES)
                while len(wire.pending) < len(body) + len(after):
                    wire.receive()
                size_bytes = sum(len(piece) for piece in file_protocol.decode_base64(wire, quote, quote is not None))
                self.assertEqual(size_bytes, 300_000)
                decoded_bytes = sum(len(call.args[0]) for call in decoder.call_args_list)
                self.assertLess(decoded_bytes, len(body) + 100)


class Turns(unittest.TestCase):
    """Threads that encode or decode take turns; here only one of them at a time."""

    def setUp(self) -> None:
        self.turns = file_protocol._Turns(1)
        patched = mock.patch("file_protocol._turns", self.turns)
        patched.start()
        self.addCleanup(patched.stop)
        self.had_turns: list[object] = []

    def another(self, name: object, act: Callable[[], object] = lambda: None) -> None:
        """Start a thread that wants one turn, and wait until it waits for it."""
        def run() -> None:
            self.turns.take()
            self.had_turns.append(name)
            act()
            self.turns.end()

        thread = threading.Thread(target=run)
        waiting = len(self.turns._waiting)
        thread.start()
        self.addCleanup(thread.join, WAIT_S)
        wait_until(lambda: len(self.turns._waiting) > waiting, "the thread waits for its turn")

    def test_first_come_first_served(self) -> None:
        self.turns.take()
        for number in range(5):
            self.another(number)
        self.assertEqual(self.had_turns, [])
        self.turns.end()
        self.turns.take()
        self.assertEqual(self.had_turns, [0, 1, 2, 3, 4])

    def test_a_turn_ends_after_so_many_bytes(self) -> None:
        wire = wire_of(bytes(600), bytes(600), bytes(600))
        with mock.patch("file_protocol.TURN_BYTES", 1000), wire.coding():
            self.another("other")
            wire.receive()
            wire.receive()
            self.assertEqual(self.had_turns, [])
            wire.receive()
            self.assertEqual(self.had_turns, ["other"])

    def test_a_turn_ends_when_the_wire_must_wait(self) -> None:
        here, there = socket.socketpair()
        with here, there:
            wire = Wire(here, WAIT_S, WAIT_S)
            with wire.coding():
                self.another("other", lambda: there.send(b"x"))
                self.assertTrue(wire.receive())
        self.assertEqual(self.had_turns, ["other"])

    def test_the_buffer_of_a_turn_goes_to_the_next_and_what_was_in_it_stays(self) -> None:
        first, second = wire_of(b"A" * 5000), wire_of(b"B" * 5000, b"C" * 900)
        with first.coding():
            first.receive()
            lent = first._buffer
            self.assertEqual(len(lent), file_protocol.TURN_BUFFER_BYTES)
        with second.coding():
            second.receive()
            self.assertTrue(second._buffer is lent)
            second.use(4000)
        second.receive()
        self.assertFalse(second._buffer is lent)
        self.assertTrue(bytes(first.pending) == b"A" * 5000)
        self.assertTrue(bytes(second.pending) == b"B" * 1000 + b"C" * 900)

    def test_the_buffer_goes_on_while_a_wire_waits(self) -> None:
        other = wire_of(b"B" * 900)
        here, there = socket.socketpair()

        def act() -> None:
            other._turn_left_bytes = 1000  # this thread has the turn
            other.receive()
            other._end_turn()
            self.turns.take()
            there.send(b"A" * 800)

        with here, there:
            wire = Wire(here, WAIT_S, WAIT_S)
            there.send(b"A" * 200)
            with wire.coding():
                wire.receive()
                self.another("other", act)
                wire.receive()
                self.assertEqual(bytes(wire.pending), b"A" * 1000)
        self.assertEqual(bytes(other.pending), b"B" * 900)
        self.assertEqual(len(self.turns._spare_buffers), 1)

    @unittest.skipUnless(hasattr(socket, "TCP_NOTSENT_LOWAT"), "this system lets a sender go ahead as it likes")
    def test_little_is_encoded_ahead_of_what_goes_out(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, \
                socket.create_connection(listener.getsockname()) as connection:
            wire = Wire(connection, 0.1, WAIT_S)
            with suppress(TimeoutError), wire.coding():
                while wire.sent_bytes < 100e6:  # nobody reads
                    wire.send(bytes(60_000))
            self.assertLess(wire.sent_bytes, 1e6)

    def test_whatever_happens_a_turn_ends(self) -> None:
        with suppress(ZeroDivisionError), wire_of().coding():
            raise ZeroDivisionError
        self.assertEqual(self.turns._free, 1)


if __name__ == "__main__":
    unittest.main()
