//! `laptop-diff doctor`: what this machine has, what is missing, and whether a pipeline fits.

mod remote;

use std::path::PathBuf;
use std::process::ExitCode as ProcessExitCode;

use candle_core::Device;
use clap::Args;
use serde::Serialize;

use self::remote::Remote;
use super::error::CliError;
use super::options::SettingsArguments;
use super::output::{print, print_json, table};
use crate::backend::driver::{self, Card};
use crate::backend::machine::{self, Host};
use crate::backend::{DeviceChoice, DeviceClass, memory, missing_libraries};
use crate::base::{StageId, path_text, units};
use crate::config::{Override, PipelineFile, Settings};
use crate::model::files::hub::{self, Access};
use crate::plan::{ResolvedPipeline, StageNeeds};
use crate::run::ExitCode;
use crate::stage::Needs;

/// Show what this machine has, what is missing, and whether a pipeline fits
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff doctor
  laptop-diff doctor pipelines/sdxl50.yaml
  laptop-diff doctor pipelines/sdxl50.yaml --set retrained.training.batch-size=8 --device cuda:0
  laptop-diff doctor --json

Exits with 0; with 3 if the device that is asked for cannot be used, 4 if the disk is too small or a
file of the pipeline is missing, and 5 if one of its stages cannot fit into memory. Estimates come
from the configurations of models: a selection is taken to remove just the share that it asks for,
and a model on the hub is known once it is downloaded.")]
pub(super) struct Doctor {
    /// A pipeline file, whose stages are estimated
    file: Option<PathBuf>,
    /// Override one value of the file: ID.PARAMETER=VALUE, or seed=VALUE; may be repeated
    #[arg(long, value_name = "ID.PARAMETER=VALUE", requires = "file")]
    set: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArguments,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    host: Host,
    threads: usize,
    gpus: Gpus,
    cache: Folder,
    runs: Folder,
    hub: Access,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<Remote>,
    device: Chosen,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<Estimate>,
}

#[derive(Serialize)]
struct Gpus {
    /// Why the driver does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_problem: Option<String>,
    /// The newest version of CUDA that the driver supports.
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_supports_cuda: Option<String>,
    /// The version of the driver itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_version: Option<String>,
    cards: Vec<CardRow>,
    /// Libraries that this program would use, with what to install.
    missing_libraries: Vec<Missing>,
    /// Why this program uses none.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_available: Option<String>,
}

#[derive(Serialize)]
struct CardRow {
    device: String,
    name: String,
    memory: u64,
    free: u64,
    compute_capability: String,
}

#[derive(Serialize)]
struct Missing {
    file: String,
    install: &'static str,
}

#[derive(Serialize)]
struct Folder {
    folder: String,
    free: Option<u64>,
}

/// The device that the settings choose.
#[derive(Serialize)]
struct Chosen {
    asked: String,
    class: DeviceClass,
    /// Bytes of its memory that a stage may use.
    available: u64,
    /// Bytes that can be allocated at most: a stage that needs more is refused.
    free: u64,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Estimate {
    name: String,
    stages: Vec<StageRow>,
    /// Bytes of all stages' files.
    disk: u64,
    fits_memory: bool,
    fits_disk: bool,
    /// Whether all files are there.
    is_complete: bool,
}

#[derive(Serialize)]
struct StageRow {
    id: StageId,
    stage: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<Needs>,
    fits: bool,
    /// A file that it reads and that is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    /// Whether its model is known only once it is downloaded.
    downloads: bool,
}

impl Doctor {
    pub(super) fn execute(self) -> Result<ProcessExitCode, CliError> {
        let pipeline = self.file.as_ref().map(|file| self.read(file)).transpose()?;
        let (settings, threads) = self.settings.load_counted()?;
        let device = Chosen::of(settings.device);
        let cache = Folder::of(&settings.cache);
        let pipeline = pipeline.map(|pipeline| Estimate::of(&pipeline, &device, cache.free));
        let remote = settings.shared()?.map(|shared| Remote::ask(&shared));
        let report = Report { remote, ..Report::of(&settings, threads, device, cache, pipeline) };
        if self.json {
            print_json(&report)?
        } else {
            print(&shown(&report))?
        }
        Ok(report.exit_code().into())
    }

