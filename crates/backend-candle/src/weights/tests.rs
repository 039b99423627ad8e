use std::sync::Arc;

use half::f16;
use millrace_core::{LoadError, LoadErrorKind, MemoryFiles, ModelSource};
use proptest::prelude::*;

use super::Weights;
use crate::device::Place;
use crate::options::Precision;

/// A safetensors file with this header and so many bytes behind it.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn source(name: &str, content: Vec<u8>) -> ModelSource {
    ModelSource::new("m".parse().unwrap(), 1, Arc::new(MemoryFiles::default().with(name, content)))
}

fn open(content: Vec<u8>) -> Result<Weights, LoadError> {
    Weights::open(&source("model.safetensors", content), &Place::cpu(), None)
}

fn refused(content: Vec<u8>) -> String {
    let error = open(content).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Invalid, "{error}");
    error.to_string()
}

const TWO: &str =
    r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[1,2],"data_offsets":[8,12]}}"#;

fn data() -> Vec<u8> {
    let mut data: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    data.extend([0.5_f32, 3.0].iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
    data
}

#[test]
fn tensors_are_found_by_name_and_shape_in_the_precision_asked_for() {
    let weights = open(file(TWO, &data())).unwrap();
    let root = weights.root();
    assert_eq!(root.floats("a", &[2]).unwrap(), [1.5, -2.0]);
    assert_eq!(root.floats("b", &[1, 2]).unwrap(), [0.5, 3.0]);
    assert_eq!(root.tensor("b", &[1, 2]).unwrap().dtype(), candle_core::DType::F32);
    assert_eq!(weights.n_bytes(), 16);
    let kinds = weights.bytes_by_type();
    assert_eq!((kinds["FP32"], kinds["FP16"]), (8, 4));
    let half = Weights::open(&source("model.safetensors", file(TWO, &data())), &Place::cpu(), Some(Precision::Fp16));
    let half = half.unwrap();
    assert_eq!(half.root().tensor("a", &[2]).unwrap().to_vec1::<f16>().unwrap(), [1.5, -2.0].map(f16::from_f32));
    assert_eq!(half.n_bytes(), 8);
}

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_is_named() {
    let weights = open(file(TWO, &data())).unwrap();
    let text = |error: LoadError| error.to_string();
    assert_eq!(
        text(weights.root().at("layer").floats("c", &[4]).unwrap_err()),
        "the weights have no tensor `layer.c`; expected one of shape [4]"
    );
    assert_eq!(
        text(weights.root().floats("a", &[4]).unwrap_err()),
        "model.safetensors: tensor `a`: expected shape [4], got [2]"
    );
    let header = r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let weights = open(file(header, &[0; 8])).unwrap();
    let error = weights.root().floats("a", &[1]).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Unsupported);
    assert!(error.to_string().ends_with("expected FP32, FP16, BF16 or FP64, got INT64"), "{error}");
}

