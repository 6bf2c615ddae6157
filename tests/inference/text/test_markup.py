import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.text.markup import plain


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("# Title\n\nText.", "Title.\n\nText."),
        ("## Title? ##", "Title?"),
        ("- one\n- two!\n* three", "one.\ntwo!\nthree."),
        ("- 项目\n# 标题", "项目。\n标题。"),
        ("This is **bold**, *it*, ***both***, ~~gone~~, _so_ and __so__.", "This is bold, it, both, gone, so and so."),
        ("**a *b* c**", "a b c"),
        ("Use `code` and ``more``.", "Use code and more."),
        ("[a link](https://x.y/(z)?q=1) and ![a picture](p.png)", "a link and a picture"),
        ("Go to https://www.example.com/a/b?c=d. Now!", "Go to example.com. Now!"),
        ("(at https://x.y/z), https://x.y, <https://x.y/z> or https://x.y/z<3", "(at x.y), x.y, x.y or x.y<3"),
        ("> quoted\n>> twice", "quoted\ntwice"),
        ("| a | b |\n|---|:-:|\n| 1 | 2 |", "a, b.\n\n1, 2."),
        ("above\n\n---\n\nbelow\n***\n", "above\n\n\n\nbelow\n\n"),
        ("```python\nx = 1\n```", "\nx = 1\n"),
        ("<p>One</p><b>two</b> <br/>three <!-- four --> &amp; &lt;five", "\nOne.\ntwo \nthree  & <five"),
        ("<ul><li>Buy <b>milk</b></li><li>Walk!</li></ul><h1>Head</h1>body", "\n\nBuy milk.\n\nWalk!\n\n\nHead.\nbody"),
        ("a<script>alert(1)</script>b<style>p {}</style> <think>Hm. <b>x</b></think>Yes. <think>open", "ab Yes. open"),
        ("<section><button type='button'>Press</button></section>", "\n\nPress.\n\n"),
        ("- [x] done\n- [ ] to do", "done.\nto do."),
        ("as noted[^1] in [a book][2] and [another][]", "as noted in a book and another"),
        ("1. Milk\n2. Bread!\n10) Tea", "1, Milk.\n2, Bread!\n10, Tea."),
        ("at https://user:s3cret@host.example:8443/x, then", "at host.example, then"),
        ("HTTPS://a:b:c@d@WWW.B.example?q ftp://ann:pw@c.example; www.d.example/docs.", "B.example c.example; d.example."),
        ("https://user:pa/ss@host.example", "user"),
        ("http://[::1]:80/x", "["),
        ("a → b ✗ c ★ d ■ e ─ f", "a b c d e f"),
        ("<speak>Say <prosody rate='slow'>this</prosody> <sub alias='World Wide Web'>WWW</sub></speak>", "Say this World Wide Web"),
        ("Hi 😀 there 👨‍👩‍👧 👍🏽 🇩🇪 1️⃣ 5 ❤️!", "Hi there 5 !"),
        ("*laughs* Oh.", "laughs Oh."),
    ],
)  # fmt: skip
def test_marks_are_not_heard(written, spoken):
    assert plain(written) == spoken


@pytest.mark.parametrize(
    "text",
    [
        "2 * 3 * 4 = 24", "a_b_c and snake_case_name", "x < y and y > z", "I <3 you", "C# and F#", r"C:\dir\file", "me@example.com", "5 # of items",
        "1. first", "1) first", "   indented text", "AT&T; Tom & Jerry", "© 2024 Acme™ ®", "**", "a*b*c", "[note] and (this)", "5 | 6",
        "नमस्ते क्‍ष", "می‌خواهم", "café naïve Ångström", "-5 degrees", "she said -- and left", "<name> of nobody", "#hashtag #1", "~5 km", "_", "`",
    ],
)  # fmt: skip
def test_what_is_no_mark_is_left_alone(text):
    assert plain(text) == text


@given(st.text(st.characters(categories=["L", "Mn", "Nd"]) | st.sampled_from(" ,.!?;:'\"()-\n"), max_size=200))
def test_prose_of_any_script_is_left_alone(text):
    lines = text.split("\n")
    if not any(line.strip(" -") == "" or line.lstrip().startswith("- ") for line in lines):
        assert plain(text) == text


@pytest.mark.parametrize(
    "hostile",
    [
        "*", "*a", "_a", "[", "[a](", "[a][", "[^", "<script>", "<think>a", "</li>", "\n1. ", "https://a@", "www.", "ftp://:", "<a ", "<", "`", "`a", "|", "- ", "#", "> ", "http://", "https://a,,", "😀", "&", "<sub alias='", "-", " ",
        "\n- ", "| - ", "<!--",
    ],
)  # fmt: skip
def test_a_hostile_text_is_read_in_one_pass(hostile):
    """Each took minutes, if a pattern started again at every sign: the test's own limit would stop it."""
    plain("a " + hostile * (300_000 // len(hostile)) + "<")
