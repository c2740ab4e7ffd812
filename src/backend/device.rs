//! The device that computes.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use serde::{Deserialize, Deserializer, Serialize};

use super::{cuda, driver};
use crate::base::parsed;

/// The device a user may request: `auto`, `cpu`, `cuda:N`, `cuda:N+tf32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum DeviceChoice {
    /// The first CUDA device if the program was built with CUDA and a device responds, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this index.
    Cuda(usize),
    /// The same, with factors of products in f32 rounded to TF32: 10 bits instead of 23, at several times the speed.
    CudaTf32(usize),
}

/// Devices to run on side by side: `cuda:0,cuda:1,cpu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices(Vec<DeviceChoice>);

/// The kind of device, as far as it can change a result's bytes. It is part of the key; an index never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceClass {
    /// Any CPU.
    Cpu,
    /// Any CUDA device.
    Cuda,
    /// Any CUDA device whose products in f32 are in TF32.
    CudaTf32,
}

impl DeviceChoice {
    /// The device class that this resolves to here, without opening the device, which would take longer than a cached
    /// run.
    pub fn class(self) -> DeviceClass {
        match self {
            Self::Cpu => DeviceClass::Cpu,
            Self::Cuda(_) => DeviceClass::Cuda,
            Self::CudaTf32(_) => DeviceClass::CudaTf32,
            // The driver is asked only where there is something to ask.
            Self::Auto if cuda::BUILT && driver::is_there() && cuda::available().is_ok() => DeviceClass::Cuda,
            Self::Auto => DeviceClass::Cpu,
        }
    }

    /// Why no GPU can be used, if so.
    pub fn why_no_cuda() -> Option<String> {
        cuda::available().err()
    }

    /// Why `auto` is the CPU although the program was built for GPUs.
    pub fn why_cpu(self) -> Option<String> {
        match self {
            Self::Auto if cuda::BUILT && self.class() == DeviceClass::Cpu => {
                Some(format!("cuda: {}", not_available()))
            }
            _ => None,
        }
    }

    /// The device of one of several processes on a machine: each has a GPU of its own, counted from the one that was asked
    /// for. A scheduler may show each process only its own; then that one is meant.
    pub fn of_process(self, index: usize) -> Self {
        self.shifted(index, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())
    }

    fn shifted(self, by: usize, visible: Option<&str>) -> Self {
        let has_own = visible.is_some_and(|list| !list.contains(','));
        match self {
            _ if by == 0 || has_own => self,
            Self::Cuda(first) => Self::Cuda(first + by),
            Self::CudaTf32(first) => Self::CudaTf32(first + by),
            Self::Auto if self.class() == DeviceClass::Cuda => Self::Cuda(by),
            Self::Auto | Self::Cpu => self,
        }
    }

    /// Opens the device. Fails if a CUDA device was requested by index and is not available, or if the one that `auto` chose
    /// does not open.
    pub fn open(self) -> candle_core::Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if self.class() == DeviceClass::Cpu => Ok(Device::Cpu),
            Self::Auto => cuda::open(0, false),
            Self::Cuda(index) | Self::CudaTf32(index) => match cuda::available() {
                Ok(()) => cuda::open(index, matches!(self, Self::CudaTf32(_))),
                Err(_) => candle_core::bail!("cuda: {}", not_available()),
            },
        }
    }
}

impl Devices {
    /// The device of stages that compute: the first GPU, or the CPU.
    pub fn main(&self) -> DeviceChoice {
        *self.0.iter().find(|device| **device != DeviceChoice::Cpu).unwrap_or(&DeviceChoice::Cpu)
    }

    /// All of them, in order.
    pub fn all(&self) -> &[DeviceChoice] {
        &self.0
    }
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut devices: Vec<DeviceChoice> = Vec::new();
        for device in text.split(',').map(|part| part.trim().parse()) {
            let device: DeviceChoice = device?;
            let gpu = |device: &&DeviceChoice| **device != DeviceChoice::Cpu;
            let other = devices.iter().find(gpu).filter(|other| other.class() != device.class());
            match (device, other) {
                (DeviceChoice::Auto, _) => return Err("`auto` is no list of devices; name them".to_owned()),
                (_, _) if devices.contains(&device) => return Err(format!("`{device}` is named twice")),
                (device, Some(other)) if device != DeviceChoice::Cpu => {
                    return Err(format!(
                        "`{other}` and `{device}` round differently: one run needs GPUs of one kind"
                    ));
                }
                _ => devices.push(device),
            }
        }
        Ok(Self(devices))
    }
}

