"""Valid requests and replies, mutated at random from fixed seeds, to readers and servers."""

from __future__ import annotations

import base64
import json
import os
import random
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

from file_client_cli import remote_list
from file_protocol import END, ProtocolError, read_reply
from tests.support import ScriptedSocket, ServerProcess, answer_to, replies_in, talk

TIMES = 20 if os.environ.get("TESTS_SLOW") == "1" else 1
LIVE_CASES = 100 * TIMES  # connections to each kind of server, with up to 8 requests each
SECRET = bytes(range(240, 256))  # in no request
NAMES = ["a", "'my f'", '"my f"', "kept", "link", "folder", "folder/inner", "../secret", ".hidden", "ñ文"]
TOKENS = [b"\0", b'"', b"'", b"\\", b"\\\n", b"\r", b"\n", b"\r\n", END, b"\n\n", b"=", b"====", b" ", b"\t",
          b"#", b"\xff\xfe", b"\xc3", b"../", b"..", b"-1", b"9" * 20, b"9" * 15, b"LIST\n", b"\v", b"NaN",
          b"upload_raw a 3\r\n\r\n", b'""', b"'\"'", b"QUJD", b"Q===", b"x" * 300, b'"data_file":"', b"\\n",
          b"GET_RAW ", b"\\/", b"\\u0041", b"{", b"}", b"[", b",", b" HTTP/1.1\r\n", b"\x16\x03"]
HUGE = [b"A" * 70_000, b"QUJD" * 17_000, b"a " * 33_000, b"\r\n" * 400, b"[" * 40_000, b"9" * 6_000]


def valid_request(rng: random.Random) -> bytes:
    """Return a request in one of the forms that clients send."""
    name = rng.choice(NAMES).encode()
    body = rng.randbytes(rng.choice((0, 1, 2, 3, 20, 57, 58, 200)))
    text = base64.b64encode(body) or b'""'
    padded = b"".join(base64.b64encode(body[at:at + 7]) for at in range(0, len(body), 7))
    wrapped = base64.encodebytes(body).replace(b"\n", rng.choice((b"\n", b"\r\n"))).rstrip() or b'""'
    bare = rng.choice((b"LIST", b"STATS", b"HELLO", b"get " + name, b"DELETE " + name, b"GET_RAW " + name))
    upload = b"Upload " + name
    return rng.choice((
        bare, bare + b"\n", bare + b"\r\n", bare + END, b"UPLOAD_RAW\n", upload + b" " + text + END,
        upload + b"\n" + text + END, upload + b' "' + text.strip(b'"') + b'"', upload + b" " + wrapped + END,
        upload + b" \n" + padded + END, b"UPLOAD_RAW %s %d" % (name, len(body)) + END + body))


def valid_reply(rng: random.Random) -> bytes:
    """Return a reply of some server to some request."""
    text = base64.encodebytes(rng.randbytes(rng.choice((0, 1, 2, 3, 60, 200)))).decode()
    fields = [("status", rng.choice(("OK", "ERROR"))), ("data_namafile", "data_file"), ("data_crc32", "1234"),
              ("data_file", rng.choice((text, text.replace("\n", "")))), ("data", [{"b": 'data_file":"'}])]
    dumped = json.dumps(dict(rng.sample(fields, rng.randint(1, 5))), indent=rng.choice((None, 1)))
    return rng.choice((dumped, dumped.replace("/", "\\/"))).encode() + END


