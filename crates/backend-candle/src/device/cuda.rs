//! NVIDIA cards: opening one with a stream of its own, its memory, and what its errors mean.
//!
//! A card is opened once for each stream, and everything of one opening, its weights included, is used on that stream alone.
//! candle refuses to mix tensors of two openings, which is what makes it safe to do without events between streams.

mod pinned;

use candle_core::cuda_backend::cudarc::driver::{CudaStream, DriverError, result, sys};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaError, cudarc};
use candle_core::{Device, WithDType};
use std::ffi::c_void;
use std::sync::Arc;

use super::memory::Free;
pub(crate) use pinned::Pinned;

/// Whether this program could use a card.
pub(super) const IS_BUILT_IN: bool = true;

/// Numbers that a place takes.
pub(crate) trait Number: WithDType + bytemuck::Pod + CudaDType + cudarc::driver::DeviceRepr {}

impl<T: WithDType + bytemuck::Pod + CudaDType + cudarc::driver::DeviceRepr> Number for T {}

/// A card and one stream on it.
#[derive(Debug)]
pub(super) struct Card {
    device: CudaDevice,
    name: String,
}

impl Card {
    /// Opens card `number` with a new stream.
    ///
    /// # Errors
    /// What is missing, for the operator.
    pub(super) fn open(number: usize) -> Result<Self, String> {
        let device = CudaDevice::new_with_stream(number).map_err(|error| unavailable(number, &error))?;
        #[expect(unsafe_code, reason = "candle offers the switch as an unsafe function only")]
        // SAFETY: the context object was made with the device and has this one stream, and candle lets tensors of one device
        // meet only tensors of the same device. So no memory of it is ever used, or freed, on another stream.
        unsafe {
            device.disable_event_tracking();
        }
        let stream = device.cuda_stream();
        let (name, capability) = (stream.context().name(), stream.context().compute_capability());
        let describe = || -> Result<String, DriverError> {
            let (major, minor) = capability?;
            Ok(format!("{}, compute capability {major}.{minor}", name?))
        };
        let name = describe().map_err(|error| format!("card {number}: {}", plain(&error)))?;
        let card = Self { device, name };
        card.keep_memory();
        Ok(card)
    }

    /// candle's device.
    pub(super) fn device(&self) -> Device {
        Device::Cuda(self.device.clone())
    }

    /// The maker's name of it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Gives back what the card's allocator keeps for reuse.
    pub(super) fn trim(&self) {
        // What the allocator keeps for blocks that are freed further on in the stream becomes free only there.
        let _ = self.stream().synchronize();
        if let Some(pool) = self.pool() {
            #[expect(unsafe_code, reason = "the bindings have no safe form")]
            // SAFETY: the pool is the device's default one, which lives as long as the device.
            let trimmed = unsafe { result::mem_pool::trim_to(pool, 0) };
            if let Err(error) = trimmed {
                tracing::debug!(error = %plain(&error), "the card's cached memory was not given back");
            }
        }
    }

    fn stream(&self) -> Arc<CudaStream> {
        self.device.cuda_stream()
    }

    /// The allocator that candle's tensors come from; none on cards that lack stream-ordered allocation.
    fn pool(&self) -> Option<sys::CUmemoryPool> {
        let stream = self.stream();
        let context = stream.context();
        context.has_async_alloc().then_some(())?;
        context.bind_to_thread().ok()?;
        #[expect(unsafe_code, reason = "the bindings have no safe form")]
        // SAFETY: the device is the one that the context was made for.
        unsafe { result::device::get_default_mem_pool(context.cu_device()) }.ok()
    }

    /// Lets the allocator keep freed memory for the next run: by default it returns all of it whenever the stream is waited
    /// for, and then asks the system for it again in every run.
    fn keep_memory(&self) {
        let Some(pool) = self.pool() else { return };
        let mut threshold = u64::MAX;
        let value: *mut c_void = std::ptr::from_mut(&mut threshold).cast();
        #[expect(unsafe_code, reason = "the bindings have no safe form")]
        // SAFETY: the pool is the device's default one, and this attribute is read from a `u64`.
        let set = unsafe {
            result::mem_pool::set_attribute(
                pool,
                sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                value,
            )
        };
        if let Err(error) = set {
            tracing::debug!(error = %plain(&error), "the card's allocator keeps no memory between runs");
        }
    }

    fn pool_bytes(pool: sys::CUmemoryPool, attribute: sys::CUmemPool_attribute_enum) -> Option<u64> {
        let mut bytes = 0_u64;
        let value: *mut c_void = std::ptr::from_mut(&mut bytes).cast();
        #[expect(unsafe_code, reason = "the bindings have no safe form")]
        // SAFETY: the pool is the device's default one, and the attributes asked for here are written as a `u64`.
        unsafe { result::mem_pool::get_attribute(pool, attribute, value) }.ok()?;
        Some(bytes)
    }
}

