//! The layouts made by hand give the published configurations and parameter counts from the teacher's configuration.

use crate::small_unets::published;
use laptop_diff::model::UNetConfig;
use laptop_diff::model::unet::{Assembly, Origin};
use laptop_diff::select::{LAYOUTS, Layout, SelectError};

fn teacher(layout: &str) -> UNetConfig {
    published(if layout.starts_with("bk-sdm") { "sd-v1-5" } else { "sdxl-base" })
}

#[test]
fn every_layout_is_the_published_network() -> Result<(), SelectError> {
    // Parameters of diffusers' UNet2DConditionModel with the published configuration.
    let counts = [
        ("bk-sdm-base", "bk-sdm-base", 579_384_964),
        ("bk-sdm-small", "bk-sdm-small", 482_346_884),
        ("bk-sdm-tiny", "bk-sdm-tiny", 323_384_964),
        ("ssd-1b", "ssd-1b", 1_331_334_404),
        ("vega", "segmind-vega", 745_225_604),
        ("koala-1b", "koala-1b", 1_161_184_324),
        ("koala-700m", "koala-700m", 782_822_724),
    ];
    assert_eq!(counts.map(|(name, ..)| name), LAYOUTS.iter().map(|one| one.name).collect::<Vec<_>>()[..]);
    for (name, file, parameters) in counts {
        let teacher = teacher(name);
        let assembly = Layout::find(name)?.assemble(&teacher)?;
        assert_eq!(assembly.config().inventory().parameters(), parameters, "{name}");
        let (ours, theirs) = (assembly.config(), published(file));
        assert_eq!((&ours.levels, ours.mid), (&theirs.levels, theirs.mid), "{name}");
        assert!(assembly.padded().is_empty(), "{name}");
        check_shapes(&teacher, &assembly);
    }
    Ok(())
}

/// Each tensor comes from a tensor of the teacher with the same shape, and none is used twice.
fn check_shapes(teacher: &UNetConfig, assembly: &Assembly) {
    let inventory = teacher.inventory();
    let mut taken = std::collections::BTreeSet::new();
    for (entry, origin) in assembly.tensors() {
        let Origin::Kept(name) = origin else { panic!("{} comes from nowhere", entry.name) };
        let source = inventory.tensors().find(|tensor| tensor.name == name);
        let source = source.unwrap_or_else(|| panic!("{} comes from {name}, which is not there", entry.name));
        assert_eq!(source.shape, entry.shape, "{} from {name}", entry.name);
        assert!(taken.insert(name), "{} comes from a tensor that is used already", entry.name);
    }
}

#[test]
fn bk_sdm_uses_the_last_layer_of_an_up_block_as_its_second() -> Result<(), SelectError> {
    let assembly = Layout::find("bk-sdm-tiny")?.assemble(&published("sd-v1-5"))?;
    let from = |name: &str| {
        let (_, origin) =
            assembly.tensors().into_iter().find(|(entry, _)| entry.name == name).expect("it is there");
        origin
    };
    let kept = |name: &str| Origin::Kept(name.to_owned());
    assert_eq!(from("up_blocks.0.resnets.1.conv1.weight"), kept("up_blocks.1.resnets.2.conv1.weight"));
    assert_eq!(from("up_blocks.2.attentions.1.proj_in.bias"), kept("up_blocks.3.attentions.2.proj_in.bias"));
    assert_eq!(from("up_blocks.0.upsamplers.0.conv.weight"), kept("up_blocks.1.upsamplers.0.conv.weight"));
    let removed = Layout::find("bk-sdm-tiny")?.removed(&published("sd-v1-5"))?;
    for unit in [
        "mid_block.resnets.0",
        "down_blocks.3.resnets.0",
        "up_blocks.0.resnets.2",
        "down_blocks.0.attentions.1",
    ] {
        assert!(removed.contains(unit), "{unit}");
    }
    assert!(!removed.contains("up_blocks.1.resnets.2"));
    Ok(())
}

#[test]
fn a_layout_for_another_network_says_what_does_not_fit() {
    for (name, other, words) in [
        ("bk-sdm-base", "sdxl-base", "levels"),
        ("ssd-1b", "sd-v1-5", "levels"),
        ("koala-1b", "segmind-vega", "should have at least"),
    ] {
        let error =
            Layout::find(name).expect("a layout").assemble(&published(other)).expect_err("it does not fit");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(Layout::find("bk-sdm").is_err());
}

#[test]
fn a_written_configuration_reads_back() {
    for name in ["sd-v1-5", "sdxl-base", "bk-sdm-tiny", "ssd-1b", "segmind-vega", "koala-1b", "koala-700m"] {
        let config = published(name);
        let again = UNetConfig::parse(&config.to_json().to_string()).expect("our own configuration");
        assert_eq!(again, config, "{name}");
    }
}
