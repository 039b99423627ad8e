//! Tables of vectors that are looked up by number.

use candle_core::{Result, Tensor};
use millrace_core::LoadError;

use super::{Kernels, on_cpu};
use crate::cpu::Store;
use crate::weights::Scope;

/// A table of `rows` vectors of `width` numbers.
#[derive(Debug)]
pub(crate) struct Table {
    rows: usize,
    width: usize,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Own(Store),
    Candle(Tensor),
}

impl Table {
    /// The table that is the tensor `name` in `scope`.
    ///
    /// # Errors
    /// [`LoadError`] where it is missing or has another shape.
    pub(crate) fn load(
        scope: &Scope<'_>,
        name: &str,
        (rows, width): (usize, usize),
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        let form = match kernels {
            Kernels::Own => Form::Own(scope.store(name, &[rows, width])?),
            Kernels::Candle => Form::Candle(scope.tensor(name, &[rows, width])?),
        };
        Ok(Self { rows, width, form })
    }

    /// Bytes that it takes.
    pub(crate) fn n_bytes(&self) -> usize {
        match &self.form {
            Form::Own(store) => store.n_bytes(),
            Form::Candle(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
        }
    }

    /// The sum of the vectors that each of several tables has under its numbers, [count, width]; all have as many numbers.
    ///
    /// # Errors
    /// candle's, and where a number is not below the table's rows.
    pub(crate) fn sum(tables: &[(&Self, Numbers<'_>)]) -> Result<Tensor> {
        for (table, numbers) in tables {
            if numbers.plain.iter().any(|number| *number as usize >= table.rows) {
                candle_core::bail!("a number is not below the {} of its table", table.rows);
            }
        }
        let Some((first, numbers)) = tables.first() else { candle_core::bail!("no table") };
        let (width, count) = (first.width, numbers.plain.len());
        if let Form::Own(_) = first.form {
            let mut out = vec![0.0; count * width];
            let mut row = vec![0.0; width];
            for (table, numbers) in tables {
                let Form::Own(store) = &table.form else { candle_core::bail!("tables of different kinds") };
                for (out, number) in out.chunks_exact_mut(width).zip(numbers.plain) {
                    store.widen(*number as usize * width, &mut row);
                    for (out, x) in out.iter_mut().zip(&row) {
                        *out += x;
                    }
                }
            }
            return on_cpu(out, (count, width));
        }
        let mut sum: Option<Tensor> = None;
        for (table, numbers) in tables {
            let Form::Candle(tensor) = &table.form else { candle_core::bail!("tables of different kinds") };
            let vectors = tensor.index_select(&numbers.uploaded()?, 0)?;
            sum = Some(match sum {
                Some(sum) => (sum + vectors)?,
                None => vectors,
            });
        }
        sum.map_or_else(|| candle_core::bail!("no table"), Ok)
    }
}

/// The numbers to look up: in the machine's own memory, where they are checked, and in the table's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers<'a> {
    /// In the machine's own memory.
    pub(crate) plain: &'a [u32],
    /// In the table's place; needed only where that is another one.
    pub(crate) there: Option<&'a Tensor>,
}

impl Numbers<'_> {
    fn uploaded(&self) -> Result<Tensor> {
        match self.there {
            Some(tensor) => Ok(tensor.clone()),
            None => Tensor::from_slice(self.plain, self.plain.len(), &candle_core::Device::Cpu),
        }
    }
}
