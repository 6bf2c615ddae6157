import time

import pytest

from inference.text.latex import without_latex
from inference.text.script import script


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("$x^2$ and $x^{3}$", "x² and x³"),
        (r"$6{x}_{1} \leq {24}$", "6x 1 ≤ 24"),
        (r"so \( \frac{1}{2} \) of it", "so 1/2 of it"),
        (r"\[ \frac{a+b}{\sqrt{c}} \neq \alpha \]", "(a+b)/√c ≠ alpha"),
        (r"$$E = mc^2$$", "E = mc²"),
        (r"$\text{speed} = \frac{\text{way}}{\text{time}}$", "speed = way/time"),
        (r"$a_i \times b_{12} \pm \pi$", "a i × b 12 ± π"),
        (r"$\left( x + 1 \right)^{n}$", "( x + 1 )^n"),
        ("let $n$ be $n+1$", "let n be n+1"),
        (r"$50\%$", "50%"),
        ("$5 and $10", "$5 and $10"),
        ("$5-$10, or US$5 to 6$", "$5-$10, or US$5 to 6$"),
        ("it costs $5, not $6.", "it costs $5, not $6."),
        (r"C:\(old)\new and a \ b", r"C:\(old)\new and a \ b"),
        ("$ 5 $ x", "$ 5 $ x"),
    ],
)
def test_formulas_become_plain_signs(written, plain):
    assert without_latex(written) == plain


def test_formulas_are_spoken_as_words():
    said = script(r"We know that $x^2 \leq 4$ and \(y \times 2 = z^n\).", 200, normalize=True)[0][0].text
    assert said == "We know that x squared is at most four and y times two equals z to the power of n."


@pytest.mark.parametrize("unit", ["$", "$x", r"\(", r"\[ ", r"\frac{", "$^{", r"$\frac{1}{2}$ ", "\\", "$$a"])
def test_time_grows_with_the_length_alone(unit):
    text = (unit * 50_000)[:50_000]
    started = time.process_time()
    without_latex(text)
    assert time.process_time() - started < 5
