"""What the parser reads, what it refuses, and the place it points at.

tests/criterion/test_loss_io.py feeds it random texts.
"""

import pytest

from metaloss.errors import SettingsError
from metaloss.losses.language.expression import NODES
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.parser import LENGTH, parse


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("", 1, "expected a number, a name, '-' or '(', found the end"),
        ("y logp", 3, "expected an operator or the end, found 'logp'"),
        ("y * foo(p)", 5, "unknown primitive 'foo'. Known: neg, add"),
        ("y*tahn(p)", 3, "unknown primitive 'tahn'. Did you mean 'tanh'?"),
        ("-y*lgop", 4, "unknown name 'lgop'. Did you mean 'logp'?"),
        ("sin", 1, "'sin' needs arguments: sin(x)"),
        ("sin()", 5, "expected a number, a name, '-' or '(', found ')'"),
        ("max(p)", 6, "expected ',', found ')'"),
        ("max(p, y, 1)", 9, "expected ')', found ','"),
        ("p(y)", 1, "'p' takes no arguments"),
        ("(p", 3, "expected ')', found the end"),
        ("p)", 2, "expected an operator or the end, found ')'"),
        ("p + ", 5, "expected a number, a name, '-' or '(', found the end"),
        ("+p", 1, "expected a number, a name, '-' or '(', found '+'"),
        ("p $ y", 3, "unexpected character '$' (allowed are names, numbers"),
        ("p\x1b[31m", 2, r"unexpected character '\x1b'"),
        ("p*ŷ", 3, r"unexpected character '\u0177'"),
        ("1e999*p", 1, "numbers must be finite"),
        ("p*-1e999", 4, "numbers must be finite"),
        ("1_000", 2, "expected an operator or the end, found '_000'"),
        ("0x10", 2, "expected an operator or the end, found 'x10'"),
        ("p.real", 2, "unexpected character '.'"),
        ("p, y", 2, "expected an operator or the end, found ','"),
        ("p = y", 3, "expected an operator or the end, found '='"),
        ("sum(p)", 1, "'sum' may only stand around the whole loss"),
        ("2*mean", 3, "'mean' may only stand around the whole loss: mean(...)"),
        ("nan", 1, "unknown name 'nan'."),
        ("(" * 70 + "p", 66, "brackets and signs may be nested at most 64 deep"),
        ("-" * 70 + "p", 66, "brackets and signs may be nested at most 64 deep"),
        ("+".join(["p"] * 66), 130, "an expression may be at most 64 deep"),
    ],
)
def test_errors_point_at_the_place(text, at, message):
    with pytest.raises(SettingsError) as caught:
        parse(text)
    said, shown, caret = str(caught.value).split("\n")
    assert said.startswith(message)
    assert said.endswith(f", at character {at}")
    assert caret.index("^") - 2 == at - 1 - max(0, at - 61)
    if text and at <= len(text) and text[at - 1].isascii() and text[at - 1].isprintable():
        assert shown[caret.index("^")] == text[at - 1]
    assert all(c.isprintable() and c.isascii() for c in said.replace("ŷ", "") + shown)


def test_too_many_nodes_and_too_long_texts_are_refused():
    def balanced(n):
        return "p" if n == 1 else f"({balanced(n // 2)}+{balanced(n - n // 2)})"

    assert parse(balanced(256)).size == 511 <= NODES
    with pytest.raises(SettingsError, match="at most 512 nodes"):
        parse(balanced(257))
    with pytest.raises(SettingsError, match=f"at most {LENGTH} characters, got {LENGTH + 1}"):
        parse("p" * (LENGTH + 1))


def test_trees_as_deep_as_allowed_are_read():
    for text in (
        "+".join(["p"] * 65),
        "(" * 64 + "p" + ")" * 64,
        "-" * 64 + "p",
        "sin(" * 64 + "p" + ")" * 64,
    ):
        assert parse(text).height <= 64
        assert parse(str(parse(text))) == parse(text)


def test_further_names_stand_for_constants():
    assert parse("gamma*p", {"gamma": -2.0}) == parse("-2*p")


# --- formulas ---


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("-y*logp", "sum(-y * logp)"),
        (" sum ( -y*logp ) ", "sum(-y * logp)"),
        ("mean(p-y)", "mean(p - y)"),
        ("sum(-y*logp, temperature=2)", "sum(-y * logp, temperature=2.0)"),
        ("sum(-y*logp, temperature=1)", "sum(-y * logp)"),
        ("mean((sin(p)))", "mean(sin(p))"),
        ("sum(-y*logp,shift=2*logprior)", "sum(-y * logp, shift=2.0 * logprior)"),
        (
            "sum(p, shift=-y, scale=prior*C, temperature=2)",
            "sum(p, temperature=2.0, scale=prior * C, shift=-y)",
        ),
        ("sum(p/count, shift=0, scale=1)", "sum(p / count)"),
    ],
)
def test_formulas_show_how_they_are_reduced(text, printed):
    formula = Formula.parse(text)
    assert str(formula) == printed
    assert Formula.parse(printed) == formula


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("sum(p)*2", 7, "nothing may follow sum(...): it stands around the whole loss"),
        ("2*sum(p)", 3, "'sum' may only stand around the whole loss"),
        ("sum(mean(p))", 5, "'mean' may only stand around the whole loss"),
        ("sum(p", 6, "expected ')', found the end"),
        ("sum(p, 2)", 8, "expected temperature=..., scale=... or shift=..., found '2'"),
        ("sum(p, temperature=0)", 20, "temperature must be a number above 0, got 0.0"),
        ("sum(p, temperature=p)", 20, "temperature must be a number above 0, got p"),
        ("sum(p, shift=p)", 14, "shift comes before the softmax: it can read no p, logp or past"),
        (
            "sum(p, scale=2*logp)",
            14,
            "scale comes before the softmax: it can read no p, logp or past",
        ),
        ("sum(p, scale=-1)", 14, "scale must be a number above 0, got -1.0"),
        ("sum(p, shift=1, shift=2)", 17, "shift stands here twice"),
        ("sum(p, temperature 2)", 20, "expected '=', found '2'"),
        ("sum", 1, "'sum' may only stand around the whole loss: sum(...)"),
    ],
)
def test_errors_in_formulas_point_at_the_place(text, at, message):
    with pytest.raises(SettingsError) as caught:
        Formula.parse(text)
    assert str(caught.value).startswith(f"{message}, at character {at}\n")


def test_formulas_have_latex_and_a_digest():
    loss, same, other = map(Formula.parse, ("mean(-y*logp)", "mean(logp*-y)", "-y*logp"))
    assert loss.digest == same.digest != other.digest
    assert loss.latex() == r"\frac{1}{C} \sum_{c=1}^{C} \left[-y \cdot \ln \hat{y}\right]"
    assert "softmax" in Formula.parse("sum(-y*logp, temperature=2)").latex()
    moved = Formula.parse("sum(p, scale=prior, shift=2*logprior)")
    assert moved.latex().endswith(
        r"\operatorname{softmax}(\left(\pi\right) \cdot z + 2 \cdot \left(\ln C\pi\right))"
    )
    other, same = (Formula.parse(f"sum(p, shift={x})") for x in ("2*logprior", "logprior*2"))
    assert other.digest == same.digest != Formula.parse("p").digest
