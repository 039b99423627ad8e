//! Reading ONNX files without decoding them.
