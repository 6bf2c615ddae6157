"""Turns formulas in LaTeX into plain signs and words, `$x^{2} \\leq 4$` into `x² ≤ 4`.

Formulas within prose are short. Packages that convert LaTeX, such as pylatexenc, parse whole documents; this needs a dozen rules.
"""

from __future__ import annotations

import regex

MAX_FORMULA = 500
"""Characters of a formula; longer text between two signs is no formula."""
_FORMULA = regex.compile(
    rf"\$\$([^$]{{1,{MAX_FORMULA}}})\$\$|\\\[((?:[^\\]|\\(?![\[\]])){{1,{MAX_FORMULA}}}+)\\\]|\\\(((?:[^\\]|\\(?![()])){{1,{MAX_FORMULA}}}+)\\\)"
    r"|(?<![\w$\\])\$(?![\s$])([^$\n]{1,200})(?<!\s)\$(?![\w$])"
)
"""The last form is dollar signs as Pandoc reads them: no space behind the first, none before the second, and no digit behind that."""
_IS_MATHS = regex.compile(r"[\\^_={}<>]|\A\p{L}\Z|\A[\p{L}\d]+(?: ?[-+*/] ?[\p{L}\d]+)+\Z")
_SIGNS = {
    "times": "×", "cdot": "×", "div": "÷", "pm": "±", "leq": "≤", "le": "≤", "geq": "≥", "ge": "≥", "neq": "≠", "ne": "≠", "approx": "≈",
    "pi": "π", "ldots": "…", "cdots": "…", "dots": "…", "infty": "infinity", "int": "integral",
}  # fmt: skip
"""Commands whose name is not what they are called; of all others the name is read, as of alpha."""
_UNHEARD = regex.compile(r"\\(?:left|right|big|Big|bigg|displaystyle|limits|quad|qquad|(?:begin|end)\{[^{}]*+\})(?![A-Za-z])|\\[,;:! \\]|&")
_FONT = regex.compile(
    r"\\(?:text|mathrm|mathbf|mathit|mathcal|mathbb|operatorname|textbf|textit|boldsymbol|hat|bar|vec|overline)\s*+\{([^{}]*+)\}"
)
_FRACTION = regex.compile(r"\\[dt]?frac\s*+\{([^{}]*+)\}\s*+\{([^{}]*+)\}")
_ROOT = regex.compile(r"\\sqrt(?:\[[^\[\]]*+\])?\s*+\{([^{}]*+)\}")
_RAISED = regex.compile(r"\^\s*+(?:\{([^{}]*+)\}|(\w))")
_LOWERED = regex.compile(r"_\s*+(?:\{([^{}]*+)\}|(\w))")
_COMMAND = regex.compile(r"\\([A-Za-z]+)\s?")
_POWERS = {"2": "²", "3": "³"}
_DEPTH = 6


def without_latex(text: str) -> str:
    """`text` with its formulas as plain signs. Amounts of money stay: `$5 and $10` is no formula."""
    return _FORMULA.sub(_formula, text) if "$" in text or "\\" in text else text


def _formula(m: regex.Match[str]) -> str:
    body = next(group for group in m.groups() if group is not None)
    if m[4] is not None and not _IS_MATHS.search(body):
        return m[0]
    body = _UNHEARD.sub(" ", body)
    for _ in range(_DEPTH):  # they may be nested
        body = _FONT.sub(r"\1", _LOWERED.sub(lambda n: f" {n[1] or n[2]}", _RAISED.sub(_power, body)))
        body = _ROOT.sub(r"√\1", _FRACTION.sub(lambda n: f"{_grouped(n[1])}/{_grouped(n[2])}", body))
    body = _COMMAND.sub(lambda n: f" {_SIGNS.get(n[1], n[1])} ", body)
    return " ".join(regex.sub(r"[{}\\]", "", body).split())


def _power(m: regex.Match[str]) -> str:
    raised = (m[1] or m[2] or "").strip()
    return _POWERS.get(raised, f"^{raised}")


def _grouped(part: str) -> str:
    """A part of a fraction, in brackets where it has several terms."""
    part = part.strip()
    return f"({part})" if regex.search(r"[-+ ]", part) else part
