//! ONNX models through ONNX Runtime, for millrace. The library is looked for on this machine and loaded when the first
//! model asks for it; nothing of it is linked.
