//! Functions of CUDA's libraries that jump to addresses in slots, which `loader` fills.

use std::ffi::{CStr, c_void};

use candle_core::cuda_backend::cudarc::driver::sys::CUDA_VERSION;

use crate::backend::driver;

/// The version of CUDA that the program was built with.
pub(super) const BUILT_WITH: i32 = CUDA_VERSION as i32;

/// A library of CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Cuda,
    Cublas,
    CublasLt,
    Curand,
    /// Compiles kernels at run time; nothing here asks for that.
    Nvrtc,
    /// Functions that nothing here calls.
    Nothing,
}

impl Source {
    /// Those that must be there, in the order in which they need each other.
    pub(super) const NEEDED: [Self; 4] = [Self::Cuda, Self::CublasLt, Self::Cublas, Self::Curand];

    /// The name of its file: that of the CUDA that the program was built with.
    pub(super) fn file(self) -> String {
        let major = CUDA_VERSION / 1000;
        match self {
            Self::Cuda => driver::LIBRARY.to_owned(),
            Self::Cublas => format!("libcublas.so.{major}"),
            Self::CublasLt => format!("libcublasLt.so.{major}"),
            // Its version is 10 in CUDA 11 to 13.
            Self::Curand => "libcurand.so.10".to_owned(),
            Self::Nvrtc => format!("libnvrtc.so.{major}"),
            Self::Nothing => String::new(),
        }
    }
}

/// What a slot holds until it is filled.
#[unsafe(no_mangle)]
extern "C" fn laptop_diff_missing_function() {
    panic!("BUG: a function of CUDA was called that is not loaded");
}

/// The names of the functions, and where the slots are.
pub(super) type Functions = [(Source, &'static CStr)];
/// The first slot.
pub(super) type Slots = *mut *mut c_void;

/// Defines functions that jump to the addresses in their slots, in the order of the list.
macro_rules! functions {
    ($($source:ident: $($name:ident)*;)*) => {
        std::arch::global_asm!(
            ".pushsection .data.laptop_diff_slots, \"aw\"",
            ".balign 8",
            ".globl laptop_diff_slots",
            "laptop_diff_slots:",
            $($(
                concat!("laptop_diff_slot_", stringify!($name), ": .quad laptop_diff_missing_function"),
            )*)*
            ".popsection",
            ".pushsection .text.laptop_diff_functions, \"ax\"",
            $($(
                concat!(".globl ", stringify!($name)),
                concat!(".type ", stringify!($name), ", @function"),
                concat!(stringify!($name), ":"),
                $crate::backend::cuda::slots::jump!($name),
            )*)*
            ".popsection",
        );

        unsafe extern "C" {
            static mut laptop_diff_slots: [*mut std::ffi::c_void; FUNCTIONS.len()];
        }

        /// The first slot.
        pub(super) fn slots() -> super::slots::Slots {
            (&raw mut laptop_diff_slots).cast()
        }

        /// The functions in the order of their slots.
        pub(super) const FUNCTIONS: &super::slots::Functions = &[$($(
            (
                super::slots::Source::$source,
                match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("BUG: a name with a null byte"),
                },
            ),
        )*)*];
    };
}

/// The instructions that jump to the address in a slot and keep all arguments.
#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    ($name:ident) => {
        concat!("jmp qword ptr [rip + laptop_diff_slot_", stringify!($name), "]")
    };
}

/// The same for ARM: x16 is free between functions.
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    ($name:ident) => {
        concat!(
            "adrp x16, laptop_diff_slot_",
            stringify!($name),
            "\n",
            "ldr x16, [x16, :lo12:laptop_diff_slot_",
            stringify!($name),
            "]\n",
            "br x16"
        )
    };
}

pub(super) use {functions, jump};
