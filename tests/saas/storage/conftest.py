from tests.worker.conftest import bucket  # noqa: F401
