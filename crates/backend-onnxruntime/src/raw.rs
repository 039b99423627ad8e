//! The calls that the `ort` crate has no safe form of: tensors over borrowed bytes of any element type, runs by shared
//! reference, outputs that are held without a copy. The rest of the unsafe code of this crate asks a
//! library for its version (`library`).
//!
//! The engine says that several threads may run one session at once; `ort` asks for `&mut Session` because that does not
//! hold for every device. So [`run`] takes `&Session`, and who calls it on anything but the CPU takes turns (`session`).
//! One session per thread, which the safe form would need, costs 1.2 times the weights for each.
#![expect(unsafe_code, reason = "a session is shared by threads and bytes are bound without copies; see above")]

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::ptr::{NonNull, null, null_mut};
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{DType, Shape, Strings, Tensor};
use ort::memory::{Allocator, MemoryInfo};
use ort::session::builder::SessionBuilder;
use ort::session::{Session, SharedSessionInner};
use ort::sys::{ONNXTensorElementDataType, OrtValue, os_char};
use ort::{AsPointer, Error};
use smallvec::SmallVec;

use crate::convert::{dtype_of_number, element_type};

/// A tensor handed to a run. It borrows its bytes, except for strings, which the engine copies.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    value: Owned,
    /// The memory that it borrows, as addresses.
    borrowed: (usize, usize),
    bytes: PhantomData<&'a [u8]>,
}

/// A value of the engine that is released with this.
#[derive(Debug)]
struct Owned(NonNull<OrtValue>);

// SAFETY: the engine's values have no thread of their own; they are only read here until they are released.
unsafe impl Send for Owned {}
// SAFETY: as above; reading them from several threads at once changes nothing.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the engine, and nobody else releases it.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) };
    }
}

impl Owned {
    fn new(pointer: *mut OrtValue) -> Result<Self, Error> {
        NonNull::new(pointer).map(Self).ok_or_else(|| Error::new("the engine made no value"))
    }
}

/// The sizes as the engine takes them.
fn wide(sizes: &[usize]) -> SmallVec<[i64; 8]> {
    sizes.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect()
}

impl<'a> Input<'a> {
    /// A tensor of a fixed-size dtype over `bytes`, which must lie as its elements ask for.
    pub(crate) fn over(memory: &MemoryInfo<'_>, dtype: DType, sizes: &[usize], bytes: &'a [u8]) -> Result<Self, Error> {
        let width = dtype.size().ok_or_else(|| Error::new("strings lie in no plain memory"))?;
        let expected = sizes.iter().try_fold(width, |total, size| total.checked_mul(*size));
        if expected != Some(bytes.len()) || bytes.as_ptr().align_offset(width) != 0 {
            return Err(Error::new("the bytes of an input do not fit its shape"));
        }
        let (wide, mut value) = (wide(sizes), null_mut());
        // SAFETY: the engine gets exactly the bytes that the shape asks for (checked above), aligned for their type; it
        // only reads inputs, and the lifetime of `Self` keeps them there as long as the value lives.
        let status = unsafe {
            let data = bytes.as_ptr().cast_mut().cast();
            let kind = element_type(dtype);
            (ort::api().CreateTensorWithDataAsOrtValue)(
                memory.ptr(),
                data,
                bytes.len(),
                wide.as_ptr(),
                wide.len(),
                kind,
                &raw mut value,
            )
        };
        // SAFETY: the status came from the call above and is used once.
        unsafe { Error::result_from_status(status) }?;
        let start = bytes.as_ptr().addr();
        Ok(Self { value: Owned::new(value)?, borrowed: (start, start + bytes.len()), bytes: PhantomData })
    }

    /// A tensor of strings, copied.
    pub(crate) fn strings<'s>(
        sizes: &[usize],
        strings: impl ExactSizeIterator<Item = &'s [u8]>,
    ) -> Result<Self, Error> {
        if sizes.iter().product::<usize>() != strings.len() {
            return Err(Error::new("the strings of an input do not fit its shape"));
        }
        let (wide, mut value, mut allocator) = (wide(sizes), null_mut(), Allocator::default());
        let kind = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING;
        // SAFETY: shape and allocator live through the call.
        let status = unsafe {
            (ort::api().CreateTensorAsOrtValue)(allocator.ptr_mut(), wide.as_ptr(), wide.len(), kind, &raw mut value)
        };
        // SAFETY: the status came from the call above and is used once.
        unsafe { Error::result_from_status(status) }?;
        let value = Owned::new(value)?;
        for (index, string) in strings.enumerate() {
            let mut room: *mut c_char = null_mut();
            // SAFETY: `index` is below the number of elements (checked above), and the engine makes room for `len` bytes.
            let status = unsafe {
                (ort::api().GetResizedStringTensorElementBuffer)(value.0.as_ptr(), index, string.len(), &raw mut room)
            };
            // SAFETY: the status came from the call above and is used once.
            unsafe { Error::result_from_status(status) }?;
            if !string.is_empty() {
                // SAFETY: `room` has `string.len()` bytes, which the value owns and nobody else looks at.
                unsafe { room.cast::<u8>().copy_from_nonoverlapping(string.as_ptr(), string.len()) };
            }
        }
        Ok(Self { value, borrowed: (0, 0), bytes: PhantomData })
    }
}

