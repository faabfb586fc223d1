"""Engines in processes of their own, of which one at a time may work."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from spu_ir.errors import SpuError

ROOT = Path(__file__).parent.parent
Policy = Literal["normal", "realtime"]
"""How the system schedules an engine: `realtime` lets nothing else on the machine interrupt it."""
TIMEOUT = 900.0
"""Seconds after which an engine is taken to hang."""
MAX_REASON = 200


def check_realtime() -> None:
    """Raises SpuError if this user may not run a process under a real-time policy."""
    script = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    if subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode:
        raise SpuError(
            "this user may not use a real-time policy",
            remedy="run as root, or without --realtime on a machine that does nothing else",
        )


class EngineError(Exception):
    """An engine refused a model, broke down, or is not installed; `str()` says why."""


def one_line(text: str) -> str:
    """The line of an engine's complaint that says most: an assertion, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("Assertion")]
    line = (telling or lines or ["no reason given"])[-1]
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."


class Process:
    """
    A worker, stopped (SIGSTOP) but while it carries out an order.

    A stopped worker's threads neither spin nor are scheduled, so that engines which are measured
    in turns do not disturb each other.
    """

    def __init__(
        self,
        python: Path,
        engine: str,
        processors: Sequence[int],
        environment: Mapping[str, str] | None = None,
        policy: Policy = "normal",
        worker: str = "compare_worker",
    ):
        # A file, not a pipe: a worker must never wait for someone to read its complaints.
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        command = [str(python), "-m", f"benchmarks.{worker}", engine]
        command += [",".join(map(str, processors)), policy]
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        self.buffer = b""

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """
        The answer to an order.

        Raises EngineError if the engine reports an error, ends, or does not answer in time.
        """
        self._signal(signal.SIGCONT)
        assert self.child.stdin is not None
        line = json.dumps({"do": do, **order}) + "\n"
        try:
            self.child.stdin.write(line.encode())
            self.child.stdin.flush()
        except BrokenPipeError:
            raise EngineError(self._ending()) from None
        answer: dict[str, Any] = json.loads(self._line())
        if "error" in answer:
            raise EngineError(one_line(answer["error"]))
        self._signal(signal.SIGSTOP)
        # It stops when it next gets the processor: until then it could disturb the next one.
        os.waitid(os.P_PID, self.child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return answer

    def _line(self) -> bytes:
        assert self.child.stdout is not None
        file = self.child.stdout.fileno()
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([file], [], [], TIMEOUT)
            if not ready:
                raise EngineError(f"no answer for {TIMEOUT:.0f} s")
            part = os.read(file, 1 << 16)
            if not part:
                raise EngineError(self._ending())
            self.buffer += part
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def _ending(self) -> str:
        code = self.child.wait()
        self.errors.seek(0)
        text = self.errors.read().decode("utf-8", errors="replace")
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        return f"it {how}: {one_line(text)}"

    def _signal(self, number: int) -> None:
        if self.child.poll() is None:
            with suppress(ProcessLookupError):
                self.child.send_signal(number)

    def close(self) -> None:
        """End the worker, whatever it is doing."""
        self.child.kill()
        self.child.wait()
        for file in (self.child.stdin, self.child.stdout, self.errors):
            if file is not None:
                with suppress(OSError):
                    file.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
