"""docs/architecture.md lists every module there is, and none that is not."""

from pathlib import Path

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
