"""How the app's files are served: guarded, cached where they may be, and a clear word where it is not built."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from saas import web
from saas.settings import read

SETTINGS = {
    "public_url": "https://api.example.com", "supabase_url": "https://ref.supabase.co", "r2_endpoint": "https://acc.r2.cloudflarestorage.com",
    "turnstile_site_key": "0x4", "app_url": "",
}  # fmt: skip


def client(dist, **settings):
    app = FastAPI()
    app.include_router(web.router(read(**SETTINGS | settings), dist))
    return TestClient(app, follow_redirects=False)


@pytest.fixture
def dist(tmp_path):
    """As Vite leaves it, in small."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<title>app</title>")
    (tmp_path / "theme.js").write_text("1")
    (tmp_path / "assets" / "index-CIjKKN59.js").write_text("2")
    (tmp_path / "secret.pem").write_text("no")
    (tmp_path.parent / "beside.html").write_text("no")
    return tmp_path


def policy(answer):
    return dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))


def test_only_its_own_scripts_and_turnstiles_run_and_only_who_it_needs_is_asked(dist):
    rules = policy(client(dist).get("/app/"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self' https://challenges.cloudflare.com"
    assert rules["frame-src"] == "https://challenges.cloudflare.com"
    asked = "'self' https://acc.r2.cloudflarestorage.com https://api.example.com https://ref.supabase.co"
    assert rules["connect-src"] == asked
    assert rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert not re.search("unsafe|\\*|http:", str(rules))


def test_without_turnstile_nobody_elses_script_runs(dist):
    rules = policy(client(dist, turnstile_site_key="").get("/app/"))
    assert (rules["script-src"], rules["frame-src"]) == ("'self'", "'none'")


def test_files_with_a_hash_are_kept_for_ever_and_the_page_is_asked_for_each_time(dist):
    with client(dist) as http:
        assert http.get("/app/assets/index-CIjKKN59.js").headers["cache-control"] == "public, max-age=31536000, immutable"
        for path in ("/app/", "/app/theme.js"):
            answer = http.get(path)
            assert answer.headers["cache-control"] == "no-cache"
            again = http.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")


def test_files_are_sent_small_to_who_can_read_that(dist):
    (dist / "assets" / "index-CIjKKN59.js").write_text("word " * 1000)
    with client(dist) as http:
        small = http.get("/app/assets/index-CIjKKN59.js", headers={"accept-encoding": "gzip"})
        large = http.get("/app/assets/index-CIjKKN59.js", headers={"accept-encoding": "identity"})
    assert small.text == large.text == "word " * 1000
    assert (small.headers["content-encoding"], small.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert int(small.headers["content-length"]) < 100
    assert "content-encoding" not in large.headers
    assert small.headers["etag"] != large.headers["etag"]


def test_any_page_of_the_app_is_the_app_and_a_missing_file_is_missing(dist):
    with client(dist) as http:
        for path in ("/app/", "/app/speak", "/app/a/b"):
            answer = http.get(path)
            assert (answer.status_code, answer.text) == (200, "<title>app</title>")
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["x-content-type-options"] == "nosniff"
        for path in ("/app/assets/old-CIjKKN59.js", "/app/nothing.css"):
            assert http.get(path).status_code == 404
        assert http.get("/app?paid=1").headers["location"] == "/app/?paid=1"


@pytest.mark.parametrize("path", ["secret.pem", "../beside.html", "%2e%2e/beside.html", "..%2fbeside.html", "/etc/passwd"])
def test_nothing_else_is_served(dist, path):
    assert client(dist).get(f"/app/{path}").text != "no"


def test_where_it_is_not_built_a_page_says_how_and_the_api_goes_on(tmp_path):
    answer = client(tmp_path / "nothing").get("/app/speak")
    assert answer.status_code == 503
    assert "make web" in answer.text
    assert policy(answer)["default-src"] == "'none'"
