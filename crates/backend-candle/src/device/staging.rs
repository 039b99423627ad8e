//! The way of numbers between requests and a place: a copy on the CPU, page-locked buffers to and from a card.

use bytes::Bytes;
use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};

use super::gpu::{Number, Pinned};

/// One instance's buffers. Nothing of them is shared, so no run waits for another one's copy.
#[derive(Debug)]
pub(crate) enum Staging {
    /// On the CPU there is nothing to keep.
    Cpu,
    /// To and from a card.
    Card(Pinned),
}

impl Staging {
    /// A tensor of `values`, row-major.
    ///
    /// # Errors
    /// candle's, for values that do not fill the shape and for a card that fails.
    pub(crate) fn upload<T: Number>(&mut self, values: &[T], shape: &[usize]) -> candle_core::Result<Tensor> {
        match self {
            Self::Cpu => Tensor::from_slice(values, shape, &Device::Cpu),
            Self::Card(pinned) => pinned.upload(values, shape),
        }
    }

    /// The numbers of `tensor`, row-major and in the machine's own byte order. All that the tensor depends on has been computed
    /// when this returns.
    ///
    /// # Errors
    /// candle's, for a type of numbers that no output has and for a card that fails or gives fewer.
    pub(crate) fn download(&mut self, tensor: &Tensor) -> candle_core::Result<Bytes> {
        let bytes = match self {
            Self::Cpu => match tensor.dtype() {
                DType::F32 => copied::<f32>(tensor),
                DType::F16 => copied::<f16>(tensor),
                DType::BF16 => copied::<bf16>(tensor),
                other => candle_core::bail!("no output is of {other:?}"),
            },
            Self::Card(pinned) => pinned.download(tensor),
        };
        whole(bytes?, tensor)
    }
}

/// `bytes`, if they are all of `tensor`.
fn whole(bytes: Bytes, tensor: &Tensor) -> candle_core::Result<Bytes> {
    let expected = tensor.elem_count() * tensor.dtype().size_in_bytes();
    if bytes.len() != expected {
        candle_core::bail!("expected {expected} bytes of an output, got {}", bytes.len());
    }
    Ok(bytes)
}

/// The one copy out of candle's storage, as bytes.
fn copied<T: WithDType + bytemuck::Pod>(tensor: &Tensor) -> candle_core::Result<Bytes> {
    struct Owner<T>(Vec<T>);
    impl<T: bytemuck::Pod> AsRef<[u8]> for Owner<T> {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    Ok(Bytes::from_owner(Owner(tensor.flatten_all()?.to_vec1::<T>()?)))
}

#[cfg(test)]
mod tests {
    use super::{Staging, whole};

    #[test]
    fn part_of_an_output_is_none() {
        let tensor = Staging::Cpu.upload(&[1_f32, 2.0], &[2]).unwrap();
        let bytes = Staging::Cpu.download(&tensor).unwrap();
        assert_eq!(whole(bytes.clone(), &tensor).unwrap(), bytes);
        for short in [bytes.slice(..4), bytes.slice(..7), bytes::Bytes::new()] {
            let got = short.len();
            let error = whole(short, &tensor).unwrap_err().to_string();
            assert!(error.starts_with(&format!("expected 8 bytes of an output, got {got}")), "{error}");
        }
    }

    #[test]
    fn what_goes_up_comes_down_in_rows_even_if_turned_between() {
        let mut staging = Staging::Cpu;
        let tensor = staging.upload(&[1_f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
        let turned = staging.download(&tensor.t().unwrap()).unwrap();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&turned), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let half = tensor.to_dtype(candle_core::DType::F16).unwrap();
        assert_eq!(staging.download(&half).unwrap().len(), 12);
        assert!(staging.upload(&[1_u32, 2], &[3]).is_err());
    }
}