/// What a run gave for one output: memory of the engine, kept until this is dropped.
#[derive(Debug)]
struct Output {
    value: Owned,
    /// The allocator of the memory belongs to the session.
    _session: Arc<SharedSessionInner>,
    dtype: DType,
    sizes: SmallVec<[usize; 8]>,
    data: (NonNull<u8>, usize),
}

// SAFETY: the memory behind `data` belongs to `value`, which may move between threads, and is only read.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: pointer and length describe the value's buffer (`Output::new`), and nobody writes to it after the run.
        unsafe { slice::from_raw_parts(self.data.0.as_ptr(), self.data.1) }
    }
}

impl Output {
    fn new(value: Owned, session: Arc<SharedSessionInner>) -> Result<Self, Error> {
        let pointer = value.0.as_ptr();
        let mut is_tensor = 0;
        // SAFETY: `pointer` is a live value.
        unsafe { Error::result_from_status((ort::api().IsTensor)(pointer, &raw mut is_tensor)) }?;
        if is_tensor == 0 {
            return Err(Error::new("an output is not a tensor"));
        }
        let (dtype, sizes) = type_and_sizes(pointer)?;
        let elements = sizes.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        let length = elements.and_then(|count| count.checked_mul(dtype.size().unwrap_or(0)));
        let length = length.ok_or_else(|| Error::new("an output does not fit in memory"))?;
        let mut data = null_mut();
        if length > 0 {
            // SAFETY: `pointer` is a live tensor of a fixed-size type.
            let status = unsafe { (ort::api().GetTensorMutableData)(pointer, &raw mut data) };
            // SAFETY: the status came from the call above and is used once.
            unsafe { Error::result_from_status(status) }?;
        }
        let data = NonNull::new(data.cast::<u8>()).or_else(|| (length == 0).then_some(NonNull::dangling()));
        let data = data.ok_or_else(|| Error::new("an output has no memory"))?;
        Ok(Self { value, _session: session, dtype, sizes, data: (data, length) })
    }

    /// Whether its memory is that of an input, as where a graph hands an input through.
    fn lies_in(&self, input: &Input<'_>) -> bool {
        let start = self.data.0.as_ptr().addr();
        self.data.1 > 0 && start < input.borrowed.1 && start + self.data.1 > input.borrowed.0
    }

