"""The one error that a user's model, file or argument can cause."""

from __future__ import annotations


class SpuError(Exception):
    """
    What is wrong with a user's input, where, and what to do about it.

    `str()` is one line: ``node 'encoder.0' (Conv): cause; remedy``. Command-line tools
    print it after ``error:`` and exit with 1; it never carries a traceback to the user.
    Control characters in what it quotes are escaped, so that a model cannot drive a terminal.
    """

    def __init__(
        self,
        cause: str,
        *,
        node: str | None = None,
        op: str | None = None,
        remedy: str | None = None,
    ):
        self.cause = cause
        self.node = node
        self.op = op
        self.remedy = remedy
        place = ""
        if node is not None:
            place = f"node {node!r}" + (f" ({op})" if op else "") + ": "
        elif op is not None:
            place = f"{op}: "
        super().__init__(_one_line(place + cause + (f"; {remedy}" if remedy else "")))


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
