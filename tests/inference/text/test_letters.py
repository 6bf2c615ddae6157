import pytest

from inference.text.letters import plain_letters, speakable_words


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("𝐁𝐨𝐥𝐝 𝓈𝒸𝓇𝒾𝓅𝓉", "Bold script"), ("Ｆｕｌｌ　ｗｉｄｔｈ！", "Full width!"), ("ﬁrst ﬂower oﬃce", "first flower office"), ("Ⓐ", "A"),
        ("so\u00adft hy\u200bphen\u2060s\ufeff", "soft hyphens"), ("5\u00a0km 12:00\u202fAM", "5 km 12:00 AM"),
        ("x² ½ ™ é ñ 好 …", "x² ½ ™ é ñ 好 …"),
    ],
)  # fmt: skip
def test_styled_letters_become_plain_ones(written, plain):
    assert plain_letters(written) == plain


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("THIS IS ALL CAPS. STOP RIGHT NOW!", "This is all caps. Stop right now!"),
        ("Please DO NOT open it.", "Please do not open it."),
        ("I'M HERE, DON'T GO", "I'm here, don't go"),
        ("NEVER say never, NOT once.", "Never say never, not once."),
        ("The FBI and the API.", "The eff bee eye and the ay pee eye."),
        ("CALL THE FBI NOW", "Call the eff bee eye now"),
        ("TVs, PDFs and the BBC's", "tee vees, pee dee effs and the bee bee see's"),
        ("NASA, UNESCO", "Nassa, unesco"),
        ("the IT department in the US", "the eye tee department in the you ess"),
        ("in the U.S. and the U.S.A.", "in the you ess and the you ess ay."),
        ("Plan B. I am a man.", "Plan bee. I am a man."),
        ("A man had vitamin C", "A man had vitamin see"),
        ("J. K. Rowling", "jay kay Rowling"),
        ("OK. That is OK.", "Okay. That is okay."),
        ("Hmm… Hm.", "Hum… Hum."),
        ("iPhone McDonald PhD I I'd", "iPhone McDonald PhD I I'd"),
    ],
)
def test_capitals_are_words_or_names_of_letters(written, spoken):
    assert speakable_words(written) == spoken
