"""Sign-in of embedded mode, asked by Supabase's own Python client and by those who mean ill."""

import base64
import hashlib
import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email import message_from_bytes
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from supabase_auth import SyncGoTrueClient
from supabase_auth.errors import AuthApiError

from saas import create_app
from saas.auth.local.sessions import Signer
from saas.settings import Settings
from tests.saas.api_harness import NOWHERE, StandIn
from tests.saas.conftest import free_port
from tests.saas.web.conftest import serving_on
from tests.waiting import HANG_SECONDS

PASSWORD = "a long sentence to sign in with"


class Place:
    """A running API with sign-in of its own."""

    def __init__(self, url, database, directory):
        self.url, self.database, self.directory = url, database, directory
        self.http = httpx.Client(base_url=f"{url}/auth/v1", timeout=HANG_SECONDS)

    def client(self):
        options = {"auto_refresh_token": False, "persist_session": False, "http_client": self.http}
        return SyncGoTrueClient(url=f"{self.url}/auth/v1", **options)

    def messages(self, address):
        files = sorted((self.directory / "mail").glob("*.eml"))
        found = [message_from_bytes(file.read_bytes()) for file in files]
        return [message for message in found if message["To"] == address and not message.is_multipart()]  # with HTML: no link to sign in

    def link(self, address):
        return re.search(r"http://\S+verify\S+", self.messages(address)[-1].get_payload(decode=True).decode())[0]

    def member(self):
        """Somebody who has signed up and confirmed it."""
        address = f"{uuid4().hex[:12]}@example.com"
        self.client().sign_up({"email": address, "password": PASSWORD})
        assert httpx.get(self.link(address)).status_code == 303
        return address

    def sign_in(self, address, password=PASSWORD):
        client = self.client()
        client.sign_in_with_password({"email": address, "password": password})
        return client

    def me(self, token):
        return httpx.get(f"{self.url}/api/me", headers={"Authorization": f"Bearer {token}"})


@pytest.fixture(scope="module")
def start(postgres, tmp_path_factory):
    """Starts one more place, on the database and in the folder of an earlier one if there is one."""
    database, directory = postgres.migrated(), tmp_path_factory.mktemp("embedded")

    @contextmanager
    def starting(**more):
        url = f"http://127.0.0.1:{free_port()}"
        settings = {
            "environment": "embedded", "public_url": url, "supabase_url": url, "database_url": database.url, "directory": directory,
            "r2_endpoint": NOWHERE, "r2_access_key_id": "a", "r2_secret_access_key": "b", "r2_bucket_name": "c", "fishserve_url": NOWHERE,
            "sensitive_per_minute": 1000,
        } | more  # fmt: skip
        place = Place(url, database, directory)
        with serving_on(int(url.rpartition(":")[2]), create_app(Settings(**settings))), place.http:
            yield place

    yield starting
    postgres.run(f"drop database {database.name} with (force)")


@pytest.fixture(scope="module")
def place(start):
    with start() as place:
        yield place


def test_sign_up_confirm_sign_in_and_out(place):
    address, client = "first@example.com", place.client()
    made = client.sign_up({"email": "First@Example.com", "password": PASSWORD})
    assert (made.session, made.user.email) == (None, address)
    with pytest.raises(AuthApiError, match="not confirmed") as refused:
        client.sign_in_with_password({"email": address, "password": PASSWORD})
    assert refused.value.code == "email_not_confirmed"
    back = httpx.get(place.link(address)).headers["location"]
    told = parse_qs(urlsplit(back).fragment)
    assert back.startswith(f"{place.url}/app#")
    assert told["type"] == ["signup"]
    assert place.me(told["access_token"][0]).json()["email"] == address
    session = client.sign_in_with_password({"email": address, "password": PASSWORD}).session
    assert place.me(session.access_token).json()["id"] == session.user.id
    assert client.get_user().user.id == session.user.id
    client.sign_out()
    with pytest.raises(AuthApiError):
        place.client().get_user(session.access_token)
    with pytest.raises(AuthApiError, match="ended"):
        place.client().refresh_session(session.refresh_token)


def test_a_message_can_be_read_as_a_file_with_its_link_whole(place):
    """There is no mail program between: its text stands in the file as it is."""
    place.client().sign_up({"email": "reader@example.com", "password": PASSWORD})
    file = next(file for file in (place.directory / "mail").glob("*.eml") if "reader@example.com" in file.read_text())
    assert place.link("reader@example.com") in file.read_text().splitlines()
    assert "quoted-printable" not in file.read_text()
    assert httpx.get(place.link("reader@example.com")).status_code == 303


