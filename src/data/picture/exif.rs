//! The orientation in an EXIF block. Cameras save pictures as their sensor lay and write here how to turn them.

/// Tag of the orientation in the first directory (EXIF 2.32, 4.6.4).
const ORIENTATION: u16 = 0x0112;
/// Bytes of a directory's entry.
const ENTRY: usize = 12;

/// An EXIF block that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

/// How to turn the picture, 1 to 8; 1, as it is, if the block does not say.
pub(super) fn orientation(block: &[u8]) -> Result<u8, Corrupt> {
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let big = match block.get(..4) {
        Some(b"II*\0") => false,
        Some(b"MM\0*") => true,
        _ => return Err(Corrupt),
    };
    let bytes = |at: usize, count: usize| at.checked_add(count).and_then(|end| block.get(at..end));
    let number = |at: usize, count: usize| -> Result<usize, Corrupt> {
        let bytes = bytes(at, count).ok_or(Corrupt)?;
        let join = |number: usize, byte: &u8| number << 8 | usize::from(*byte);
        Ok(if big { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
    };
    let directory = number(4, 4)?;
    for entry in 0..number(directory, 2)? {
        let entry = directory + 2 + entry * ENTRY;
        if number(entry, 2)? == usize::from(ORIENTATION) {
            // Its type is 3 (16 bits) or, against the standard, 4 (32 bits); both stand in the entry itself.
            let size = if number(entry + 2, 2)? == 4 { 4 } else { 2 };
            let value = number(entry + 8, size)?;
            return Ok(u8::try_from(value).ok().filter(|value| (1..=8).contains(value)).unwrap_or(1));
        }
    }
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_byte_orders_are_read_and_damage_is_told() {
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let big = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0";
        assert_eq!(orientation(little), Ok(6));
        assert_eq!(orientation(big), Ok(8));
        assert_eq!(orientation(b"II*\0\x08\0\0\0\0\0"), Ok(1));
        for end in 0..20 {
            assert_eq!(orientation(&little[..end]), Err(Corrupt), "{end}");
        }
        let mut far = little.to_vec();
        far[4..8].fill(0xff);
        assert_eq!(orientation(&far), Err(Corrupt));
        let mut ninth = little.to_vec();
        ninth[18] = 9;
        assert_eq!(orientation(&ninth), Ok(1), "a value that means nothing");
    }
}
