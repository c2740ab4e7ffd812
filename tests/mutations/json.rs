//! Changes of a JSON file at its nodes: extreme numbers, wrong types, missing, doubled and renamed keys, depth, length.

use serde_json::{Value, json};

use crate::bytes;
use crate::chance::Chance;

/// Nodes of one list or map that are changed: of a vocabulary, the first.
const WIDTH: usize = 64;

/// A changed file, as text.
pub(crate) fn changed(valid: &Value, chance: &mut Chance) -> Vec<u8> {
    let mut file = valid.clone();
    let mut places = Vec::new();
    nodes(&file, "", &mut places);
    for _ in 0..=chance.below(3) {
        let (place, other) = (chance.pick(&places).clone(), chance.pick(&places).clone());
        change(&mut file, &place, &other, chance);
    }
    let mut text = file.to_string().into_bytes();
    match chance.below(12) {
        0 => bytes::change(&mut text, chance),
        1 => replace_value(&mut text, chance),
        _ => {}
    }
    text
}

/// JSON pointers to the nodes.
fn nodes(value: &Value, place: &str, found: &mut Vec<String>) {
    found.push(place.to_owned());
    match value {
        Value::Array(values) => {
            for (index, value) in values.iter().take(WIDTH).enumerate() {
                nodes(value, &format!("{place}/{index}"), found);
            }
        }
        Value::Object(values) => {
            for (key, value) in values.iter().take(WIDTH) {
                nodes(value, &format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        _ => {}
    }
}

/// Changes the node at `place`; `other` is another one.
fn change(file: &mut Value, place: &str, other: &str, chance: &mut Chance) {
    let copied = file.pointer(other).cloned();
    if let Some((parent, key)) = place.rsplit_once('/')
        && chance.once_in(6)
    {
        let key = key.replace("~1", "/").replace("~0", "~");
        match file.pointer_mut(parent) {
            Some(Value::Object(parent)) => {
                let value = parent.remove(&key);
                if chance.once_in(2) {
                    parent.insert(text(chance), value.unwrap_or_default());
                }
            }
            Some(Value::Array(parent)) => parent.truncate(chance.below(parent.len())),
            _ => {}
        }
        return;
    }
    let Some(node) = file.pointer_mut(place) else { return };
    *node = match (chance.below(12), &*node) {
        (0..=4, _) => number(chance),
        (5, Value::Array(values)) if !values.is_empty() => {
            let times = *chance.pick(&[2, 16, 17, 256, 5000]);
            Value::Array(vec![values[0].clone(); times])
        }
        (6, value) => (0..*chance.pick(&[1, 4, 100])).fold(value.clone(), |value, _| json!([value])),
        (7, value) => (0..*chance.pick(&[1, 4, 100])).fold(value.clone(), |value, _| json!({ "a": value })),
        (8, _) => copied.unwrap_or_default(),
        (9, _) => json!(text(chance)),
        _ => chance
            .pick(&[
                json!(null),
                json!(true),
                json!(false),
                json!([]),
                json!({}),
                json!([[]]),
                json!([1, [2, [3]], null]),
            ])
            .clone(),
    };
}

pub(crate) fn number(chance: &mut Chance) -> Value {
    match chance.below(4) {
        0 => json!(chance.below(16)),
        1 => json!(1u64 << chance.below(64)),
        2 => json!(chance.number().cast_signed()),
        _ => chance
            .pick(&[
                json!(-1),
                json!(0),
                json!(u64::MAX),
                json!(i64::MIN),
                json!(i64::MAX),
                json!(1u64 << 53),
                json!(0.5),
                json!(-0.0),
                json!(1e-320),
                json!(1e308),
                json!(-1e308),
            ])
            .clone(),
    }
}

fn text(chance: &mut Chance) -> String {
    let known = [
        "",
        "silu",
        "f16",
        "weight",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\windows",
        "a/../b",
        "\u{0}",
        "\u{1b}[31m",
        "\u{10ffff}\u{202e}",
        "<|endoftext|>",
        "DownBlock2D",
        "v_prediction",
        "1e9999",
    ];
    match chance.below(8) {
        0 => "a".repeat(*chance.pick(&[100, 3000])),
        _ => (*chance.pick(&known)).to_owned(),
    }
}

/// Puts something that JSON does not have, or not like this, in place of a value.
fn replace_value(text: &mut Vec<u8>, chance: &mut Chance) {
    let colons: Vec<usize> = (0..text.len()).filter(|&at| text[at] == b':').collect();
    let Some(&at) = colons.get(chance.below(colons.len())) else { return };
    let end = (at + 1..text.len()).find(|&end| b",}]".contains(&text[end])).unwrap_or(text.len());
    let deep = "[".repeat(10_000);
    let values: [&[u8]; 8] = [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999999999",
        b"123456789012345678901234567890123456789012",
        b"\"\\ud800\"",
        deep.as_bytes(),
        b"1, \"a\": 2, \"a\": 3",
    ];
    let value = chance.pick(&values).to_vec();
    text.splice(at + 1..end, value);
}