def test_a_terminal_shows_the_link_and_a_log_does_not(place, monkeypatch, capsys):
    monkeypatch.setattr("saas.auth.local.mailbox.sys.stderr.isatty", lambda: True, raising=False)
    place.client().sign_up({"email": "terminal@example.com", "password": PASSWORD})
    assert place.link("terminal@example.com") in capsys.readouterr().err
    monkeypatch.setattr("saas.auth.local.mailbox.sys.stderr.isatty", lambda: False, raising=False)
    place.client().sign_up({"email": "log@example.com", "password": PASSWORD})
    assert "verify" not in capsys.readouterr().err


def test_the_root_leads_to_the_app(place):
    answer = httpx.get(f"{place.url}/")
    assert (answer.status_code, answer.headers["location"]) == (307, f"{place.url}/app/")


def test_a_session_is_renewed_and_two_tabs_may_do_so_at_once(place):
    session = place.sign_in(place.member()).get_session()
    with ThreadPoolExecutor() as pool:
        renewed = list(pool.map(lambda _: place.client().refresh_session(session.refresh_token).session, range(4)))
    assert len({one.refresh_token for one in renewed}) == 4
    assert all(place.me(one.access_token).status_code == 200 for one in renewed)


def claims(session):
    return jwt.decode(session.access_token, options={"verify_signature": False})


def test_a_session_tells_the_users_role_and_how_and_when_it_began_which_a_renewal_does_not_change(place):
    address = place.member()
    session = place.sign_in(address).get_session()
    assert claims(session)["app_metadata"] == {"provider": "email", "providers": ["email"]}
    (how,) = claims(session)["amr"]
    assert (how["method"], 0 <= claims(session)["iat"] - how["timestamp"] <= HANG_SECONDS) == ("password", True)
    place.database.sql("update auth.sessions set created_at = now() - interval '1 hour'")
    place.database.sql("update auth.users set raw_app_meta_data = %s where email = %s", '{"role": "operator", "provider": "x"}', address)
    renewed = place.client().refresh_session(session.refresh_token).session
    assert claims(renewed)["amr"][0]["timestamp"] < how["timestamp"] - 3000
    assert renewed.user.app_metadata == claims(renewed)["app_metadata"] == {"role": "operator", "provider": "email", "providers": ["email"]}
    place.client().sign_in_with_otp({"email": address})
    fragment = parse_qs(urlsplit(httpx.get(place.link(address)).headers["location"]).fragment)
    assert jwt.decode(fragment["access_token"][0], options={"verify_signature": False})["amr"][0]["method"] == "otp"


def test_a_refresh_token_used_again_later_was_copied_and_ends_the_session(place):
    session = place.sign_in(place.member()).get_session()
    renewed = place.client().refresh_session(session.refresh_token).session
    place.database.sql("update auth.refresh_tokens set used_at = used_at - interval '11 seconds' where used_at is not null")
    for token in (session.refresh_token, renewed.refresh_token):
        with pytest.raises(AuthApiError) as refused:
            place.client().refresh_session(token)
        assert refused.value.code == "refresh_token_not_found"


def test_a_new_password_ends_the_other_sessions(place):
    address = place.member()
    mine, other = place.sign_in(address), place.sign_in(address)
    mine.update_user({"password": "another long sentence"})
    assert mine.get_user().user.email == address
    with pytest.raises(AuthApiError):
        other.get_user()
    with pytest.raises(AuthApiError, match="Incorrect email or password"):
        place.sign_in(address)
    place.sign_in(address, "another long sentence")


def test_a_link_works_once_for_what_it_is_and_not_for_ever(place):
    address = place.member()
    place.client().reset_password_for_email(address)
    token = parse_qs(urlsplit(place.link(address)).query)["token"][0]
    with pytest.raises(AuthApiError, match="used or has expired"):
        place.client().verify_otp({"type": "magiclink", "token_hash": token})
    assert place.client().verify_otp({"type": "recovery", "token_hash": token}).session
    with pytest.raises(AuthApiError, match="used or has expired"):
        place.client().verify_otp({"type": "recovery", "token_hash": token})
    place.client().sign_in_with_otp({"email": address})
    place.database.sql("update auth.one_time_tokens set expires_at = now()")
    assert "error_code=otp_expired" in httpx.get(place.link(address)).headers["location"]