/// Why CUDA cannot be used.
fn not_available() -> String {
    match cuda::available() {
        Ok(()) => "not available: the kernel knows no GPU".to_owned(),
        Err(reason) => format!("not available: {reason}"),
    }
}

impl DeviceClass {
    /// The class of an open device.
    pub fn of(device: &Device) -> Self {
        match device.is_cuda() {
            true if cuda::rounds_to_tf32() => Self::CudaTf32,
            true => Self::Cuda,
            false => Self::Cpu,
        }
    }
}

impl fmt::Display for DeviceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::CudaTf32 => "cuda-tf32",
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::CudaTf32(index) => write!(f, "cuda:{index}+tf32"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let index = text.strip_prefix("cuda:").map(|rest| (rest.strip_suffix("+tf32"), rest));
                let parsed = index.and_then(|(tf32, rest)| match tf32 {
                    Some(index) => index.parse().ok().map(Self::CudaTf32),
                    None => rest.parse().ok().map(Self::Cuda),
                });
                parsed
                    .ok_or_else(|| format!("`{text}` is not a device; give auto, cpu, cuda:N or cuda:N+tf32"))
            }
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl<'de> Deserialize<'de> for DeviceChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed::text(deserializer, "auto, cpu, cuda:N or cuda:N+tf32")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_one_machine_have_gpus_of_their_own() {
        for (asked, visible, expected) in [
            (DeviceChoice::Cuda(0), None, DeviceChoice::Cuda(2)),
            (DeviceChoice::Cuda(4), Some("0,1,2,3,4,5,6,7"), DeviceChoice::Cuda(6)),
            (DeviceChoice::Cuda(0), Some("5"), DeviceChoice::Cuda(0)),
            (DeviceChoice::Cpu, None, DeviceChoice::Cpu),
            (DeviceChoice::CudaTf32(1), None, DeviceChoice::CudaTf32(3)),
        ] {
            assert_eq!(asked.shifted(2, visible), expected, "{asked} with {visible:?}");
            assert_eq!(asked.shifted(0, visible), asked);
        }
    }

    #[test]
    fn a_list_of_devices_has_gpus_of_one_kind() {
        let list = |text: &str| text.parse::<Devices>();
        let devices = list("cpu, cuda:0,cuda:1").expect("a list");
        let gpus = [DeviceChoice::Cuda(0), DeviceChoice::Cuda(1)];
        assert_eq!(devices.all(), [&[DeviceChoice::Cpu], &gpus[..]].concat());
        assert_eq!((devices.main(), list("cpu").map(|cpu| cpu.main())), (gpus[0], Ok(DeviceChoice::Cpu)));
        for (text, word) in [
            ("cuda:0,cuda:0", "twice"),
            ("cuda:0,cuda:1+tf32", "round"),
            ("auto", "auto"),
            ("", "not a device"),
        ] {
            assert!(list(text).is_err_and(|error| error.contains(word)), "{text}");
        }
    }

    #[test]
    fn tf32_is_part_of_a_device_and_of_its_class() {
        let parsed = |text: &str| text.parse::<DeviceChoice>();
        assert_eq!(parsed("cuda:3+tf32"), Ok(DeviceChoice::CudaTf32(3)));
        for text in ["cuda:3+tf32", "cuda:3", "cpu", "auto"] {
            assert_eq!(parsed(text).map(|choice| choice.to_string()), Ok(text.to_owned()));
        }
        for text in ["cuda:+tf32", "cuda:3+", "cpu+tf32", "cuda:3+bf16"] {
            assert!(parsed(text).is_err_and(|error| error.contains("cuda:N+tf32")), "{text}");
        }
        assert_eq!(DeviceChoice::CudaTf32(0).class().to_string(), "cuda-tf32");
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_gpu_that_is_asked_for_is_refused_with_the_reason() {
        let refused = DeviceChoice::Cuda(0).open().expect_err("built without CUDA").to_string();
        assert!(refused.starts_with("cuda: not available: this program was built without CUDA"), "{refused}");
        assert_eq!((DeviceChoice::Auto.class(), DeviceChoice::Auto.why_cpu()), (DeviceClass::Cpu, None));
    }
}
