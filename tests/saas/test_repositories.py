"""What repositories ask of the database is what its functions take; nothing else asks it."""

import ast
from pathlib import Path

import saas

ROOT = Path(saas.__file__).parent
ASKED_ELSEWHERE = {"metered_database.py", "readiness.py", "figures.py", "go_live_check.py"}
"""A wrapper, two that ask whether the functions are there, and the metrics."""


def calls():
    """File, function and arguments of each `.call("function", argument=…)`."""
    for file in ROOT.rglob("*.py"):
        if "node_modules" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "call"
                and "database" in ast.unparse(node.func.value)
            ):
                yield file.name, getattr(node.args[0], "value", None), {k.arg for k in node.keywords}


def test_only_repositories_ask_the_database():
    assert {file for file, _, _ in calls()} - ASKED_ELSEWHERE == {"repository.py"}


def test_each_call_gives_what_its_function_takes(database):
    rows = database.sql(
        "select proname, proargnames as names, pronargdefaults as optional from pg_proc where pronamespace = 'public'::regnamespace"
    )
    functions = {row["proname"]: ([name.removeprefix("p_") for name in row["names"] or []], row["optional"]) for row in rows}
    asked = [(function, given) for file, function, given in calls() if file == "repository.py"]
    assert len(asked) > 40
    for function, given in asked:
        names, optional = functions[function]
        assert given <= set(names), function
        assert given >= set(names[: len(names) - optional]), function