@pytest.mark.parametrize(
    "where",
    ["https://evil.example", "{app}.evil.example/", "{app}@evil.example", "{app}/x#access_token=1", "//evil.example", "{app}/\\evil"],
)
def test_a_link_leads_into_the_app_and_nowhere_else(place, where):
    address, where = place.member(), where.format(app=f"{place.url}/app")
    place.client().sign_in_with_otp({"email": address, "options": {"email_redirect_to": where}})
    link = place.link(address)
    assert httpx.get(link).headers["location"].startswith(f"{place.url}/app#")
    asked = httpx.URL(link).copy_set_param("redirect_to", where)
    again = httpx.get(asked).headers["location"]
    assert again.startswith(f"{place.url}/app#error=")


def test_a_stranger_does_not_learn_who_has_an_account(place):
    address, nobody = place.member(), f"{uuid4().hex}@example.com"
    ids = set()
    for email in (nobody, address, nobody, address):
        answer = place.http.post("/signup", json={"email": email, "password": "not the one I have"})
        told = answer.json()
        assert (answer.status_code, told.pop("email")) == (200, email)
        ids |= {told.pop("id"), told.pop("created_at")}
        assert told == {"aud": "authenticated", "role": "authenticated", "is_anonymous": False} | {
            "app_metadata": {}, "user_metadata": {}, "identities": [],
        }  # fmt: skip
    assert len(ids) == 8
    assert place.messages(address)[-1]["Subject"] == "You have an account already"
    place.sign_in(address)  # by the password it has
    for path in ("/recover", "/otp", "/resend"):
        body = {"email": f"{uuid4().hex}@example.com", "create_user": False, "type": "signup"}
        assert place.http.post(path, json=body).json() == place.http.post(path, json=body | {"email": address}).json() == {}


@pytest.mark.parametrize("opened", ["first", "second"])
@pytest.mark.parametrize("stranger", ["first", "second"])
def test_of_two_who_sign_up_with_one_address_only_the_owner_of_the_mailbox_gets_in(place, opened, stranger):
    """Whichever link the owner opens. Before, the later password won, whose ever it was, and the first link was dead."""
    address, theirs = f"{uuid4().hex}@example.com", "the stranger's password"
    place.client().sign_up({"email": address, "password": theirs if stranger == "first" else PASSWORD})
    first = place.link(address)
    place.client().sign_up({"email": address, "password": theirs if stranger == "second" else PASSWORD})
    second = place.link(address)
    session = parse_qs(urlsplit(httpx.get(first if opened == "first" else second).headers["location"]).fragment)
    assert session["type"] == ["signup" if opened == "first" else "recovery"]  # by the latter the app asks for a new password
    with pytest.raises(AuthApiError, match="Incorrect email or password"):
        place.sign_in(address, theirs)
    mine = {"Authorization": f"Bearer {session['access_token'][0]}"}
    assert place.http.put("/user", json={"password": PASSWORD}, headers=mine).status_code == 200
    place.sign_in(address)


