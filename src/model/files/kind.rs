//! Files that are often taken for a Stable Diffusion model: what each is, and what to do with it. They are recognised by
//! their first bytes, or by the names of their tensors.

/// A kind of file that is not a model of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) struct Kind {
    /// What the file is, to complete "the file is …".
    pub(in crate::model) what: &'static str,
    /// What to do instead.
    pub(in crate::model) help: &'static str,
}

const fn kind(what: &'static str, help: &'static str) -> Kind {
    Kind { what, help }
}

/// By the first bytes of a file that should be weights.
const BY_BYTES: &[(&[u8], Kind)] = &[
    (
        b"GGUF",
        kind(
            "a GGUF file, which holds quantised weights",
            "quantised weights cannot be pruned or trained: use the safetensors file that it was made from",
        ),
    ),
    (
        crate::base::files::LFS_POINTER,
        kind(
            "a Git-LFS pointer, which stands for a file that was not downloaded",
            "run `git lfs install` and `git lfs pull` in the model's repository, or download the file again",
        ),
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        kind("an HDF5 file", "use the model's safetensors files, which PyTorch's libraries write"),
    ),
    (b"<!DOCTYPE", WEB_PAGE),
    (b"<!doctype", WEB_PAGE),
    (b"<html", WEB_PAGE),
    (b"\x1f\x8b", ARCHIVE),
    (b"7z\xbc\xaf", ARCHIVE),
    (b"Rar!", ARCHIVE),
];

const WEB_PAGE: Kind = kind(
    "a web page",
    "the download was answered with a page, such as a login or a licence: open the address in a browser and download \
     the file itself",
);
const ARCHIVE: Kind = kind("a compressed archive", "unpack it, and give the path of the model inside");

/// By the names of tensors, the most specific first: a file is of a kind if each of its words is part of some name.
const BY_NAMES: &[(&[&str], Kind)] = &[
    (&["lora_up."], LORA),
    (&["lora_A."], LORA),
    (&["lora.up."], LORA),
    (&["lora.down."], LORA),
    (&["lora_linear_layer."], LORA),
    (&["hada_w1"], LORA),
    (&["lokr_w"], LORA),
    (&["oft_blocks"], LORA),
    (
        &["ip_adapter.", "image_proj."],
        kind(
            "an IP-Adapter",
            "give the Stable Diffusion model that it belongs to; adapters are not compressed",
        ),
    ),
    (
        &["motion_modules."],
        kind(
            "a motion module of AnimateDiff",
            "give the Stable Diffusion model that it is used with; models of videos are not supported",
        ),
    ),
    (&["controlnet_cond_embedding."], CONTROLNET),
    (&["control_model."], CONTROLNET),
    (&["zero_convs."], CONTROLNET),
    (&["emb_params"], EMBEDDING),
    (&["double_blocks.", "single_blocks."], kind("a model of the Flux family", NO_UNET)),
    (&["double_blocks.", "img_attn"], kind("a model of the Flux or Hunyuan family", NO_UNET)),
    (&["single_transformer_blocks."], kind("a model of the Flux family", NO_UNET)),
    (&["joint_blocks."], kind("a Stable Diffusion 3 model", NO_UNET)),
    (&["joint_transformer_blocks."], kind("an AuraFlow model", NO_UNET)),
    (
        &["transformer_blocks.", "pos_embed.proj."],
        kind("a transformer such as that of Stable Diffusion 3", NO_UNET),
    ),
    (&["effnet_mapper."], kind("a Stable Cascade model", NO_UNET)),
    (&["clip_txt_pooled_mapper."], kind("a Stable Cascade model", NO_UNET)),
    (&["down_blocks.", "time_embedding.linear_1."], DIFFUSERS_UNET),
    (&["taesd_encoder."], kind("a small autoencoder (TAESD)", AS_VAE)),
    (&["encoder.down_blocks.", "decoder.up_blocks."], kind("an autoencoder", AS_VAE)),
    (&["encoder.down.", "decoder.up."], kind("an autoencoder", AS_VAE)),
    (&["encoder.layers.", "decoder.layers."], kind("an autoencoder", AS_VAE)),
    (
        &["vision_model.", "text_model."],
        kind(
            "a CLIP model",
            "a scorer is given to `scorer`, as a folder; `model` needs a Stable Diffusion model",
        ),
    ),
    (&["text_model.embeddings."], TEXT_ENCODER),
    (&["resblocks.", "token_embedding."], TEXT_ENCODER),
    (&["encoder.block.", "SelfAttention"], TEXT_ENCODER),
    (&["blocks.", "cross_attn."], kind("a transformer without a U-Net", NO_UNET)),
    (&["blocks.", "adaLN_modulation"], kind("a transformer without a U-Net", NO_UNET)),
    (&["model.layers.", "self_attn."], kind("a language model", NO_UNET)),
];

