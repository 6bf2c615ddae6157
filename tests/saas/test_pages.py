"""The pages about the SaaS API say what is true: every setting, every route, every item of the check."""

import re
from pathlib import Path

from saas import go_live_check, openapi
from saas.billing.service import EVENTS
from saas.settings import Settings, variable

ROOT = Path(__file__).parents[2]
SAAS, GO_LIVE = ((ROOT / "docs" / name).read_text() for name in ("saas.md", "go-live.md"))
SETTINGS = re.compile(r"^\| `[A-Z0-9_]+` \|.*$", re.MULTILINE)


def rows():
    """The table of settings, as the page must have it."""
    for name, field in Settings.model_fields.items():
        default = f"`{field.default}`" if field.default not in ("", None) else ""
        yield f"| `{variable(name)}` | {default} | {field.description} |"


def test_the_table_of_settings_is_the_code_s():
    """`python -m tests.saas.test_pages` writes it."""
    assert SETTINGS.findall(SAAS) == list(rows())


def test_every_route_is_on_the_page():
    routes = openapi.document()["paths"]
    for path in routes:
        assert path.split("/{")[0] in SAAS, path


def test_every_event_the_webhook_needs_is_named():
    for event in EVENTS:
        assert f"`{event}`" in SAAS


def test_every_item_of_the_check_is_on_the_list_and_nothing_else():
    source = Path(go_live_check.__file__).read_text()
    items = set(re.findall(r'(?:_item|Item)\(\s*"([^"]+)"', source))
    listed = re.findall(r"^\| \[ \] ([^|]+?) \|", GO_LIVE, re.MULTILINE)
    assert set(listed) == items
    assert len(listed) == len(set(listed))


def test_the_licence_of_the_weights_is_said_before_anything_else():
    for page in (SAAS, GO_LIVE):
        assert "CC BY-NC-SA 4.0" in page[:600]


if __name__ == "__main__":
    (ROOT / "docs/saas.md").write_text(SAAS[: SETTINGS.search(SAAS).start()] + "\n".join(rows()) + "\n")