@pytest.mark.parametrize("send", ["sign_in_with_otp", "reset_password_for_email"])
def test_a_link_to_sign_in_leaves_no_squatter_a_password(place, send):
    address = f"{uuid4().hex}@example.com"
    place.client().sign_up({"email": address, "password": "the squatter's password"})
    getattr(place.client(), send)({"email": address} if send == "sign_in_with_otp" else address)
    assert "access_token" in httpx.get(place.link(address)).headers["location"]
    with pytest.raises(AuthApiError, match="Incorrect email or password"):
        place.sign_in(address, "the squatter's password")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/signup", {"email": "a@b.c", "password": "short"}, 422, "weak_password"),
        ("/signup", {"email": "a@b.c", "password": "x" * 201}, 422, "weak_password"),
        ("/signup", {"email": "nobody", "password": PASSWORD}, 400, "validation_failed"),
        ("/signup", {"email": "a@b.c\nBcc: x@y.z", "password": PASSWORD}, 400, "validation_failed"),
        ("/otp", {"email": "a@[::1"}, 400, "validation_failed"),
        ("/otp", {"email": "a@b.c", "gotrue_meta_security": {"captcha_token": "\ud800"}}, 400, "validation_failed"),
        ("/token?grant_type=refresh_token", {"refresh_token": "\ud800"}, 400, "validation_failed"),
        ("/token?grant_type=password", {"email": "a\0@b.c", "password": PASSWORD}, 400, "invalid_credentials"),
        ("/token?grant_type=password", {"email": "a@b.c", "password": "\ud800"}, 422, "weak_password"),
        ("/token?grant_type=refresh_token", {"refresh_token": "x" * 1000}, 400, "refresh_token_not_found"),
        ("/token?grant_type=pkce", {}, 403, "bad_code_verifier"),
        ("/token?grant_type=pkce", {"auth_code": "\ud800", "code_verifier": "\ud800"}, 400, "validation_failed"),
        ("/token?grant_type=web3", {}, 400, "validation_failed"),
        ("/otp", {"email": "a@b.c", "code_challenge": "short", "code_challenge_method": "s256"}, 400, "validation_failed"),
        ("/otp", {"email": "a@b.c", "code_challenge": "x" * 43, "code_challenge_method": "md5"}, 400, "validation_failed"),
        ("/verify", {"type": "signup", "token_hash": "nothing"}, 403, "otp_expired"),
        ("/verify", {"type": "phone_change", "token_hash": "x"}, 400, "validation_failed"),
    ],
)
def test_what_cannot_be_is_refused_in_gotrues_words(place, path, body, status, code):
    answer = place.http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert set(answer.json()) == {"code", "error_code", "msg"}