impl Free for Card {
    fn free(&self) -> Option<u64> {
        use sys::CUmemPool_attribute_enum::{CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, CU_MEMPOOL_ATTR_USED_MEM_CURRENT};
        let (free, _) = self.stream().context().mem_get_info().ok()?;
        let kept = || {
            let pool = self.pool()?;
            let reserved = Self::pool_bytes(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
            Some(reserved.saturating_sub(Self::pool_bytes(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?))
        };
        Some((free as u64).saturating_add(kept().unwrap_or(0)))
    }
}

/// Whether `error` says that the card, or a library on it, found no memory.
pub(super) fn is_out_of_memory(error: &candle_core::Error) -> bool {
    let Some(error) = cuda_error(error) else { return false };
    match error {
        CudaError::Cuda(error) | CudaError::Load { cuda: error, .. } => {
            error.0 == sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY
        }
        CudaError::Cublas(error) => error.0 == cudarc::cublas::sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED,
        CudaError::Curand(error) => error.0 == cudarc::curand::sys::curandStatus::CURAND_STATUS_ALLOCATION_FAILED,
        _ => false,
    }
}

/// The bindings' error inside candle's.
fn cuda_error(error: &candle_core::Error) -> Option<&CudaError> {
    let mut error = error;
    loop {
        match error {
            candle_core::Error::WithBacktrace { inner, .. } | candle_core::Error::Context { inner, .. } => {
                error = inner
            }
            candle_core::Error::Cuda(inner) => return inner.downcast_ref(),
            _ => return None,
        }
    }
}

/// Why card `number` does not answer, and what would help.
fn unavailable(number: usize, error: &candle_core::Error) -> String {
    use sys::cudaError_enum::{
        CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_NO_DEVICE, CUDA_ERROR_STUB_LIBRARY, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
    };
    match cuda_error(error) {
        Some(CudaError::Cuda(error)) => match error.0 {
            CUDA_ERROR_STUB_LIBRARY => "no NVIDIA driver: libcuda.so.1 is not on the loader's path".to_owned(),
            CUDA_ERROR_NO_DEVICE => "the NVIDIA driver sees no card".to_owned(),
            CUDA_ERROR_INVALID_DEVICE => format!("the NVIDIA driver sees no card {number}"),
            CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => "the NVIDIA driver and its kernel module differ in version".to_owned(),
            _ => format!("card {number}: {}", plain(error)),
        },
        Some(CudaError::Cublas(error)) => format!(
            "card {number} answers but cuBLAS does not ({error}): libcublas.so.13 and libcublasLt.so.13 must be on the loader's \
             path, and the driver must be of CUDA 13 or later"
        ),
        Some(CudaError::Curand(error)) => {
            format!("card {number} answers but cuRAND does not ({error}): libcurand.so.10 must be on the loader's path")
        }
        _ => format!("card {number}: {error}"),
    }
}

/// The driver's words for an error.
fn plain(error: &DriverError) -> String {
    let text = error.error_string().ok().and_then(|text| text.to_str().ok());
    text.map_or_else(|| format!("{:?}", error.0), |text| format!("{text} ({:?})", error.0))
}

#[cfg(test)]
mod tests {
    use candle_core::cuda_backend::{CudaError, WrapErr, cudarc};

    use super::{is_out_of_memory, unavailable};

    fn driver(code: cudarc::driver::sys::cudaError_enum) -> candle_core::Error {
        Err::<(), _>(cudarc::driver::DriverError(code)).w().unwrap_err()
    }

    #[test]
    fn the_card_s_errors_are_told_apart() {
        use cudarc::driver::sys::cudaError_enum as Code;
        assert!(is_out_of_memory(&driver(Code::CUDA_ERROR_OUT_OF_MEMORY).context("in a layer")));
        assert!(!is_out_of_memory(&driver(Code::CUDA_ERROR_LAUNCH_FAILED)));
        assert!(!is_out_of_memory(&candle_core::Error::Msg("out of memory".to_owned())));
        let full = cudarc::cublas::result::CublasError(cudarc::cublas::sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED);
        assert!(is_out_of_memory(&candle_core::Error::from(CudaError::Cublas(full))));
        assert!(unavailable(1, &driver(Code::CUDA_ERROR_STUB_LIBRARY)).contains("libcuda.so.1"));
        assert!(unavailable(1, &driver(Code::CUDA_ERROR_INVALID_DEVICE)).contains("no card 1"));
    }
}
