"""`fishserve saas grant`: an administrator gives a user credits."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from pydantic import SecretStr

from inference.errors import FishserveError, RequestError
from saas.app import connect
from saas.auth.repository import AccountRepository
from saas.credits.repository import CreditRepository
from saas.database import DatabaseError, Refused, Unavailable
from saas.embedded.running import database_url
from saas.settings import Settings


async def grant(settings: Settings, email: str, credits: int, reference: str | None) -> tuple[int, bool]:
    """Grant credits. Returns the new balance and whether any were granted: a reference grants once. Raises RequestError, FishserveError."""
    if not settings.is_configured:
        embedded = database_url(settings.directory)
        if embedded is None:
            raise RequestError(
                f"no database: start `fishserve saas --embedded` on {settings.directory} (`make saas`) first, "
                "or set DATABASE_URL, or SUPABASE_URL and SUPABASE_SECRET_KEY"
            )
        settings = settings.model_copy(update={"database_url": SecretStr(embedded)})
    store = connect(settings)
    reference = reference or f"fishserve saas grant, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {secrets.token_hex(3)}"
    try:
        profile = await AccountRepository(store).find(email)
        if profile is None:
            raise RequestError(f"no user has the address {email}; a user must sign up first")
        return await CreditRepository(store).grant(profile["id"], credits, reference)
    except Unavailable:
        raise FishserveError("the database cannot be reached; is it running?") from None
    except Refused as e:
        raise RequestError(e.message) from None
    except DatabaseError:
        raise FishserveError("the database lacks the function for this; apply the newer files of sql/migrations") from None
    finally:
        await store.close()
