"""The other side of `cargo bench --bench unet`: torch 2.11.0 with diffusers 0.42.1, and OpenVINO 2026.4.1.

make   saves a U-Net of the real shape with random weights, as diffusers does, and the inputs that both sides take
run    times its passes: prints {"seconds": fastest, "peak_bytes": of this process}, writes `prediction`
"""

import json
import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

import side

# The configurations of runwayml/stable-diffusion-v1-5 and stabilityai/stable-diffusion-xl-base-1.0.
CONFIGS = {
    "sd15": dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
    "sdxl": dict(
        sample_size=128,
        cross_attention_dim=2048,
        attention_head_dim=(5, 10, 20),
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
}


def make(folder, family):
    torch.manual_seed(0)
    UNet2DConditionModel(**CONFIGS[family]).save_pretrained(folder / "unet")


def inputs(config, batch, size):
    generator = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(shape, generator=generator)
    tensors = dict(
        sample=normal(batch, config.in_channels, size, size),
        timestep=torch.linspace(10, 900, batch).long(),
        encoder_hidden_states=normal(batch, 77, config.cross_attention_dim),
        target=normal(batch, config.out_channels, size, size),
    )
    if config.addition_embed_type == "text_time":
        tensors["time_ids"] = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]]).repeat(batch, 1)
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        tensors["text_embeds"] = normal(batch, width)
    return tensors


def peak_bytes():
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def openvino_of(unet, given, extra):
    """The U-Net as OpenVINO compiles it for the processor, which computes in the type asked for."""
    import openvino

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = unet

        def forward(self, sample, timestep, encoder_hidden_states, *extras):
            added = dict(zip(extra, extras))
            return self.unet(sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False)[0]

    values = [given[name] for name in ("sample", "timestep", "encoder_hidden_states")] + list(extra.values())
    with torch.no_grad():
        converted = openvino.convert_model(Plain(), example_input=tuple(values), input=[list(v.shape) for v in values])
    precision = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[arguments.dtype]
    settings = dict(INFERENCE_PRECISION_HINT=precision, INFERENCE_NUM_THREADS=arguments.threads, PERFORMANCE_HINT="LATENCY")
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda: torch.from_numpy(compiled([v.numpy() for v in values])[0])


def run(arguments):
    dtype = arguments.dtype
    # Weights are trained in f32 on both sides, whatever flows.
    stored = dtype if arguments.passes == "forward" and arguments.engine != "openvino" else torch.float32
    unet = UNet2DConditionModel.from_pretrained(arguments.folder, subfolder="unet", torch_dtype=stored).to(DEVICE)
    file = arguments.folder / f"inputs-{arguments.batch}-{arguments.size}.safetensors"
    save_file(inputs(unet.config, arguments.batch, arguments.size), file)
    given = {name: tensor.to(DEVICE) for name, tensor in load_file(file).items()}
    flowing = stored if arguments.engine == "openvino" else dtype
    given = {name: t.to(flowing) if t.is_floating_point() else t for name, t in given.items()}
    extra = {name: given[name] for name in ("time_ids", "text_embeds") if name in given}
    model = torch.compile(unet) if arguments.engine == "compile" else unet
    openvino = openvino_of(unet, given, extra) if arguments.engine == "openvino" else None

    def predict():
        states = given["encoder_hidden_states"]
        with torch.autocast(DEVICE.type, dtype, enabled=stored != dtype):
            return model(given["sample"], given["timestep"], states, added_cond_kwargs=extra).sample

    if arguments.passes == "training":
        optimiser = torch.optim.AdamW(unet.parameters(), lr=1e-5, fused=True)

    def call():
        if openvino:
            return openvino()
        if arguments.passes == "forward":
            with torch.no_grad():
                return predict()
        for parameter in unet.parameters():
            parameter.grad = None
        prediction = predict()
        torch.nn.functional.mse_loss(prediction.float(), given["target"].float()).backward()
        if arguments.passes == "training":
            optimiser.step()
        return prediction

    prediction = call()
    save_file({"prediction": prediction.detach().float().cpu()}, arguments.folder / f"{arguments.engine}.safetensors")
    seconds = float("inf")
    for _ in range(arguments.turns):
        side.synchronise(DEVICE)
        begun = time.perf_counter()
        call()
        side.synchronise(DEVICE)
        seconds = min(seconds, time.perf_counter() - begun)
    print(json.dumps(dict(seconds=seconds, peak_bytes=peak_bytes())))


arguments = side.arguments()
arguments.add_argument("--make")
arguments.add_argument("--folder", type=Path, required=True)
arguments.add_argument("--passes")
arguments.add_argument("--batch", type=int)
arguments.add_argument("--size", type=int)
arguments.add_argument("--turns", type=int)
arguments.add_argument("--engine", choices=["torch", "compile", "openvino"], default="torch")
arguments = arguments.parse_args()
torch.set_num_threads(arguments.threads)
DEVICE = arguments.device
if arguments.make:
    make(arguments.folder, arguments.make)
else:
    run(arguments)
