"""A CLIP-layout BPE tokenizer whose merges make every word of the world one token."""

import json
from collections import Counter

from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def byte_symbols():
    """The printable stand-ins for the 256 bytes, in the order of OpenAI's CLIP vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + n) for n in range(len(rest))]


def learn_merges(words):
    """Byte-pair merges, most frequent pair first, until each word is a single symbol."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in sorted(words)]
    merges = []
    while any(len(piece) > 1 for piece in pieces):
        pairs = Counter(pair for piece in pieces for pair in zip(piece, piece[1:]))
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        pieces = [merge(piece, best) for piece in pieces]
    return merges


def merge(piece, pair):
    merged, i = [], 0
    while i < len(piece):
        if tuple(piece[i : i + 2]) == pair:
            merged.append("".join(pair))
            i += 2
        else:
            merged.append(piece[i])
            i += 1
    return merged


def write_tokenizer(folder, captions):
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges({word for caption in captions for word in caption.split()})
    symbols = byte_symbols()
    vocabulary = [*symbols, *(s + "</w>" for s in symbols), *("".join(pair) for pair in merges), START, END]
    dump(folder / "vocab.json", {token: i for i, token in enumerate(vocabulary)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    dump(folder / "special_tokens_map.json", special)
    dump(
        folder / "tokenizer_config.json",
        {**special, "add_prefix_space": False, "do_lower_case": True, "errors": "replace",
         "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"},
    )
    return CLIPTokenizer.from_pretrained(folder)


def dump(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
