"""The readers of file_protocol, fed from a script instead of a socket: every form, cut at every offset."""

from __future__ import annotations

import base64
import binascii
import json
import random
import socket
import tempfile
import unittest
import zlib
from itertools import product
from pathlib import Path
from typing import Any, cast
from unittest import mock

from file_interface import FileInterface
from file_protocol import (
    END, SILENCE_S, UNKNOWN_REQUEST, Connection, FileProtocol, ProtocolError, Truncated, encode_request,
    read_reply,
)
from tests.support import WAIT_S, ScriptedSocket, Understood, talk, upload_request

SILENCE = None
LIST: Understood = ("LIST", [], b"")
GET: Understood = ("GET", ["a.txt"], b"")
BODY = b"\xff\xfe\xfb\xef\0AB"
UPLOAD: Understood = ("UPLOAD", ["a.txt"], BODY)
EMPTY: Understood = ("UPLOAD", ["a.txt"], b"")

# What a client sends, and the requests in it.
GAPS = (b" ", b"\t", b"\n", b"\r\n", b" \r\n")
BODIES = (b"//777wBBQg==", b"//77\r\n7wBB\r\nQg==", b"//77\n7wBBQg=\n=", b"//4=++8=AEFC", b"/w==\r\n/vvvAEFC")
ENDS = (END, b"\n\n", b" \r\n\r\n", b"\t \n\r\n")
FORMS: dict[bytes, list[Understood]] = {
    b"\r\n \r\n": [], b"LIST": [LIST], b"GET a.txt": [GET], b"DELETE b": [("DELETE", ["b"], b"")],
    b"LIST\n": [LIST], b"GET a.txt\r\n": [GET], b"GET a.txt\r\n\r\n": [GET], b'GET "a.txt"\r\n\r\n': [GET],
    b"GET 'my \"file\".pdf'\r\n\r\n": [("GET", ['my "file".pdf'], b"")],
    b'GET "a\\"b" \r\n\r\n': [("GET", ['a"b'], b"")],
    b"gEt_rAw\tA.Txt\r\n\r\n": [("GET_RAW", ["A.Txt"], b"")],
    "GET 'ñ 文.txt'\r\n\r\n".encode(): [("GET", ["ñ 文.txt"], b"")],
    b"GET " + b"a" * 4090 + b"\r\n": [("GET", ["a" * 4090], b"")],  # 4 KiB
    **{b"UPLOAD a.txt" + b"".join(parts): [UPLOAD] for parts in product(GAPS, BODIES, ENDS)},
    **{b'upload\t"a.txt"' + gap + quote + body + quote: [UPLOAD]
       for gap, quote, body in product(GAPS, (b'"', b"'"), (*BODIES, BODIES[0] + b" "))},
    **{b"UPLOAD a.txt" + empty: [EMPTY] for empty in (b" " + END, b"\r\n" + END, b" \r\n" + END, b' ""')},
    b"UPLOAD_RAW a.txt 6\r\n\r\n\r\n\r\nABLIST\r\n": [("UPLOAD_RAW", ["a.txt", "6"], b"\r\n\r\nAB"), LIST],
    b"UPLOAD_RAW a.txt 0\r\n\r\n": [("UPLOAD_RAW", ["a.txt", "0"], b"")],
    b"LIST\r\n\r\nUPLOAD a.txt //777wBBQg==\r\n\r\nUPLOAD a.txt '//777wBBQg=='GET a.txt\nLIST": [
        LIST, UPLOAD, UPLOAD, GET, LIST],
}