const LORA: Kind = kind(
    "a LoRA",
    "give the Stable Diffusion model that it belongs to; `laptop-diff export --lora` renames a LoRA for an export",
);
const EMBEDDING: Kind = kind(
    "a textual-inversion embedding",
    "give the Stable Diffusion model that it belongs to; to use its words in prompts, add it to the model in diffusers \
     with `load_textual_inversion` and save the whole pipeline",
);
const CONTROLNET: Kind =
    kind("a ControlNet", "give the Stable Diffusion model that it belongs to; adapters are not compressed");
const TEXT_ENCODER: Kind =
    kind("a text encoder", "give the Stable Diffusion model that it belongs to, as one file or a folder");
const DIFFUSERS_UNET: Kind = kind(
    "the weights of a diffusers U-Net without its configuration",
    "give the folder that contains this file and its config.json",
);
const NO_UNET: &str = "only Stable Diffusion 1.x, 2.x and SDXL are supported, whose networks are U-Nets";
const AS_VAE: &str = "give the Stable Diffusion model that it belongs to; to replace its autoencoder, put this one with its \
                      config.json into the folder `vae` of a diffusers model";

/// Widths of the text states of CLIP-L, OpenCLIP-H and OpenCLIP-bigG, which embeddings have.
const TEXT_WIDTHS: [usize; 3] = [768, 1024, 1280];

/// What a file is by its first bytes.
pub(super) fn by_bytes(bytes: &[u8]) -> Option<Kind> {
    BY_BYTES.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| *kind)
}

/// What a file with these tensors is, if it contains none of Stable Diffusion's U-Nets.
pub(in crate::model) fn by_tensors<'a>(tensors: impl Iterator<Item = (&'a str, Vec<usize>)>) -> Option<Kind> {
    let tensors: Vec<_> = tensors.collect();
    let has = |word: &&str| tensors.iter().any(|(name, _)| name.contains(word));
    let named = BY_NAMES.iter().find(|(words, _)| words.iter().all(has)).map(|(_, kind)| *kind);
    // An embedding has no names in common but a shape: a few vectors as wide as the text.
    let vectors = |shape: &[usize]| matches!(shape, [width] | [_, width] if TEXT_WIDTHS.contains(width));
    named.or_else(|| {
        let few = (1..=2).contains(&tensors.len());
        (few && tensors.iter().all(|(_, shape)| vectors(shape))).then_some(EMBEDDING)
    })
}

/// Additions to a network that diffusers stores beside or inside its weights. Each is recognised by a part of a tensor's
/// name; without its code it would be ignored.
const ADDITIONS: &[(&str, &str, &str)] = &[
    ("lora_A.", "a LoRA of peft", FUSE),
    ("lora_B.", "a LoRA of peft", FUSE),
    (".base_layer.", "a LoRA of peft", FUSE),
    ("_lora.", "a LoRA", FUSE),
    ("lora_", "a LoRA", FUSE),
    (".processor.", "an attention processor with weights, such as a LoRA or an IP-Adapter", PLAIN),
    ("to_k_ip.", "an IP-Adapter", PLAIN),
    ("to_v_ip.", "an IP-Adapter", PLAIN),
    ("encoder_hid_proj.", "an IP-Adapter", PLAIN),
    ("scaled_fp8", "8-bit weights with scales", DEQUANTISE),
    (".scale_weight", "8-bit weights with scales", DEQUANTISE),
    (".weight_scale", "8-bit weights with scales", DEQUANTISE),
    (".scale_input", "8-bit weights with scales", DEQUANTISE),
    (".input_scale", "8-bit weights with scales", DEQUANTISE),
    (".absmax", "quantised weights of bitsandbytes", DEQUANTISE),
    (".quant_map", "quantised weights of bitsandbytes", DEQUANTISE),
    (".SCB", "quantised weights of bitsandbytes", DEQUANTISE),
];

