//! The table of the kinds of remotes. A new kind is a row here, and a file that opens it.

#[cfg(feature = "remote")]
use super::bucket;
use super::contract::{Remote, Trouble};
use super::folder;

/// Opens a remote by what follows the scheme of its address, and the server to ask if that is not the usual one.
pub(super) type Open = fn(&str, Option<&str>) -> Result<Box<dyn Remote>, Trouble>;

/// A kind of remote.
pub(super) struct Kind {
    /// What its addresses begin with.
    pub(super) scheme: &'static str,
    /// An address.
    pub(super) example: &'static str,
    /// `None` if this program was built without it.
    pub(super) open: Option<Open>,
}

/// The scheme of a folder, whose addresses can also be written without it.
pub(super) const FOLDER: &str = "file";

pub(super) const KINDS: &[Kind] = &[
    Kind { scheme: FOLDER, example: "/mnt/team/laptop-diff", open: Some(folder::open) },
    Kind {
        scheme: "s3",
        example: "s3://BUCKET/PREFIX",
        #[cfg(feature = "remote")]
        open: Some(bucket::s3),
        #[cfg(not(feature = "remote"))]
        open: None,
    },
    Kind {
        scheme: "gs",
        example: "gs://BUCKET/PREFIX",
        #[cfg(feature = "remote")]
        open: Some(bucket::google),
        #[cfg(not(feature = "remote"))]
        open: None,
    },
    Kind {
        scheme: "az",
        example: "az://CONTAINER/PREFIX",
        #[cfg(feature = "remote")]
        open: Some(bucket::azure),
        #[cfg(not(feature = "remote"))]
        open: None,
    },
];

/// The kind with this scheme.
pub(super) fn kind(scheme: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.scheme == scheme)
}