BAD = [
    b"UPLOAD a QUJ-QUJD\r\n\r\n", b"UPLOAD a QUJD QUJD\r\n\r\n", b"UPLOAD a QUJDQUI\r\n\r\n",
    b'UPLOAD a "QUJDQ"', b"UPLOAD a Q=JD\r\n\r\n", b"UPLOAD a Q===\r\n\r\n", b"UPLOAD a ====\r\n\r\n",
    b"UPLOAD a QUJD", b'UPLOAD a "QUJD\r\n\r\n"', b'UPLOAD a "QUJD\r\n\r\n', b"UPLOAD a QUJD" + b" " * 999,
    b"UPLOAD a\r\n\r\n", b"UPLOAD a\r\n\r\nQUJD\r\n\r\n", b"UPLOAD\r\n\r\n", b"GET\r\n\r\n", b"GET a b\n",
    b'GET "a\r\n\r\n', b"GET \xff\xfe\r\n\r\n", b"FOO a\r\n\r\n", b"FOO", b"UPLOAD_RAW\r\n\r\n",
    b"UPLOAD_RAW a -1\r\n\r\n", b"UPLOAD_RAW a 99999999999999999999\r\n\r\n", b"UPLOAD_RAW a 1e3\r\n\r\n",
    b"UPLOAD_RAW a 5\r\n\r\nABCD", b"UPLOAD_RAW a 3\r\nABCDE", b"GET " + b"a" * 4096 + END,
    b"GET " + b"a" * 4096, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
]


def cuts_of(sent: bytes) -> list[list[bytes]]:
    """Return bytes whole, in two pieces cut at every offset, and byte by byte; less of a long line."""
    if len(sent) > 1000:
        return [[sent], *([sent[:cut], sent[cut:]] for cut in (1, 3, 4, 5, 99, len(sent) - 1))]
    halves = ([sent[:cut], sent[cut:]] for cut in range(1, len(sent)))
    return [[sent], *halves, [sent[at:at + 1] for at in range(len(sent))]]


