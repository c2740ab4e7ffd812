//! Latents that kohya's scripts have encoded, in `.npz` files beside the captions: `a.npz`, `a_0512x0768_sd.npz`, or
//! `a_1024x1024_sdxl.npz`. They are one draw of the autoencoder's posterior, without its factor.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};
use std::path::Path;

use super::folder::repeats;
use super::folder_captions::FolderCaptions;
use super::walk::{Entry, walk};
use crate::data::DataError;
use crate::data::sample::{Candidate, Found, LeftOut, Place};

/// The most numbers of an array: latents of 4096x4096 pixels.
const MOST_NUMBERS: usize = 4 * 512 * 512;

/// The latents of one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// Numbers in the order of channels, rows and columns, not scaled.
    pub latents: Vec<f32>,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// Width and height of the picture before it was cropped.
    pub original_size: Option<(u32, u32)>,
    /// Left and top of the crop, in pixels of the scaled picture.
    pub crop: (u32, u32),
}

/// The latents below a folder. Captions are found as for pictures.
pub fn list(root: &Path, column: Option<&str>) -> Result<Found, DataError> {
    let (entries, _) = walk(root)?;
    let captions = FolderCaptions::read(&entries, column)?;
    let mut found = Found::default();
    for (entry, stem) in chosen(root, &entries)? {
        match captions.find(&entry.folder, stem, None) {
            Ok(caption) => found.candidates.push(Candidate {
                name: entry.name.clone(),
                caption,
                repeats: repeats(&entry.folder).1,
                place: Place::File(entry.path.clone()),
            }),
            Err(reason) => found.left_out.push(LeftOut { name: entry.name.clone(), reason }),
        }
    }
    found.candidates.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(found)
}

/// One file for each picture, with the picture's stem: the old name wins over the new ones, as in kohya's scripts.
fn chosen<'a>(root: &Path, entries: &'a [Entry]) -> Result<Vec<(&'a Entry, &'a str)>, DataError> {
    let (mut chosen, mut models) = (BTreeMap::new(), BTreeSet::new());
    for entry in entries.iter().filter(|entry| entry.extension == "npz") {
        // Outputs of text encoders lie beside the latents.
        if entry.stem.ends_with("_te") || entry.stem.ends_with("_te_outputs") {
            continue;
        }
        let (stem, model) =
            model_of(&entry.stem).map_or((entry.stem.as_str(), None), |(stem, model)| (stem, Some(model)));
        models.extend(model);
        let place = chosen.entry((entry.folder.as_str(), stem)).or_insert((entry, stem));
        if model.is_none() {
            *place = (entry, stem);
        }
    }
    match models.len() {
        0 | 1 => Ok(chosen.into_values().collect()),
        _ => Err(DataError::Source {
            path: root.to_owned(),
            reason: format!(
                "it holds latents of several models: {}",
                models.into_iter().collect::<Vec<_>>().join(", ")
            ),
            help: "move those of the other models to another folder".to_owned(),
        }),
    }
}

/// `a` and `sdxl` of `a_1024x1024_sdxl`.
fn model_of(stem: &str) -> Option<(&str, &str)> {
    let (rest, model) = stem.rsplit_once('_')?;
    let (stem, size) = rest.rsplit_once('_')?;
    let (width, height) = size.split_once('x')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(width) && is_number(height)).then_some((stem, model))
}

/// Reads a cache. Of several resolutions, the one of about `area` numbers in a channel is taken.
pub fn read(bytes: &[u8], area: usize) -> Result<Cached, String> {
    let mut archive =
        zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| format!("it is no .npz file: {error}"))?;
    let names: Vec<String> = archive.file_names().filter_map(Result::ok).map(Cow::into_owned).collect();
    let mut array = |name: &str| -> Result<Array, String> {
        let named = |error: String| format!("its array {name}: {error}");
        let mut member = archive.by_name(&format!("{name}.npy")).map_err(|error| named(error.to_string()))?;
        let mut bytes = Vec::new();
        let most = 8 * MOST_NUMBERS as u64 + 65_536;
        (&mut member).take(most).read_to_end(&mut bytes).map_err(|error| named(error.to_string()))?;
        Array::parse(&bytes).map_err(named)
    };
    // `latents`, or `latents_64x48` with height and width.
    let of = |prefix: &str| -> Vec<(String, usize)> {
        let size = |name: &str| {
            let (height, width) = name.strip_prefix(prefix)?.strip_prefix('_')?.split_once('x')?;
            Some(height.parse::<usize>().ok()?.saturating_mul(width.parse().ok()?))
        };
        let names = names.iter().filter_map(|name| name.strip_suffix(".npy"));
        names
            .filter_map(|name| Some((name.to_owned(), if name == prefix { area } else { size(name)? })))
            .collect()
    };
    let nearest = of("latents").into_iter().min_by_key(|(_, found)| found.abs_diff(area));
    let Some((name, _)) = nearest else { return Err("it has no array `latents`".to_owned()) };
    let suffix = name.trim_start_matches("latents").to_owned();
    let latents = array(&name)?;
    let [channels, height, width] = latents.shape[..] else {
        return Err(format!(
            "its latents have shape {:?}; channels, height and width are needed",
            latents.shape
        ));
    };
    if let Some(bad) = latents.numbers.iter().find(|number| !number.is_finite()) {
        return Err(format!("its latents hold {bad}"));
    }
    let mut whole = |name: &str, count: usize| -> Result<Option<Vec<u32>>, String> {
        let name = [format!("{name}{suffix}"), name.to_owned()]
            .into_iter()
            .find(|name| names.contains(&format!("{name}.npy")));
        let Some(name) = name else { return Ok(None) };
        let array = array(&name)?;
        match array.numbers.len() == count {
            true => Ok(Some(array.numbers.iter().map(|number| *number as u32).collect())),
            false => Err(format!("its array {name} has {} numbers; {count} are needed", array.numbers.len())),
        }
    };
    let original_size = whole("original_size", 2)?.map(|size| (size[0], size[1]));
    let crop = whole("crop_ltrb", 4)?.map_or((0, 0), |crop| (crop[0], crop[1]));
    let latents = latents.numbers.iter().map(|number| *number as f32).collect();
    Ok(Cached { latents, shape: [channels, height, width], original_size, crop })
}