    fn read(&self, file: &std::path::Path) -> Result<ResolvedPipeline, CliError> {
        let sets = self.set.iter().map(|text| Override::set(text));
        let overrides: Vec<Override> = sets.collect::<Result<_, _>>()?;
        Ok(ResolvedPipeline::new(PipelineFile::read(file, &overrides)?)?)
    }
}

impl Report {
    fn of(
        settings: &Settings,
        threads: usize,
        device: Chosen,
        cache: Folder,
        pipeline: Option<Estimate>,
    ) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            host: Host::ask(),
            threads,
            gpus: Gpus::ask(),
            cache,
            runs: Folder::of(&settings.runs),
            hub: hub::access(),
            remote: None,
            device,
            pipeline,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match &self.pipeline {
            _ if self.device.problem.is_some() => ExitCode::Pipeline,
            Some(pipeline) if !pipeline.fits_memory => ExitCode::Memory,
            Some(pipeline) if !pipeline.fits_disk || !pipeline.is_complete => ExitCode::File,
            _ => ExitCode::Done,
        }
    }
}

impl Gpus {
    fn ask() -> Self {
        let version = |text: i32| format!("{}.{}", text / 1000, text % 1000 / 10);
        let driver = driver::driver().map_err(str::to_owned);
        let cards = driver.clone().and_then(|driver| driver.cards());
        let row = |card: Card| CardRow {
            device: DeviceChoice::Cuda(card.index).to_string(),
            name: card.name,
            memory: card.memory,
            free: card.free,
            compute_capability: format!("{}.{}", card.capability.0, card.capability.1),
        };
        let missing = |file: String| Missing { install: package_of(&file), file };
        let module = std::fs::read_to_string("/sys/module/nvidia/version").ok();
        Self {
            driver_supports_cuda: driver.as_ref().ok().map(|driver| version(driver.cuda_version)),
            driver_problem: cards.as_ref().err().cloned(),
            driver_version: module.map(|text| text.trim().to_owned()),
            cards: cards.unwrap_or_default().into_iter().map(row).collect(),
            missing_libraries: missing_libraries().into_iter().map(missing).collect(),
            not_available: DeviceChoice::why_no_cuda(),
        }
    }
}

/// What to install to have a library.
fn package_of(file: &str) -> &'static str {
    match file {
        driver::LIBRARY => {
            "NVIDIA's driver: nvidia-driver (Debian, Ubuntu); on WSL2 the driver of Windows brings it"
        }
        _ if file.starts_with("libcublas") => {
            "libcublas of NVIDIA's repository, or nvidia-cublas of PyPI in LD_LIBRARY_PATH"
        }
        _ if file.starts_with("libcurand") => {
            "libcurand of NVIDIA's repository, or nvidia-curand of PyPI in LD_LIBRARY_PATH"
        }
        _ => "the CUDA toolkit",
    }
}

impl Folder {
    fn of(folder: &std::path::Path) -> Self {
        Self { folder: path_text::of(folder), free: machine::free_disk(folder) }
    }
}

impl Chosen {
    fn of(asked: DeviceChoice) -> Self {
        let class = asked.class();
        let (device, problem) = match asked.open() {
            Ok(device) => (device, None),
            Err(error) => (Device::Cpu, Some(error.to_string())),
        };
        Self {
            asked: asked.to_string(),
            class,
            available: memory::available(&device),
            free: memory::free(&device),
            problem,
        }
    }
}

impl Estimate {
    fn of(pipeline: &ResolvedPipeline, device: &Chosen, free: Option<u64>) -> Self {
        let row = |StageNeeds { id, stage, needs, missing, downloads }: StageNeeds| {
            let fits = needs.is_none_or(|needs| needs.least <= device.free);
            StageRow { id, stage, needs, fits, missing, downloads }
        };
        let stages: Vec<StageRow> =
            pipeline.needs(device.class, device.available).into_iter().map(row).collect();
        let disk = stages.iter().filter_map(|stage| Some(stage.needs?.disk)).fold(0, u64::saturating_add);
        Self {
            name: pipeline.name.clone(),
            disk,
            fits_memory: stages.iter().all(|stage| stage.fits),
            fits_disk: free.is_none_or(|free| disk <= free),
            is_complete: stages.iter().all(|stage| stage.missing.is_none()),
            stages,
        }
    }
}

