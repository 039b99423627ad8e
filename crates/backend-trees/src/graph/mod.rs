//! Pipelines in ONNX files: scalers, encoders, trees and what exporters put around them.
