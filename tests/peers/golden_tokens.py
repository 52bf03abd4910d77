#!/usr/bin/env python3
"""Writes the golden token ids of models/tests/golden with llama.cpp's own tokenizer.

    .cache/peers/venv/bin/python tests/peers/golden_tokens.py MODEL.gguf

MODEL.gguf is a model with a `gpt2` vocabulary (SmolLM2-135M-Instruct). Its vocabulary is read out and given back to
llama.cpp once for each splitting rule, so that every rule is compared on a real vocabulary. The `llama` kind is
compared on a small vocabulary that this script makes, and writes beside the ids.
"""

import json
import struct
import sys
import tempfile
from collections import Counter
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[2] / "models" / "tests" / "golden"
RULES = ["smollm", "default", "gpt-2", "llama-bpe", "qwen2", "gpt-4o"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

TEXTS = [
    "", " ", "  ", "\t", "\n", "\n\n", "\n\n\n", "\t\n", " \n ", "a", " a", "a ", "Hello", "Hello world", " Hello  world ",
    "Hello,    world!", "HELLO WORLD", "HeLLoWorLD camelCase snake_case kebab-case", "it's we'll I'D you'RE they've",
    "3", "33", "333", "3333", "33333", "333333", "3.14159, -2e10; 1,234,567.89", "0x1F 0b1010 10% $5 #7",
    "The robot's gripper moved 12.5 cm to the left.\nThen it stopped.", "Line one\r\nLine two\r\n\r\nLine four",
    "    indented\n        twice\n\tby tab", "trailing spaces   \n   leading spaces", "def f(x):\n    return x * 2  # doubled\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }", '{"name": "front", "value": [1, 2.5, null, true]}',
    "<html><body class='x'>&nbsp;</body></html>", "https://example.org/a/b?c=d&e=%20f#g", "user@example.org", "C:\\path\\to\\file",
    "...", "!?!?!?", "--- *** ___ ===", "(a)[b]{c}<d>", "quote \"double\" 'single' `back`", "café naïve über Straße",
    "cafe\u0301 nai\u0308ve", "Привет, мир! Ёж", "Καλημέρα κόσμε", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก",
    "你好,世界。机器人在厨房里。", "こんにちは世界 カタカナ", "안녕하세요 세계", "🙂", "🚀🚀🚀 go 🚀", "👩‍👩‍👧‍👦 👍🏽 🇩🇪", "a\u00a0b\u2003c\u200bd\ufeffe",
    "x\u0000y\u0001z\u007f", "\ue000\uf8ff\U000f0000", "½ ² ₃ Ⅷ ١٢٣ ๔๕", "∑∫√∞ ≤≥≠ →⇒", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "=" * 70, " " * 33 + "x", "word" * 12, "Ünïcödé ÀÉÎÕÜ ŽŠČ ĲĳŒœ", "don’t “quote” – dash — em…", "e=mc^2 ~ 5 | 6 $x$ a+b<c>=d",
]
MARKED = [
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", "a<|endoftext|>b", "<|im_start|><|im_start|>  x",
    "<|im_start|user|>", "<s>one</s><s> two", "<start_of_turn>user\nHi<end_of_turn>\n",
]
TRAINING = """The robot stands in the kitchen. It looks at the table through three cameras and reads the sensors of its gripper.
A cup stands on the table, and beside the cup lies a spoon. The user says: put the cup into the sink. The robot moves
to the left, then it takes the cup and moves 12.5 cm to the right. Hello world, hello robot! What do you see? I see
a red cup, a green plate and the spoon. Der Roboter steht in der Küche. Le robot voit la tasse. Привет, мир! Робот
видит чашку. 你好,世界。机器人在厨房里。 def move(x): return x * 2 <start_of_turn>user model<end_of_turn> <table> </table>"""


def write_gguf(path, metadata):
    """A GGUF file of metadata only; a value's type follows its Python type, lists are of one type."""

    def text(value):
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    def typed(value):
        if isinstance(value, bool):
            return 7, struct.pack("<?", value)
        if isinstance(value, int):
            return 4, struct.pack("<I", value)
        if isinstance(value, float):
            return 6, struct.pack("<f", value)
        if isinstance(value, str):
            return 8, text(value)
        kind = 5 if isinstance(value[0], int) else typed(value[0])[0]
        items = [struct.pack("<i", item) if kind == 5 else typed(item)[1] for item in value]
        return 9, struct.pack("<IQ", kind, len(value)) + b"".join(items)

    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)))
        for key, value in metadata.items():
            kind, data = typed(value)
            file.write(text(key) + struct.pack("<I", kind) + data)
        file.write(b"\0" * 32)


