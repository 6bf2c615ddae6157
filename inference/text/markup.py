"""Removes markup before speech: Markdown, HTML, emoji."""

from __future__ import annotations

import html

import regex

from inference.text.latex import without_latex

_TAGS = (
    "a abbr b blockquote body br code del div em font h1 h2 h3 h4 h5 h6 hr html i img li mark ol p pre q s small span strong sub sup table "
    "tbody td th thead tr u ul speak prosody emphasis phoneme say-as voice lang w audio mstts:express-as "
    "address article aside button caption center cite col colgroup dd details dfn dl dt fieldset figcaption figure footer form head header "
    "iframe input ins kbd label legend link main meta nav noscript option picture samp section select source summary svg textarea tfoot time "
    "title var video wbr script style think thinking"
).replace(" ", "|")
_ALIAS = regex.compile(r"""<sub\b[^<>]{0,200}?\balias=(["'])([^<>"']{0,200})\1[^<>]{0,200}>[^<>]{0,200}</sub\s*+>""", regex.IGNORECASE)
_BLOCKS = (
    "p|br|div|li|h[1-6]|tr|hr|blockquote|ul|ol|table|address|article|aside|button|caption|dd|details|dl|dt|figcaption|figure|footer|form|head|"
    "header|legend|main|nav|option|section|summary|title"
)
_LINE_TAG = regex.compile(rf"</?(?:{_BLOCKS})\b[^<>]*>", regex.IGNORECASE)
_ENDS_SENTENCE = regex.compile(r"</(?:p|li|h[1-6]|dt|dd|caption|figcaption|legend|option|summary|title|button)\s*+>", regex.IGNORECASE)
_ENDED = "\x00"
"""Stands for the end of a heading, an item or a paragraph in HTML, until all tags are gone."""
_ENDED_LINE = regex.compile(r"([^\n\x00]*+)\x00")
_UNHEARD = regex.compile(r"<(script|style|think|thinking)\b[^<>]*+>", regex.IGNORECASE)
_TAG = regex.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>|<!--[^<>]*+>", regex.IGNORECASE)
_FENCE = regex.compile(r"^[ \t]*+(?:```|~~~).*$", regex.MULTILINE)
_LINK = regex.compile(r"!?\[([^\[\]\n]*+)\]\((?:[^()\n]|\([^()\n]*+\))*+\)")
_REFERENCE = regex.compile(r"!?\[([^\[\]\n]*+)\]\[[^\[\]\n]*+\]")
_FOOTNOTE = regex.compile(r"\[\^[^\[\]\s]*+\](?::[ \t]*+)?")
_BOX = regex.compile(r"^([ \t]*+[-*+][ \t]++)\[[ xX]\][ \t]++", regex.MULTILINE)
_ADDRESS = regex.compile(
    r"<?\b(?:(?:https?|ftps?|wss?)://(?:[^\s/<>()]*@)?(?:www\.)?|www\.(?=[a-z0-9-]+\.))([^\s/<>()?#:@]++)(?::[0-9]++)?([^\s<>]*+)>?",
    regex.IGNORECASE,
)
"""Its first group is the host, without a password before it and a port behind it; its second one what follows."""
_RULE = regex.compile(r"^[ \t]*(?:(?:\*[ \t]*+){3,}|(?:-[ \t]*+){3,}|(?:_[ \t]*+){3,}|={3,})$", regex.MULTILINE)
_ROW_RULE = regex.compile(r"^[ \t]*+\|?(?:[ \t]*+:?-++:?[ \t]*+\|)++[ \t]*+(?::?-++:?[ \t]*+)?$", regex.MULTILINE)
_ROW = regex.compile(r"^[ \t]*\|(.+)\|[ \t]*$", regex.MULTILINE)
_ITEM = regex.compile(r"^[ \t]*+(?:#{1,6}|[-*+•‣])[ \t]++(\S.*)$", regex.MULTILINE)
_NUMBERED = regex.compile(r"^[ \t]*+([0-9]{1,3})[.)][ \t]++(\S.*)$", regex.MULTILINE)
_QUOTE = regex.compile(r"^(?:[ \t]*>)+[ \t]?", regex.MULTILINE)
_CODE = regex.compile(r"(?<!`)(`{1,3}+)([^`\n]++)\1(?!`)")
_STRONG = regex.compile(r"(?<![\w*~])(\*{1,3}|~~)(?=[^\s*~])([^*~\n]{0,500}[^\s*~])\1(?![\w*~])")
_UNDERLINED = regex.compile(r"(?<![\w_])(_{1,3})(?=[^\s_])([^\n]{0,200}?[^\s_])\1(?![\w_])")
_EMOJI = regex.compile(
    r"(?:[0-9#*]\ufe0f?\u20e3|[\u2190-\u21ff\u2500-\u25ff\u2713-\u2718\u2605\u2606\u27f0-\u27ff]|[\p{Extended_Pictographic}--[©®™]][\ufe0e\ufe0f]?|\p{RI}|\p{Emoji_Modifier}|[\U000e0020-\U000e007f]|(?<=[^\p{L}\p{M}])\u200d|\ufe0f)+",
    regex.V1,
)
_FULL_STOP = regex.compile(r"""[\p{Sentence_Break=STerm}\p{Sentence_Break=ATerm}…:;,،、，：；][\p{Pe}\p{Pf}"']*\Z""")
_CJK = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]\p{P}*\Z")


