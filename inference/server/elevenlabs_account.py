"""What ElevenLabs' clients ask about besides speech: models, user, subscription, voice settings, history."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from inference.engine.request import MAX_TEXT
from inference.server.state import AppState
from inference.voices.notice import MINNOW
from inference.voices.store import DEFAULT

LANGUAGES = {
    "en": "English", "zh": "Chinese", "ja": "Japanese", "de": "German", "fr": "French", "es": "Spanish", "ko": "Korean", "ar": "Arabic",
    "ru": "Russian", "nl": "Dutch", "it": "Italian", "pl": "Polish", "pt": "Portuguese",
}  # fmt: skip
"""What FishSpeech 1.5 was trained on; minnow speaks the first."""
_CHARACTERS = 1_000_000_000
"""The limit of characters that clients are told: this server counts none."""
_SETTINGS = {"stability": None, "use_speaker_boost": False, "similarity_boost": None, "style": 0.0, "speed": 1.0}
_SUBSCRIPTION = {
    "tier": "self-hosted", "character_count": 0, "character_limit": _CHARACTERS, "max_character_limit_extension": None,
    "max_credit_limit_extension": 0, "can_extend_character_limit": False, "allowed_to_extend_character_limit": False,
    "next_character_count_reset_unix": None, "voice_slots_used": 0, "professional_voice_slots_used": 0,
    "professional_voice_slots_used_in_workspace": 0, "voice_limit": _CHARACTERS, "max_voice_add_edits": None, "voice_add_edit_counter": 0,
    "professional_voice_limit": 0, "can_extend_voice_limit": False, "can_use_instant_voice_cloning": True,
    "can_use_professional_voice_cloning": False, "currency": None, "current_overage": {"amount": "0", "currency": "usd"}, "status": "active",
    "billing_period": None, "character_refresh_period": None,
}  # fmt: skip
router = APIRouter(tags=["ElevenLabs"])


def asks(request: Request) -> bool:
    """Whether a client of ElevenLabs sent a request to a path that OpenAI's API has, too."""
    return "xi-api-key" in request.headers or "elevenlabs" in request.headers.get("x-fern-sdk-name", "").lower()


def models(name: str) -> list[dict[str, Any]]:
    """The model in use, in ElevenLabs' format."""
    return [
        {
            "model_id": name, "name": name, "description": "Speech from text.", "can_be_finetuned": False, "can_do_text_to_speech": True,
            "can_do_voice_conversion": False, "can_use_style": False, "can_use_speaker_boost": False, "serves_pro_voices": False,
            "token_cost_factor": 0.0, "requires_alpha_access": False, "max_characters_request_free_user": MAX_TEXT,
            "max_characters_request_subscribed_user": MAX_TEXT, "maximum_text_length_per_request": MAX_TEXT,
            "languages": [{"language_id": code, "name": words} for code, words in LANGUAGES.items() if code == "en" or name != MINNOW],
            "model_rates": {"character_cost_multiplier": 0.0}, "concurrency_group": "standard",
        }
    ]  # fmt: skip


@router.get("/v1/user")
async def user() -> dict[str, Any]:
    """A fixed user, for clients that check it."""
    return {
        "user_id": "self", "workspace_id": "self", "subscription": _SUBSCRIPTION, "is_new_user": False,
        "can_use_delayed_payment_methods": False, "is_onboarding_completed": True, "is_onboarding_checklist_completed": True,
        "show_compliance_terms": False, "first_name": None, "is_api_key_hashed": False, "xi_api_key_preview": None,
        "referral_link_code": None, "partnerstack_partner_default_link": None, "created_at": 0, "seat_type": "workspace_admin",
    }  # fmt: skip


@router.get("/v1/user/subscription")
async def subscription() -> dict[str, Any]:
    """A fixed subscription, for clients that check it. This server charges nothing."""
    return _SUBSCRIPTION


@router.get("/v1/voices/settings/default")
async def default_settings() -> dict[str, Any]:
    """The settings that a request has when it gives none; null: the model decides."""
    return _SETTINGS


@router.get("/v1/voices/{voice_id}/settings")
async def settings(voice_id: str, state: AppState) -> dict[str, Any]:
    """The default settings, which are every voice's. Raises VoiceNotFound."""
    if voice_id != DEFAULT:
        state.voices.entry(voice_id)
    return _SETTINGS


@router.get("/v1/history")
async def history() -> dict[str, Any]:
    """Always empty: this server keeps no speech."""
    return {"history": [], "last_history_item_id": None, "has_more": False, "scanned_until": None}