def read_metadata(path):
    with open(path, "rb") as file:
        scalar = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

        def number(code):
            return struct.unpack("<" + code, file.read(struct.calcsize("<" + code)))[0]

        def value(kind):
            if kind == 8:
                return file.read(number("Q")).decode("utf-8", "replace")
            if kind == 9:
                item = number("I")
                return [value(item) for _ in range(number("Q"))]
            return number(scalar[kind])

        assert file.read(4) == b"GGUF", f"{path} is no GGUF file"
        number("I"), number("Q")
        metadata = {}
        for _ in range(number("Q")):
            key = value(8)
            metadata[key] = value(number("I"))
        return metadata


def train(text, joins):
    """Pieces of byte-pair encoding over words that begin with the space mark, the most frequent pair first."""
    words = Counter("\u2581" + word for word in text.split())
    split = {word: list(word) for word in words}
    pieces = sorted({character for word in words for character in word})
    for _ in range(joins):
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(split[word], split[word][1:]):
                pairs[pair] += count
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        pieces.append(left + right)
        for word, parts in split.items():
            index = 0
            while index + 1 < len(parts):
                if (parts[index], parts[index + 1]) == (left, right):
                    parts[index : index + 2] = [left + right]
                index += 1
    return list(dict.fromkeys(pieces))


def llama_vocabulary():
    tokens = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    tokens += [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    tokens += [("<start_of_turn>", CONTROL), ("<end_of_turn>", CONTROL), ("<unused0>", UNUSED)]
    tokens += [(text, USER_DEFINED) for text in ["\n\n", "\n\n\n", "<table>", "  ", "    "]]
    special = len(tokens)
    names = {text for text, _ in tokens}
    tokens += [(piece, NORMAL) for piece in train(TRAINING, 300) if piece not in names]
    scores = [0.0] * special + [-float(index) for index in range(len(tokens) - special)]
    return {"tokens": [text for text, _ in tokens], "types": [kind for _, kind in tokens], "scores": scores}


def ids(metadata, texts, marked):
    from llama_cpp import Llama

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        write_gguf(path, metadata)
        llama = Llama(str(path), vocab_only=True, n_ctx=8, verbose=False)
        return [llama.tokenize(text.encode(), add_bos=False, special=marked) for text in texts]


def both(metadata):
    return {"plain": ids(metadata, TEXTS, False), "marked": ids(metadata, MARKED, True)}


def save(name, value):
    path = GOLDEN / name
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"wrote {path}")


def main():
    model = read_metadata(sys.argv[1])
    kept = {"general.architecture": "llama", "general.name": "golden"}
    kept |= {key: value for key, value in model.items() if key.startswith("tokenizer.ggml.")}
    rules = {rule: both(kept | {"tokenizer.ggml.pre": rule}) for rule in RULES}
    save("tokens_gpt2.json", {"texts": TEXTS, "marked_texts": MARKED, "rules": rules})

    vocabulary = llama_vocabulary()
    base = {"general.architecture": "llama", "general.name": "golden", "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.tokens": vocabulary["tokens"], "tokenizer.ggml.scores": vocabulary["scores"],
            "tokenizer.ggml.token_type": vocabulary["types"], "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0}
    prefixed = {name: both(base | {"tokenizer.ggml.add_space_prefix": prefix})
                for name, prefix in [("space_prefix", True), ("no_space_prefix", False)]}
    save("tokens_llama.json", {"vocabulary": vocabulary, "texts": TEXTS, "marked_texts": MARKED} | prefixed)


if __name__ == "__main__":
    main()