const FUSE: &str = "merge it into the weights in diffusers with `fuse_lora()` and `unload_lora_weights()`, and save the model \
                    again; or use the model without it";
const PLAIN: &str =
    "remove it in diffusers with `unload_lora_weights()` or `unload_ip_adapter()`, and save the model again";
const DEQUANTISE: &str =
    "use the model's f32, f16 or bf16 weights; scaled weights without their scales are wrong";

/// The first tensor that belongs to an addition, what the addition is, and what to do.
pub(in crate::model) fn addition<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<(&'a str, Kind)> {
    names.find_map(|name| {
        let row = ADDITIONS.iter().find(|(part, ..)| name.contains(part));
        row.map(|&(_, what, help)| (name, Kind { what, help }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_recognised_by_their_first_bytes() {
        for (bytes, word) in [
            (&b"GGUF\x03\x00\x00\x00"[..], "GGUF"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git-LFS"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"\x1f\x8b\x08\x00", "archive"),
        ] {
            assert!(by_bytes(bytes).expect(word).what.contains(word));
        }
        assert_eq!(by_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{"), None);
    }

    /// Some names of each kind, as the programs that make such files write them.
    #[test]
    fn files_are_recognised_by_their_tensors() {
        for (names, word) in [
            (&["lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight"][..], "LoRA"),
            (&["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"], "LoRA"),
            (
                &[
                    "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight",
                    "unet.x.to_k.lora.up.weight",
                ],
                "LoRA",
            ),
            (&["lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a"], "LoRA"),
            (&["ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"], "IP-Adapter"),
            (&["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.x"], "ControlNet"),
            (&["control_model.input_blocks.0.0.weight", "model.diffusion_model.x"], "ControlNet"),
            (&["emb_params"], "embedding"),
            (&["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"], "Flux"),
            (
                &[
                    "model.diffusion_model.double_blocks.0.img_attn.qkv.weight",
                    "model.diffusion_model.single_blocks.0.linear1.weight",
                ],
                "Flux",
            ),
            (
                &["transformer_blocks.0.attn.to_q.weight", "single_transformer_blocks.0.attn.to_q.weight"],
                "Flux",
            ),
            (&["model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight"], "Diffusion 3"),
            (
                &["conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "time_embedding.linear_1.weight"],
                "U-Net",
            ),
            (
                &[
                    "encoder.down_blocks.0.resnets.0.conv1.weight",
                    "decoder.up_blocks.0.resnets.0.conv1.weight",
                ],
                "autoencoder",
            ),
            (
                &[
                    "first_stage_model.encoder.down.0.block.0.conv1.weight",
                    "first_stage_model.decoder.up.0.block.0.conv1.weight",
                ],
                "autoencoder",
            ),
            (&["text_model.embeddings.token_embedding.weight"], "text encoder"),
        ] {
            let found = by_tensors(names.iter().map(|name| (*name, vec![4, 4])));
            assert!(found.expect(word).what.contains(word), "{word}");
        }
        let vectors = |names: &[&'static str], width: usize| {
            by_tensors(names.iter().copied().map(move |name| (name, vec![4, width])))
        };
        assert_eq!(vectors(&["<cat-toy>"], 768), Some(EMBEDDING));
        assert_eq!(vectors(&["clip_g", "clip_l"], 1280), Some(EMBEDDING));
        assert_eq!(vectors(&["something"], 5), None);
    }

    #[test]
    fn additions_are_recognised_inside_a_network() {
        let attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";
        for (name, word) in [
            ("to_q.lora_A.default.weight", "LoRA"),
            ("to_q.base_layer.weight", "LoRA"),
            ("processor.to_q_lora.up.weight", "LoRA"),
            ("processor.to_k_ip.0.weight", "processor"),
            ("to_q.weight_scale", "8-bit"),
            ("to_q.scale_weight", "8-bit"),
            ("to_q.weight.absmax", "bitsandbytes"),
        ] {
            let name = format!("{attention}.{name}");
            let (found, kind) = addition([name.as_str()].into_iter()).expect("it is an addition");
            assert!(found == name && kind.what.contains(word), "{name}: {}", kind.what);
        }
        assert_eq!(addition([format!("{attention}.to_q.weight").as_str()].into_iter()), None);
    }
}
