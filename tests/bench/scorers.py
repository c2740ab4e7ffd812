"""One side of the benchmark of scorers: a CLIP looks at pictures.

    python scorers.py --make SHAPE --folder FOLDER        writes a CLIPModel with random weights and prepared pictures
    python scorers.py --folder FOLDER --package NAME      measures transformers or open_clip

SHAPE is ViT-H-14 or ViT-L-14. The text tower has one layer, because only pictures are measured. OpenCLIP has weights of its
own: its time is measured, and its features are compared with nothing.
"""

import json
import time
from pathlib import Path

import side
import torch
from safetensors.torch import load_file, save_file

VISION = {
    "ViT-H-14": dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, hidden_act="gelu"),
    "ViT-L-14": dict(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, hidden_act="quick_gelu"
    ),
}
PROJECTION = {"ViT-H-14": 1024, "ViT-L-14": 768}


def make(shape, folder, pictures):
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(1)
    text = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4)
    vision = dict(VISION[shape], image_size=224, patch_size=14)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION[shape])).eval()
    # Norms and biases too; such weights keep the states of all layers in the range of trained ones.
    for parameter in model.parameters():
        one = 1.0 if parameter.dim() == 1 and float(parameter.detach().mean()) > 0.5 else 0.0
        parameter.data = one + torch.randn(parameter.shape) * 0.02
    model.save_pretrained(folder)
    save_file({"pictures": torch.randn(pictures, 3, 224, 224)}, folder / "pictures.safetensors")
    (folder / "shape.json").write_text(json.dumps(shape))


def network(package, folder, dtype, device):
    if package == "open_clip":
        import open_clip

        shape = json.loads((folder / "shape.json").read_text())
        model = open_clip.create_model(shape, pretrained=None).to(device, dtype).eval()
        return model.encode_image
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(folder, dtype=dtype).to(device).eval()

    def features(pictures):
        found = model.get_image_features(pixel_values=pictures)
        return found if isinstance(found, torch.Tensor) else found.pooler_output

    return features


def main():
    parser = side.arguments()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--make", choices=VISION)
    parser.add_argument("--package", choices=["transformers", "open_clip"])
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--turns", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.make:
        return make(given.make, given.folder, given.pictures)
    features = network(given.package, given.folder, given.dtype, given.device)
    pictures = load_file(given.folder / "pictures.safetensors")["pictures"].to(given.device, given.dtype)
    with torch.inference_mode():
        found = features(pictures)
        best = float("inf")
        for _ in range(given.turns):
            side.synchronise(given.device)
            begun = time.perf_counter()
            features(pictures)
            side.synchronise(given.device)
            best = min(best, time.perf_counter() - begun)
    if given.package == "transformers":
        save_file({"features": found.float().cpu().contiguous()}, given.folder / "torch.safetensors")
    print(json.dumps({"seconds": best}))


main()