    /// As a tensor of ours: a copy where that costs less than holding on, or where the memory is one of `inputs`.
    fn into_tensor(self, inputs: &[Input<'_>]) -> Result<Tensor, Error> {
        const SMALL: usize = 512;
        if self.dtype == DType::Bytes {
            let strings = self.strings()?;
            return Tensor::from_strings(&self.sizes, strings).map_err(Error::wrap);
        }
        let (dtype, shape) = (self.dtype, Shape::new(&self.sizes).map_err(Error::wrap)?);
        let is_copied = self.data.1 <= SMALL || inputs.iter().any(|input| self.lies_in(input));
        let bytes = if is_copied { Bytes::copy_from_slice(self.as_ref()) } else { Bytes::from_owner(self) };
        Tensor::new(dtype, shape, bytes).map_err(Error::wrap)
    }

    /// The elements of a tensor of strings.
    fn strings(&self) -> Result<Strings, Error> {
        let pointer = self.value.0.as_ptr();
        let count: usize = self.sizes.iter().product();
        let mut length = 0;
        // SAFETY: `pointer` is a live tensor; the engine says so itself where it is not one of strings.
        unsafe { Error::result_from_status((ort::api().GetStringTensorDataLength)(pointer, &raw mut length)) }?;
        let (mut text, mut offsets) = (vec![0_u8; length], vec![0_usize; count]);
        // SAFETY: both buffers have the lengths that are passed along.
        let status = unsafe {
            (ort::api().GetStringTensorContent)(pointer, text.as_mut_ptr().cast(), length, offsets.as_mut_ptr(), count)
        };
        // SAFETY: the status came from the call above and is used once.
        unsafe { Error::result_from_status(status) }?;
        offsets.push(length);
        Strings::new(Bytes::from(text), offsets).ok_or_else(|| Error::new("an output's strings are in no order"))
    }
}

fn type_and_sizes(pointer: *const OrtValue) -> Result<(DType, SmallVec<[usize; 8]>), Error> {
    let api = ort::api();
    let (mut info, mut kind, mut rank) = (null_mut(), 0_i32, 0_usize);
    // SAFETY: `pointer` is a live tensor, so it has a type and a shape.
    unsafe { Error::result_from_status((api.GetTensorTypeAndShape)(pointer, &raw mut info)) }?;
    // The type is read as a number: a library newer than these words may have types that they do not.
    let mut read = || {
        // SAFETY: `info` lives until it is released below; the type is an enumeration of this width.
        unsafe { Error::result_from_status((api.GetTensorElementType)(info, (&raw mut kind).cast())) }?;
        // SAFETY: as above.
        unsafe { Error::result_from_status((api.GetDimensionsCount)(info, &raw mut rank)) }?;
        let mut sizes: SmallVec<[i64; 8]> = SmallVec::from_elem(0, rank);
        // SAFETY: `sizes` has room for `rank` numbers.
        unsafe { Error::result_from_status((api.GetDimensions)(info, sizes.as_mut_ptr(), rank)) }?;
        Ok(sizes)
    };
    let sizes: Result<SmallVec<[i64; 8]>, Error> = read();
    // SAFETY: made above and used no more.
    unsafe { (api.ReleaseTensorTypeAndShapeInfo)(info) };
    let dtype = dtype_of_number(kind).ok_or_else(|| Error::new("an output is of a type that no answer can carry"))?;
    let sizes = sizes?.into_iter().map(|size| usize::try_from(size).map_err(|_| Error::new("a size is negative")));
    Ok((dtype, sizes.collect::<Result<_, _>>()?))
}

/// Runs `session` on `inputs`, which go by `input_names`, for the outputs `output_names`. Answers lie in the engine's own
/// memory, without a copy, but for small ones and for those that an input was handed through to: that memory is the
/// caller's again afterwards.
///
/// # Errors
/// What the engine says.
pub(crate) fn run(
    session: &Session,
    input_names: &[CString],
    inputs: &[Input<'_>],
    output_names: &[&CStr],
) -> Result<SmallVec<[Tensor; 2]>, Error> {
    if input_names.len() != inputs.len() {
        return Err(Error::new("the session has another number of inputs"));
    }
    let names: SmallVec<[*const c_char; 4]> = input_names.iter().map(|name| name.as_ptr()).collect();
    let values: SmallVec<[*const OrtValue; 4]> =
        inputs.iter().map(|input| input.value.0.as_ptr().cast_const()).collect();
    let wanted: SmallVec<[*const c_char; 2]> = output_names.iter().map(|name| name.as_ptr()).collect();
    let mut outputs: SmallVec<[*mut OrtValue; 2]> = SmallVec::from_elem(null_mut(), wanted.len());
    // SAFETY: all names and values live through the call, and the arrays have the lengths that are passed along. The
    // engine allows several threads in `Run` of one session; it is not changed by it. Null stands for an output that the
    // engine allocates.
    let status = unsafe {
        (ort::api().Run)(
            session.ptr().cast_mut(),
            null(),
            names.as_ptr(),
            values.as_ptr(),
            values.len(),
            wanted.as_ptr(),
            wanted.len(),
            outputs.as_mut_ptr(),
        )
    };
    // Owned before anything can fail, so that none is lost.
    let owned: SmallVec<[Result<Owned, Error>; 2]> = outputs.into_iter().map(Owned::new).collect();
    // SAFETY: the status came from the call above and is used once.
    unsafe { Error::result_from_status(status) }?;
    owned.into_iter().map(|value| Output::new(value?, session.inner())?.into_tensor(inputs)).collect()
}

/// Makes a session from the file `model` and the external files that it names, which the engine gets from memory.
///
/// # Errors
/// What the engine says.
pub(crate) fn commit(
    builder: &mut SessionBuilder,
    model: &[u8],
    external: &[(CString, Bytes)],
) -> Result<Session, Error> {
    for (name, content) in external {
        let name: *const os_char = name.as_ptr().cast();
        let (data, length) = (content.as_ptr().cast_mut().cast::<c_char>(), content.len());
        // SAFETY: name and content live until the session is made below, which is as long as the engine reads them.
        let status = unsafe {
            (ort::api().AddExternalInitializersFromMemory)(
                builder.ptr_mut(),
                &raw const name,
                &raw const data,
                &raw const length,
                1,
            )
        };
        // SAFETY: the status came from the call above and is used once.
        unsafe { Error::result_from_status(status) }?;
    }
    builder.commit_from_memory(model)
}

/// The names of the execution providers that were built into the library.
///
/// # Errors
/// What the engine says.
pub(crate) fn providers() -> Result<Vec<String>, Error> {
    let (mut list, mut count) = (null_mut(), 0);
    // SAFETY: both places live through the call.
    unsafe { Error::result_from_status((ort::api().GetAvailableProviders)(&raw mut list, &raw mut count)) }?;
    let mut names = Vec::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the list has `count` texts that end in zero.
        let name = unsafe { CStr::from_ptr(*list.add(index)) };
        names.push(name.to_string_lossy().into_owned());
    }
    // SAFETY: made above, released once.
    unsafe { Error::result_from_status((ort::api().ReleaseAvailableProviders)(list, count)) }?;
    Ok(names)
}
