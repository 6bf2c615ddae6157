"""What messages look like: the same words as text and as HTML, and nothing in them that a value could break."""

import email
import email.policy
import re
from datetime import UTC, datetime
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import ConfigurationError
from saas import settings as saas_settings
from saas.mail import supabase
from saas.mail.messages import WORDS, Kind, compose

DATA = {
    "credits_low": {"credits": 150},
    "receipt": {"reference": "pi_1", "credits": 10_000, "cents": 500, "currency": "usd", "url": "https://stripe.example/r", "user_id": "u"},
    "key_created": {"name": "laptop", "prefix": "0123456789ab"},
    "webhook_disabled": {"url": "https://example.com/hook"},
    "account_closed": {},
    "dispute": {"reference": "pi_1", "dispute": "dp_1", "cents": 1234, "currency": "jpy", "user_id": "u", "credits": 1, "url": None},
}
GIVEN = {
    "sender": "Speech <no-reply@example.com>",
    "reply_to": "boss@example.com",
    "app": "https://example.com/app",
    "name": "x-1",
    "written_at": datetime(2026, 11, 27, tzinfo=UTC),
}


def written(kind, data=None, to="ann@example.com", **more):
    """A message as a mail program reads it: headers, text, HTML."""
    sent = compose(kind, DATA[kind] if data is None else data, to=to, **GIVEN | more).as_bytes(policy=email.policy.SMTP)
    message = email.message_from_bytes(sent, policy=email.policy.default)
    text, page = message.iter_parts()
    assert (message.get_content_type(), text.get_content_type(), page.get_content_type()) == (
        "multipart/alternative",
        "text/plain",
        "text/html",
    )
    return message, text.get_content(), page.get_content()


class Seen(HTMLParser):
    """The text, the tags and the links of a page."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.links = "", [], []
        self.feed(page)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name == "href"]


def test_each_kind_has_its_words():
    assert set(DATA) == set(WORDS) == set(get_args(Kind))


@pytest.mark.parametrize("kind", WORDS)
def test_text_and_html_say_the_same(kind):
    message, text, page = written(kind)
    seen = Seen(page)
    for line in filter(None, text.splitlines()):
        words = line.split(": https://")[0]
        assert words in seen.text or line in ("-- ",), line
    assert "$" not in text + seen.text
    assert message["From"] == "Speech <no-reply@example.com>"
    assert message["Reply-To"] == "boss@example.com"
    assert message["Message-ID"] == "<x-1@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert all(link in text for link in seen.links)


def test_money_and_credits_are_written_for_people():
    assert written("receipt")[0]["Subject"] == "Your receipt: 5.00 USD"
    assert "10,000 credits" in written("receipt")[1]
    assert written("dispute")[0]["Subject"] == "Dispute over 1234 JPY"


def test_a_receipt_without_an_address_at_stripe_has_no_button():
    for url in (None, "javascript:alert(1)"):
        _, text, page = written("receipt", DATA["receipt"] | {"url": url})
        assert Seen(page).links == []
        assert "receipt:" not in text


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80)  # as the database has them


@settings(max_examples=25, deadline=None, database=None)
@given(TEXTS, TEXTS)
def test_no_value_gets_out_of_its_place(name, url):
    plain = written("key_created")
    message, _, page = written("key_created", {"name": name, "prefix": "p"})
    assert message.keys() == plain[0].keys()
    assert message["To"] == "ann@example.com"
    assert Seen(page).tags == Seen(plain[2]).tags
    assert "\n" not in message["Subject"]
    _, _, page = written("webhook_disabled", {"url": url})
    assert Seen(page).links == ["https://example.com/app/settings"]


@pytest.mark.parametrize(
    "to", ["", "ann", "a@b.c\r\nBcc: x@y.z", "a@b.c, d@e.f", "Ann <a@b.c>", "a@b.c\n", "@b.c", "a@", "a b@c.d", "\x00@b.c"], ids=repr
)
def test_an_address_is_one_mailbox_or_none(to):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        written("credits_low", to=to)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mail_from", "nobody"), ("mail_from", "a@b.c\nBcc: x@y.z"), ("operator_email", "a@b.c, d@e.f"), ("smtp_url", "me:s/cret@mail.example.com"),
        ("smtp_url", "https://me:s/cret@mail.example.com"), ("smtp_url", "smtp://"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_refused_without_a_secret(name, value):
    with pytest.raises(ConfigurationError, match=f"FISHSERVE_SAAS_{name.upper()} cannot be used: this is no address like") as e:
        saas_settings.read(**{name: value})
    assert "s/cret" not in str(e.value)


def test_a_name_in_any_script_is_the_sender_s():
    sender = saas_settings.read(mail_from="Stimme für dich <no-reply@example.com>").mail_from
    message, _, page = written("credits_low", sender=sender)
    assert message["From"].addresses[0].display_name == "Stimme für dich"
    assert escape("Stimme für dich") in page


def test_the_templates_for_supabase_are_current(tmp_path):
    """`python -m saas.mail.supabase examples/supabase-mail` writes them."""
    supabase.write(tmp_path)
    kept = Path(__file__).parents[3] / "examples" / "supabase-mail"
    assert {f.name: f.read_text() for f in kept.iterdir()} == {f.name: f.read_text() for f in tmp_path.iterdir()}
    for file in kept.iterdir():
        fields = set(re.findall(r"{{ \.(\w+) }}", file.read_text()))
        assert fields <= {"ConfirmationURL", "Email", "NewEmail", "Token"}
        assert fields & {"ConfirmationURL", "Token"}
