"""Request bodies of GoTrue's protocol, as supabase-js sends them."""

import re
from typing import Literal

from pydantic import BaseModel, Field, field_validator

MIN_PASSWORD, MAX_PASSWORD = 8, 200
"""In characters."""
ADDRESS = re.compile(r"""[^@\s\x00-\x1f"(),:;<>\[\]\\]{1,64}@[^@\s\x00-\x1f"(),:;<>\[\]\\]{1,190}""")
VERIFIER = r"^[A-Za-z0-9._~-]{43,128}$"
"""RFC 7636, 4.1 and 4.2."""
Purpose = Literal["signup", "magiclink", "recovery"]
"""The purpose of a link."""
Method = Literal["password", "otp"]
"""How a session began, in GoTrue's words: otp is a link."""


class Captcha(BaseModel):
    """A CAPTCHA token."""

    captcha_token: str | None = Field(default=None, max_length=2048)


class Guarded(BaseModel):
    """A form that a robot might fill in. The field's name is GoTrue's."""

    gotrue_meta_security: Captcha = Captcha()


class Address(Guarded):
    """An email address. With a code challenge, the link that is sent to it signs in only the browser that has the challenge's verifier."""

    email: str
    code_challenge: str | None = Field(None, pattern=VERIFIER)
    code_challenge_method: Literal["s256", "plain"] | None = None

    @property
    def challenge(self) -> str | None:
        """The challenge with its method, as `sessions.meets` takes it."""
        return None if self.code_challenge is None else f"{self.code_challenge_method or 'plain'}:{self.code_challenge}"

    @field_validator("email")
    @classmethod
    def _plausible(cls, value: str) -> str:
        value = value.strip().lower()
        if not ADDRESS.fullmatch(value):
            raise ValueError("this is no e-mail address")
        return value


class SignUp(Address):
    """A new user."""

    password: str = Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)


class Otp(Address):
    """A request for a sign-in link."""

    create_user: bool = True


class Resend(Address):
    """A request for another confirmation message."""

    type: Literal["signup"]


class Grant(Guarded):
    """A password, a refresh token, or a link's code with its verifier, to exchange for a session."""

    email: str = ""
    password: str = Field("", max_length=MAX_PASSWORD)
    refresh_token: str = Field("", max_length=2048)
    auth_code: str = Field("", max_length=200)
    code_verifier: str = Field("", max_length=200)


class Verification(BaseModel):
    """A link's token."""

    type: Literal["signup", "magiclink", "recovery", "email"]
    token_hash: str = Field(max_length=200)


class Change(BaseModel):
    """A new password."""

    password: str | None = Field(None, min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)
