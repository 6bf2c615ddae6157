"""What npm brings, once, whichever of several test processes asks first."""

import subprocess
import tempfile
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from tests.waiting import HANG_SECONDS


@contextmanager
def alone(folder: Path):
    """No other process is at work in this folder meanwhile."""
    with FileLock(Path(tempfile.gettempdir()) / f"fishserve-{sha256(str(folder).encode()).hexdigest()[:16]}.lock"):
        yield


def npm(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["npm", *arguments], cwd=folder, capture_output=True, text=True, timeout=2 * HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def packages(folder: Path) -> Path:
    """The folder's node_modules, as its lock file names them."""
    lock, mark = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    with alone(folder):
        if not mark.exists() or mark.stat().st_mtime < lock.stat().st_mtime:
            # Not `ci`, which wants the packages of other platforms in the lock file, too; a registry need not have them.
            npm(folder, "install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund")
            mark.touch()
    return folder / "node_modules"