def plain(text: str) -> str:
    """`text` without the markup that readers see but listeners must not hear.

    Links keep their text, and addresses keep the host, never a password. Headings, list items and table rows become sentences, and so do
    paragraphs in HTML. Scripts, styles and a model's thoughts (`<think>`) are dropped. Formulas in LaTeX become plain signs. Code stays as written, and
    so do marks that are no markup, as in `2 * 3` or `a_b`. Emoji, arrows and boxes are dropped.
    """
    text = without_latex(_ALIAS.sub(r"\2", text))
    if "<" in text:
        text = _ENDS_SENTENCE.sub(f"{_ENDED}\n", _without_unheard(text.replace(_ENDED, "")))
        text = _TAG.sub("", _LINE_TAG.sub("\n", text))
        text = _ENDED_LINE.sub(lambda m: _sentence(m[1].rstrip()), text)
    text = html.unescape(text) if "&" in text else text
    text = _REFERENCE.sub(r"\1", _FOOTNOTE.sub("", _BOX.sub(r"\1", text)))
    text = _ADDRESS.sub(lambda m: m[1] + m[2][len(m[2].rstrip(".,;:!?)]")) :], _LINK.sub(r"\1", text))
    for pattern in (_FENCE, _RULE, _ROW_RULE):
        text = pattern.sub("", text)
    text = _ROW.sub(lambda m: _sentence(", ".join(cell for c in m[1].split("|") if (cell := c.strip()))), text)
    text = _ITEM.sub(lambda m: _sentence(m[1].rstrip("#").rstrip() or m[1]), _QUOTE.sub("", text))
    if len(_NUMBERED.findall(text)) > 1:
        text = _NUMBERED.sub(lambda m: _sentence(f"{m[1]}, {m[2]}"), text)
    text = _CODE.sub(r"\2", text)
    for pattern in (_STRONG, _STRONG, _UNDERLINED):  # twice: they may be nested
        text = pattern.sub(r"\2", text)
    return regex.sub(r"(?<=\S)[ \t]{2,}(?=\S)", " ", _EMOJI.sub(" ", text)) if _EMOJI.search(text) else text


def _without_unheard(text: str) -> str:
    """`text` without scripts, styles and thoughts. One that does not end stays: its tag alone is dropped later."""
    kept, at, endless = [], 0, set()
    for begin in _UNHEARD.finditer(text):
        name = begin[1].lower()
        if begin.start() < at or name in endless:
            continue
        end = regex.compile(rf"</{name}\s*+>", regex.IGNORECASE).search(text, begin.end())
        if end is None:
            endless.add(name)
        else:
            kept.append(text[at : begin.start()])
            at = end.end()
    return "".join([*kept, text[at:]])


def _sentence(line: str) -> str:
    if not line or _FULL_STOP.search(line):
        return line
    return line + ("。" if _CJK.search(line) else ".")
