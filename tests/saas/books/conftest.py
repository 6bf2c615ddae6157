"""The commands, as the desk's tests run them."""

from tests.saas.admin.conftest import operate, told  # noqa: F401 - fixtures