class Requests(unittest.TestCase):
    """The server's side: a request in any of the forms in which the clients of the course send it."""

    def test_every_form_cut_at_every_offset(self) -> None:
        for sent, expected in FORMS.items():
            for pieces in cuts_of(sent):
                self.assertEqual(talk(*pieces), (expected, [], False, []), pieces)

    def test_bad_requests_cut_at_every_offset(self) -> None:
        self.assertEqual(talk(b"\x16\x03", SILENCE)[2:], (True, []))  # a TLS handshake: at once
        for sent in BAD:
            for pieces in cuts_of(sent):
                found = talk(*pieces)
                self.assertTrue(not found.requests and found.refusals and all(found.refusals), pieces)

    def test_silence_completes_a_known_command_or_an_unknown_verb_soon(self) -> None:
        for sent in (b"LIST", b"GET a.txt", b"DELETE 'a'", b"stats ", b"GET_RAW a"):
            found = talk(sent, SILENCE)
            self.assertEqual(found.requests[0][0], sent.split()[0].decode().upper())
            self.assertEqual(found[1:], ([], False, [SILENCE_S]))
        for sent in (b"HELLO", b"HAPUS a.txt", b"\xef\xbb\xbfLIST", b"\0\0\0", b"LIS", b"\x16", b"{"):
            self.assertEqual(talk(sent, SILENCE), ([], [UNKNOWN_REQUEST], True, [SILENCE_S]), sent)

    def test_silence_completes_nothing_else(self) -> None:
        for sent in (b"", b"GET", b"GET 'a", b"GET a\\", b"UPLOAD a", b"UPLOAD a Q", b"UPLOAD_RAW a 5"):
            self.assertEqual(talk(sent, SILENCE), ([], ["silence"], True, [9.0]), sent)
        # Wherever it comes, half a file is never taken for a whole one.
        for sent in [form for form in FORMS if form.upper().startswith(b"UPLOAD")]:
            for cut in range(1, sent.rindex(b"LIST") - 1 if b"LIST" in sent else len(sent.strip())):
                found = talk(sent[:cut], SILENCE)
                self.assertEqual((found.requests, found.is_cut), ([], True), sent[:cut])

    def test_no_command_in_an_http_request_runs(self) -> None:
        fields = b"Host: x\r\nDELETE evil\r\n\r\nDELETE evil\r\nUPLOAD evil QUJD\r\n\r\nGET_RAW evil\r\n\r\n"
        for line in (b"GET / HTTP/1.1", b"POST /x HTTP/1.1", b"PUT /x%20y HTTP/1.0", b"DELETE /a HTTP/1.1",
                     b"OPTIONS * http/1.1 ", b"GET /LIST HTTP/1.1", b"UPLOAD /a HTTP/1.1", b"STATS HTTP/1.0"):
            sent = line + b"\r\n" + fields
            self.assertEqual(talk(line + b"\n", SILENCE, fields)[2:], (True, []), line)  # at once
            for first in range(1, len(line) + 2):
                for second in range(first, len(line) + 2):
                    pieces = [sent[:first], SILENCE, *[sent[first:second], SILENCE][:2 * (second > first)]]
                    found = talk(*pieces, sent[second:])
                    self.assertTrue(found.is_cut and "evil" not in repr(found), pieces)

    def test_random_bodies_in_random_pieces(self) -> None:
        rng = random.Random(2)
        for length in [*range(40), 3000, 3001, 3002, 100_000, 1_000_001]:
            body, pieces = rng.randbytes(length), []
            sent = upload_request(rng, b"a.txt", body) + b"LIST\r\n\r\n"
            while sent:
                pieces.append(sent[:rng.choice((1, 2, 3, 5, 100, 1460, 70_000))])
                sent = sent[len(pieces[-1]):]
            found = talk(*pieces)
            self.assertTrue([request[2] for request in found.requests] == [body, b""], pieces[0])
            self.assertEqual(found[1:], ([], False, []))

    def test_what_the_client_sends_is_what_the_server_reads(self) -> None:
        rng = random.Random(3)
        for _ in range(500):
            name = "".join(rng.choices("ab \"'\\$#;&|*?~`!ñ文😀-=.", k=rng.randint(1, 20)))
            self.assertEqual(talk(encode_request("GET", name) + END).requests, [("GET", [name], b"")])
        for name in ("a\r\nDELETE b", "a\nb", "\ud800"):
            self.assertRaises(ProtocolError, encode_request, "GET", name)

    def test_the_way_in_of_the_course(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            protocol = FileProtocol(FileInterface(Path(folder)), dict)
            replies = [json.loads(protocol.proses_string(text)) for text in (
                "UPLOAD a QUJD", "LIST", "GET a", "DELETE a", "X", "GET a b", "UPLOAD . " + "Q" * 999_999)]
        self.assertEqual("".join(reply["status"][0] for reply in replies), "OOOOEEE")
        self.assertEqual((replies[1]["data"], replies[2]["data_file"]), (["a"], "QUJD"))

    def test_the_work_grows_with_the_bytes_and_no_faster(self) -> None:
        looked_at = 0

        def pending(connection: Connection) -> memoryview:
            nonlocal looked_at
            view: memoryview = original(connection)
            looked_at += len(view)
            return view

        original, decode = cast(Any, Connection.pending).fget, binascii.a2b_base64
        for start in (b"", b"QUJD\n", b"QUI="):  # what follows has neither line break nor padding
            for size, piece in ((4_000, 1), (300_000, 100_000)):
                sent = b"UPLOAD a " + start + base64.b64encode(bytes(size)) + END
                looked_at = 0
                with mock.patch("binascii.a2b_base64", side_effect=decode) as decoder, \
                        mock.patch.object(Connection, "pending", property(pending)):
                    body = talk(*(sent[at:at + piece] for at in range(0, len(sent), piece))).requests[0][2]
                self.assertEqual(len(body), size + len(base64.b64decode(start)))
                self.assertLess(looked_at, 20 * len(sent))
                decoded_bytes = sum(len(call.args[0]) for call in decoder.call_args_list)
                self.assertLess(decoded_bytes, 1.1 * len(sent) + 5_000)


class Replies(unittest.TestCase):
    """The client's side: a reply of any shape."""

    FIELDS = (("status", "OK"), ("data_namafile", "data_file"), ("data_x", 'x"data_file":"y'),
              ("data_file", "//777wBBQg=="), ("data_crc32", "12345678"))

    def read(self, *pieces: bytes) -> tuple[dict[str, Any], bytes]:
        got = bytearray()
        received = read_reply(ScriptedSocket(*pieces).connection(), got.extend)
        self.assertEqual((received.size_bytes, received.crc32), (len(got), zlib.crc32(got)))
        return received.reply, bytes(got)

    def test_any_order_of_keys_any_spacing_cut_at_every_offset(self) -> None:
        for first in range(5):
            pairs = dict([*self.FIELDS[first:], *self.FIELDS[:first]])
            for pieces in cuts_of(json.dumps(pairs, indent=first % 2 or None).encode() + END):
                self.assertEqual(self.read(*pieces), (pairs | {"data_file": ""}, BODY), pieces)
        for body in BODIES:  # other writers of JSON have escapes
            text = json.dumps(body.decode())
            for dumped in (text, text.replace("/", "\\/")):
                for pieces in cuts_of(b'{"status":"OK","data_file":' + dumped.encode() + b"}\r\n\r\n"):
                    self.assertEqual(self.read(*pieces)[1], BODY, pieces)

    def test_what_is_no_reply(self) -> None:
        whole = json.dumps(dict(self.FIELDS)).encode() + END
        for cut in range(len(whole)):
            self.assertRaises(Truncated, self.read, whole[:cut])
        for sent in (b"hello", b"[]", b"{}", b'{"status":1}', b"\xff", b"[" * 200_000,
                     b'{"status":"OK","data_file":"QUJ"}', b'{"status":"OK","data_file":"Q!JD"}'):
            with self.assertRaises(ProtocolError, msg=sent[:50]):
                self.read(sent + END)
        with mock.patch("file_protocol.REPLY_LIMIT_BYTES", 10_000):
            self.assertRaisesRegex(ProtocolError, "panjang", self.read, *[b"x" * 5_000] * 9)

    def test_replies_without_a_file(self) -> None:
        names = [f"data_file {number}" for number in range(20_000)]
        sent = json.dumps({"status": "OK", "data": names}).encode() + END + b"next"
        connection = ScriptedSocket(*(sent[at:at + 1460] for at in range(0, len(sent), 1460))).connection()
        self.assertEqual(read_reply(connection, self.fail).reply["data"], names)
        self.assertTrue(b"next".startswith(connection.pending))  # one reply is read, and no more
        self.assertEqual(self.read(b'{"message":"","status":"FAILED"}\r\n\r\n')[0]["status"], "FAILED")
        sent = b'{"status":"OK","data_file":"QUJD"}'  # which nobody asked for
        self.assertEqual(read_reply(ScriptedSocket(sent + END).connection()), (json.loads(sent), 0, 0))


class Connections(unittest.TestCase):
    """Deadlines, and the time of the first byte."""

    def test_every_wait_has_an_end(self) -> None:
        here, there = socket.socketpair()
        with here, there, tempfile.TemporaryFile(buffering=0) as file:
            file.truncate(100_000_000)
            for idle_s, total_s in ((0.02, WAIT_S), (WAIT_S, 0.02)):
                connection = Connection(here, idle_s, total_s)
                self.assertRaises(TimeoutError, connection.receive)
                for send in (connection.send_file, lambda file, size: connection.send(bytes(size))):
                    connection.restart_deadline()
                    self.assertRaises(TimeoutError, send, cast(Any, file), 100_000_000)
        connection = Connection(cast(socket.socket, ScriptedSocket(*[b"x"] * 200_000)), WAIT_S, 0.02)
        with self.assertRaises(TimeoutError):  # though the peer never pauses
            while connection.receive():
                connection.consume(1)

    def test_the_first_byte_and_no_later_one_has_its_time_noted(self) -> None:
        connection = ScriptedSocket(b"a", b"b").connection()
        noted = [connection.first_byte_at]
        while connection.receive():
            noted.append(connection.first_byte_at)
        self.assertTrue(noted[0] is None and noted[1] and noted[1:] == [noted[1]] * 2, noted)
