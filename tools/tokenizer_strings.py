"""Awkward strings for tokenizer tests: seeded, so that every run gives the same ones."""

import random

SPACES = list(" \t\n\x0b\x0c\r\x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000")
NOT_QUITE_SPACES = list("\x1c\x1f\u180e\u200b\u200c\u200d\u2060\ufeff")
DIGITS = list("0123456789٠١٢٣٤٥٦٧٨٩०१२३４５６²³¹½¾ⅣⅫ①⑳一〇𝟘𝟙𝟡፩")
CONTRACTIONS = "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'Ve 'M 'lL 'D 'ſ ’s ' '' 'x 'sx 'r 'l 'v".split()
EMOJI = "😀 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 1️⃣ ❤️ 😶‍🌫️ 🧑🏿‍🚀 ☕ ✅ 🦙 🫠 🏴󠁧󠁢󠁥󠁮󠁧󠁿".split()
SCRIPTS = {
    "hebrew": "שלום עולם",
    "arabic": "مرحبا بالعالم، كيف الحال؟",
    "greek": "Καλημέρα κόσμε",
    "cyrillic": "нещо на Български",
    "han": "我想在苹果工作",
    "kana": "こんにちは、カタカナ",
    "hangul": "안녕하세요 세계",
    "jamo": "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "thai": "สวัสดีชาวโลก",
    "devanagari": "नमस्ते दुनिया",
    "khmer": "កាន់តែពិសេសអាច",
    "viet": "Cửa Việt",
    "tamil": "வணக்கம்",
    "ethiopic": "ሰላም ልዑል",
    "georgian": "გამარჯობა",
    "armenian": "Բարեւ",
    "decomposed": "e\u0301a\u030aö",
    "math": "𝒜𝓑ℂ ∀x∈ℝ: ⌈x⌉ ≤ x+1",
    "old": "𐎠𐎼𐎡 𓀀𓂀 𒀀𒁀",
    "zalgo": "z\u0351\u036b\u0343a\u0334\u0350l\u0317g\u031bo",
}
WORDS = """
the of and to in is you that it he was for on are as with his they at be this have from or one had
by word but not what all were we when your can said there use an each which she do how their if will
up other about out many then them these so some her would make like him into time has look two more
write go see number no way could people my than first water been call who oil its now find long down
speculation antidisestablishmentarianism xylophone GPU HTTPServer camelCase snake_case naïve Größe
""".split()
CODE = [
    "for (int i = 0; i < n; ++i) {\n\tsum += x[i];\n}\n", "def f(x):\n    return x**2  # ok\n\n\n",
    "SELECT * FROM t WHERE a <> 'b';", '<div class="a">&nbsp;</div>',
    "std::vector<std::pair<int,int>>", "if __name__ == '__main__':\r\n    main()\r\n",
    "#include <vector>\n\n", "a=b+c;//d", '{"k": [1, 2.5e-3, null]}', "$x = @{ a=1 }; `echo`",
    "\\frac{1}{2} \\alpha_{i}^{2}", "~/.bashrc 2>&1 | grep -v '^#'", "x->y.z()!==w??v",
    "https://example.com/a?b=c&d=%20#e", "user@example.org", "0xDEADBEEF 1_000_000 3.14159",
    "```py\nx\n```"
]


def sentence(rng: random.Random) -> str:
    words = [rng.choice(WORDS) for _ in range(rng.randint(2, 6))]
    text = words[0].capitalize()
    for word in words[1:]:
        text += (rng.choice([" ", " ", " ", " ", ", ", " - ", "; "]) + word +
                 (rng.choice(CONTRACTIONS) if rng.random() < 0.1 else ""))
    return text + rng.choice([".", "!", "?", "...", "", "\n"])


def code_points(rng: random.Random, low: int, high: int, count: int) -> str:
    out = []
    while len(out) < count:
        c = rng.randint(low, high)
        if not 0xD800 <= c < 0xE000:
            out.append(chr(c))
    return "".join(out)


