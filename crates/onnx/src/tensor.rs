//! Constant tensors.

use std::borrow::Cow;
use std::io;

use crate::error::{OnnxError, shown};
use crate::external::External;
use crate::wire::{bodies, body, fixed32s, fixed64s, number, signed, text, varints};

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are the format's types under the protocol's names")]
pub enum ElementType {
    Fp32,
    Uint8,
    Int8,
    Uint16,
    Int16,
    Int32,
    Int64,
    String,
    Bool,
    Fp16,
    Fp64,
    Uint32,
    Uint64,
    Bf16,
    /// Floats of eight bits, in one of five layouts.
    Fp8,
    Uint4,
    Int4,
    Fp4,
    Uint2,
    Int2,
    /// Complex numbers, no type at all, or one that this reader does not know.
    Other,
}

impl ElementType {
    pub(crate) fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Fp32,
            2 => Self::Uint8,
            3 => Self::Int8,
            4 => Self::Uint16,
            5 => Self::Int16,
            6 => Self::Int32,
            7 => Self::Int64,
            8 => Self::String,
            9 => Self::Bool,
            10 => Self::Fp16,
            11 => Self::Fp64,
            12 => Self::Uint32,
            13 => Self::Uint64,
            16 => Self::Bf16,
            17..=20 | 24 => Self::Fp8,
            21 => Self::Uint4,
            22 => Self::Int4,
            23 => Self::Fp4,
            25 => Self::Uint2,
            26 => Self::Int2,
            _ => Self::Other,
        }
    }

    /// The type that the format numbers `number`, as the attribute `to` of `Cast` has it.
    pub fn from_onnx(number: i64) -> Self {
        u64::try_from(number).map_or(Self::Other, Self::from_number)
    }

    /// The name, such as `FP32`; `BYTES` for strings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "FP32",
            Self::Uint8 => "UINT8",
            Self::Int8 => "INT8",
            Self::Uint16 => "UINT16",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::String => "BYTES",
            Self::Bool => "BOOL",
            Self::Fp16 => "FP16",
            Self::Fp64 => "FP64",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Bf16 => "BF16",
            Self::Fp8 => "FP8",
            Self::Uint4 => "UINT4",
            Self::Int4 => "INT4",
            Self::Fp4 => "FP4",
            Self::Uint2 => "UINT2",
            Self::Int2 => "INT2",
            Self::Other => "other",
        }
    }

    /// Bits of one element; `None` for strings and unknown types.
    pub fn bits(self) -> Option<u64> {
        Some(match self {
            Self::Uint2 | Self::Int2 => 2,
            Self::Uint4 | Self::Int4 | Self::Fp4 => 4,
            Self::Uint8 | Self::Int8 | Self::Bool | Self::Fp8 => 8,
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => 16,
            Self::Uint32 | Self::Int32 | Self::Fp32 => 32,
            Self::Uint64 | Self::Int64 | Self::Fp64 => 64,
            Self::String | Self::Other => return None,
        })
    }
}

/// A constant: an initializer, or the value of an attribute.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    body: &'a [u8],
}

