"""Reads losses from text: nothing is evaluated, and what does not fit is pointed at."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from metaloss.core import registry, suggestions
from metaloss.errors import SettingsError
from metaloss.losses.language.expression import DEPTH, NODES, TERMINALS, Expression, call, constant
from metaloss.losses.language.primitives import PRIMITIVES

LENGTH = 16_384  # characters
REDUCTIONS = ("sum", "mean")
# ** before the single marks, or it would be read as two of them.
_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>\*\*|[-+*/(),=])"
)
_BINARY = {row.symbol: row for row in PRIMITIVES.values() if row.symbol and row.arity == 2}
_LEVEL = {"+": 1, "-": 1, "*": 2, "/": 2}
_NAMED = {name: row.arity for name, row in PRIMITIVES.items()}


@dataclass(frozen=True)
class Token:
    """A piece of text: "number", "name", "mark" or, at its end, "end"."""

    kind: str
    text: str
    at: int


def fail(text: str, at: int, message: str) -> NoReturn:
    """Refuse a text, with its place.

    Raises:
        SettingsError: always.
    """
    # A text may be long, so only what is near the mistake is shown.
    first = max(0, at - 60)
    window = text[first : at + 40]
    # One printable character each, or the caret below would not stand under its place.
    shown = "".join(c if c.isprintable() and c.isascii() else "?" for c in window)
    raise SettingsError(f"{message}, at character {at + 1}\n  {shown}\n  {' ' * (at - first)}^")


def tokens(text: str) -> list[Token]:
    """The pieces of a text, an "end" last.

    Raises:
        SettingsError: a character that belongs to nothing, a number that is not finite, or too long
            a text.
    """
    if len(text) > LENGTH:
        raise SettingsError(f"a loss may have at most {LENGTH} characters, got {len(text)}")
    tokens_read = []
    at = 0
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            allowed = suggestions.CHARACTERS.get(
                text[at], "allowed are names, numbers and + - * / ** ( ) ,"
            )
            fail(text, at, f"unexpected character {text[at]!a} ({allowed})")
        tokens_read.append(Token(str(match.lastgroup), match[0], at))
        if match.lastgroup == "number" and not math.isfinite(float(match[0])):
            fail(text, at, "numbers must be finite")
        at = match.end()
    return [*tokens_read, Token("end", "", len(text))]


def parse(text: str, names: Mapping[str, float] | None = None) -> Expression:
    """The expression that a text means.

    >>> parse("-y*logp").size
    4

    Args:
        text: terminals y, p, logp, C; numbers; + - * / **; primitives as name(x).
        names: further names, and the constants they stand for.

    Raises:
        SettingsError: shows the place, what was found there and what is allowed.
    """
    reader = Parser(text, names)
    e = reader.expression()
    reader.end()
    return e


class Parser:
    """A recursive descent over the tokens of one text."""

    def __init__(self, text: str, names: Mapping[str, float] | None = None) -> None:
        self.text, self.names = text, names or {}
        self.tokens = tokens(text)
        self.at = 0
        self.depth = 0

    @property
    def next(self) -> Token:
        """The token that is read next."""
        return self.tokens[self.at]

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        """Refuse the text at a token, or at the next one."""
        fail(self.text, (token or self.next).at, message)

    def take(self, mark: str) -> bool:
        """Step over a mark, if it is next."""
        is_next = self.next.kind == "mark" and self.next.text == mark
        self.at += is_next
        return is_next

    def expect(self, *marks: str) -> None:
        """Step over one of the marks, which must be next."""
        if not any(self.take(mark) for mark in marks):
            self.fail(f"expected {' or '.join(repr(m) for m in marks)}, found {self._found()}")

    def end(self) -> None:
        """Refuse the text if anything follows."""
        if self.next.kind != "end":
            self.fail(f"expected an operator or the end, found {self._found()}")

    def _found(self) -> str:
        return "the end" if self.next.kind == "end" else repr(self.next.text)

    def expression(self, level: int = 1) -> Expression:
        """What operators that bind at least this tightly join, from the left."""
        left = self._unary()
        while self.next.kind == "mark" and _LEVEL.get(self.next.text, 0) >= level:
            token = self.next
            self.at += 1
            # Equal operators group from the left: the right side takes tighter ones alone.
            left = self._joined(
                _BINARY[token.text].name, token, left, self.expression(_LEVEL[token.text] + 1)
            )
        return left

    # One call a level for signs, powers and brackets: deep nesting must not exhaust the
    # interpreter's stack.
    def _unary(self) -> Expression:
        self.depth += 1
        if self.depth > DEPTH + 1:
            self.fail(f"brackets and signs may be nested at most {DEPTH} deep")
        token = self.next
        self.at += token.kind in ("number", "name") or token.text in ("-", "(")
        if token.text == "-":
            # -2 is one constant, but -2**2 is -(2**2), as in Python.
            if self.next.kind == "number" and self.tokens[self.at + 1].text != "**":
                self.at += 1
                e = constant(-float(self.tokens[self.at - 1].text))
            else:
                e = self._joined("neg", token, self._unary())
        else:
            if token.kind == "number":
                e = constant(float(token.text))
            elif token.kind == "name":
                e = self._called(token) if self.next.text == "(" else self._named(token)
            elif token.text == "(":
                e = self.expression()
                self.expect(")")
            else:
                self.fail(f"expected a number, a name, '-' or '(', found {self._found()}")
            # The exponent may have a sign and a power of its own: ** groups to the right.
            sign = self.next
            e = self._joined("pow", sign, e, self._unary()) if self.take("**") else e
        self.depth -= 1
        return e

    def _named(self, token: Token) -> Expression:
        name = token.text
        if name in self.names:
            return constant(self.names[name])
        if name in TERMINALS:
            return Expression(name)
        if name in PRIMITIVES:
            self.fail(
                f"'{name}' needs arguments: {name}({', '.join('xyz'[: _NAMED[name]])})", token
            )
        if name in REDUCTIONS:
            self.fail(f"'{name}' may only stand around the whole loss: {name}(...)", token)
        self.fail(
            registry.unknown_message(
                "name", name, [*TERMINALS, *self.names, *PRIMITIVES]
            ).removesuffix("."),
            token,
        )

    def _called(self, token: Token) -> Expression:
        name = token.text
        if name in REDUCTIONS:
            self.fail(f"'{name}' may only stand around the whole loss", token)
        if name in TERMINALS or name in self.names:
            self.fail(f"'{name}' takes no arguments", token)
        if name not in PRIMITIVES:
            self.fail(
                registry.unknown_message("primitive", name, PRIMITIVES).removesuffix("."), token
            )
        self.expect("(")
        args = [self.expression()]
        for _ in range(_NAMED[name] - 1):
            self.expect(",")
            args.append(self.expression())
        self.expect(")")
        return self._joined(name, token, *args)

    def _joined(self, name: str, token: Token, *args: Expression) -> Expression:
        """The primitive of these, if that is not too large."""
        e = call(name, *args)
        # Checked while reading: a long text is refused before its whole tree is built.
        if e.height > DEPTH:
            self.fail(f"an expression may be at most {DEPTH} deep", token)
        if e.size > NODES:
            self.fail(f"an expression may have at most {NODES} nodes", token)
        return e