def mutated(rng: random.Random, valid: Callable[[random.Random], bytes]) -> bytes:
    """Return valid bytes, or what some accidents leave of them."""
    data = valid(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        at = rng.randint(0, len(data))
        to = min(len(data), at + rng.choice((1, 1, 2, 5, 30)))
        token = rng.choice(HUGE) if rng.random() < 0.002 else rng.choice(TOKENS)
        data = rng.choice((
            lambda: data[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in data[at:to]) + data[to:],
            lambda: data[:at] + token + data[at:], lambda: data[:at] + token + data[to:], lambda: data[:at],
            lambda: data[:at] + data[to:], lambda: data[:to] + data[at:], lambda: data[at:],
            lambda: data[:at] + valid(rng)[-rng.randint(1, 60):], lambda: data + valid(rng),
            lambda: data[:at] + rng.randbytes(to - at) + data[to:]))()
    return data


def fragments(rng: random.Random, data: bytes) -> list[bytes]:
    """Cut bytes into pieces, at random."""
    cuts = sorted(rng.choices(range(len(data) + 1), k=rng.choice((1, 2, 5, min(len(data), 400)))))
    return [data[start:end] for start, end in pairwise([0, *cuts, len(data)])]


@contextmanager
def telling(*case: object) -> Iterator[None]:
    """Name the case that fails."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"case {case}") from error


class Readers(unittest.TestCase):
    """Whatever comes is understood or refused, with no other exception, and however it is cut."""

    def run_cases(self, count: int, valid: Callable[..., bytes], outcome: Callable[..., Any]) -> None:
        rng, outcomes = random.Random(count), set()
        for _ in range(count):
            pieces = fragments(rng, sent := mutated(rng, valid))
            with telling(sent, pieces):
                whole = outcome(sent)
                self.assertEqual(whole, outcome(*pieces))
            outcomes.add(repr(whole))
        self.assertGreater(len(outcomes), count / 10, "most cases end alike: they test little")

    def test_requests(self) -> None:
        self.run_cases(6_000 * TIMES, valid_request, lambda *pieces: (  # which refusal may depend on the cut
            (found := talk(*pieces)).requests, len(found.refusals), found.is_cut))

    def test_replies(self) -> None:
        def outcome(*pieces: bytes) -> Any:
            got = bytearray()
            with suppress(ProtocolError):
                received = read_reply(ScriptedSocket(*pieces).connection(), got.extend)
                return received.reply, bytes(got), received.size_bytes == len(got)

        self.run_cases(2_000 * TIMES, valid_reply, outcome)


@unittest.skipUnless(os.name == "posix", "links and signals as on POSIX")
class LiveServers(unittest.TestCase):
    """The same bytes to servers: only whole answers, nothing outside the folder, nothing left over."""

    def test_every_model(self) -> None:
        for mode in ("legacy", "thread", "process"):
            with self.subTest(mode):
                self.fuzz(mode)

    def fuzz(self, mode: str) -> None:
        server = ServerProcess(3, mode, script="file_server.py")
        self.addCleanup(server.close)
        (server.outside / "secret").write_bytes(SECRET)
        (server.directory / "folder").mkdir()
        for name in ("folder/inner", ".hidden", "kept", "a"):
            (server.directory / name).touch()
        (server.directory / "link").symlink_to("../secret")

        def untouched() -> dict[object, bytes]:  # all but what clients may create, change and delete
            return {path: path.read_bytes() for path in server.outside.rglob("*")
                    if path.is_file() and (path.parent != server.directory or path.name[0] == ".")}

        def converse(pieces: list[bytes]) -> int:
            with telling(pieces):
                received = answer_to(server.client, *pieces)
                self.assertFalse(SECRET in received or base64.b64encode(SECRET) in received)
                return len(replies_in(received))

        rng, before = random.Random(mode), untouched()
        cases = [fragments(rng, b"".join(mutated(rng, valid_request) for _ in range(rng.randint(1, 8))))
                 for _ in range(LIVE_CASES)]
        with ThreadPoolExecutor(8) as pool:
            self.assertGreater(sum(pool.map(converse, cases)), LIVE_CASES)
        self.assertEqual(untouched(), before)
        visible = sorted(name for name in os.listdir(server.directory) if name[0] != ".")
        self.assertEqual(sorted([*remote_list(server.client), "folder", "link"]), visible)
        server.process.terminate()
        self.assertRegex(f"{server.end()[0]} {server.stderr()}", r"\A0 [^\n]*siap[^\n]*\n\Z")
