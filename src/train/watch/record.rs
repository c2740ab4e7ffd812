//! The bytes of TensorBoard's event files: TFRecords that hold protocol buffers of `tensorflow/core/util/event.proto` and
//! `tensorflow/core/framework/summary.proto`, as far as scalars and pictures need them.

/// What an event says.
pub enum What<'a> {
    /// The first event of a file.
    FileVersion,
    /// A session starts at this step: TensorBoard drops what earlier files say of it and of later ones.
    Start,
    /// Numbers by their tags.
    Numbers(&'a [(String, f64)]),
    /// A picture: its tag, PNG, width and height.
    Picture(&'a str, &'a [u8], (u32, u32)),
    /// The parameters of a folder of event files, which the page of hyperparameters compares (`tensorboard/plugins/hparams`).
    Parameters(&'a [(String, String)]),
}

/// One record with an event.
pub fn event(wall_time: f64, step: u64, what: &What<'_>) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, wall_time);
    event.number(2, step);
    match what {
        What::FileVersion => event.bytes(3, b"brain.Event:2"),
        What::Start => event.message(7, |log| log.number(1, 1)),
        What::Numbers(numbers) => event.message(5, |summary| {
            for (tag, number) in *numbers {
                summary.message(1, |value| {
                    value.bytes(1, tag.as_bytes());
                    value.float(2, *number as f32);
                });
            }
        }),
        What::Parameters(all) => event.message(5, |summary| parameters(summary, wall_time, all)),
        What::Picture(tag, png, (width, height)) => event.message(5, |summary| {
            summary.message(1, |value| {
                value.bytes(1, tag.as_bytes());
                value.message(4, |image| {
                    image.number(1, (*height).into());
                    image.number(2, (*width).into());
                    // RGB.
                    image.number(3, 3);
                    image.bytes(4, png);
                });
            });
        }),
    }
    framed(&event.0)
}

/// The summary with parameters: the metadata of a value without a value.
fn parameters(summary: &mut Message, wall_time: f64, parameters: &[(String, String)]) {
    let mut data = Message::default();
    data.message(3, |start| {
        for (name, value) in parameters {
            start.message(1, |entry| {
                entry.bytes(1, name.as_bytes());
                entry.message(2, |field| match value.parse::<f64>() {
                    Ok(number) if number.is_finite() => field.double(2, number),
                    _ => field.bytes(3, value.as_bytes()),
                });
            });
        }
        start.double(5, wall_time);
    });
    summary.message(1, |value| {
        value.bytes(1, b"_hparams_/session_start_info");
        value.message(9, |metadata| {
            metadata.message(1, |plugin| {
                plugin.bytes(1, b"hparams");
                plugin.bytes(2, &data.0);
            });
        });
    });
}

/// A protocol buffer that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn tag(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    /// Zero is the default and is not written.
    fn number(&mut self, field: u64, number: u64) {
        if number > 0 {
            self.tag(field, 0);
            self.varint(number);
        }
    }

    fn double(&mut self, field: u64, number: f64) {
        self.tag(field, 1);
        self.0.extend(number.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn float(&mut self, field: u64, number: f32) {
        self.tag(field, 5);
        self.0.extend(number.to_le_bytes());
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// A TFRecord: length, its checksum, the data, its checksum.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()].concat()
}

/// TensorFlow's masked CRC-32C.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial, reflected: a byte at a time from a table.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let step = |crc: u32, byte: &u8| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8);
    !data.iter().fold(!0, step)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4.
    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// `tests/golden_distill/events.py` made the file with the package tensorboard 2.21.0.
    #[test]
    fn events_are_the_bytes_of_the_package_tensorboard() {
        let numbers = [("loss/total".to_owned(), 0.25), ("learning rate".to_owned(), 5e-4)];
        let swept = [("criterion", "magnitude"), ("ratio", "0.3")];
        let swept = swept.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let ours = [
            event(1000.5, 0, &What::FileVersion),
            event(1001.0, 300, &What::Start),
            event(1002.0, 300, &What::Numbers(&numbers)),
            event(1003.0, 301, &What::Picture("validation/0", b"not really a PNG", (64, 32))),
            event(1004.0, 0, &What::Parameters(&swept)),
        ];
        let golden = include_bytes!("../../../tests/golden_distill/events.tfevents");
        assert_eq!(ours.concat(), golden);
    }
}
