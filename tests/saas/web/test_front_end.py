"""The app's own checks: its types are the API's, it compiles, its logic is tried, and it is small."""

import gzip
import json
import re
import shutil
import subprocess

import pytest

from saas import openapi
from tests.npm import npm
from tests.saas.web.conftest import ROOT, WEB
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.usefixtures("installed")


def test_its_types_are_those_of_the_api(tmp_path):
    (tmp_path / "openapi.json").write_text(json.dumps(openapi.document()), encoding="utf-8")
    command = ["npx", "--no-install", "openapi-typescript", tmp_path / "openapi.json", "--output", tmp_path / "schema.d.ts"]
    subprocess.run(command, cwd=WEB, check=True, capture_output=True, timeout=HANG_SECONDS)
    kept, made = (WEB / "src" / "schema.d.ts").read_text(), (tmp_path / "schema.d.ts").read_text()
    assert kept == made, "the API has changed: python -m saas.openapi > saas/web/openapi.json && npm --prefix saas/web run types"


def test_it_compiles_strictly():
    assert json.loads(re.sub(r"//.*", "", (WEB / "tsconfig.json").read_text()))["compilerOptions"]["strict"] is True
    npm(WEB, "run", "--silent", "check")


def test_its_logic_does_what_its_tests_say():
    npm(WEB, "test", "--silent")


def test_the_lock_file_names_no_registry():
    assert '"resolved"' not in (WEB / "package-lock.json").read_text()


def test_the_first_load_is_small(built):
    page = (built / "index.html").read_text()
    loaded = ["index.html", *re.findall(r'(?:src|href)="/app/([\w./-]+)"', page)]
    assert any(name.endswith(".css") for name in loaded)
    assert sum(len(gzip.compress((built / name).read_bytes())) for name in loaded) < 200_000


def test_the_image_builds_it_from_what_the_dockerfile_copies(tmp_path):
    """The stage `build-app` has no other files of the source tree."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    stage = re.search(r"^FROM \S+ AS build-app\n(.*?)^FROM ", dockerfile, re.MULTILINE | re.DOTALL)[1]
    for *sources, to in map(str.split, re.findall("^COPY (.+)", stage, re.MULTILINE)):
        target = tmp_path / to.strip("/")
        for source in (ROOT / name for name in sources):
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("node_modules", "dist"), dirs_exist_ok=True)
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    folder = re.search(r"^WORKDIR (\S+)", stage, re.MULTILINE)[1]
    app = tmp_path / folder.strip("/")
    (app / "node_modules").symlink_to(WEB / "node_modules")
    npm(app, "run", "--silent", "build")
    assert (app / "dist" / "index.html").exists()
    assert f"COPY --from=build-app {folder}/dist /src/saas/web/dist" in dockerfile