impl<'a> Tensor<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body }
    }

    /// The tensor's name; empty in attributes.
    pub fn name(&self) -> &'a str {
        text(self.body, 8)
    }

    /// The type of its elements.
    pub fn element_type(&self) -> ElementType {
        ElementType::from_number(number(self.body, 2).unwrap_or(0))
    }

    /// The sizes as the file has them.
    pub fn dims(&self) -> impl Iterator<Item = i64> + use<'a> {
        varints(self.body, 1).map(signed)
    }

    /// The shape, checked: no size is negative, and the count of elements fits.
    ///
    /// # Errors
    /// [`OnnxError::Invalid`].
    pub fn shape(&self) -> Result<Vec<usize>, OnnxError> {
        const MAX_RANK: usize = 32;
        let mut sizes = Vec::new();
        let mut count = 1_usize;
        for dim in self.dims() {
            let size = usize::try_from(dim).map_err(|_| self.invalid(format!("the size {dim} is negative")))?;
            // Zeros are left out, so that the order of the sizes does not matter.
            let next = count.checked_mul(size.max(1)).filter(|count| isize::try_from(*count).is_ok());
            count = next.ok_or_else(|| self.invalid("its shape has too many elements"))?;
            if sizes.len() == MAX_RANK {
                return Err(self.invalid(format!("its rank is above {MAX_RANK}")));
            }
            sizes.push(size);
        }
        Ok(sizes)
    }

    /// Bytes of the elements by type and shape, were they not packed with anything else. `None` for strings, unknown
    /// types and shapes that are none.
    pub fn n_bytes(&self) -> Option<u64> {
        let elements: usize = self.shape().ok()?.iter().product();
        Some(u64::try_from(elements).ok()?.checked_mul(self.element_type().bits()?)?.div_ceil(8))
    }

    /// Where the data lies, if in another file.
    ///
    /// # Errors
    /// [`OnnxError`] when the entries make no sense or lead out of the folder.
    pub fn external(&self) -> Result<Option<External<'a>>, OnnxError> {
        const IN_ANOTHER_FILE: u64 = 1;
        match number(self.body, 14) {
            Some(IN_ANOTHER_FILE) => External::read(self.body, &self.place()).map(Some),
            _ => Ok(None),
        }
    }

    /// The elements, row-major and little-endian, as many as the shape asks for: borrowed from the file where they lie
    /// there in that form. External files come from `read`, which gets a name that stays in the model's folder.
    ///
    /// # Errors
    /// [`OnnxError`] when shape and data disagree, the type has no fixed size or an external file cannot be read.
    pub fn data<B: AsRef<[u8]>>(&self, read: impl FnOnce(&str) -> io::Result<B>) -> Result<Cow<'a, [u8]>, OnnxError> {
        let element = self.element_type();
        let elements: usize = self.shape()?.iter().product();
        let Some(bits) = element.bits() else {
            let detail = format!("elements of type {} have no fixed size", element.name());
            return Err(OnnxError::Unsupported { place: self.place(), detail });
        };
        let expected = (elements as u64).checked_mul(bits).map(|bits| bits.div_ceil(8));
        let expected = expected.ok_or_else(|| self.invalid("its shape has too many elements"))?;
        if let Some(external) = self.external()? {
            let unreadable =
                |source| OnnxError::Unreadable { place: self.place(), name: shown(external.location), source };
            let file = read(external.location).map_err(unreadable)?;
            return Ok(Cow::Owned(external.cut(file.as_ref(), expected, &self.place())?.to_vec()));
        }
        let data = match self.raw() {
            Some(raw) => Cow::Borrowed(raw),
            None => Cow::Owned(self.listed(element, usize::try_from(expected).unwrap_or(usize::MAX))?),
        };
        if data.len() as u64 != expected {
            let got = data.len();
            let text = format!("data of {got} bytes; its shape and type ask for {expected}");
            return Err(self.invalid(text));
        }
        Ok(data)
    }

    /// The data where the file has it as plain bytes.
    pub fn raw(&self) -> Option<&'a [u8]> {
        body(self.body, 9)
    }

    /// The elements of a tensor of strings, in order. Whether they are as many as the shape says is for the caller.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        bodies(self.body, 6)
    }

    /// Bytes from a list of numbers: no more than `most` and a few, whatever the list's length.
    fn listed(&self, element: ElementType, most: usize) -> Result<Vec<u8>, OnnxError> {
        let mut bytes = Vec::new();
        let mut fill = |chunks: &mut dyn Iterator<Item = [u8; 8]>, width: usize| {
            for chunk in chunks {
                if bytes.len() > most {
                    break;
                }
                bytes.extend_from_slice(&chunk[..width]);
            }
        };
        let mut small = varints(self.body, 5).map(u64::to_le_bytes);
        match element {
            ElementType::Fp32 => {
                let wide = |bits: [u8; 4]| [bits[0], bits[1], bits[2], bits[3], 0, 0, 0, 0];
                fill(&mut fixed32s(self.body, 4).map(wide), 4);
            }
            ElementType::Fp64 => fill(&mut fixed64s(self.body, 10), 8),
            ElementType::Int64 => fill(&mut varints(self.body, 7).map(u64::to_le_bytes), 8),
            ElementType::Uint64 => fill(&mut varints(self.body, 11).map(u64::to_le_bytes), 8),
            ElementType::Uint32 => fill(&mut varints(self.body, 11).map(u64::to_le_bytes), 4),
            ElementType::Int32 => fill(&mut small, 4),
            ElementType::Int16 | ElementType::Uint16 | ElementType::Fp16 | ElementType::Bf16 => fill(&mut small, 2),
            ElementType::Bool => fill(&mut small.map(|chunk| [u8::from(chunk != [0; 8]); 8]), 1),
            ElementType::Int8
            | ElementType::Uint8
            | ElementType::Fp8
            | ElementType::Int4
            | ElementType::Uint4
            | ElementType::Fp4
            | ElementType::Int2
            | ElementType::Uint2 => fill(&mut small, 1),
            ElementType::String | ElementType::Other => {}
        }
        Ok(bytes)
    }

    fn place(&self) -> String {
        format!("tensor `{}`", shown(self.name()))
    }

    fn invalid(&self, detail: impl Into<String>) -> OnnxError {
        OnnxError::invalid(self.place(), detail)
    }
}
