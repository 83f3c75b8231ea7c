"""Write tokens.jsonl: hostile texts as ``transformers``' BertTokenizer reads them, for both of our tokenizers.

    python tests/golden/make_tokens.py

``vocab.txt`` is a part of the vocabulary of bert-base-uncased: its characters, its 1,200 commonest words, and its
pieces of one or two characters.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import BertTokenizer

FOLDER = Path(__file__).parent
TEXTS = [
    "a gripping, beautifully shot film",
    "",
    "   ",
    "\t\n\r\x0b\x0c",
    "Hello, World! It's 3.14 o'clock... isn't it?",
    "UPPER lower MiXeD",
    "café naïve résumé Ångström ÀÉÎÕÜ ñ ç",
    "cafe\u0301 with a combining accent, and a\u0300\u0301\u0302\u0303 pile",
    "İstanbul ıI ß ẞ ŉ ǅ ﬁ ﬀ",
    "ΑΣ ΌΣΟΣ σς Σ",
    "中文字符 and 日本語 ひらがな カタカナ 한국어",
    "中a文b",
    "𠀀𠀁 𪜀 丽 beyond sixteen bits",
    "emoji 😀😀 👩‍👩‍👧 🇩🇪 ✌🏽",
    "a\u200bzero\u200dwidth\ufeffjoined\u00adsoft",
    "\u202eright to left\u202c \u2066isolate\u2069",
    "nul\x00char \ufffd replacement \x7f \x1b[31m",
    "non\u00a0breaking\u2003em\u3000ideographic\u2028line\u2029paragraph\u0085next",
    "[CLS] [SEP] [MASK] [PAD] [UNK] inside",
    "a[SEP]b [sep] [ SEP ] [[MASK]]",
    "##ing un##able ## #",
    "x" * 100,
    "x" * 101,
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "العربية עברית हिन्दी ไทย Ελληνικά русский",
    "¿Qué? «guillemets» “quotes” — dash… ‰ § ¶ † ‡",
    "$ + < = > ^ ` | ~ @ # % & * _ - / \\ { }",
    "© ® ™ ° ± × ÷ ½ ² ³ € £ ¥ ₿",
    "http://example.com/a?b=c&d=e#f user@example.org",
    "1,234,567.89 1e-5 0x1F ١٢٣ Ⅻ ①",
    "tab\tseparated\nand\r\nlines",
    "\u0300 alone, \u20d7 and \u0e31",
    "ｆｕｌｌｗｉｄｔｈ ＡＢＣ １２３",
    "\U0001d400\U0001d401 \U00010400 \U0001f1e6",
    "the the the " * 60,
    "a.b.c.d.e.f!?!?",
]
PAIRS = [
    ("the first text", "and the second", 16),
    ("the first text is much longer than the second one is", "short", 10),
    ("short", "the second text is much longer than the first one is", 10),
    ("one two three four five six", "one two three four five six", 9),
    ("one two three four five six", "one two three four five six", 10),
    ("not empty", "", 12),
    ("", "", 12),
    ("[SEP] a", "b [CLS]", 12),
]


def main() -> None:
    """Write the file."""
    tokenizer = BertTokenizer(vocab=str(FOLDER / "vocab.txt"), do_lower_case=True)
    rows = [(text, None, length) for text in TEXTS for length in (512, 8)]
    rows += [*PAIRS, *((text, other, 512) for text, other in zip(TEXTS, reversed(TEXTS), strict=True))]
    with (FOLDER / "tokens.jsonl").open("w", encoding="utf-8") as file:
        for text, pair, length in rows:
            encoded = tokenizer([text], None if pair is None else [pair], truncation=True, max_length=length)
            row = {"text": text, "pair": pair, "max_length": length}
            row |= {"ids": encoded["input_ids"][0], "types": encoded["token_type_ids"][0]}
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
