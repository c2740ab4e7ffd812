//! A GPU as a machine: kernels that nvcc has compiled into the program, on candle's stream and with candle's cuBLAS.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex};

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::cudarc::cublas::result::gemm_ex;
use candle_core::cuda_backend::cudarc::cublas::sys::{
    cublasComputeType_t as ComputeType, cublasGemmAlgo_t as Algorithm, cublasOperation_t as Operation,
    cudaDataType_t as DataType,
};
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum as Attribute;
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{DeviceId, gemm_reduced_precision_f32};
use candle_core::{CudaDevice, DType, Result, Shape, Storage, Tensor};

use super::array::Array;
use super::arriving::{self, Rooms};
use super::channels::Numbers;
use super::failure::failed;
use super::launch::{Argument, Launch, Launcher};
use super::machine::{Arriving, Machine};
use super::product::Gemm;
use super::sending::{self, Sent};

/// What `build.rs` has made of `kernels.cu`.
const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// Shared memory that a block may have on every card since Ampere. Without being told, a card gives 48 KiB.
const MOST_SHARED_BYTES: i32 = 99 << 10;

/// The kernels of a device, loaded once; each is looked up once. Beside them, memory for copies to and from the host.
struct Kernels {
    module: Arc<CudaModule>,
    functions: Mutex<HashMap<String, CudaFunction>>,
    rooms: Arc<Rooms>,
    sent: Sent,
}

/// The kernels of each device.
static KERNELS: LazyLock<Mutex<HashMap<DeviceId, Arc<Kernels>>>> = LazyLock::new(Mutex::default);

const NO_PANIC: &str = "nothing panics while it holds the lock";

impl Kernels {
    fn of(device: &CudaDevice) -> Result<Arc<Self>> {
        let mut all = KERNELS.lock().expect(NO_PANIC);
        if let Some(kernels) = all.get(&device.id()) {
            return Ok(kernels.clone());
        }
        let module = device.cuda_stream().context().load_module(Ptx::from_binary(IMAGE.to_vec()));
        let module = module.map_err(|error| failed("the program's kernels do not load", error))?;
        let kernels = Arc::new(Self {
            module,
            functions: Mutex::default(),
            rooms: Arc::default(),
            sent: Sent::default(),
        });
        all.insert(device.id(), kernels.clone());
        Ok(kernels)
    }

    fn function(&self, name: &str) -> Result<CudaFunction> {
        let mut functions = self.functions.lock().expect(NO_PANIC);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let function = self.module.load_function(name).map_err(|error| failed(name, error))?;
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, MOST_SHARED_BYTES).map_err(|error| failed(name, error))?;
        functions.insert(name.to_owned(), function.clone());
        Ok(function)
    }
}

/// A GPU.
pub(super) struct Card {
    device: CudaDevice,
    kernels: Arc<Kernels>,
}

impl Card {
    pub(super) fn new(device: &CudaDevice) -> Result<Self> {
        Ok(Self { device: device.clone(), kernels: Kernels::of(device)? })
    }

    /// Sends the numbers of a contiguous f32 tensor to the host.
    pub(super) fn copy_to_host(&self, tensor: &Tensor) -> Result<Box<dyn Arriving>> {
        arriving::start(&self.device, &self.kernels.rooms, tensor)
    }

    /// A copy of a contiguous f32 tensor of the host.
    pub(super) fn send(&self, tensor: &Tensor) -> Result<Tensor> {
        sending::send(&self.device, &self.kernels.sent, tensor)
    }
}

impl Launcher for Card {
    fn launch(&self, launch: &Launch) -> Result<()> {
        let (stream, function) = (self.device.cuda_stream(), self.kernels.function(&launch.kernel)?);
        let mut builder = stream.launch_builder(&function);
        for argument in &launch.arguments {
            match argument {
                Argument::Pointer(address) => builder.arg(address),
                Argument::Int(number) => builder.arg(number),
                Argument::Float(number) => builder.arg(number),
            };
        }
        let [x, y, z] = launch.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared_bytes,
        };
        // SAFETY: the layers pass what the kernel's parameters are, which the tests check with the same code, and keep the
        // memory until after the launch; what is freed then is freed in the order of the stream.
        unsafe { builder.launch(config) }.map_err(|error| failed(&launch.kernel, error))?;
        Ok(())
    }
}

impl Machine for Card {
    fn allocate(&self, shape: Shape, dtype: DType) -> Result<Array> {
        // SAFETY: a layer allocates what its kernels then write whole.
        let storage = unsafe { self.device.alloc_uninit(&shape, dtype)? };
        Array::owned(Storage::Cuda(storage), shape, dtype)
    }

    fn multiply(&self, product: &Gemm) -> Result<()> {
        let stream = self.device.cuda_stream();
        stream.context().bind_to_thread().map_err(|error| failed("matrix product", error))?;
        let operation = |transposed| if transposed { Operation::CUBLAS_OP_T } else { Operation::CUBLAS_OP_N };
        let dtype = |numbers| match numbers {
            Numbers::Bf16 => DataType::CUDA_R_16BF,
            Numbers::F16 => DataType::CUDA_R_16F,
            Numbers::F32 => DataType::CUDA_R_32F,
        };
        let compute = match product.operands == Numbers::F32 && gemm_reduced_precision_f32() {
            true => ComputeType::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => ComputeType::CUBLAS_COMPUTE_32F,
        };
        let alpha = 1f32;
        let blas = self.device.cublas_handle();
        // SAFETY: the matrices have the sizes that the layers allocated; both factors are f32, as this type of computation wants.
        let done = unsafe {
            gemm_ex(
                *blas.handle(),
                operation(product.transposed[0]),
                operation(product.transposed[1]),
                product.m,
                product.n,
                product.k,
                (&raw const alpha).cast(),
                product.a.0 as *const c_void,
                dtype(product.operands),
                product.lda,
                product.b.0 as *const c_void,
                dtype(product.operands),
                product.ldb,
                (&raw const product.beta).cast(),
                product.c.0 as *mut c_void,
                dtype(product.result),
                product.ldc,
                compute,
                Algorithm::CUBLAS_GEMM_DEFAULT,
            )
        };
        done.map_err(|error| failed(&format!("matrix product {product:?}"), error))
    }
}
