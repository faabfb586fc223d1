"""
The folder of state files, one a process, and which of these processes still live.

A file is called `PID-START-NAMESPACE.cards`: process number, start time in clock ticks since boot
(so that a number used again is another process) and the inode of the PID namespace (so that no
process is taken for dead from inside or outside of a container).
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from spu_ir.errors import SpuError

VARIABLE = "SPU_IR_RUNTIME"
"""The environment variable that says where the folder is."""

_FILE = re.compile(r"([1-9][0-9]{0,9})-([0-9]{1,20})-([0-9]{1,20})\.cards", re.ASCII)


@dataclass(frozen=True)
class Process:
    """A process beyond doubt: its number, start time and PID namespace."""

    pid: int
    start: int
    namespace: int

    @property
    def file(self) -> str:
        """The name of its state file."""
        return f"{self.pid}-{self.start}-{self.namespace}.cards"

    @classmethod
    def of_file(cls, name: str) -> Process | None:
        """The process that a file of this name is of."""
        found = _FILE.fullmatch(name)
        return None if found is None else cls(*map(int, found.groups()))

    @classmethod
    def this(cls) -> Process:
        """The calling process. Raises OSError where there is no /proc."""
        pid = os.getpid()
        found = start_time(pid)
        if found is None:
            raise OSError("this process is not in /proc")
        return cls(pid, found, pid_namespace())

    def is_dead(self) -> bool:
        """Whether it is sure to have ended; False for a process of another namespace."""
        if self.namespace != pid_namespace():
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass  # Alive, of another user; the start time tells whether it is the same.
        return start_time(self.pid) != self.start


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            content = file.read()
    except OSError:
        return None
    # "pid (name) state ...", where the name may hold anything: the last ")" ends it.
    fields = content[content.rfind(b")") + 1 :].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


@cache
def pid_namespace() -> int:
    """The inode of this process's PID namespace."""
    return os.stat("/proc/self/ns/pid").st_ino


def folder_path() -> Path:
    """Where the folder is or would be: SPU_IR_RUNTIME, or the user's runtime folder."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    # Where there is no runtime folder, platformdirs warns and takes a shared one in /tmp.
    if os.environ.get("XDG_RUNTIME_DIR") or os.access(f"/run/user/{os.getuid()}", os.W_OK):
        return Path(platformdirs.user_runtime_dir("spu-ir"))
    return Path(tempfile.gettempdir()) / f"spu-ir-{os.getuid()}"


def usable_folder() -> Path:
    """
    The folder, made for its owner alone (mode 0700) if it is not there.

    Raises SpuError if it cannot be made or written, or others could write to it.
    """
    path = folder_path()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat(follow_symlinks=False)
    except OSError as error:
        raise SpuError(
            f"cannot use the folder of the cards' state {str(path)!r}: {error}",
            remedy=f"set {VARIABLE} to a folder that can be written",
        ) from error
    cause = None
    if not stat.S_ISDIR(found.st_mode):
        cause = "it is no folder"
    elif found.st_uid != os.geteuid():
        cause = f"it belongs to the user {found.st_uid}"
    elif found.st_mode & 0o022:
        cause = f"others may write to it (mode {stat.S_IMODE(found.st_mode):04o})"
    elif not os.access(path, os.W_OK | os.X_OK):
        cause = "it cannot be written"
    if cause is not None:
        raise SpuError(
            f"cannot use the folder of the cards' state {str(path)!r}: {cause}",
            remedy=f"set {VARIABLE} to a folder of your own with the mode 0700",
        )
    return path
