//! Changes of bytes, whatever they mean.

use crate::chance::Chance;

/// Changes a few bytes, cuts, repeats or inserts.
pub(crate) fn change(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.below(bytes.len());
    match chance.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.extend((0..chance.below(64)).map(|index| index as u8).collect::<Vec<_>>()),
        2 => {
            let end = (at + chance.below(32)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = chance.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        3 => {
            let end = (at + chance.below(16)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            for _ in 0..=chance.below(8) {
                let at = chance.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte =
                        *chance.pick(&[0, 1, 0x7f, 0x80, 0xff, *byte ^ 1, *byte ^ 0x80, b'"', b'}', b'9']);
                }
            }
        }
    }
}
