"""Prints the numbers in the test of src/distill/optimiser.rs: AdamW, gradient clipping and EMA of torch and diffusers.

Made with torch 2.11.0 and diffusers 0.42.1; run it with any Python that has them.
"""

import torch
from diffusers.training_utils import EMAModel

a = torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
b = torch.nn.Parameter(torch.tensor([[0.25, 3.0]]))
steps = [
    ([0.1, -0.2, 0.3], [[0.05, 0.4]]),
    ([3.0, 1.0, -2.0], [[0.0, 5.0]]),
    ([-0.3, 0.0, 0.7], [[1.5, -0.25]]),
]
optimiser = torch.optim.AdamW([a, b], lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.05)
average = EMAModel([a, b], decay=0.25)
for gradient_a, gradient_b in steps:
    a.grad, b.grad = torch.tensor(gradient_a), torch.tensor(gradient_b)
    norm = torch.nn.utils.clip_grad_norm_([a, b], max_norm=1.0)
    optimiser.step()
    average.step([a, b])
    print("norm", f"{norm.item():.9f}")
    print("parameters", a.tolist(), b.tolist())
    print("average", [shadow.tolist() for shadow in average.shadow_params])