/// A `.npy` file.
struct Array {
    shape: Vec<usize>,
    numbers: Vec<f64>,
}

impl Array {
    /// Parses NumPy's format 1 to 3, numbers of the types that caches hold.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let broken = || "its header is damaged".to_owned();
        let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or_else(broken)?;
        let (length, rest) = match rest {
            [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
            [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
            _ => return Err(broken()),
        };
        let header =
            rest.get(..length).and_then(|header| std::str::from_utf8(header).ok()).ok_or_else(broken)?;
        let data = &rest[length..];
        let value = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        if value("fortran_order").is_none_or(|order| !order.starts_with("False")) {
            return Err("it is stored by columns".to_owned());
        }
        let shape =
            value("shape").and_then(|text| text.strip_prefix('(')?.split_once(')')).ok_or_else(broken)?.0;
        let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
        let shape: Vec<usize> = sides.map(str::parse).collect::<Result<_, _>>().map_err(|_| broken())?;
        let count =
            shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side)).ok_or_else(broken)?;
        let kind = value("descr").and_then(|text| text.split('\'').nth(1)).unwrap_or_default();
        let (size, number): (usize, fn(&[u8]) -> f64) = match kind {
            "<f4" => (4, |bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")).into()),
            "<f8" => (8, |bytes| f64::from_le_bytes(bytes.try_into().expect("eight bytes"))),
            "<f2" => (2, |bytes| half::f16::from_le_bytes(bytes.try_into().expect("two bytes")).to_f64()),
            "<i4" => (4, |bytes| i32::from_le_bytes(bytes.try_into().expect("four bytes")).into()),
            "<i8" => (8, |bytes| i64::from_le_bytes(bytes.try_into().expect("eight bytes")) as f64),
            other => {
                return Err(format!("its numbers are of type `{other}`; f2, f4, f8, i4 and i8 are read"));
            }
        };
        if count > MOST_NUMBERS || data.len() != count * size {
            return Err(format!("it has shape {shape:?} and {} bytes", data.len()));
        }
        Ok(Self { shape, numbers: data.chunks_exact(size).map(number).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_kinds_are_understood() {
        assert_eq!(model_of("a_b_0512x0768_sd"), Some(("a_b", "sd")));
        assert_eq!(model_of("a_1024x1024_sdxl"), Some(("a", "sdxl")));
        for name in ["a", "a_b", "a_x_sd", "a_5x_sd", "axb_sd"] {
            assert_eq!(model_of(name), None, "{name}");
        }
    }

    #[test]
    fn damaged_arrays_are_told() {
        let npy = |header: &str, data: &[u8]| {
            let mut bytes = b"\x93NUMPY\x01\0".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend(data);
            Array::parse(&bytes).map(|array| (array.shape, array.numbers))
        };
        let header = "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }";
        assert_eq!(npy(header, &[1, 0, 0, 0, 2, 0, 0, 0]), Ok((vec![2], vec![1.0, 2.0])));
        for (header, words) in [
            (header, "4 bytes"),
            ("{'descr': '<i4', 'fortran_order': True, 'shape': (1,), }", "columns"),
            ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "`|O`"),
            ("{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }", "damaged"),
            ("{}", "columns"),
        ] {
            assert!(npy(header, &[1, 0, 0, 0]).is_err_and(|error| error.contains(words)), "{header}");
        }
        assert!(Array::parse(b"\x93NUMPY\x01\0\xff\xff{").is_err());
    }
}
