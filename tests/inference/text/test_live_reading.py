"""What is heard of a text does not depend on how the text arrives."""

from hypothesis import given
from hypothesis import strategies as st

from inference.text.language import language_at_end
from inference.text.numerals import cardinal
from inference.text.script import script
from inference.text.sentence_buffer import SentenceBuffer

SENTENCES = (
    "It is 5 km. ", "Mr. Hill paid $5.50 on May 3. ", "J.R.R. Tolkien was born in 1892. ", "Wait... ", "Really?! ", "See https://example.com/a?b. ",
    "**Note this. It is 5.** ", "No. 5 is here. ", "I said no. ", "[pause:100ms] At 10:30 a.m. we go. ", "World War II ended. ", "Call 212-555-0134. ",
    "Der 2. Weltkrieg endete 1945. ", "Wir kommen am 3. Oktober 2024. ", "Es kostet 5,50 €, z. B. heute. ", "5,50 €. ", "3,5 km. ", "« Vraiment ? » dit-il à 14h30. ",
    "Le 1er mai, il y a 21 heures. ", "En EE. UU. cuesta 3,50 €. ", "Il 2º piano costa 5 €. ", "São 2 horas. ", "Het is 14:30 uur, d.w.z. laat. ", "To kosztuje 5 zł o 14:30. ",
    "Это стоит 5 €, т. е. мало. ", "السعر 5 كم. ", "今天是2024年5月3日。", "会議は14:30からです。", "가격은 5,000원입니다. ", "\n\n", "- An item\n", "a < b ",
)  # fmt: skip
NAMES = {
    "en": "stone river house", "de": "der Fluss ist Haus", "fr": "le fleuve est maison", "es": "el río es blanco", "it": "il fiume è della",
    "pt": "o rio não são", "nl": "het huis is een", "pl": "rzeka jest się", "ru": "река стол дом", "ko": "강은 집이", "zh": "河山", "ja": "はなです",
}  # fmt: skip


def letters(text):
    return "".join(filter(str.isalnum, text))


def heard(text, language="en"):
    return "".join(letters(line.text) for line in script(text, 200, normalize=True, language=language)[0])


def heard_live(pieces):
    """As the engine hears a request whose text arrives in pieces."""
    buffer, language, said = SentenceBuffer(200), "en", ""
    for ready in (*(buffer.feed(piece) for piece in pieces), buffer.flush()):
        if ready:
            said += heard(ready, language)
            language = language_at_end(ready, language)
    return said


def cut(text, places):
    ends = sorted({p % (len(text) + 1) for p in places} | {len(text)})
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=8), st.lists(st.integers(0, 10_000), max_size=40))
def test_any_cut_of_a_stream_is_read_as_the_whole_text(sentences, places):
    whole = "".join([*sentences, "The end."])
    assert heard_live(cut(whole, places)) == heard(whole)


@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=5))
def test_a_stream_of_single_characters_is_read_as_the_whole_text(sentences):
    whole = "".join([*sentences, "The end."])
    assert heard_live(whole) == heard(whole)


@given(st.sampled_from(sorted(NAMES)), st.lists(st.integers(0, 1099) | st.just(""), min_size=1, max_size=9))
def test_no_letter_and_no_digit_is_lost_or_doubled(name, numbers):
    """Numbers between words are read as numbers, and the words stay as they are."""
    words = NAMES[name].split()
    written, said = [NAMES[name]], [NAMES[name]]
    for i, number in enumerate(numbers):
        written += [str(number), words[i % len(words)]]
        said += [cardinal(number, name) if number != "" and name != "en" else number, words[i % len(words)]]
    if name == "en":
        said = [s if isinstance(s, str) else script(f"x {s} x", 200, normalize=True)[0][0].text[2:-2] for s in said]
    separated = ", ".join(w for w in written if w)
    assert heard(separated) == letters("".join(map(str, said)))