def test_a_token_that_this_key_did_not_sign_opens_nothing(place):
    session = place.sign_in(place.member()).get_session()
    claims = jwt.decode(session.access_token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(session.access_token)["kid"]
    jwks = place.http.get("/.well-known/jwks.json").json()
    assert jwks["keys"][0]["kid"] == kid
    assert "d" not in jwks["keys"][0]
    forged = [
        jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": kid}),
        jwt.encode(claims, "", "none", {"kid": kid}),
        session.access_token[:-4] + "AAAA",
        "x",
    ]
    for token in forged:
        assert place.http.get("/user", headers={"Authorization": f"Bearer {token}"}).status_code == 401
        assert place.me(token).status_code == 401


def test_what_is_kept_opens_nothing_and_only_its_owner_reads_it(place):
    address = place.member()
    session = place.sign_in(address).get_session()
    place.client().sign_in_with_otp({"email": address})
    token = parse_qs(urlsplit(place.link(address)).query)["token"][0]
    kept = str(place.database.sql("select * from auth.users, auth.refresh_tokens, auth.one_time_tokens"))
    assert address in kept
    assert not [secret for secret in (PASSWORD, session.refresh_token, token) if secret in kept]
    for file in (place.directory / "session-key.pem", *(place.directory / "mail").iterdir()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_sessions_outlive_a_restart(place, start):
    session = place.sign_in(place.member()).get_session()
    signer = Signer(place.directory / "session-key.pem", f"{place.url}/auth/v1")
    assert signer.read(session.access_token)[0] == session.user.id
    with start() as again:
        assert again.client().refresh_session(session.refresh_token).session.user.id == session.user.id


def test_guessing_passwords_and_links_ends_soon(start):
    with start(sensitive_per_minute=3) as place:
        address = place.member()
        with ThreadPoolExecutor() as together:  # however many are sent at once
            guess = {"email": address, "password": "a guess"}
            answers = list(together.map(lambda _: place.http.post("/token?grant_type=password", json=guess).status_code, range(6)))
        assert sorted(answers) == [400, 400, 400, 429, 429, 429]
        answer = place.http.post("/token?grant_type=password", json={"email": address, "password": PASSWORD})
        assert (answer.status_code, answer.json()["error_code"]) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) > 0
        assert httpx.get(place.link(address)).headers["location"].startswith(f"{place.url}/app#error=")


def test_messages_are_counted_whoever_they_are_for(start):
    with start(sensitive_per_minute=3) as place:
        bodies = [{"email": f"{uuid4().hex}@example.com", "password": PASSWORD, "type": "signup"} for _ in range(4)]
        asked = [place.http.post(path, json=body) for path, body in zip(("/signup", "/otp", "/recover", "/resend"), bodies, strict=True)]
        assert [answer.status_code for answer in asked] == [200, 200, 200, 429]
        assert asked[-1].json()["error_code"] == "rate_limited"


def test_only_people_sign_up_and_sign_in(start):
    cloudflare = StandIn(lambda asked: (200, {"success": b"good" in asked.body, "hostname": "127.0.0.1", "action": "sign-up"}))
    site = {"turnstile_site_key": "0x4", "turnstile_secret_key": "0xsecret"}
    with cloudflare.running(), start(**site, turnstile_base_url=cloudflare.url) as place:
        body = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
        for more in ({}, {"gotrue_meta_security": {"captcha_token": "bad"}}):
            assert place.http.post("/signup", json=body | more).status_code == 403
        good = {"gotrue_meta_security": {"captcha_token": "good"}}
        assert place.http.post("/signup", json=body | good).status_code == 200
        answer = place.http.post("/token?grant_type=password", json=body | good)  # made for signing up, not for this
        assert (answer.status_code, answer.json()["error_code"]) == (403, "turnstile_failed")


# -- links that sign in only the browser that asked for them (PKCE) --------------------------------------------------------------


class Browser:
    """Asks for links as supabase-js does, and opens them."""

    def __init__(self, place, method="s256"):
        self.place, self.verifier, self.method = place, uuid4().hex + uuid4().hex, method
        hashed = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        self.challenge = {"code_challenge": hashed if method == "s256" else self.verifier, "code_challenge_method": method}

    def ask(self, path, **body):
        assert self.place.http.post(path, json=body | self.challenge).status_code == 200

    def opened(self, link):
        """What the app finds in its address."""
        back = urlsplit(httpx.get(link).headers["location"])
        assert (back.path, back.fragment) == ("/app", "")
        return {name: value for name, (value,) in parse_qs(back.query).items()}

    def exchange(self, code, verifier=None):
        body = {"auth_code": code, "code_verifier": self.verifier if verifier is None else verifier}
        return self.place.http.post("/token?grant_type=pkce", json=body)


@pytest.mark.parametrize("method", ["s256", "plain"])
def test_a_link_leads_its_browser_to_a_code_that_is_a_session_once(place, method):
    address, browser = f"{uuid4().hex}@example.com", Browser(place, method)
    browser.ask("/signup", email=address, password=PASSWORD)
    for path, purpose in ((None, "signup"), ("/otp", "magiclink"), ("/recover", "recovery")):
        if path:
            browser.ask(path, email=address)
        told = browser.opened(place.link(address))
        assert set(told) == {"code", "type"}
        assert told["type"] == purpose
        session = browser.exchange(told["code"]).json()
        assert place.me(session["access_token"]).json()["email"] == address
        assert browser.exchange(told["code"]).json()["error_code"] == "bad_code_verifier"


def test_a_strangers_link_signs_nobody_in_to_the_strangers_account(place):
    """Login CSRF: whoever followed it worked, and paid, in an account that a stranger has the key to."""
    stranger, victim, address = Browser(place), Browser(place), place.member()
    stranger.ask("/otp", email=address)
    told = stranger.opened(place.link(address))
    for verifier in (victim.verifier, "", stranger.challenge["code_challenge"], "é" * 60):
        stranger.ask("/otp", email=address)
        told = stranger.opened(place.link(address))
        answer = stranger.exchange(told["code"], verifier)
        assert (answer.status_code, answer.json()["error_code"]) == (403, "bad_code_verifier")
        assert stranger.exchange(told["code"]).status_code == 403  # it was used


def test_a_code_is_kept_as_a_hash_and_not_for_long(place):
    browser, address = Browser(place), place.member()
    browser.ask("/otp", email=address)
    code = browser.opened(place.link(address))["code"]
    kept = str(place.database.sql("select * from auth.codes"))
    assert code not in kept
    assert browser.verifier not in kept
    place.database.sql("update auth.codes set expires_at = now() - interval '1 second'")
    assert browser.exchange(code).status_code == 403
    assert place.database.sql("select * from auth.codes") == []


def test_of_two_browsers_that_signed_up_with_one_address_the_link_of_the_second_asks_for_a_password(place):
    address, first, second = f"{uuid4().hex}@example.com", Browser(place), Browser(place)
    first.ask("/signup", email=address, password="the stranger's password")
    second.ask("/signup", email=address, password=PASSWORD)
    told = second.opened(place.link(address))
    assert told["type"] == "recovery"
    assert second.exchange(told["code"]).status_code == 200
