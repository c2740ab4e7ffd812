"""torch's side of `cargo bench --bench layers` (torch 2.11.0): reads one job per line, answers in seconds.

A job is {"layer": {...}, "pass": "forward" | "training", "repeats": n}: the time of one call, over n calls.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

import side


def parameters(*shapes):
    return [torch.randn(shape, device=DEVICE, dtype=DTYPE) for shape in shapes]


def conv2d(batch, input, output, size, kernel, stride, upsampled):
    def run(x, w, b):
        if upsampled:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.conv2d(x, w, b, stride, kernel // 2)

    return run, parameters((batch, input, size, size), (output, input, kernel, kernel), (output,))


def linear(rows, input, output):
    return F.linear, parameters((rows, input), (output, input), (output,))


def group_norm(batch, channels, size, silu):
    def run(x, w, b):
        y = F.group_norm(x, 32, w, b, 1e-5)
        return F.silu(y) if silu else y

    return run, parameters((batch, channels, size, size), (channels,), (channels,))


def layer_norm(rows, size):
    return lambda x, w, b: F.layer_norm(x, (size,), w, b, 1e-5), parameters((rows, size), (size,), (size,))


def attention(batch, heads, queries, keys, dim):
    def run(q, k, v):
        split = lambda x: x.view(batch, -1, heads, dim).transpose(1, 2)
        y = F.scaled_dot_product_attention(split(q), split(k), split(v))
        return y.transpose(1, 2).reshape(batch, queries, heads * dim)

    return run, parameters((batch, queries, heads * dim), (batch, keys, heads * dim), (batch, keys, heads * dim))


def geglu(rows, width):
    def run(x):
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)

    return run, parameters((rows, 2 * width))


def silu(elements):
    return F.silu, parameters((elements,))


def upsample(batch, channels, size):
    return lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), parameters((batch, channels, size, size))


def adamw(tensors, elements):
    weights = [torch.nn.Parameter(torch.randn(elements, device=DEVICE)) for _ in range(tensors)]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    step = torch.optim.AdamW(weights, lr=1e-5, fused=True).step
    return (lambda: step()), []


def prepare(job):
    layer = dict(job["layer"])
    run, tensors = globals()[layer.pop("kind").replace("-", "_")](**layer)
    if job["pass"] == "forward" or not tensors:
        def call():
            with torch.no_grad():
                run(*tensors)
    else:
        for tensor in tensors:
            tensor.requires_grad_()
        def call():
            for tensor in tensors:
                tensor.grad = None
            y = run(*tensors)
            y.backward(torch.ones_like(y))

    return call


options = side.arguments().parse_args()
torch.set_num_threads(options.threads)
DEVICE, DTYPE = options.device, options.dtype

known, call = None, None
for line in sys.stdin:
    job = json.loads(line)
    if (job["layer"], job["pass"]) != known:
        known, call = (job["layer"], job["pass"]), prepare(job)
        call()
    side.synchronise(DEVICE)
    begun = time.perf_counter()
    for _ in range(job["repeats"]):
        call()
    side.synchronise(DEVICE)
    print((time.perf_counter() - begun) / job["repeats"], flush=True)
