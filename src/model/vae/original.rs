//! The autoencoder's names in a checkpoint. The checkpoint numbers the decoder's levels from the outermost, diffusers
//! from the innermost; the checkpoint stores attention as four 1x1 convolutions, diffusers as four linear layers.

use super::KlConfig;
use crate::model::files::original::{Form, Pair};

const RESNET: &[(&str, &str)] = &[
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("conv_shortcut", "nin_shortcut"),
];
/// The last column has the names of files written before diffusers 0.16.
const ATTENTION: &[(&str, &str, &str)] = &[
    ("to_q", "q", "query"),
    ("to_k", "k", "key"),
    ("to_v", "v", "value"),
    ("to_out.0", "proj_out", "proj_attn"),
];

/// All tensors under both names. `older` selects the names of files written before diffusers 0.16.
pub fn vae_names(config: &KlConfig, older: bool) -> Vec<Pair> {
    let mut list = List { pairs: Vec::new(), older };
    let levels = config.block_out_channels.len();
    for (side, down, layers) in
        [("encoder", true, config.layers_per_block), ("decoder", false, config.layers_per_block + 1)]
    {
        let mut inputs = config.block_out_channels[if down { 0 } else { levels - 1 }];
        list.module(format!("{side}.conv_in"), format!("{side}.conv_in"));
        for index in 0..levels {
            let level = if down { index } else { levels - 1 - index };
            let outputs = config.block_out_channels[level];
            let (here, there, sampler) = match down {
                true => (format!("{side}.down_blocks.{index}"), format!("{side}.down.{level}"), "down"),
                false => (format!("{side}.up_blocks.{index}"), format!("{side}.up.{level}"), "up"),
            };
            for layer in 0..layers {
                let here = format!("{here}.resnets.{layer}");
                list.resnet(&here, &format!("{there}.block.{layer}"), inputs != outputs);
                inputs = outputs;
            }
            if index + 1 < levels {
                list.module(
                    format!("{here}.{sampler}samplers.0.conv"),
                    format!("{there}.{sampler}sample.conv"),
                );
            }
        }
        list.resnet(&format!("{side}.mid_block.resnets.0"), &format!("{side}.mid.block_1"), false);
        if config.mid_block_add_attention {
            list.attention(&format!("{side}.mid_block.attentions.0"), &format!("{side}.mid.attn_1"));
        }
        list.resnet(&format!("{side}.mid_block.resnets.1"), &format!("{side}.mid.block_2"), false);
        list.module(format!("{side}.conv_norm_out"), format!("{side}.norm_out"));
        list.module(format!("{side}.conv_out"), format!("{side}.conv_out"));
    }
    for (name, there) in
        [("quant_conv", config.use_quant_conv), ("post_quant_conv", config.use_post_quant_conv)]
    {
        if there {
            list.module(name.to_owned(), name.to_owned());
        }
    }
    list.pairs
}

struct List {
    pairs: Vec<Pair>,
    older: bool,
}

impl List {
    fn module(&mut self, here: String, there: String) {
        for tensor in ["weight", "bias"] {
            self.pairs.push(Pair::same(format!("{there}.{tensor}"), format!("{here}.{tensor}")));
        }
    }

    fn resnet(&mut self, here: &str, there: &str, has_shortcut: bool) {
        for (inside, original) in &RESNET[..if has_shortcut { 5 } else { 4 }] {
            self.module(format!("{here}.{inside}"), format!("{there}.{original}"));
        }
    }

    fn attention(&mut self, here: &str, there: &str) {
        self.module(format!("{here}.group_norm"), format!("{there}.norm"));
        for (new, original, old) in ATTENTION {
            let here = format!("{here}.{}", if self.older { old } else { new });
            let weight = (format!("{there}.{original}.weight"), format!("{here}.weight"));
            self.pairs.push(Pair::new(weight.0, weight.1, Form::Convolution));
            self.pairs.push(Pair::same(format!("{there}.{original}.bias"), format!("{here}.bias")));
        }
    }
}