fn shown(report: &Report) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut line = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    let host = &report.host;
    line("laptop-diff", report.version.to_owned());
    line("processor", host.processor.clone().unwrap_or_else(|| "unknown".to_owned()));
    line("", format!("{} cores, {} threads, {}", host.cores, report.threads, listed(&host.features)));
    let total = host.memory.map_or_else(|| "unknown".to_owned(), units::bytes);
    line("memory", format!("{total}, {} can be used", limit(host.available)));
    gpus(&report.gpus, &mut line);
    let device = &report.device;
    line(
        "device",
        match &device.problem {
            Some(problem) => format!("{}: {problem}", device.asked),
            None => format!(
                "{} -> {}, {} of memory can be used",
                device.asked,
                device.class,
                limit(device.available)
            ),
        },
    );
    for (name, folder) in [("cache", &report.cache), ("runs", &report.runs)] {
        let free = folder.free.map_or_else(String::new, |free| format!(", {} free", units::bytes(free)));
        line(name, format!("{}{free}", folder.folder));
    }
    if let Some(remote) = &report.remote {
        line("remote", remote.shown());
    }
    let token = if report.hub.has_token { "with a token" } else { "without a token" };
    line(
        "hub",
        match (&report.hub.problem, &report.hub.endpoint) {
            (Some(problem), _) => format!("not asked: {problem}"),
            (None, endpoint) => format!("{} {token}", endpoint.as_deref().unwrap_or_default()),
        },
    );
    if let Some(folder) = &report.hub.cache {
        line("", format!("downloads to {folder}"));
    }
    let estimate = report.pipeline.as_ref().map(|pipeline| estimate(pipeline, report)).unwrap_or_default();
    format!("{}{estimate}", table(&rows, &[]))
}

fn gpus(gpus: &Gpus, line: &mut impl FnMut(&str, String)) {
    for card in &gpus.cards {
        let CardRow { device, name, compute_capability, .. } = card;
        let memory = format!("{}, {} free", units::bytes(card.memory), units::bytes(card.free));
        line("GPU", format!("{device}: {name}, {memory}, compute capability {compute_capability}"));
    }
    match (&gpus.driver_problem, &gpus.driver_supports_cuda) {
        (Some(problem), _) => line("GPU", format!("none: {problem}")),
        (None, Some(cuda)) => {
            let version = gpus.driver_version.as_deref().map_or_else(String::new, |text| format!(" {text}"));
            line("driver", format!("NVIDIA{version}, for CUDA up to {cuda}"));
        }
        (None, None) => {}
    }
    for missing in &gpus.missing_libraries {
        line("missing", format!("{}: install {}", missing.file, missing.install));
    }
    if let Some(reason) = &gpus.not_available {
        line("cuda", format!("not available: {reason}"));
    }
}

/// The stages with what they take.
fn estimate(pipeline: &Estimate, report: &Report) -> String {
    let head = ["stage", "use", "weights", "optimiser", "activations", "data", "memory", "disk", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let size = |bytes: u64| if bytes == 0 { "-".to_owned() } else { units::bytes(bytes) };
    for stage in &pipeline.stages {
        let mut row = vec![stage.id.to_string(), stage.stage.clone()];
        if let Some(needs) = stage.needs {
            let Needs { weights, optimiser, activations, data, disk, .. } = needs;
            row.extend([weights, optimiser, activations, data, needs.memory(), disk].map(size));
            row.extend((!stage.fits).then(|| format!("needs {} at once", units::bytes(needs.least))));
        } else if stage.downloads {
            row.extend(vec![String::new(); 6]);
            row.push("known once its model is downloaded".to_owned());
        }
        rows.push(row);
    }
    let memory = format!("{} of memory", limit(report.device.free));
    let free = report.cache.free.map_or_else(|| "an unknown amount".to_owned(), units::bytes);
    let disk = format!("{} of {free} of disk", units::bytes(pipeline.disk));
    let verdict = match (pipeline.fits_memory, pipeline.fits_disk) {
        (true, true) if !pipeline.is_complete => {
            format!("`{}` is not known whole, because files are missing", pipeline.name)
        }
        (true, true) if pipeline.stages.iter().any(|stage| stage.downloads) => {
            format!("whether `{}` fits is known once its models are downloaded", pipeline.name)
        }
        (true, true) => format!("`{}` fits: {memory}, {disk}", pipeline.name),
        (false, _) => format!("`{}` does not fit into {memory}", pipeline.name),
        (true, false) => format!("`{}` does not fit onto the disk: it takes {disk}", pipeline.name),
    };
    let missing = pipeline.stages.iter().filter_map(|stage| stage.missing.as_ref());
    let missing: String = missing.map(|missing| format!("missing: {missing}\n")).collect();
    format!("\n{}\n{missing}{verdict}\n", table(&rows, &[2, 3, 4, 5, 6, 7]))
}

/// An amount of memory that may have no limit.
fn limit(bytes: u64) -> String {
    if bytes == u64::MAX { "an unknown amount".to_owned() } else { units::bytes(bytes) }
}

fn listed(features: &[&str]) -> String {
    if features.is_empty() { "no vector instructions that are known".to_owned() } else { features.join(" ") }
}
