"""docs/architecture.md lists every module there is, and none that is not; no file or class is too long, and no imports run in a circle."""

import ast
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = ("fishserve", "inference", "bench", "training", "worker", "saas")


def listed():
    """Paths of the tree in docs/architecture.md: two spaces of indentation a level, a name, then what it is."""
    tree = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("```\n")[1]
    folders, found = [], set()
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        del folders[depth:]
        if name.endswith("/"):
            folders.append(name)
        else:
            found.add("".join(folders) + name)
    return found


def test_the_tree_lists_every_module():
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" and "node_modules" not in path.parts
    }
    assert listed() == there


def sources():
    for folder in (*PACKAGES, "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            if "node_modules" not in path.parts:
                yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def test_no_file_is_too_long():
    assert [str(path) for path, text in sources() if text.count("\n") > 500] == []


def test_a_class_of_many_methods_says_why_it_is_one():
    for path, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and sum(isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) for n in node.body) > 20:
                assert "One class, since" in (ast.get_docstring(node) or ""), f"{path}: {node.name}"


def test_no_imports_run_in_a_circle():
    graph = grimp.build_graph("fishserve", "inference", "bench", "worker", "saas", exclude_type_checking_imports=True)
    left = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    while leaves := {module for module, imports in left.items() if not imports & left.keys()}:
        for module in leaves:
            del left[module]
    assert left == {}
