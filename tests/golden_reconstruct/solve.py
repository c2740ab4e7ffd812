"""Writes solve.safetensors: a 3x3 convolution and a linear layer that are solved anew for what their outputs lack, by torch's
least squares in f64 on explicit rows, not by normal equations.

    python tests/golden_reconstruct/solve.py

The ridge is the strength times the mean of the diagonal of the normal matrix without the bias, and does not touch the bias.
Made with torch 2.11.0 and safetensors 0.8.0.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

STRENGTHS = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]


def rows(x, kernel):
    """[b, c, h, w] or tokens [b, n, c] -> [positions, c * kernel^2 + 1]."""
    if x.dim() == 3:
        flat = x.reshape(-1, x.shape[2])
    else:
        flat = torch.nn.functional.unfold(x, kernel, padding=kernel // 2).transpose(1, 2).reshape(-1, x.shape[1] * kernel**2)
    return torch.cat([flat, torch.ones(len(flat), 1, dtype=flat.dtype)], 1)


def targets(e):
    return e.reshape(-1, e.shape[2]) if e.dim() == 3 else e.permute(0, 2, 3, 1).reshape(-1, e.shape[1])


def case(name, kernel, shape, outputs, generator):
    normal = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)
    tokens = len(shape) == 3
    channels = shape[2] if tokens else shape[1]
    out = (shape[0], shape[1], outputs) if tokens else (shape[0], outputs, *shape[2:])
    weight = normal(outputs, channels) if tokens else normal(outputs, channels, kernel, kernel)
    bias = normal(outputs)
    # What is lacking follows from the features up to noise, so that a change helps on the held-out points too.
    truth = normal(channels * kernel**2 + 1, outputs) * 0.3
    found = {f"{name}.weight": weight, f"{name}.bias": bias}
    solved = {}
    for part in ["fitted", "held"]:
        x = normal(*shape)
        e = rows(x, kernel) @ truth + 0.7 * normal(rows(x, kernel).shape[0], outputs)
        e = e.reshape(out) if tokens else e.reshape(shape[0], *shape[2:], outputs).permute(0, 3, 1, 2).contiguous()
        found |= {f"{name}.{part}.features": x, f"{name}.{part}.lack": e}
        solved[part] = (rows(x, kernel), targets(e))
    z, e = solved["fitted"]
    mean = (z[:, :-1] ** 2).sum() / (z.shape[1] - 1)
    best = None
    for strength in STRENGTHS:
        ridge = torch.eye(z.shape[1], dtype=z.dtype)[:-1] * (strength * mean).sqrt()
        both = torch.cat([z, ridge]), torch.cat([e, torch.zeros(len(ridge), outputs, dtype=e.dtype)])
        change = torch.linalg.lstsq(*both).solution
        left = ((solved["held"][0] @ change - solved["held"][1]) ** 2).mean()
        if best is None or left < best[0]:
            best = (left, strength, change)
    left, strength, change = best
    found[f"{name}.expected.weight"] = weight + change[:-1].T.reshape(weight.shape)
    found[f"{name}.expected.bias"] = bias + change[-1]
    found[f"{name}.expected.errors"] = torch.stack([(solved["held"][1] ** 2).mean(), left, torch.tensor(strength, dtype=left.dtype)])
    return found


generator = torch.Generator().manual_seed(15)
tensors = case("conv", 3, (2, 3, 6, 5), 4, generator)
tensors |= case("linear", 1, (2, 11, 6), 5, generator)
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, Path(__file__).parent / "solve.safetensors")
print({name: tensor.tolist() for name, tensor in tensors.items() if name.endswith("errors")})
