//! Where training samples come from. Each source makes a list of its samples without reading their pictures.

mod caches;
mod captions;
mod columns;
mod fetch;
mod folder;
mod folder_captions;
mod kohya;
mod metadata;
mod parquet;
mod shards;
mod sidecars;
mod walk;
mod webdataset;

pub(in crate::data) use captions::usual;

pub use caches::{Cached, list as cached_latents, read as read_latents};
pub use fetch::{Fetched, Fetcher};
pub use folder::list as folder;
pub use parquet::{ENDINGS as PARQUET, files_beside as pictures_beside, list as parquet};
pub use shards::Shards;
pub use walk::pictures;
pub use webdataset::{ENDINGS as WEBDATASET, list as webdataset};
