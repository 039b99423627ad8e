//! The operators, by domain and name. Each takes a node and gives back a kernel with the facts of its outputs.

mod arrange;
mod cast;
mod encode;
mod linear;
mod math;
mod pick;
mod rank;
mod reduce;
mod scale;
mod scores;
mod svm;
mod tree;
mod tree_classes;
mod tree_nodes;
mod tree_parts;
mod unary;

use millrace_core::LoadError;
use millrace_onnx::ML_DOMAIN;

use super::kernel::Compiled;
use super::node::NodeView;

/// Turns a node into a kernel.
pub(super) type Compile = fn(&NodeView<'_>) -> Result<Compiled, LoadError>;

/// The operator `name` of `domain`, if it is here.
pub(super) fn find(domain: &str, name: &str) -> Option<Compile> {
    let table = table(domain)?;
    table.iter().find(|(known, _)| *known == name).map(|(_, compile)| *compile)
}

/// The operators of `domain`, in words.
pub(super) fn names(domain: &str) -> String {
    let names: Vec<&str> = table(domain).unwrap_or_default().iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

fn table(domain: &str) -> Option<&'static [(&'static str, Compile)]> {
    match domain {
        "ai.onnx" => Some(STANDARD),
        ML_DOMAIN => Some(ML),
        _ => None,
    }
}

const ML: &[(&str, Compile)] = &[
    ("ArrayFeatureExtractor", pick::array_feature_extractor),
    ("Binarizer", scale::binarizer),
    ("CategoryMapper", encode::category_mapper),
    ("FeatureVectorizer", arrange::feature_vectorizer),
    ("Imputer", scale::imputer),
    ("LabelEncoder", encode::label_encoder),
    ("LinearClassifier", linear::linear_classifier),
    ("LinearRegressor", linear::linear_regressor),
    ("Normalizer", scale::normalizer),
    ("OneHotEncoder", encode::one_hot_encoder),
    ("SVMClassifier", svm::svm_classifier),
    ("SVMRegressor", svm::svm_regressor),
    ("Scaler", scale::scaler),
    ("TreeEnsemble", tree::tree_ensemble),
    ("TreeEnsembleClassifier", tree_classes::tree_ensemble_classifier),
    ("TreeEnsembleRegressor", tree::tree_ensemble_regressor),
    ("ZipMap", scores::zip_map),
];

const STANDARD: &[(&str, Compile)] = &[
    ("Abs", unary::abs),
    ("Add", math::add),
    ("And", math::and),
    ("ArgMax", rank::arg_max),
    ("ArgMin", rank::arg_min),
    ("Cast", cast::cast),
    ("Ceil", unary::ceil),
    ("Clip", unary::clip),
    ("Concat", arrange::concat),
    ("Constant", arrange::constant),
    ("ConstantOfShape", arrange::constant_of_shape),
    ("CumSum", rank::cum_sum),
    ("Div", math::div),
    ("Equal", math::equal),
    ("Exp", unary::exp),
    ("Expand", arrange::expand),
    ("Flatten", arrange::flatten),
    ("Floor", unary::floor),
    ("Gather", pick::gather),
    ("GatherElements", pick::gather_elements),
    ("Gemm", linear::gemm),
    ("Greater", math::greater),
    ("GreaterOrEqual", math::greater_or_equal),
    ("Identity", arrange::identity),
    ("IsNaN", unary::is_nan),
    ("Less", math::less),
    ("LessOrEqual", math::less_or_equal),
    ("Log", unary::log),
    ("LogSoftmax", reduce::log_softmax),
    ("MatMul", linear::mat_mul),
    ("Max", math::max),
    ("Mean", math::mean),
    ("Min", math::min),
    ("Mul", math::mul),
    ("Neg", unary::neg),
    ("Not", unary::not),
    ("Or", math::or),
    ("Pow", math::pow),
    ("Reciprocal", unary::reciprocal),
    ("ReduceL1", reduce::reduce_l1),
    ("ReduceL2", reduce::reduce_l2),
    ("ReduceLogSumExp", reduce::reduce_log_sum_exp),
    ("ReduceMax", reduce::reduce_max),
    ("ReduceMean", reduce::reduce_mean),
    ("ReduceMin", reduce::reduce_min),
    ("ReduceProd", reduce::reduce_prod),
    ("ReduceSum", reduce::reduce_sum),
    ("ReduceSumSquare", reduce::reduce_sum_square),
    ("Relu", unary::relu),
    ("Reshape", arrange::reshape),
    ("Round", unary::round),
    ("Shape", arrange::shape),
    ("Sigmoid", unary::sigmoid),
    ("Sign", unary::sign),
    ("Softmax", reduce::softmax),
    ("Sqrt", unary::sqrt),
    ("Squeeze", arrange::squeeze),
    ("Sub", math::sub),
    ("Sum", math::sum),
    ("Tanh", unary::tanh),
    ("TopK", rank::top_k),
    ("Transpose", arrange::transpose),
    ("Unsqueeze", arrange::unsqueeze),
    ("Where", pick::select),
    ("Xor", math::xor),
];
