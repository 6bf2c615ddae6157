"""Terms that are spoken as other words, and where in the text as sent these words are."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.engine.request import SpeechRequest
from inference.errors import RequestError
from inference.model.config import GenerationDefaults
from inference.server.word_times import CharacterTimes
from inference.text import pronunciation
from inference.text.pronunciation import MAX_RULES, Pronunciations, Rule, rules_from
from inference.text.words import Word

DEFAULTS = GenerationDefaults(normalize=True, spell_capitals=True)


def replaced(text, *rules, language="en", voice=""):
    made = tuple(Rule(*rule) if isinstance(rule, tuple) else rule for rule in rules)
    return Pronunciations(made).applied(text, language, voice).text


@pytest.mark.parametrize(
    ("text", "rules", "expected"),
    [
        ("SQL, and SQL's MySQL.", [("SQL", "sequel")], "sequel, and sequel's MySQL."),
        ("NGINX and Nginx", [("nginx", "engine x")], "engine x and engine x"),
        ("the US told us", [("US", "United States")], "the United States told us"),
        ("Dr No is not Dr  No Way", [("Dr No", "doctor no"), ("Dr No Way", "the film")], "doctor no is not the film"),
        ("C++ is not C, C++11 or C++.", [("C", "see"), ("C++", "see plus plus")], "see plus plus is not see, see++11 or see plus plus."),
        ("ASP.NET and .NET", [(".NET", "dot net")], "ASP.NET and dot net"),
        ("don't, don’t, don", [("don", "Don Corleone"), ("don't", "do not")], "do not, do not, Don Corleone"),
        ("AT&T at AT & T", [("AT&T", "a tee and tee")], "a tee and tee at AT & T"),
        ("我在重庆市。重庆", [("重庆", "崇庆")], "我在崇庆市。崇庆"),
        ("データベースのデータ", [("データ", "でーた")], "データベースのでーた"),
        ("cafe cafe\u0301", [("cafe", "bar")], "bar cafe\u0301"),
        ("caf\u00e9", [("cafe\u0301", "bar")], "bar"),
        ("a b a", [("a", "b"), ("b", "a a")], "b a a b"),
        ('<b class="SQL">SQL</b>', [("SQL", "sequel"), ("b", "x")], '<b class="SQL">sequel</b>'),
        ("a\nb c", [("a b", "x")], "x c"),
        ("3 is not 3.5, 10,000 or 3.", [("3", "three"), ("10", "ten"), ("3.5", "a few")], "three is not a few, 10,000 or three."),
        ("x < SQL > y", [("SQL", "sequel")], "x < sequel > y"),
        ("It is it's", [("it", "IT")], "IT is IT's"),
        ("x_y x y_x", [("x", "ex")], "x_y ex y_x"),
    ],
)
def test_whole_words_are_replaced_and_the_longest_term_goes_first(text, rules, expected):
    assert replaced(text, *rules) == expected


def test_a_rule_may_hold_for_a_language_or_a_voice_alone():
    rules = [("chat", "talk"), ("chat", "katze", "fr"), ("chat", "mew", None, "anna"), ("chat", "miaou", "fr", "anna")]
    text = "We chat here. Le chat est sur la table. The chat."
    assert replaced(text, *rules) == "We talk here. Le katze est sur la table. The talk."
    assert replaced(text, *rules, voice="anna") == "We mew here. Le miaou est sur la table. The mew."
    assert replaced("chat", *rules[1:2]) == "chat"
    assert replaced("chat", *rules[1:2], language="fr") == "katze"


def test_case_counts_where_a_rule_says_so():
    assert replaced("us US Us", Rule("us", "we", case_sensitive=True)) == "we US Us"
    assert replaced("us US Us", Rule("US", "we", case_sensitive=False)) == "we we we"
    assert replaced("us US Us", ("us", "we"), ("US", "America")) == "we America we"


texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(list("aAbB' .-[<>我ア\u0301ﬁ")), max_size=40)
terms = st.text(st.sampled_from(list("aAbB'.- +我ア\u0301éﬁ")), min_size=1, max_size=4).filter(
    lambda t: t == t.strip() and "<" not in t and "[" not in t
)


def inside(text, at):
    """Whether a place is between two letters of one word, of a script that has spaces."""
    return 0 < at < len(text) and all(unicodedata.category(c)[0] in "LN" and c not in "我ア" for c in text[at - 1 : at + 1])


@given(st.lists(texts | terms).map("".join), st.lists(terms, max_size=6))
@example("aa a", ["a"])
@example("a b", ["a b", "a"])
def test_terms_match_whole_words_the_longest_first_and_once(text, given):
    made = Pronunciations(tuple(Rule(term, "7" * (n + 1)) for n, term in enumerate(given))).applied(text, "en", "")
    at = begin = 0
    for place in made.places:
        assert at <= place.start < place.stop <= len(text)
        assert text[at : place.start] == made.text[begin : place.begin]  # the rest stays
        assert set(made.text[place.begin : place.end]) == {"7"}  # and what was spoken for a term is not looked at again
        assert not inside(text, place.start)
        assert not inside(text, place.stop)
        longer = Pronunciations(tuple(Rule(term, "8") for term in given if len(term) > place.stop - place.start))
        assert not any(p.start == place.start for p in longer.applied(text, "en", "").places if p.stop > place.stop)
        at, begin = place.stop, place.end
    assert text[at:] == made.text[begin:]


pieces = st.lists(
    st.text(max_size=8)
    | st.sampled_from(["SQL ", "Dr No ", "$3.50 ", "[pause:1s]", "**b** ", "<b>x</b>", "我有3个。", ". ", "\n\n", "SQL's"])
)
RULES = (Rule("SQL", "structured query language"), Rule("Dr No", "the film"), Rule("b", "5 %"), Rule("3", "drei"), Rule("个", "个 个"))


@given(pieces.map("".join), st.booleans())
@example("SQL Dr No b", True)
@example("Dr No", False)
def test_words_are_those_of_the_text_as_sent(text, normalize):
    try:
        request = SpeechRequest(text, chunk_length=20, normalize=normalize, words=True, pronunciations=Pronunciations(RULES)).resolved(
            DEFAULTS
        )
        lines, _ = request.script(DEFAULTS)
    except RequestError:
        return
    words = [word for line in request.spoken_words(lines, DEFAULTS) for word in line.words]
    at = 0
    for word in words:
        assert at <= word.start_char < word.end_char <= len(text)
        assert text[word.start_char : word.end_char] == word.text
        at = word.end_char
    times, heard = CharacterTimes(), [Word(w.text, w.start_char, w.end_char, 1.0, 2.0, w.spoken) for w in words]
    joined = times.next(text, heard, 2.0).characters + times.rest(text).characters
    assert "".join(joined) == text


@pytest.mark.parametrize("length", [200, 12])
def test_a_term_of_several_words_is_one_word_with_all_that_is_said_for_it(length):
    text = "Ask Dr No of SQL now."
    request = SpeechRequest(text, chunk_length=length, normalize=False, pronunciations=Pronunciations(RULES))
    lines, _ = request.script(DEFAULTS)
    words = [word for line in request.spoken_words(lines, DEFAULTS) for word in line.words]
    assert [word.text for word in words] == ["Ask", "Dr No", "of", "SQL", "now"]
    assert "".join(word.spoken for word in words).split() == ["Ask", "the", "film", "of", "structured", "query", "language", "now."]


def test_pauses_and_voices_are_no_place_for_terms():
    rules = Pronunciations((Rule("pause", "break"), Rule("1", "9"), Rule("voice", "x"), Rule("time", "x"), Rule("break", "x")))
    request = SpeechRequest('One pause[pause:1s] two <break time="1s"/> three', normalize=False, pronunciations=rules)
    lines, _ = request.script(DEFAULTS)
    assert [(line.text, line.silence) for line in lines] == [("One break", 0), ("two", 1), ("three", 1)]


def test_what_was_replaced_is_read_as_words_afterwards():
    request = SpeechRequest("kg", normalize=True, pronunciations=Pronunciations((Rule("kg", "5 kg"),)))
    assert request.script(DEFAULTS)[0][0].text == "five kilograms"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (("", "x"), "cannot be a term"),
        ((" a", "x"), "cannot be a term"),
        (("a" * 101, "x"), "1 to 100"),
        (("[pause:1s]", "x"), "bracket"),
        (("a", ""), "cannot be spoken"),
        (("a", "!"), "some letter or digit"),
        (("a", "[voice:bob]x"), "no brackets"),
        (("a", "<break/>x"), "no brackets"),
        (("a", "x\x00"), "no brackets"),
        (("a", "x" * 501), "1 to 500"),
        (("a", "x", ""), "language"),
        (("\ud800", "x"), "cannot be a term"),
        (("a", "\ud800x"), "no brackets"),
    ],
)
def test_what_cannot_be_a_rule_is_refused_in_one_sentence(rule, words):
    with pytest.raises(RequestError, match=words):
        Rule(*rule)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"a": "b"}, "a list of objects"),
        (["a"], "a list of objects"),
        ([{"term": "a"}], "no replacement"),
        ([{"replacement": "a"}], "no term"),
        ([{"term": 1, "replacement": "a"}], "no term"),
        ([{"term": "a", "replacement": "b", "voice": 1}], "no voice"),
        ([{"term": "a", "replacement": "b", "case_sensitive": 1}], "case_sensitive"),
        ([{"term": "a", "replacement": "b", "phoneme": "c"}], "'phoneme' is not a field"),
        ([{"term": "a", "replacement": "b"}] * (MAX_RULES + 1), "at most 1,000"),
    ],
)
def test_a_file_of_what_are_no_rules_is_refused_in_one_sentence(given, words):
    with pytest.raises(RequestError, match=words):
        rules_from(given)


def test_a_text_that_its_terms_make_too_long_is_refused():
    with pytest.raises(RequestError, match="with its pronunciations"):
        replaced("a " * 1000, ("a", "b" * 500))


def test_the_time_does_not_grow_with_the_rules(monkeypatch):
    """Each word looks up no more than the words of the longest term: an attacker's rules and text cost no more than theirs."""
    looked = 0

    class Counted(dict):
        def get(self, key, default=None):
            nonlocal looked
            looked += 1
            return super().get(key, default)

    tree = pronunciation._tree

    def counted(rules):
        def of(node):
            return Counted({k: Counted(v) if k is None else of(v) for k, v in node.items()})

        return of(tree(rules))

    monkeypatch.setattr(pronunciation, "_tree", counted)
    rules = tuple(Rule("a b a", "x", voice=f"v{n}") for n in range(1000))
    text = "a b " * 500
    assert Pronunciations(rules).applied(text, "en", "v7").text.count("x") == 250
    assert looked < 20 * len(text.split())
