"""The zoo: published losses by name, with parameters if wanted."""

import re

from metaloss.core import registry
from metaloss.errors import SettingsError
from metaloss.losses.language.formula import Formula, reads_a_prediction
from metaloss.losses.language.parser import Parser
from metaloss.losses.published_loss import PublishedLoss
from metaloss.losses.zoo_entries import ENTRIES


def names() -> list[str]:
    """The names of all entries, in the order of the zoo."""
    return list(ENTRIES)


def entry(name: str) -> PublishedLoss:
    """The entry of this name, in any case.

    Raises:
        SettingsError: there is none.
    """
    if name.lower() not in ENTRIES:
        raise SettingsError(registry.unknown_message("loss", name, ENTRIES, "metaloss list losses"))
    return ENTRIES[name.lower()]


def find(spec: str) -> tuple[PublishedLoss, Formula]:
    """The loss that a name means, with parameters if wanted.

    >>> str(find("Focal(gamma=0.5)")[1])
    'sum(-y * (1.0 - p) ** 0.5 * logp)'

    Raises:
        SettingsError: an unknown name or parameter, a value that cannot be, or a loss whose formula
            is not known.
    """
    loss, parameters = named(spec)
    return loss, loss.formula(**parameters)


def named(spec: str) -> tuple[PublishedLoss, dict[str, float | bool]]:
    """The published loss that a text names, and the parameters in its brackets.

    Raises:
        SettingsError: there is no such loss, or the text is not of this form.
    """
    reader = Parser(spec)
    if reader.next.kind != "name":
        reader.fail("expected the name of a loss")
    reader.at += 1
    loss = entry(reader.tokens[0].text)
    parameters = _parameters(reader, loss) if reader.take("(") else {}
    reader.end()
    return loss, parameters


def _parameters(reader: Parser, loss: PublishedLoss) -> dict[str, float | bool]:
    """What stands in the brackets behind a name."""
    parameters: dict[str, float | bool] = {}
    while not reader.take(")"):
        if parameters:
            reader.expect(",")
        token = reader.next
        if token.kind == "number" and loss.parameters:
            first = next(iter(loss.parameters))
            reader.fail(f"parameters are given by name: {loss.name}({first}={token.text})")
        if token.kind != "name" or token.text.lower() in parameters:
            reader.fail("expected name=value, each name once")
        reader.at += 1
        reader.expect("=")
        parameters[token.text.lower()] = _value(reader)
    return parameters


def _value(reader: Parser) -> float | bool:
    token = reader.next
    if token.text.lower() in ("true", "false"):
        reader.at += 1
        return token.text.lower() == "true"
    # The sign is a token of its own: numbers are read without one.
    negative = reader.take("-")
    number = reader.next
    if number.kind != "number":
        reader.fail("expected a number, True or False", token)
    reader.at += 1
    return -float(number.text) if negative else float(number.text)


def read(spec: str) -> Formula:
    """The loss that a published name, with parameters or without, or a formula means.

    Raises:
        SettingsError: shows the place of a mistake.
    """
    # A `p` in the brackets of a name makes no formula: the name's own message is the better one.
    return (
        Formula.parse(spec) if reads_a_prediction(spec) and not published(spec) else find(spec)[1]
    )


def published(spec: str) -> bool:
    """Whether this is the name of a published loss, with parameters or without."""
    name = re.fullmatch(r"\s*([A-Za-z]\w*)\s*(\(.*\))?\s*", spec, re.DOTALL)
    return name is not None and name[1].lower() in ENTRIES
