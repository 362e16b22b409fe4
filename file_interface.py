"""The served folder: which names are valid, listing, reading, atomic writing, deleting.

Three rules hold for every operation:

* A name is one plain file name. It never leads out of the folder, whatever the client sends.
* Only regular files exist. Links, folders, pipes and devices are neither listed nor followed.
* A file appears under its name whole or not at all: it is written under a hidden temporary name
  and moved into place by ``os.replace``.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # every script imports this one first, so none of them ends in a traceback
    print("galat: perlu Python 3.10 atau lebih baru, ini", sys.version.split()[0], file=sys.stderr)
    raise SystemExit(2)

import ntpath
import os
import re
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: there an open file cannot be deleted, which protects it as well
    fcntl = None  # type: ignore[assignment]

NAME_LIMIT_BYTES = 255  # what ext4, APFS and NTFS can store
TEMPORARY_PREFIX = ".unggah-"  # starts with a dot, so no client can name or see it
_TEMPORARY_NAME = re.compile(re.escape(TEMPORARY_PREFIX) + "[0-9a-f]{16}")

# Never follow a link put in place of the file, never wait for the writer of a FIFO.
_OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _OPEN_FLAGS |= getattr(os, _flag, 0)


class FileError(Exception):
    """An expected refusal; the text is for the client, in Indonesian."""


def check_name(name: str) -> None:
    """Raise FileError unless `name` is a plain file name that any system can hold."""
    try:
        length_bytes = max(len(name.encode("utf-8")), len(os.fsencode(name)))
    except UnicodeEncodeError:
        raise FileError("nama file bukan UTF-8 yang sah, atau tidak dapat ditulis di sistem ini") from None
    if not name:
        raise FileError("nama file kosong")
    if length_bytes > NAME_LIMIT_BYTES:
        raise FileError(f"nama file terlalu panjang (paling banyak {NAME_LIMIT_BYTES} byte)")
    if "/" in name or "\\" in name or ntpath.splitdrive(name)[0] or (os.name == "nt" and ":" in name):
        raise FileError("nama file tidak boleh memuat path")
    if name.startswith(".") or ".." in name:
        raise FileError("nama file tidak boleh diawali titik atau memuat dua titik berturut-turut")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name):
        raise FileError("nama file tidak boleh memuat karakter kontrol")


class FileInterface:
    """The files of one folder, by name."""

    def __init__(self, directory: Path) -> None:
        """Serve `directory`; raises OSError if that is not a folder, or cannot be read."""
        self.directory = directory.resolve()
        os.scandir(self.directory).close()

    def list(self) -> dict[str, int]:
        """Return the size in bytes of each regular file, by name, in the order of the names."""
        found = {}
        with os.scandir(self.directory) as entries:
            for entry in entries:
                with suppress(FileError, FileNotFoundError):  # a name that no client can use; just deleted
                    check_name(entry.name)
                    if entry.is_file(follow_symlinks=False):
                        found[entry.name] = entry.stat(follow_symlinks=False).st_size
        return dict(sorted(found.items()))

    def get(self, name: str) -> tuple[BinaryIO, int]:
        """Open a file for reading; return it, unbuffered, and its size in bytes.

        Whoever holds the open file keeps seeing this version, even if the name is replaced or deleted.
        Raises FileError if there is no such regular file, OSError if the disk fails.
        """
        path = self._existing(name)
        try:
            descriptor = os.open(path, _OPEN_FLAGS)
        except FileNotFoundError:
            raise _missing(name) from None
        except OSError as error:
            if os.path.isfile(path) and not os.path.islink(path):
                raise  # a real file that cannot be opened: permissions, descriptors, the disk
            raise _missing(name) from error  # a link, FIFO or socket was put in its place
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise _missing(name)
        return os.fdopen(descriptor, "rb", buffering=0), status.st_size

    def upload(self, name: str, size_bytes: int = 0) -> NewFile:
        """Return a NewFile to write; `size_bytes` is its size, if that is known.

        Raises FileError if there is no room for it, or if the name is invalid or taken by something that is
        not a regular file; OSError if the disk fails.
        """
        check_name(name)
        path = self.directory / name
        if os.path.lexists(path) and not _is_regular(path):
            raise FileError(f"{name} bukan file biasa")
        if size_bytes > shutil.disk_usage(self.directory).free:
            raise FileError(f"ruang disk server tidak cukup untuk {size_bytes} byte")
        return NewFile(path)

    def delete(self, name: str) -> None:
        """Delete a file; raises FileError if there is no such regular file."""
        try:
            os.unlink(self._existing(name))
        except FileNotFoundError:
            raise _missing(name) from None

    def remove_debris(self) -> int:
        """Delete the temporary files of writers that were killed, and nothing else; return how many."""
        removed = 0
        for path in self.directory.iterdir():
            if _TEMPORARY_NAME.fullmatch(path.name) and _is_regular(path):
                with suppress(OSError), open(path, "rb") as file:  # still being written, or gone already
                    if fcntl:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    else:
                        file.close()  # Windows deletes no open file
                    path.unlink()
                    removed += 1
        return removed

    def _existing(self, name: str) -> Path:
        check_name(name)
        path = self.directory / name
        if not _is_regular(path):
            raise _missing(name)
        return path


class NewFile:
    """A file in the making; it gets its name by commit() and vanishes without."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(TEMPORARY_PREFIX + secrets.token_hex(8))
        self._file = open(self._temporary, "xb", buffering=0)
        if fcntl:
            fcntl.flock(self._file, fcntl.LOCK_EX)  # says "alive" to remove_debris(), until we close or die

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`. Raises OSError."""
        unwritten = memoryview(data)
        while unwritten:
            unwritten = unwritten[self._file.write(unwritten):]

    def __enter__(self) -> NewFile:
        return self

    def commit(self) -> None:
        """Give the file its name, in one step, over whatever had it before. Raises OSError."""
        if os.name == "nt":
            self._file.close()  # Windows moves no open file
        os.replace(self._temporary, self._path)

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _missing(name: str) -> FileError:
    return FileError(f"file tidak ditemukan: {name}")
