"""Reference embeddings of a tiny CLIP, from the formulas of the paper in numpy: independent of candle.

    python3 -m venv venv && venv/bin/pip install numpy pillow && venv/bin/python models/tests/clip/golden.py > models/tests/clip/golden.json

The weights come from a formula that models/tests/clip.rs has too, so no weights are stored. Pictures are scaled by
Pillow, as the published preprocessing does.
"""
import json
import numpy as np
from PIL import Image

TEXT = dict(vocab=60, hidden=16, inner=32, layers=2, heads=2, positions=12)
VISION = dict(hidden=24, inner=40, layers=2, heads=3, size=32, patch=16)
PROJECTION = 8
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711])


def shapes():
    found = {}

    def tower(name, c):
        h, i = c["hidden"], c["inner"]
        for n in range(c["layers"]):
            layer = f"{name}.encoder.layers.{n}"
            for proj in ("q", "k", "v", "out"):
                found[f"{layer}.self_attn.{proj}_proj.weight"] = (h, h)
                found[f"{layer}.self_attn.{proj}_proj.bias"] = (h,)
            found[f"{layer}.mlp.fc1.weight"], found[f"{layer}.mlp.fc1.bias"] = (i, h), (i,)
            found[f"{layer}.mlp.fc2.weight"], found[f"{layer}.mlp.fc2.bias"] = (h, i), (h,)
            for norm in ("layer_norm1", "layer_norm2"):
                found[f"{layer}.{norm}.weight"] = found[f"{layer}.{norm}.bias"] = (h,)

    tower("text_model", TEXT)
    tower("vision_model", VISION)
    t, v = TEXT["hidden"], VISION["hidden"]
    patches = (VISION["size"] // VISION["patch"]) ** 2
    found["text_model.embeddings.token_embedding.weight"] = (TEXT["vocab"], t)
    found["text_model.embeddings.position_embedding.weight"] = (TEXT["positions"], t)
    found["text_model.final_layer_norm.weight"] = found["text_model.final_layer_norm.bias"] = (t,)
    found["vision_model.embeddings.class_embedding"] = (v,)
    found["vision_model.embeddings.patch_embedding.weight"] = (v, 3, VISION["patch"], VISION["patch"])
    found["vision_model.embeddings.position_embedding.weight"] = (patches + 1, v)
    for norm in ("pre_layrnorm", "post_layernorm"):
        found[f"vision_model.{norm}.weight"] = found[f"vision_model.{norm}.bias"] = (v,)
    found["text_projection.weight"] = (PROJECTION, t)
    found["visual_projection.weight"] = (PROJECTION, v)
    return dict(sorted(found.items()))


def weights():
    made = {}
    for number, (name, shape) in enumerate(shapes().items()):
        i = np.arange(np.prod(shape), dtype=np.uint64)
        u = ((i * 2654435761 + (number + 1) * 40503) % (1 << 32)).astype(np.float64) / (1 << 32) - 0.5
        norm = "norm" in name and name.endswith("weight")
        made[name] = (0.6 * u + (1.0 if norm else 0.0)).reshape(shape)
    return made


W = weights()


def norm(x, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * W[f"{name}.weight"] + W[f"{name}.bias"]


def linear(x, name):
    return x @ W[f"{name}.weight"].T + W[f"{name}.bias"]


def attention(x, name, heads, causal):
    length, hidden = x.shape
    q, k, v = (linear(x, f"{name}.{p}_proj").reshape(length, heads, -1).swapaxes(0, 1) for p in "qkv")
    scores = q @ k.swapaxes(1, 2) / np.sqrt(hidden // heads)
    if causal:
        scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ v
    return linear(mixed.swapaxes(0, 1).reshape(length, hidden), f"{name}.out_proj")


def blocks(x, tower, c, causal):
    for n in range(c["layers"]):
        layer = f"{tower}.encoder.layers.{n}"
        x = x + attention(norm(x, f"{layer}.layer_norm1"), f"{layer}.self_attn", c["heads"], causal)
        inner = linear(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
        x = x + linear(inner / (1 + np.exp(-1.702 * inner)), f"{layer}.mlp.fc2")
    return x


def unit(x):
    return (x / np.linalg.norm(x)).tolist()


def text(ids):
    x = W["text_model.embeddings.token_embedding.weight"][ids]
    x = x + W["text_model.embeddings.position_embedding.weight"][: len(ids)]
    x = norm(blocks(x, "text_model", TEXT, True), "text_model.final_layer_norm")
    return unit(W["text_projection.weight"] @ x[int(np.argmax(ids))])


def picture(width, height):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(x * 5 + y) % 256, (y * 7) % 256, (x * y) % 256], -1).astype(np.uint8)


def image(pixels):
    size, patch = VISION["size"], VISION["patch"]
    height, width = pixels.shape[:2]
    short = min(width, height)
    scaled = Image.fromarray(pixels).resize((width * size // short, height * size // short), Image.BICUBIC)
    left, top = (scaled.width - size) // 2, (scaled.height - size) // 2
    square = np.asarray(scaled.crop((left, top, left + size, top + size))) / 255.0
    square = ((square - MEAN) / DEVIATION).transpose(2, 0, 1)
    n = size // patch
    cut = square.reshape(3, n, patch, n, patch).transpose(1, 3, 0, 2, 4).reshape(n * n, -1)
    kernel = W["vision_model.embeddings.patch_embedding.weight"].reshape(VISION["hidden"], -1)
    x = np.concatenate([W["vision_model.embeddings.class_embedding"][None], cut @ kernel.T])
    x = norm(x + W["vision_model.embeddings.position_embedding.weight"], "vision_model.pre_layrnorm")
    x = blocks(x, "vision_model", VISION, False)
    return unit(W["visual_projection.weight"] @ norm(x[0], "vision_model.post_layernorm"))


print(json.dumps({
    # "pan", "open pan" and a long row of "ab", as the test's tokenizer writes them; the last one is cut to 12 tokens.
    "texts": [{"ids": ids, "embedding": text(ids)} for ids in (
        [58, 15, 0, 39, 59],
        [58, 14, 15, 4, 39, 15, 0, 39, 59],
        [58] + [0, 27] * 5 + [59],
    )],
    "images": [{"width": w, "height": h, "embedding": image(picture(w, h))} for w, h in ((32, 32), (64, 48), (40, 90))],
}, indent=1))
