"""LiteLLM's speech functions, as its proxy calls them."""

import asyncio

import litellm
from report import SENTENCE, URL, call

NAME, PACKAGE = "litellm", "litellm"
for model, base, voice in (
    ("openai/tts-1", f"{URL}/v1", "alloy"),
    ("hosted_vllm/tts-1", f"{URL}/v1", "alloy"),
    ("elevenlabs/eleven_flash_v2_5", URL, "default"),
):
    with call(NAME, PACKAGE, f"speech, {model.partition('/')[0]}") as made:
        made.file(
            litellm.speech(model=model, voice=voice, input=SENTENCE, api_base=base, api_key="any", response_format="mp3").content, "mp3"
        )
with call(NAME, PACKAGE, "aspeech, openai") as made:
    asked = litellm.aspeech(model="openai/tts-1", voice="alloy", input=SENTENCE, api_base=f"{URL}/v1", api_key="any", response_format="wav")
    made.file(asyncio.run(asked).content, "wav")
