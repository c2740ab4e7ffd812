//! PNG and JPEG files, changed in their headers and chunks. Checksums are made right again, or the decoder would look no
//! further.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, RgbImage};

use crate::bytes;
use crate::chance::Chance;

/// Small pictures of every kind that our encoder writes, and a large one of one colour, which compresses a thousandfold.
pub(crate) fn pngs() -> Vec<Vec<u8>> {
    let rgb = picture(17, 11);
    let kinds = [
        rgb.clone(),
        DynamicImage::from(rgb.to_luma8()),
        DynamicImage::from(rgb.to_rgba8()),
        DynamicImage::from(rgb.to_rgb16()),
        DynamicImage::from(rgb.to_luma_alpha8()),
        DynamicImage::from(RgbImage::new(600, 600)),
    ];
    kinds.iter().map(|kind| encoded(kind, ImageFormat::Png)).collect()
}

/// One of each kind: baseline, progressive, arithmetic-coded, with restarts, every sampling, grey, four colours.
pub(crate) fn jpegs() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/odd_pictures/pictures");
    let kinds = [
        "plain",
        "progressive",
        "arithmetic",
        "restarts",
        "grey",
        "cmyk",
        "cmyk-progressive",
        "photograph-411",
        "photograph-420-progressive",
        "photograph-422",
        "photograph-440",
    ];
    kinds.iter().map(|kind| fs::read(folder.join(kind).with_extension("jpg")).expect("a picture")).collect()
}

fn picture(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 7) as u8, (y * 13) as u8, (x * y) as u8])).into()
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("memory takes it");
    bytes.into_inner()
}

/// A chunk of a PNG: its type and its data.
type Chunk = ([u8; 4], Vec<u8>);

pub(crate) fn changed_png(valid: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let valid = chance.pick(valid);
    let mut chunks = chunks(valid);
    for _ in 0..=chance.below(3) {
        change_chunk(&mut chunks, chance);
    }
    let mut file = valid[..8].to_vec();
    for (name, data) in &chunks {
        let length = match chance.below(40) {
            0 => *chance.pick(&[0, 1, u32::MAX, 1 << 31, data.len() as u32 + 1]),
            _ => data.len() as u32,
        };
        let body = [&name[..], data].concat();
        let sum = if chance.once_in(40) { 0 } else { checksum(&body) };
        file.extend([&length.to_be_bytes()[..], &body, &sum.to_be_bytes()].concat());
    }
    if chance.once_in(8) {
        bytes::change(&mut file, chance);
    }
    file
}

fn chunks(file: &[u8]) -> Vec<Chunk> {
    let (mut rest, mut found) = (&file[8..], Vec::new());
    while let [a, b, c, d, body @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let name = body[..4].try_into().expect("four bytes");
        found.push((name, body[4..4 + length].to_vec()));
        rest = &body[8 + length..];
    }
    found
}

fn change_chunk(chunks: &mut Vec<Chunk>, chance: &mut Chance) {
    let at = chance.below(chunks.len());
    match chance.below(8) {
        // Width, height, depth, colours, compression, filter, interlacing.
        0..=2 => {
            let Some((_, header)) =
                chunks.first_mut().filter(|(name, data)| name == b"IHDR" && data.len() == 13)
            else {
                return;
            };
            let side = *chance.pick(&[0, 1, 2, 16, 600, 20_000, 1 << 16, 1 << 24, 1 << 31, u32::MAX]);
            let field = 4 * chance.below(2);
            match chance.below(3) {
                0 => header[field..field + 4].copy_from_slice(&side.to_be_bytes()),
                1 => {
                    header[..4].copy_from_slice(&side.to_be_bytes());
                    header[4..8].copy_from_slice(&side.to_be_bytes());
                }
                _ => header[8 + chance.below(5)] = *chance.pick(&[0, 1, 2, 3, 4, 6, 8, 16, 32, 255]),
            }
        }
        3 => drop(chunks.remove(at)),
        4 => chunks.insert(at, chunks[at].clone()),
        5 => chunks.swap(at, 0),
        6 => {
            let names = [
                b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT", b"gAMA", b"eXIf",
                b"IDAT",
            ];
            let length = *chance.pick(&[0, 1, 3, 8, 26, 768, 2000]);
            let data = (0..length).map(|_| chance.number() as u8).collect();
            chunks.insert(at, (**chance.pick(&names), data));
        }
        _ => bytes::change(&mut chunks[at].1, chance),
    }
    if chunks.is_empty() {
        chunks.push((*b"IEND", Vec::new()));
    }
}

/// CRC-32 of a chunk, as in the PNG specification, annex D.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 };
    let table: [u32; 256] = std::array::from_fn(|byte| (0..8).fold(byte as u32, |sum, _| step(sum)));
    !bytes.iter().fold(u32::MAX, |sum, byte| table[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8))
}

pub(crate) fn changed_jpeg(valid: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut file = chance.pick(valid).clone();
    for _ in 0..=chance.below(3) {
        let markers: Vec<usize> = (0..file.len().saturating_sub(10))
            .filter(|&at| file[at] == 0xff && file[at + 1] >= 0xc0)
            .collect();
        if markers.is_empty() {
            break;
        }
        let at = *chance.pick(&markers);
        let frame = markers.iter().copied().find(|&at| (0xc0..=0xc2).contains(&file[at + 1]));
        match (chance.below(6), frame) {
            // A frame: marker, length, precision, height, width, components with their sampling.
            (0 | 1, Some(frame)) => {
                let side = *chance.pick(&[0u16, 1, 8, 600, 20_000, u16::MAX]);
                let field = frame + 5 + 2 * chance.below(2);
                file[field..field + 2].copy_from_slice(&side.to_be_bytes());
            }
            (2, Some(frame)) => {
                let field = (frame + 4 + chance.below(15)).min(file.len() - 1);
                file[field] = *chance.pick(&[0, 1, 2, 3, 4, 0x11, 0x22, 0x41, 0x44, 0xff]);
            }
            (3, _) => {
                file[at + 1] =
                    *chance.pick(&[0xc0, 0xc1, 0xc2, 0xc4, 0xc9, 0xd8, 0xd9, 0xda, 0xdb, 0xdd, 0xe1, 0xee])
            }
            (4, _) => file[at + 2..at + 4].copy_from_slice(&(chance.number() as u16).to_be_bytes()),
            _ => bytes::change(&mut file, chance),
        }
        if file.len() < 16 {
            break;
        }
    }
    file
}
