//! Files of weights, changed in what their headers say: lengths, offsets, types, shapes, overlaps, names.

use serde_json::{Map, Value, json};

use crate::chance::Chance;
use crate::{bytes, json};

/// Bytes of data in the file.
const DATA: usize = 64;

/// A changed safetensors file.
pub(crate) fn changed(chance: &mut Chance) -> Vec<u8> {
    let mut header = header(chance);
    for _ in 0..=chance.below(3) {
        change(&mut header, chance);
    }
    let mut text = match chance.below(4) {
        0 => json::changed(&Value::Object(header), chance),
        _ => Value::Object(header).to_string().into_bytes(),
    };
    if chance.once_in(3) {
        // Some programs pad headers so that data are aligned.
        text.extend(vec![b' '; chance.below(16)]);
    }
    let real = text.len() as u64;
    let claimed = match chance.below(12) {
        0 => *chance.pick(&[0, 1, 7, real - 1, real + 1, real + DATA as u64, 100_000_000, u64::MAX, 1 << 63]),
        _ => real,
    };
    let data = match chance.below(6) {
        0 => chance.below(2 * DATA),
        _ => DATA,
    };
    let mut file = [&claimed.to_le_bytes()[..], &text, &vec![0x3c; data]].concat();
    if chance.once_in(8) {
        bytes::change(&mut file, chance);
    }
    file
}

fn header(chance: &mut Chance) -> Map<String, Value> {
    let types =
        [("F64", 8), ("F32", 4), ("F16", 2), ("BF16", 2), ("I64", 8), ("U8", 1), ("F8_E4M3", 1), ("BOOL", 1)];
    let mut header = Map::new();
    let mut start = 0;
    while start < DATA {
        let (dtype, size) = *chance.pick(&types);
        let elements = ((DATA - start) / size).min(1 + chance.below(8));
        let (dtype, elements, size) =
            if elements == 0 { ("U8", DATA - start, 1) } else { (dtype, elements, size) };
        let end = start + elements * size;
        let shape = if elements % 2 == 0 { json!([2, elements / 2]) } else { json!([elements]) };
        let name = format!("layer.{}.weight", header.len());
        header.insert(name, json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
        start = end;
    }
    if chance.once_in(2) {
        header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    }
    header
}

fn change(header: &mut Map<String, Value>, chance: &mut Chance) {
    let names: Vec<String> = header.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let (name, other) = (chance.pick(&names).clone(), chance.pick(&names).clone());
    let copied = header.get(&other).cloned().unwrap_or_default();
    let entry = &mut header[&name];
    match chance.below(9) {
        0 => entry["dtype"] = json!(*chance.pick(&["F4", "C64", "f32", "F8_E5M2", "I4", "", "F32\u{0}"])),
        1 => entry["shape"] = json!([json::number(chance), json::number(chance)]),
        2 => entry["shape"] = json!([1u64 << 32, 1u64 << 32, chance.below(4)]),
        3 => entry["shape"] = json!([0, u64::MAX]),
        4 => entry["shape"] = Value::Array(vec![json!(1); *chance.pick(&[0, 1, 9, 1000])]),
        5 => entry["data_offsets"] = json!([json::number(chance), json::number(chance)]),
        6 => entry["data_offsets"] = copied["data_offsets"].clone(),
        7 => drop(header.remove(&name)),
        _ => {
            let value = header.remove(&name).unwrap_or_default();
            let names = ["", "..", "a\u{0}b", "layer.0.weight", "__metadata__", "conv_in.weight"];
            header.insert((*chance.pick(&names)).to_owned(), value);
        }
    }
}
