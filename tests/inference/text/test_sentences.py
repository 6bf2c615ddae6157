import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.text.sentences import sentences
from inference.text.split import split

CASES = {
    "English": [
        "Mr. Smith met Dr. J. Doe at 3.15 p.m. on Friday. ",
        "“Really?” he asked. ",
        "So do I. ",
        "See Fig. 3, e.g. here! ",
        "Well... then go.",
    ],
    "names": ["Gov. Lee met J.R.R. Tolkien at Ft. Worth. ", "See Ch. Two of the C.I.A. Papers. ", "He left the U.N.O. ", "It closed."],
    "German": [
        "Der 2. Weltkrieg begann am 1. September. ",
        "Das ist z. B. gut. ",
        "Am 3. Oktober kommt Hr. Meier. ",
        "„Wirklich?“ ",
        "Ja!",
    ],
    "French": ["« Vraiment ? » demanda-t-il. ", "Il dit : « Oui ! » ", "Je suis M. Dupont. ", "Ça va ? ", "Oui !"],
    "Spanish": ["Los EE. UU. y Perú. ", "¿Cómo estás? ", "¡Muy bien! ", "El Sr. García vive aquí."],
    "Italian": ["Il dott. Rossi è qui. ", "Va bene."],
    "Portuguese": ["O Dr. Silva chegou. ", "Tudo bem?"],
    "Polish": ["Mieszkam przy ul. Długiej. ", "A ty?"],
    "Russian": ["Это т. е. проба. ", "Иванов И. И. пришёл. ", "Да!"],
    "Greek": ["Καλημέρα. ", "Τι κάνεις\u037e ", "Καλά."],
    "Chinese": ["今天天气很好。", "我们去公园吧！", "“好的。”", "她说。"],
    "Japanese": ["これはテストです。", "「本当？」", "はい。"],
    "Korean": ["안녕하세요. ", "저는 학생입니다. ", "네!"],
    "Hindi": ["यह पहला वाक्य है। ", "यह दूसरा है।"],
    "Arabic": ["هل أنت بخير؟ ", "نعم، أنا بخير. ", "شكرا."],
    "Urdu": ["یہ ایک جملہ ہے۔ ", "یہ دوسرا ہے۔"],
    "Armenian": ["Սա նախադասություն է։ ", "Երկրորդը։"],
    "Amharic": ["ይህ ዓረፍተ ነገር ነው። ", "ሁለተኛው ይህ ነው።"],
    "Burmese": ["မင်္ဂလာပါ။ ", "နေကောင်းလား။"],
    "paragraphs": ["A title\n\n", "Then text."],
}


@pytest.mark.parametrize("language", CASES)
def test_sentences_end_where_readers_see_it(language):
    assert sentences("".join(CASES[language])) == CASES[language]


@given(st.text(st.sampled_from("aB .!?…。\"'“”)\n1i") | st.characters(exclude_categories=["Cs"])))
def test_the_parts_are_the_text(text):
    parts = sentences(text)
    assert "".join(parts) == text
    assert all(parts)


@pytest.mark.parametrize("hostile", [".", "a.", ". ", "?!", "\n", "A. ", ",", "\u0301", ", ", "“", "1. "])
def test_a_hostile_text_is_split_in_one_pass(hostile):
    """Each took minutes, if a pattern started again at every sign: the test's own limit would stop it."""
    text = hostile * (300_000 // len(hostile))
    assert "".join(sentences(text)) == text
    split(text, 200)


def test_what_is_too_long_is_cut_after_clauses_then_words_then_characters():
    assert split("Er kam um 5 Uhr; dann ging er. Gut.", 20) == ["Er kam um 5 Uhr;", "dann ging er. Gut."]
    assert split("一二三四五六七，八九十。", 24) == ["一二三四五六七，", "八九十。"]
    assert split("I paid 12,345 dollars", 10) == ["I paid", "12,345", "dollars"]
    assert split("สวัสดีครับ ผมชื่อสมชาย", 40) == ["สวัสดีครับ", "ผมชื่อสมชาย"]
    accented = "e\u0301" * 20  # two signs, one character
    assert all(set(part.split("\u0301")) == {"e", ""} for part in split(accented, 10))
