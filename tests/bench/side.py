"""What both scripts share: the arguments that `side.rs` gives, and what they settle."""

import argparse

import torch


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--dtype", type=dtype, default="f32")
    return parser


def dtype(name):
    return {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[name]


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()
