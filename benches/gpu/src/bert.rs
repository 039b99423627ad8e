//! A BERT of any size with random weights, as the files of a Hugging Face folder: FP16 safetensors, made here.

use std::fmt::Write as _;
use std::sync::Arc;

use half::f16;
use millrace_core::MemoryFiles;

/// The sizes of a network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) inner: usize,
    pub(crate) vocabulary: usize,
    pub(crate) positions: usize,
}

/// BERT-base.
pub(crate) const BASE: Size =
    Size { layers: 12, width: 768, heads: 12, inner: 3072, vocabulary: 30522, positions: 512 };

/// One that a CPU runs at once.
pub(crate) const SMALL: Size = Size { layers: 2, width: 128, heads: 2, inner: 512, vocabulary: 1000, positions: 512 };

impl Size {
    /// Floating-point operations of one run over `rows` rows of `tokens` tokens, a multiplication and its addition counted as
    /// two: products with weights, and attention.
    #[expect(clippy::cast_precision_loss, reason = "a count to be read by people")]
    pub(crate) fn operations(&self, rows: usize, tokens: usize) -> f64 {
        let weights = 2 * rows * tokens * (4 * self.width * self.width + 2 * self.width * self.inner);
        let attention = 4 * rows * tokens * tokens * self.width;
        (self.layers * (weights + attention)) as f64
    }

    /// Bytes of weights in 16 bits.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| 2 * shape.iter().product::<usize>()).sum()
    }

    /// `config.json` and `model.safetensors`.
    pub(crate) fn files(&self) -> Arc<MemoryFiles> {
        let Self { layers, width, heads, inner, vocabulary, positions } = self;
        let config = format!(
            r#"{{"architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": {width},
            "intermediate_size": {inner}, "layer_norm_eps": 1e-12, "max_position_embeddings": {positions},
            "num_attention_heads": {heads}, "num_hidden_layers": {layers}, "pad_token_id": 0, "type_vocab_size": 2,
            "position_embedding_type": "absolute", "torch_dtype": "float16", "vocab_size": {vocabulary}}}"#
        );
        Arc::new(MemoryFiles::default().with("config.json", config).with("model.safetensors", self.safetensors()))
    }

    /// The format: eight bytes of the header's length, the header as JSON, the tensors one after another.
    fn safetensors(&self) -> Vec<u8> {
        let tensors = self.tensors();
        let mut header = String::from("{");
        let mut end = 0;
        for (index, (name, shape)) in tensors.iter().enumerate() {
            let start = end;
            end += 2 * shape.iter().product::<usize>();
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(
                header,
                "{comma}\"{name}\":{{\"dtype\":\"F16\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
            );
        }
        header.push('}');
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut file = Vec::with_capacity(8 + header.len() + end);
        file.extend((header.len() as u64).to_le_bytes());
        file.extend(header.as_bytes());
        let mut state = 0x9e37_79b9_u32;
        for (name, shape) in &tensors {
            // As trained networks begin: norms are 1, and products keep the size of what goes through them.
            let is_norm = name.ends_with("LayerNorm.weight");
            for _ in 0..shape.iter().product() {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                let noise = f32::from(u16::try_from(state >> 16).unwrap_or_default()) / 32768.0 - 1.0;
                let number = if is_norm { 1.0 } else { 0.05 * noise };
                file.extend(f16::from_f32(number).to_le_bytes());
            }
        }
        file
    }

    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let Self { layers, width, inner, vocabulary, positions, .. } = *self;
        let mut tensors = vec![
            ("embeddings.word_embeddings.weight".to_owned(), vec![vocabulary, width]),
            ("embeddings.position_embeddings.weight".to_owned(), vec![positions, width]),
            ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, width]),
        ];
        let pair = |tensors: &mut Vec<_>, name: String, shape: Vec<usize>| {
            let bias = vec![shape[0]];
            tensors.push((format!("{name}.weight"), shape));
            tensors.push((format!("{name}.bias"), bias));
        };
        pair(&mut tensors, "embeddings.LayerNorm".to_owned(), vec![width]);
        for layer in 0..layers {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            for part in ["query", "key", "value"] {
                pair(&mut tensors, name(&format!("attention.self.{part}")), vec![width, width]);
            }
            pair(&mut tensors, name("attention.output.dense"), vec![width, width]);
            pair(&mut tensors, name("attention.output.LayerNorm"), vec![width]);
            pair(&mut tensors, name("intermediate.dense"), vec![inner, width]);
            pair(&mut tensors, name("output.dense"), vec![width, inner]);
            pair(&mut tensors, name("output.LayerNorm"), vec![width]);
        }
        pair(&mut tensors, "pooler.dense".to_owned(), vec![width, width]);
        tensors
    }
}