def white_space(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.randint(1, 4)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(
                rng.choice([" ", "\t", "\n", "\r\n", "\u00a0", "\u3000"]) * rng.randint(1, 6))
        elif kind < 0.6:
            parts.append("".join(rng.choice(SPACES) for _ in range(rng.randint(1, 4))))
        elif kind < 0.7:
            parts.append(rng.choice(NOT_QUITE_SPACES))
        else:
            parts.append(rng.choice(WORDS + ["1", "23", "!", "(", "é", "中", "'s"]))
    return "".join(parts)


def mixture(rng: random.Random) -> str:
    pools = [
        lambda: rng.choice(WORDS), lambda: rng.choice(SPACES), lambda: rng.choice(DIGITS),
        lambda: rng.choice(EMOJI), lambda: rng.choice(CONTRACTIONS),
        lambda: chr(rng.randint(33, 126)), lambda: rng.choice(rng.choice(list(SCRIPTS.values()))),
        lambda: " "
    ]
    return "".join(rng.choice(pools)() for _ in range(rng.randint(2, 10)))


def raw_bytes(rng: random.Random) -> bytes:
    """Mostly wrong UTF-8: cut, overlong, surrogate, stray."""
    parts = [
        b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80",
        b"\x80", b"\xe0\x80\xaf", b"\xf0\x80\x80\x80", b"\xc3", b"a", b" ", b"\n", "é".encode(),
        "😀".encode(), b"7", b"\xf8\x88\x80\x80\x80", b"\xed\xbf\xbf"
    ]
    if rng.random() < 0.3:
        return bytes(rng.randrange(256) for _ in range(rng.randint(1, 10)))
    return b"".join(rng.choice(parts) for _ in range(rng.randint(1, 6)))


def special_text(rng: random.Random, specials: list[str]) -> str:

    def part() -> str:
        kind = rng.random()
        token = rng.choice(specials)
        if kind < 0.5:
            return token
        if kind < 0.65:
            cut = rng.randint(1, len(token) - 1)
            return rng.choice([token[:cut], token[cut:]])
        return rng.choice(
            [" ", "\n", "a", "user", "Hi there", "<", "<|", "|>", "  ",
             token.upper(), "1"])

    return "".join(part() for _ in range(rng.randint(1, 4)))


FIXED = [
    "", " ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", " \n", "\n ", "a ", "a  ", " a", "  a",
    "a\n", "a \n", "a  \n  b", "a\r\n\r\nb", "\t\tx", " \t x", "\u3000x", "x\u3000", "\u00a0 x",
    "\u00a0\u00a0", "x \u00a0y", "0", "00", "000", "0000", "12345678", " 1", "  1", "1 ", "a1b2",
    "1.5", "١٢٣", "１２３４", "½x", "x²", "I'm", "I'M", "it's", "IT'S", "we'll", "WE'LL", "they'Re",
    "'tis", "''s", " 's", "1's", "!'s", "don''t", "\u0000", "a\u0000b", "\u0001\u0002", "\u007f",
    "\u0080\u0085\u009f", "\ufffd", "\ufeffx", "\ufffe\uffff", "\U0010ffff", "\U000e0001",
    "\u0378\u0379", "\ue000", "▁", "▁▁x", " ▁", "Ġ", "Ċ", "aaaa" * 12, "=" * 40, " " * 70,
    "\n" * 20, "ab" * 30, "ſ", "'ſ", "ﬁ", "İi", "ß", "Ǆǅǆ", "ªº", "ʰˢ", "_a_b", "a_b", "...",
    "!?!?", "-----", "$5", "€5", "5%", "^^", "a+b=c", "<>", "|", "`x`", "©®", "→x", " →",
    "\U0001f1e9\U0001f1ea"
]


def strings(seed: int, count: int, specials: list[str]) -> list[bytes]:
    """`count` different byte strings; the fixed ones first."""
    rng = random.Random(seed)
    makers = [
        lambda: sentence(rng), lambda: white_space(rng), lambda: white_space(rng),
        lambda: mixture(rng), lambda: mixture(rng),
        lambda: "".join(rng.choice(DIGITS) for _ in range(rng.randint(1, 9))),
        lambda: rng.choice(WORDS) + rng.choice(CONTRACTIONS) + rng.choice(["", " ", "x", "1"]),
        lambda: "".join(rng.choice(EMOJI) for _ in range(rng.randint(1, 3))),
        lambda: rng.choice(list(SCRIPTS.values()))[rng.randint(0, 3):][:rng.randint(1, 12)],
        lambda: rng.choice(CODE)[rng.randint(0, 8):][:rng.randint(3, 40)],
        lambda: code_points(rng, 0, 0x24F, rng.randint(1, 6)),
        lambda: code_points(rng, 0, 0xFFFF, rng.randint(1, 4)),
        lambda: code_points(rng, 0x10000, 0x1FFFF, rng.randint(1, 3)),
        lambda: "a" + code_points(rng, 0x300, 0x36F, rng.randint(1, 4)),
        lambda: code_points(rng, 0x1100, 0x11FF, rng.randint(1, 4)),
        lambda: code_points(rng, 0x4E00, 0x9FFF, rng.randint(1, 5)),
        lambda: rng.choice("x 1") + code_points(rng, 0x20000, 0x10FFFF, 1) + rng.choice("x 1"),
        lambda: raw_bytes(rng), lambda: special_text(rng, specials)
    ]
    seen: dict[bytes, None] = {}
    for text in FIXED + list(SCRIPTS.values()) + CODE + EMOJI + specials[:20]:
        seen.setdefault(text.encode())
    while len(seen) < count:
        text = rng.choice(makers)()
        seen.setdefault(text if isinstance(text, bytes) else text.encode())
    return list(seen)[:count]
