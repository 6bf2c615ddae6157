"""Removes markup before speech: Markdown, HTML, emoji."""

from __future__ import annotations

import html

import regex

_TAGS = (
    "a abbr b blockquote body br code del div em font h1 h2 h3 h4 h5 h6 hr html i img li mark ol p pre q s small span strong sub sup table "
    "tbody td th thead tr u ul speak prosody emphasis phoneme say-as voice lang w audio mstts:express-as"
).replace(" ", "|")
_ALIAS = regex.compile(r"""<sub\b[^<>]{0,200}?\balias=(["'])([^<>"']{0,200})\1[^<>]{0,200}>[^<>]{0,200}</sub\s*+>""", regex.IGNORECASE)
_LINE_TAG = regex.compile(r"</?(?:p|br|div|li|h[1-6]|tr|hr|blockquote|ul|ol|table)\b[^<>]*>", regex.IGNORECASE)
_TAG = regex.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>|<!--[^<>]*+>", regex.IGNORECASE)
_FENCE = regex.compile(r"^[ \t]*+(?:```|~~~).*$", regex.MULTILINE)
_LINK = regex.compile(r"!?\[([^\[\]\n]*+)\]\((?:[^()\n]|\([^()\n]*+\))*+\)")
_ADDRESS = regex.compile(r"<?\bhttps?://(?:www\.)?([^\s/<>()?#]++)([^\s<>]*+)>?")
_RULE = regex.compile(r"^[ \t]*(?:(?:\*[ \t]*+){3,}|(?:-[ \t]*+){3,}|(?:_[ \t]*+){3,}|={3,})$", regex.MULTILINE)
_ROW_RULE = regex.compile(r"^[ \t]*+\|?(?:[ \t]*+:?-++:?[ \t]*+\|)++[ \t]*+(?::?-++:?[ \t]*+)?$", regex.MULTILINE)
_ROW = regex.compile(r"^[ \t]*\|(.+)\|[ \t]*$", regex.MULTILINE)
_ITEM = regex.compile(r"^[ \t]*+(?:#{1,6}|[-*+•‣])[ \t]++(\S.*)$", regex.MULTILINE)
_QUOTE = regex.compile(r"^(?:[ \t]*>)+[ \t]?", regex.MULTILINE)
_CODE = regex.compile(r"(?<!`)(`{1,3}+)([^`\n]++)\1(?!`)")
_STRONG = regex.compile(r"(?<![\w*~])(\*{1,3}|~~)(?=[^\s*~])([^*~\n]{0,500}[^\s*~])\1(?![\w*~])")
_UNDERLINED = regex.compile(r"(?<![\w_])(_{1,3})(?=[^\s_])([^\n]{0,200}?[^\s_])\1(?![\w_])")
_EMOJI = regex.compile(
    r"(?:[0-9#*]\ufe0f?\u20e3|[\p{Extended_Pictographic}--[©®™]][\ufe0e\ufe0f]?|\p{RI}|\p{Emoji_Modifier}|[\U000e0020-\U000e007f]|(?<=[^\p{L}\p{M}])\u200d|\ufe0f)+",
    regex.V1,
)
_FULL_STOP = regex.compile(r"""[\p{Sentence_Break=STerm}\p{Sentence_Break=ATerm}…:;,،、，：；][\p{Pe}\p{Pf}"']*\Z""")
_CJK = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]\p{P}*\Z")


def plain(text: str) -> str:
    """`text` without the markup that readers see but listeners must not hear.

    Links keep their text, and addresses keep the host. Headings, list items and table rows become sentences. Code stays as
    written, and so do marks that are no markup, as in `2 * 3` or `a_b`. Emoji are dropped.
    """
    text = _ALIAS.sub(r"\2", text)
    text = _TAG.sub("", _LINE_TAG.sub("\n", text)) if "<" in text else text
    text = html.unescape(text) if "&" in text else text
    text = _ADDRESS.sub(lambda m: m[1] + m[2][len(m[2].rstrip(".,;:!?)]")) :], _LINK.sub(r"\1", text))
    for pattern in (_FENCE, _RULE, _ROW_RULE):
        text = pattern.sub("", text)
    text = _ROW.sub(lambda m: _sentence(", ".join(cell for c in m[1].split("|") if (cell := c.strip()))), text)
    text = _ITEM.sub(lambda m: _sentence(m[1].rstrip("#").rstrip() or m[1]), _QUOTE.sub("", text))
    text = _CODE.sub(r"\2", text)
    for pattern in (_STRONG, _STRONG, _UNDERLINED):  # twice: they may be nested
        text = pattern.sub(r"\2", text)
    return regex.sub(r"(?<=\S)[ \t]{2,}(?=\S)", " ", _EMOJI.sub(" ", text)) if _EMOJI.search(text) else text


def _sentence(line: str) -> str:
    if not line or _FULL_STOP.search(line):
        return line
    return line + ("。" if _CJK.search(line) else ".")
