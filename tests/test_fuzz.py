"""Valid requests and replies, mutated at random from fixed seeds, to readers and servers."""

from __future__ import annotations

import base64
import json
import os
import random
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Any

from file_client_cli import remote_list
from file_protocol import END, ProtocolError, read_reply
from tests.support import MODES, SLOW, ScriptedSocket, ServerProcess, ask_all, at_once, talk, upload_request

TIMES = 20 if SLOW else 1
LIVE_CASES = 100 * TIMES  # connections to each kind of server, with up to 8 requests each
SECRET = bytes(range(240, 256))  # in no request
NAMES = [b"a", b"'my f'", b'"my f"', b"kept", b"link", b"folder", b"folder/inner", b"../secret", b".hidden"]
TOKENS = [b"\0", b'"', b"'", b"\\", b"\\\n", b"\r", b"\n", b"\r\n", END, b"\n\n", b"=", b"====", b" ", b"\t",
          b"#", b"\xff\xfe", b"\xc3", b"../", b"..", b"-1", b"9" * 20, b"9" * 15, b"LIST\n", b"\v", b"NaN",
          b"upload_raw a 3\r\n\r\n", b'""', b"'\"'", b"QUJD", b"Q===", b"x" * 300, b'"data_file":"', b"\\n",
          b"GET_RAW ", b"\\/", b"\\u0041", b"{", b"}", b"[", b",", b" HTTP/1.1\r\n", b"\x16\x03"]
HUGE = [b"A" * 70_000, b"QUJD" * 17_000, b"a " * 33_000, b"\r\n" * 400, b"[" * 40_000, b"9" * 6_000]
LENGTHS = (0, 1, 2, 3, 20, 57, 58, 60, 200)


def valid_request(rng: random.Random) -> bytes:
    """Return a request in one of the forms that clients send."""
    name = rng.choice(NAMES)
    if rng.random() < 0.4:
        return upload_request(rng, name, rng.randbytes(rng.choice(LENGTHS)))
    return rng.choice((b"LIST", b"STATS", b"HELLO", b"UPLOAD_RAW", b"get " + name, b"DELETE " + name,
                       b"GET_RAW " + name)) + rng.choice((b"", b"\n", b"\r\n", END))


def valid_reply(rng: random.Random) -> bytes:
    """Return a reply of some server to some request."""
    text = base64.encodebytes(rng.randbytes(rng.choice(LENGTHS))).decode()
    fields = [("status", rng.choice(("OK", "ERROR"))), ("data_namafile", "data_file"), ("data_crc32", "1234"),
              ("data_file", rng.choice((text, text.replace("\n", "")))), ("data", [{"b": 'data_file":"'}])]
    dumped = json.dumps(dict(rng.sample(fields, rng.randint(1, 5))), indent=rng.choice((None, 1)))
    return rng.choice((dumped, dumped.replace("/", "\\/"))).encode() + END


def mutated(rng: random.Random, valid: Callable[[random.Random], bytes]) -> bytes:
    """Return valid bytes, or what some accidents leave of them."""
    data = valid(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((0, 0, 1, 1, 2, 5, 30, len(data))))
        there, token = data[start:end], rng.choice(HUGE if rng.random() < 0.002 else TOKENS)
        flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in there)
        data = data[:start] + rng.choice((
            b"", b"", token, token, flipped, there * 2, rng.randbytes(len(there)), valid(rng),
            valid(rng)[-rng.randint(1, 60):])) + data[end:]
    return data


def fragments(rng: random.Random, data: bytes) -> list[bytes]:
    """Cut bytes into pieces, at random."""
    cuts = sorted(rng.choices(range(len(data) + 1), k=rng.choice((1, 2, 5, min(len(data), 400)))))
    return [data[start:end] for start, end in pairwise([0, *cuts, len(data)])]


class Readers(unittest.TestCase):
    """Whatever comes is understood or refused, with no other exception, and however it is cut."""

    def run_cases(self, count: int, valid: Callable[..., bytes], outcome: Callable[..., Any]) -> None:
        rng, outcomes, case = random.Random(count), set(), [b""]
        with self.subTest(case=case):  # the one that fails is in it
            for _ in range(count):
                case[:] = fragments(rng, sent := mutated(rng, valid))
                whole = outcome(sent)
                self.assertEqual(whole, outcome(*case))
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
        at_once(self, self.fuzz, *((mode,) for mode in MODES))

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

        rng, before, count = random.Random(mode), untouched(), 0
        cases = [fragments(rng, b"".join(mutated(rng, valid_request) for _ in range(rng.randint(1, 8))))
                 for _ in range(LIVE_CASES)]
        with ThreadPoolExecutor(8) as pool:
            for pieces, answer in [(case, pool.submit(ask_all, server.client, *case)) for case in cases]:
                self.assertIsNone(answer.exception(), pieces)
                got = b"".join(reply.get("data_file", b"") for reply in answer.result())
                self.assertNotIn(SECRET, got, pieces)
                count += len(answer.result())
        self.assertGreater(count, LIVE_CASES)
        self.assertEqual(untouched(), before)
        visible = sorted(name for name in os.listdir(server.directory) if name[0] != ".")
        self.assertEqual(sorted([*remote_list(server.client), "folder", "link"]), visible)
        server.stop_well()
