//! What the tensors of each family are called.

use millrace_huggingface::TextFamily;

/// The names of an encoder's tensors, below the prefix that the whole network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Names {
    /// What stands before all of them in files that hold a head as well.
    pub(super) prefix: &'static str,
    pub(super) words: &'static str,
    pub(super) positions: &'static str,
    pub(super) types: &'static str,
    pub(super) norm: &'static str,
    /// What stands before a layer's number.
    pub(super) layer: &'static str,
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) mixed: &'static str,
    pub(super) mixed_norm: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) down_norm: &'static str,
}

impl Names {
    /// Those of `transformers`.
    pub(super) fn of(family: TextFamily) -> Self {
        match family {
            TextFamily::Bert => BERT,
            TextFamily::DistilBert => DISTILBERT,
            TextFamily::Roberta | TextFamily::XlmRoberta | TextFamily::Camembert => Self { prefix: "roberta", ..BERT },
        }
    }
}

const BERT: Names = Names {
    prefix: "bert",
    words: "embeddings.word_embeddings.weight",
    positions: "embeddings.position_embeddings.weight",
    types: "embeddings.token_type_embeddings.weight",
    norm: "embeddings.LayerNorm",
    layer: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    mixed: "attention.output.dense",
    mixed_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    down_norm: "output.LayerNorm",
};

const DISTILBERT: Names = Names {
    prefix: "distilbert",
    layer: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    mixed: "attention.out_lin",
    mixed_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    down_norm: "output_layer_norm",
    ..BERT
};

/// Those of llama.cpp's `bert`.
pub(super) const GGUF: Names = Names {
    prefix: "",
    words: "token_embd.weight",
    positions: "position_embd.weight",
    types: "token_types.weight",
    norm: "token_embd_norm",
    layer: "blk",
    query: "attn_q",
    key: "attn_k",
    value: "attn_v",
    mixed: "attn_output",
    mixed_norm: "attn_output_norm",
    up: "ffn_up",
    down: "ffn_down",
    down_norm: "layer_output_norm",
};
