//! Tensors by name from safetensors files, mapped into memory and read on demand. Downloaded files are not trusted: the
//! header is checked against the file's length, an index of shards may only name files in its own folder, and an error
//! names the tensor concerned.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, TensorView};

use super::error::WeightsError;
use super::header;
use super::reading::{Reading, Stored};
use super::write::write;
use crate::base::Mapping;
use crate::model::error::ModelError;
use crate::model::files::kind::{self, Kind};
use crate::model::files::names;
use crate::model::files::tensor::TensorEntry;

/// The weights of one model: a safetensors file or a set of shards. Cheap to clone.
#[derive(Clone)]
pub struct Weights {
    path: Arc<Path>,
    shards: Arc<[Shard]>,
    /// Where each tensor is stored.
    places: Arc<BTreeMap<String, Place>>,
}

/// Where a tensor is stored, and which part of it is used.
#[derive(Clone)]
struct Place {
    shard: usize,
    name: String,
    reading: Reading,
}

struct Shard {
    path: PathBuf,
    bytes: Mapping,
    /// Where the tensor data begins.
    data: usize,
    metadata: Metadata,
}

impl Weights {
    /// Opens a `.safetensors` file, or the weights of a model folder: `diffusion_pytorch_model.safetensors` or
    /// `model.safetensors`, as one file or as shards with an index, else a variant such as `model.fp16.safetensors`.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let file = if path.is_dir() { find_in(path)? } else { path.to_owned() };
        if file.extension().is_some_and(|extension| extension == "json") {
            return Self::open_index(&file);
        }
        let shard = Shard::open(file)?;
        let places = shard.metadata.tensors().into_keys().map(|name| (name.clone(), Place::whole(0, name)));
        let places = places.collect();
        Ok(Self { path: path.into(), shards: Arc::new([shard]), places: Arc::new(places) })
    }

    /// The names of the files in a model folder that [`Weights::open`] reads: one file, or an index and its shards.
    pub fn files(folder: &Path) -> Result<Vec<String>, WeightsError> {
        let file = find_in(folder)?;
        let mut names = vec![file.file_name().unwrap_or_default().to_string_lossy().into_owned()];
        if file.extension().is_some_and(|extension| extension == "json") {
            names.extend(header::read_index(&file)?.into_values().collect::<BTreeSet<_>>());
        }
        Ok(names)
    }

    fn open_index(index: &Path) -> Result<Self, WeightsError> {
        let folder = index.parent().unwrap_or(Path::new("."));
        let files = header::read_index(index)?;
        let mut names: Vec<_> = files.values().collect();
        names.sort();
        names.dedup();
        let shards = names
            .iter()
            .map(|name| Shard::open(folder.join(name.as_str())))
            .collect::<Result<Vec<_>, _>>()?;
        let mut places = BTreeMap::new();
        for (tensor, file) in &files {
            let shard = names.binary_search(&file).expect("every file of the map was collected above");
            if shards[shard].metadata.info(tensor).is_none() {
                return Err(WeightsError::Missing { path: shards[shard].path.clone(), name: tensor.clone() });
            }
            places.insert(tensor.clone(), Place::whole(shard, tensor.clone()));
        }
        Ok(Self { path: index.into(), shards: shards.into(), places: Arc::new(places) })
    }

    /// The same files with other tensor names: the new name, the stored name, and which part of the stored tensor is
    /// used. A stored tensor that is missing is left out, so that [`Weights::check`] reports the name that needs it.
    pub fn renamed(&self, names: impl IntoIterator<Item = (String, String, Reading)>) -> Self {
        let place = |(name, stored, reading): (String, String, Reading)| {
            let place = self.places.get(&stored)?;
            Some((name, Place { reading, ..place.clone() }))
        };
        Self { places: Arc::new(names.into_iter().filter_map(place).collect()), ..self.clone() }
    }

    /// The file or folder that the weights were opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The texts that the header of a single file holds beside its tensors.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.shards[0]
            .metadata
            .metadata()
            .iter()
            .flatten()
            .map(|(key, text)| (key.clone(), text.clone()))
            .collect()
    }

    /// The names of all tensors as stored.
    pub fn stored_names(&self) -> impl Iterator<Item = &str> {
        self.places.values().map(|place| place.name.as_str())
    }

    /// Whether a tensor of this name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>, WeightsError> {
        let (place, info) = self.place(name)?;
        place.reading.shape(&info.shape).ok_or_else(|| self.misread(place))
    }

    /// A tensor's stored data type.
    pub fn dtype(&self, name: &str) -> Result<DType, WeightsError> {
        let dtype = self.place(name)?.1.dtype;
        DType::try_from(dtype).map_err(|_| self.unsupported(name, dtype))
    }

    /// Reads one tensor in the given type.
    pub fn tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor, WeightsError> {
        let stored = self.view(name)?;
        DType::try_from(stored.dtype()).map_err(|_| self.unsupported(name, stored.dtype()))?;
        let tensor = stored
            .load(device)
            .and_then(|tensor| tensor.to_dtype(dtype))
            .map_err(|source| WeightsError::Tensor { name: name.to_owned(), source })?;
        self.release(&self.places[name]);
        Ok(tensor)
    }

    /// A tensor's bytes as stored, for copying them unchanged.
    pub fn view(&self, name: &str) -> Result<Stored<'_>, WeightsError> {
        let (place, _) = self.place(name)?;
        let view = self.shards[place.shard].view(&place.name);
        view.and_then(|view| place.reading.read(view)).ok_or_else(|| self.misread(place))
    }

    /// A builder for layers with these weights.
    pub fn builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), dtype, device.clone())
    }

    /// Fails on the first tensor that is missing, has a shape other than `needed`, or is not a floating-point number.
    pub fn check<'e>(&self, needed: impl IntoIterator<Item = &'e TensorEntry>) -> Result<(), WeightsError> {
        needed.into_iter().try_for_each(|entry| {
            self.check_shape(&entry.name, &entry.shape)?;
            match self.place(&entry.name)?.1.dtype {
                Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F8_E4M3 => Ok(()),
                dtype => Err(self.unsupported(&entry.name, dtype)),
            }
        })
    }

    /// The tensors that are not among `needed`. Fails if they belong to an addition that changes what the network
    /// computes, such as a LoRA, or to another kind of file.
    pub fn unread<'e>(
        &self,
        needed: impl IntoIterator<Item = &'e TensorEntry>,
    ) -> Result<Vec<String>, WeightsError> {
        let needed: HashSet<&str> = needed.into_iter().map(|entry| entry.name.as_str()).collect();
        let unread: Vec<&str> = self.names().filter(|name| !needed.contains(name)).collect();
        match kind::addition(unread.iter().copied()) {
            None => Ok(unread.into_iter().map(str::to_owned).collect()),
            Some((name, Kind { what, help })) => {
                let (path, name, more) = (self.path.to_path_buf(), name.to_owned(), unread.len() - 1);
                Err(WeightsError::Addition { path, what, name, more, help })
            }
        }
    }

    /// Fails on the first tensor that contains an infinity or a NaN.
    pub fn check_finite(&self) -> Result<(), WeightsError> {
        self.places.par_iter().try_for_each(|(name, place)| {
            let view = self.view(name)?;
            let found = header::first_not_finite(view.dtype(), view.data());
            self.release(place);
            match found {
                None => Ok(()),
                Some(index) => {
                    let path = self.shards[place.shard].path.clone();
                    Err(WeightsError::NotFinite { path, name: place.name.clone(), index })
                }
            }
        })
    }

    /// Writes all tensors into one file, in their stored types, as other programs expect them.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let views = self.names().map(|name| Ok((name, self.view(name)?)));
        let views = views.collect::<Result<Vec<_>, WeightsError>>()?;
        write(path, views).map_err(|source| ModelError::Write { path: path.to_owned(), source })
    }

    /// Lets the system reclaim the memory of tensors that have been read.
    fn release(&self, place: &Place) {
        let shard = &self.shards[place.shard];
        if let Some(view) = shard.view(&place.name) {
            shard.bytes.forget(view.data());
        }
    }

    fn check_shape(&self, name: &str, needed: &[usize]) -> Result<(), WeightsError> {
        let found = self.shape(name)?;
        if found != needed {
            let (path, name, needed) = (self.path.to_path_buf(), name.to_owned(), needed.to_vec());
            return Err(WeightsError::Shape { path, name, found, needed });
        }
        Ok(())
    }

    /// Where a tensor is stored, and its entry in the header.
    fn place(&self, name: &str) -> Result<(&Place, &TensorInfo), WeightsError> {
        let place = self.places.get(name);
        place
            .and_then(|place| Some((place, self.shards[place.shard].metadata.info(&place.name)?)))
            .ok_or_else(|| WeightsError::Missing { path: self.path.to_path_buf(), name: name.to_owned() })
    }

    fn misread(&self, place: &Place) -> WeightsError {
        let (path, name, reading) = (self.path.to_path_buf(), place.name.clone(), place.reading);
        WeightsError::Reading { path, name, reading }
    }

    fn unsupported(&self, name: &str, dtype: Dtype) -> WeightsError {
        WeightsError::Dtype { path: self.path.to_path_buf(), name: name.to_owned(), dtype: dtype.to_string() }
    }
}

