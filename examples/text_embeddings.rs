//! Sentences into vectors inside your own program, without any server: a Hugging Face folder, its tokenizer, and a queue in
//! which sentences of different lengths run together.
//!
//! ```sh
//! cargo run --release -p millrace-examples --example text_embeddings [FOLDER]
//! ```
//!
//! With a real model (`examples/clients/minilm.py` fetches one into `models/minilm/1`) it prints
//!
//! ```text
//! bert: 384 numbers for each text, at most 256 tokens, pooled by mean
//!  0.70 The mill grinds the wheat into flour.
//!  0.55 Bread needs flour, water, salt and time.
//!  0.01 The train to the coast leaves at nine.
//! ```
//!
//! Without one it takes a small fixture, whose weights are random and whose numbers mean nothing.

#![expect(clippy::print_stdout, reason = "this program shows its results")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use millrace_backend_candle::CandleBackend;
use millrace_batching::{BatchConfig, BatchQueue, ComputePool, PoolConfig};
use millrace_core::{
    Backend, InferFuture, InferRequest, MemoryFiles, ModelSource, RequestContext, Tensor, TextFactory, TextProcessor,
    Wanted,
};
use millrace_text::TextSupport;

const QUESTION: &str = "How is grain made into flour?";
const SENTENCES: [&str; 3] = [
    "The mill grinds the wheat into flour.",
    "Bread needs flour, water, salt and time.",
    "The train to the coast leaves at nine.",
];

fn main() -> Result<(), Box<dyn Error>> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/text-models/bert_mean/1");
    let folder = std::env::args().nth(1).map_or(fixture, PathBuf::from);
    let sentences = Sentences::open(&folder)?;
    println!("{}", sentences.about());
    let mut texts = vec![QUESTION];
    texts.extend(SENTENCES);
    let vectors = sentences.vectors(&texts)?;
    for (sentence, vector) in SENTENCES.iter().zip(&vectors[1..]) {
        println!("{:5.2} {sentence}", cosine(&vectors[0], vector));
    }
    Ok(())
}

/// A model that is asked in sentences.
struct Sentences {
    text: Arc<dyn TextProcessor>,
    queue: BatchQueue,
    /// The threads that run it.
    _pool: ComputePool,
}

impl Sentences {
    /// Loads the weights, the tokenizer and what the folder says about both.
    fn open(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let source = ModelSource::new("sentences".parse()?, 1, Arc::new(read(folder, "", MemoryFiles::default())?));
        let model = CandleBackend::default().load(&source)?;
        // As `[text]` in a `model.toml` has them: longer sentences lose their end.
        let options = [("truncation".to_owned(), "right".to_owned())].into();
        let text = TextSupport.open(&source, &*model, &options)?;
        let text = text.ok_or("the folder has no tokenizer.json")?;
        let pool = ComputePool::new(PoolConfig::default());
        let queue = BatchQueue::new(model, source.model, source.version, BatchConfig::default(), &pool)?;
        Ok(Self { text, queue, _pool: pool })
    }

    fn about(&self) -> String {
        let facts = self.text.facts();
        format!(
            "{}: {} numbers for each text, at most {} tokens, pooled by {}",
            facts.model_type, facts.dimension, facts.max_tokens, facts.pooling
        )
    }

    /// The vector of each text. Every text is a request of its own here, as it is where many callers ask at once: those
    /// that wait together run together, whatever their lengths.
    fn vectors(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
        let mut answers = Vec::new();
        for text in texts {
            let given = Tensor::from_strings(&[1], std::iter::once(text).collect())?;
            let mut request = InferRequest::new(self.text.process(&[given])?, RequestContext::new(now()));
            // The vector of the text alone, not those of its tokens.
            request.wanted = Wanted::Only(self.text.outputs().into());
            answers.push(self.queue.infer(request));
        }
        let vector = |answer: InferFuture| -> Result<Vec<f32>, Box<dyn Error>> {
            let answer = pollster::block_on(answer)?;
            Ok(answer.outputs[0].elements::<f32>()?.into_owned())
        };
        answers.into_iter().map(vector).collect()
    }
}

/// The files of a folder and of those in it, by their names relative to it.
fn read(folder: &Path, prefix: &str, mut files: MemoryFiles) -> Result<MemoryFiles, Box<dyn Error>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        files = if path.is_dir() {
            read(&path, &format!("{name}/"), files)?
        } else {
            files.with(name, std::fs::read(&path)?)
        };
    }
    Ok(files)
}

#[expect(clippy::disallowed_methods, reason = "a request says when it came")]
fn now() -> Instant {
    Instant::now()
}

fn cosine(left: &[f32], right: &[f32]) -> f32 {
    let product = |one: &[f32], other: &[f32]| one.iter().zip(other).map(|(one, other)| one * other).sum::<f32>();
    product(left, right) / (product(left, left) * product(right, right)).sqrt()
}

#[test]
fn it_runs() {
    main().unwrap();
}

#[test]
fn a_sentence_is_most_like_itself() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/text-models/bert_mean/1");
    let sentences = Sentences::open(&fixture).unwrap();
    let vectors = sentences.vectors(&["The wheel turns.", "Rye flour is dark.", "The wheel turns."]).unwrap();
    assert!(cosine(&vectors[0], &vectors[2]) > 0.9999);
    assert!(cosine(&vectors[0], &vectors[1]) < 0.999);
}
