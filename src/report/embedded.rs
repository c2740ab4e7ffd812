//! Pictures inside the page, which is one file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A PNG as the source of an `<img>` element.
pub(super) fn embedded(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64.encode(png))
}