#[test]
fn a_file_that_contradicts_itself_is_refused() {
    assert!(refused(Vec::new()).contains("not a sound safetensors file"));
    refused(vec![0; 7]);
    refused(u64::MAX.to_le_bytes().to_vec());
    refused(file("{", &[]));
    refused(file("\u{1}", &[]));
    // One byte less, one more.
    refused(file(TWO, &data()[..11]));
    refused(file(TWO, &[&data()[..], &[0]].concat()));
    let with = |tensor: &str| file(&format!(r#"{{"a":{{"dtype":"F32",{tensor}}}}}"#), &[0; 8]);
    // Another size than the shape's, backwards, out of the file, around the end of numbers.
    refused(with(r#""shape":[3],"data_offsets":[0,8]"#));
    refused(with(r#""shape":[2],"data_offsets":[8,0]"#));
    refused(with(r#""shape":[4],"data_offsets":[0,16]"#));
    refused(with(r#""shape":[4611686018427387906],"data_offsets":[0,8]"#));
    refused(with(r#""shape":[18446744073709551615,2],"data_offsets":[0,8]"#));
    refused(with(r#""shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]"#));
    // Two over the same bytes.
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    refused(file(header, &[0; 8]));
}

#[test]
fn files_and_tensors_beyond_the_budget_are_refused_before_they_are_read() {
    let mut source = source("model.safetensors", file(TWO, &data()));
    let size = source.files.list()[0].1;
    source.memory_budget = size - 1;
    let error = Weights::open(&source, &Place::cpu(), None).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TooLarge, "{error}");
    source.memory_budget = size + 15;
    let error = Weights::open(&source, &Place::cpu(), None).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("the weights take 16 bytes in FP32"), "{error}");
    source.memory_budget = size + 16;
    Weights::open(&source, &Place::cpu(), None).unwrap();
}

#[test]
fn several_files_need_an_index_and_hold_each_tensor_once() {
    let a = file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &1_f32.to_le_bytes());
    let b = file(r#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &2_f32.to_le_bytes());
    let index = |map: &str| format!(r#"{{"weight_map":{map}}}"#).into_bytes();
    let open = |index: Option<Vec<u8>>, second: &[u8]| {
        let mut files =
            MemoryFiles::default().with("x-1.safetensors", a.clone()).with("x-2.safetensors", second.to_vec());
        if let Some(index) = index {
            files = files.with("model.safetensors.index.json", index);
        }
        Weights::open(&ModelSource::new("m".parse().unwrap(), 1, Arc::new(files)), &Place::cpu(), None)
    };
    let both = || Some(index(r#"{"a":"x-1.safetensors","b":"x-2.safetensors"}"#));
    let weights = open(both(), &b).unwrap();
    assert_eq!(weights.root().floats("b", &[1]).unwrap(), [2.0]);
    assert!(open(None, &b).unwrap_err().to_string().contains("model.safetensors.index.json for several files"));
    let twice = open(both(), &a).unwrap_err().to_string();
    assert_eq!(twice, "x-2.safetensors: tensor `a` stands in x-1.safetensors as well");
    let missing = open(Some(index(r#"{"a":"x-1.safetensors","b":"x-3.safetensors"}"#)), &b).unwrap_err();
    assert_eq!(missing.kind(), LoadErrorKind::Missing);
    open(Some(index(r#"{"a":"../x-1.safetensors"}"#)), &b).unwrap_err();
    open(Some(index("{}")), &b).unwrap_err();
}

/// A GGUF file of one entry and one tensor.
fn gguf(version: u32, entry: &[u8], axes: &[u64], kind: u32, offset: u64, data: usize) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut file = b"GGUF".to_vec();
    file.extend(version.to_le_bytes());
    file.extend(1_u64.to_le_bytes());
    file.extend(1_u64.to_le_bytes());
    file.extend(text("k"));
    file.extend(entry);
    file.extend(text("t"));
    file.extend(u32::try_from(axes.len()).unwrap().to_le_bytes());
    axes.iter().for_each(|axis| file.extend(axis.to_le_bytes()));
    file.extend(kind.to_le_bytes());
    file.extend(offset.to_le_bytes());
    file.resize(file.len().next_multiple_of(32) + data, 0);
    file
}

fn open_gguf(content: Vec<u8>) -> Result<(Weights, super::Metadata), LoadError> {
    Weights::open_gguf(&source("m.gguf", content), "m.gguf", &Place::cpu(), None, &["t"])
}

#[test]
fn a_gguf_file_is_read_or_refused_for_what_is_wrong() {
    let seven = [&4_u32.to_le_bytes()[..], &7_u32.to_le_bytes()].concat();
    let (weights, metadata) = open_gguf(gguf(3, &seven, &[32, 2], 8, 0, 68)).unwrap();
    assert_eq!(metadata.size("k"), Some(7));
    assert_eq!(weights.root().shape_of("t"), Some([2, 32].as_slice()));
    assert_eq!(weights.bytes_by_type()["Q8_0"], 68);
    assert_eq!(weights.n_bytes(), 68);
    // What is no matrix is made plain numbers.
    assert_eq!(open_gguf(gguf(3, &seven, &[32], 8, 0, 34)).unwrap().0.n_bytes(), 128);
    let refused = |content: Vec<u8>, part: &str| {
        let error = open_gguf(content).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(b"GGML".to_vec(), "not a GGUF file");
    refused(gguf(9, &seven, &[32, 2], 8, 0, 68), "version 9");
    refused(gguf(3, &seven, &[32, 2], 8, 0, 67), "would end at byte");
    refused(gguf(3, &seven, &[32, 2], 8, u64::MAX, 68), "does not fit");
    refused(gguf(3, &seven, &[31, 2], 8, 0, 68), "blocks of 32");
    refused(gguf(3, &seven, &[1 << 40, 1 << 40], 0, 0, 68), "does not fit");
    refused(gguf(3, &seven, &[32, 2], 99, 0, 68), "ggml's type 99");
    refused(gguf(3, &seven, &[1; 5], 0, 0, 68), "5 axes");
    // A list that claims more than there is, a text likewise, and lists in lists.
    let list = |kind: u32, length: u64| [&9_u32.to_le_bytes()[..], &kind.to_le_bytes(), &length.to_le_bytes()].concat();
    refused(gguf(3, &list(0, u64::MAX), &[32, 2], 8, 0, 68), "it ends at byte");
    refused(gguf(3, &list(8, u64::MAX), &[32, 2], 8, 0, 68), "it ends at byte");
    let mut nested = 9_u32.to_le_bytes().to_vec();
    (0..40).for_each(|_| nested.extend([&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat()));
    refused(gguf(3, &nested, &[32, 2], 8, 0, 68), "nested");
}

#[test]
fn blocks_count_as_numbers_where_they_become_numbers() {
    use candle_core::quantized::GgmlDType;
    let (data, shape) = ([0; 4 * 34], [4, 32]);
    let of = |kind: &super::Kind, precision, is_widened| {
        super::kept(&super::Found { file: "", kind, shape: &shape, data: &data }, precision, is_widened)
    };
    let blocks = super::Kind::Blocks(GgmlDType::Q8_0);
    assert_eq!(of(&blocks, Precision::Fp16, false), 136);
    assert_eq!((of(&blocks, Precision::Fp16, true), of(&blocks, Precision::Fp32, true)), (256, 512));
    assert_eq!(of(&super::Kind::Fp32, Precision::Fp16, true), 68);
}

proptest! {
    /// Whatever is changed in a header: an error or weights, and no panic.
    #[test]
    fn damaged_headers_are_no_danger(
        changes in proptest::collection::vec((0_usize..400, any::<u8>()), 1..4), cut in 0_usize..400, is_cut: bool,
    ) {
        let seven = [&4_u32.to_le_bytes()[..], &7_u32.to_le_bytes()].concat();
        for (mut content, is_gguf) in [(file(TWO, &data()), false), (gguf(3, &seven, &[32, 2], 8, 0, 68), true)] {
            for (at, byte) in &changes {
                let at = at % content.len();
                content[at] = *byte;
            }
            if is_cut {
                content.truncate(cut % content.len());
            }
            let weights = if is_gguf { open_gguf(content).map(|(weights, _)| weights) } else { open(content) };
            if let Ok(weights) = weights {
                for name in ["a", "b", "t"] {
                    if let Some(shape) = weights.root().shape_of(name) {
                        drop(weights.root().floats(name, shape));
                        drop(weights.root().store(name, shape));
                    }
                }
            }
        }
    }
}