impl Place {
    fn whole(shard: usize, name: String) -> Self {
        Self { shard, name, reading: Reading::Whole }
    }
}

impl SimpleBackend for Weights {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.check_shape(name, shape.dims()).map_err(candle_core::Error::wrap)?;
        self.get_unchecked(name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.tensor(name, dtype, device).map_err(candle_core::Error::wrap)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.contains(name)
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self, WeightsError> {
        let read = |source| WeightsError::Read { path: path.clone(), source };
        let bytes = Mapping::open(&path).map_err(read)?;
        let (data, metadata) = header::parse(&path, &bytes)?;
        Ok(Self { path, bytes, data, metadata })
    }

    fn view(&self, name: &str) -> Option<TensorView<'_>> {
        let info = self.metadata.info(name)?;
        let (start, end) = info.data_offsets;
        TensorView::new(info.dtype, info.shape.clone(), &self.bytes[self.data..][start..end]).ok()
    }
}

/// The weights file of a model folder. Full precision is preferred, as in diffusers.
fn find_in(folder: &Path) -> Result<PathBuf, WeightsError> {
    let read = |source| WeightsError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        found.push(entry.map_err(read)?.file_name().to_string_lossy().into_owned());
    }
    found.sort();
    if let Some(name) = names::opened_by(&found) {
        return Ok(folder.join(name));
    }
    let pickle = found.iter().find(|name| header::PICKLE_ENDINGS.iter().any(|ending| name.ends_with(ending)));
    Err(match pickle {
        Some(name) => WeightsError::Pickle { path: folder.join(name) },
        None => WeightsError::NothingFound { folder: folder.to_owned() },
    })
}
