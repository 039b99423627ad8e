//! Support vector machines of `ai.onnx.ml`, in the arithmetic of ONNX Runtime: floats, with the sums over support vectors
//! in doubles.

use millrace_core::LoadError;

use super::encode::Labels;
use super::scores::{Post, Second, logistic};
use crate::graph::fact::{Fact, Size};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch, elements};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Sizes, Value};

/// How alike two rows are.
#[derive(Debug, Clone, Copy)]
enum Likeness {
    Linear,
    Poly { gamma: f32, coef0: f32, degree: f32 },
    Rbf { gamma: f32 },
    Sigmoid { gamma: f32, coef0: f32 },
}

impl Likeness {
    fn read(node: &NodeView<'_>) -> Result<Self, LoadError> {
        let params = node.floats("kernel_params")?.unwrap_or_default();
        let (gamma, coef0, degree) = match params.as_slice() {
            [] => (0.0, 0.0, 0.0),
            [gamma, coef0, degree] => (*gamma, *coef0, *degree),
            other => return Err(node.invalid(format_args!("`kernel_params` has {} entries; expected 3", other.len()))),
        };
        Ok(match node.word("kernel_type", "LINEAR")? {
            "LINEAR" => Self::Linear,
            "POLY" => Self::Poly { gamma, coef0, degree },
            "RBF" => Self::Rbf { gamma },
            "SIGMOID" => Self::Sigmoid { gamma, coef0 },
            other => {
                return Err(node.invalid(format_args!("the kernel `{other}`; expected LINEAR, POLY, RBF or SIGMOID")));
            }
        })
    }

    fn of(self, a: &[f32], b: &[f32]) -> f32 {
        let dot = || a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        match self {
            Self::Linear => dot(),
            Self::Poly { gamma, coef0, degree } => {
                let x = gamma * dot() + coef0;
                // Whole powers by products, so that a negative base has them.
                match degree {
                    2.0 => x * x,
                    3.0 => x * x * x,
                    _ => x.powf(degree),
                }
            }
            Self::Rbf { gamma } => (-gamma * a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>()).exp(),
            Self::Sigmoid { gamma, coef0 } => (gamma * dot() + coef0).tanh(),
        }
    }
}

/// Rows of an input as floats.
#[derive(Debug)]
struct Frame {
    features: usize,
    height: Size,
    is_mixed: bool,
}

impl Frame {
    fn new(node: &NodeView<'_>, features: usize) -> Result<Self, LoadError> {
        let fact = node.fact(0)?;
        if matches!(fact.kind, Kind::Text | Kind::Bool) {
            return Err(node.wrong_kind(fact.kind));
        }
        if fact.rank().is_none_or(|rank| rank == 0 || rank > 2) {
            return Err(node.unsupported("an input that is neither a list nor a matrix"));
        }
        if features == 0 {
            return Err(node.invalid("it has no features"));
        }
        if let Some(width) = fact.width()
            && width != features
        {
            return Err(node.invalid(format_args!("it was made for {features} features; its input has {width}")));
        }
        Ok(Self { features, height: fact.height(), is_mixed: fact.is_list_of_rows() })
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "these machines work in floats")]
    fn rows<'a>(&self, input: &'a Value, singles: &'a mut Vec<f32>) -> Result<&'a [f32], Fault> {
        let (_, width) = input.rows_and_width();
        if width != self.features {
            return Err(Fault::Input(format!("rows of {width} features; expected {}", self.features)));
        }
        singles.clear();
        match &input.data {
            Data::F32(items) => return Ok(items),
            Data::F64(items) => singles.extend(items.iter().map(|x| *x as f32)),
            Data::I64(items) => singles.extend(items.iter().map(|x| *x as f32)),
            Data::I32(items) => singles.extend(items.iter().map(|x| *x as f32)),
            Data::Bool(_) | Data::Text(_) => return Err(Fault::shape("numbers were expected")),
        }
        Ok(singles)
    }
}

fn required(node: &NodeView<'_>, name: &str) -> Result<Vec<f32>, LoadError> {
    let found = node.floats(name)?.filter(|items| !items.is_empty());
    found.ok_or_else(|| node.invalid(format_args!("the attribute `{name}` is missing or empty")))
}

#[derive(Debug)]
struct Regressor {
    frame: Frame,
    likeness: Likeness,
    vectors: Vec<f32>,
    coefficients: Vec<f32>,
    rho: f32,
    is_one_class: bool,
}

impl Kernel for Regressor {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], scratch: &mut Scratch) -> Result<(), Fault> {
        let output = &mut outputs[0];
        let rows = self.frame.rows(inputs.get(0), &mut scratch.singles)?;
        let features = self.frame.features;
        let items = f32::fresh(&mut output.data);
        items.extend(rows.chunks_exact(features).map(|row| {
            let pairs = self.vectors.chunks_exact(features).zip(&self.coefficients);
            let sum: f64 =
                pairs.map(|(vector, weight)| f64::from(self.likeness.of(row, vector)) * f64::from(*weight)).sum();
            #[expect(clippy::cast_possible_truncation, reason = "the result is a float")]
            let y = (sum + f64::from(self.rho)) as f32;
            match self.is_one_class {
                true if y > 0.0 => 1.0,
                true => -1.0,
                false => y,
            }
        }));
        output.shape = Sizes::from_slice(&[items.len(), 1]);
        Ok(())
    }

    fn bytes(&self) -> usize {
        size_of_val(self.vectors.as_slice())
    }
}

pub(super) fn svm_regressor(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let coefficients = required(node, "coefficients")?;
    let rho = required(node, "rho")?[0];
    let supports = usize::try_from(node.int("n_supports")?.unwrap_or(0)).unwrap_or(0);
    if Post::read(node)? != Post::None {
        return Err(node.unsupported("a transform of its result"));
    }
    let is_one_class = node.int("one_class")?.unwrap_or(0) != 0;
    let (likeness, vectors, coefficients) = if supports > 0 {
        (Likeness::read(node)?, required(node, "support_vectors")?, coefficients)
    } else {
        // Without support vectors the coefficients are one vector, of weight 1.
        (Likeness::Linear, coefficients, vec![1.0])
    };
    let features = vectors.len() / coefficients.len();
    node.same_length("support_vectors", vectors.len(), features * coefficients.len())?;
    let frame = Frame::new(node, features)?;
    let made = Fact::new(Kind::F32, Some(vec![frame.height, Size::Fixed(1)])).mixed_if(frame.is_mixed);
    Ok(Compiled::new(Regressor { frame, likeness, vectors, coefficients, rho, is_one_class }, [made]))
}

/// Machines that tell classes apart, each pair of classes by itself.
#[derive(Debug)]
struct Classifier {
    frame: Frame,
    likeness: Likeness,
    vectors: Vec<f32>,
    n_vectors: usize,
    /// Where the vectors of each class begin, and the end of the last.
    starts: Vec<usize>,
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// Slopes and offsets that turn scores into probabilities, one pair for each pair of classes.
    probabilities: Option<(Vec<f32>, Vec<f32>)>,
    labels: Labels,
    post: Post,
}

impl Classifier {
    fn classes(&self) -> usize {
        self.labels.len()
    }

    /// How many scores a row has in the end.
    fn width(&self) -> usize {
        let classes = self.classes();
        if self.probabilities.is_some() || classes <= 2 { classes } else { classes * (classes - 1) / 2 }
    }

    /// Writes the scores of all pairs for one row, and says which class wins most.
    fn pairs(&self, row: &[f32], likeness: &mut Vec<f32>, votes: &mut [usize], scores: &mut Vec<f32>) -> usize {
        likeness.clear();
        likeness.extend(self.vectors.chunks_exact(self.frame.features).map(|vector| self.likeness.of(row, vector)));
        votes.fill(0);
        scores.clear();
        let classes = self.classes();
        let sum = |range: std::ops::Range<usize>, line: usize| -> f64 {
            let weights = &self.coefficients[line * self.n_vectors..][range.clone()];
            likeness[range].iter().zip(weights).map(|(likeness, weight)| f64::from(likeness * weight)).sum()
        };
        for first in 0..classes {
            for second in first + 1..classes {
                let of = |class: usize| self.starts[class]..self.starts[class + 1];
                let score = sum(of(first), second - 1) + sum(of(second), first) + f64::from(self.rho[scores.len()]);
                votes[if score > 0.0 { first } else { second }] += 1;
                #[expect(clippy::cast_possible_truncation, reason = "scores are floats")]
                scores.push(score as f32);
            }
        }
        // The first of those with the most votes.
        (1..classes).fold(0, |best, class| if votes[class] > votes[best] { class } else { best })
    }
}

impl Kernel for Classifier {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], scratch: &mut Scratch) -> Result<(), Fault> {
        let [labels, values] = outputs else { return Err(Fault::shape("two outputs were expected")) };
        let rows = self.frame.rows(inputs.get(0), &mut scratch.singles)?;
        let n_rows = rows.len() / self.frame.features;
        elements(&[n_rows, self.width()])?;
        let items = f32::fresh(&mut values.data);
        let (mut likeness, mut scores) = (Vec::new(), Vec::new());
        let mut votes = vec![0; self.classes()];
        let winners = rows.chunks_exact(self.frame.features).map(|row| {
            let winner = self.pairs(row, &mut likeness, &mut votes, &mut scores);
            let start = items.len();
            match &self.probabilities {
                Some((slopes, offsets)) => {
                    couple(self.classes(), &scores, slopes, offsets, items);
                    self.post.row(&mut items[start..]);
                }
                None if self.classes() == 2 => {
                    let second = if self.post == Post::None { Second::Opposite } else { Second::Complement };
                    items.extend(self.post.pair(scores[0], second));
                }
                None => {
                    items.extend_from_slice(&scores);
                    self.post.row(&mut items[start..]);
                }
            }
            winner
        });
        self.labels.write(winners, labels);
        values.shape = Sizes::from_slice(&[n_rows, self.width()]);
        Ok(())
    }

    fn bytes(&self) -> usize {
        size_of_val(self.vectors.as_slice()) + size_of_val(self.coefficients.as_slice())
    }
}

/// Probabilities of classes from those of pairs: the second method of T.-F. Wu, C.-J. Lin and R. C. Weng, "Probability
/// Estimates for Multi-class Classification by Pairwise Coupling" (2004), algorithm 2, stopped where ONNX Runtime stops.
fn couple(classes: usize, scores: &[f32], slopes: &[f32], offsets: &[f32], output: &mut Vec<f32>) {
    const STEPS: usize = 100;
    let mut wins = vec![0.0_f32; classes * classes];
    let mut pair = 0;
    for first in 0..classes {
        for second in first + 1..classes {
            let x = f64::from(scores[pair] * slopes[pair] + offsets[pair]);
            #[expect(clippy::cast_possible_truncation, reason = "probabilities are floats")]
            let probability = (1.0 - logistic(x)) as f32;
            let probability = probability.clamp(1e-7, 1.0 - 1e-7);
            wins[first * classes + second] = probability;
            wins[second * classes + first] = 1.0 - probability;
            pair += 1;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a model has few classes")]
    let count = classes as f32;
    let mut matrix = vec![0.0_f32; classes * classes];
    for row in 0..classes {
        for column in (0..classes).filter(|column| *column != row) {
            let lost = wins[column * classes + row];
            matrix[row * classes + row] += lost * lost;
            matrix[row * classes + column] = -lost * wins[row * classes + column];
        }
    }
    let start = output.len();
    output.extend(std::iter::repeat_n(1.0 / count, classes));
    let shares = &mut output[start..];
    let mut products = vec![0.0_f32; classes];
    for _ in 0..STEPS {
        for (product, row) in products.iter_mut().zip(matrix.chunks_exact(classes)) {
            *product = row.iter().zip(&*shares).map(|(a, b)| a * b).sum();
        }
        let mut whole: f32 = shares.iter().zip(&products).map(|(a, b)| a * b).sum();
        let error = products.iter().map(|product| (product - whole).abs()).fold(0.0, f32::max);
        if error < 0.005 / count {
            break;
        }
        for class in 0..classes {
            let own = matrix[class * classes + class];
            let step = (whole - products[class]) / own;
            shares[class] += step;
            whole = (whole + step * (step * own + 2.0 * products[class])) / (1.0 + step) / (1.0 + step);
            for other in 0..classes {
                products[other] = (products[other] + step * matrix[class * classes + other]) / (1.0 + step);
                shares[other] /= 1.0 + step;
            }
        }
    }
}

pub(super) fn svm_classifier(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 2)?;
    let labels = Labels::read(node, "classlabels")?.ok_or_else(|| node.invalid("it names no classes"))?;
    let classes = labels.len();
    if !(2..=1 << 12).contains(&classes) {
        return Err(node.unsupported(format_args!("{classes} classes")));
    }
    let per_class = node.ints("vectors_per_class")?.unwrap_or_default();
    let mut starts = vec![0_usize];
    for count in &per_class {
        let end = usize::try_from(*count).ok().and_then(|count| count.checked_add(starts.last().copied().unwrap_or(0)));
        starts.push(end.ok_or_else(|| node.invalid(format_args!("a class of {count} vectors")))?);
    }
    let n_vectors = starts.last().copied().unwrap_or(0);
    if n_vectors == 0 {
        return Err(node.unsupported("a machine without support vectors"));
    }
    node.same_length("vectors_per_class", per_class.len(), classes)?;
    let pairs = classes * (classes - 1) / 2;
    let coefficients = required(node, "coefficients")?;
    let expected = n_vectors.checked_mul(classes - 1).ok_or_else(|| node.invalid("too many support vectors"))?;
    node.same_length("coefficients", coefficients.len(), expected)?;
    let rho = required(node, "rho")?;
    node.same_length("rho", rho.len(), pairs)?;
    let probabilities = match (node.floats("prob_a")?.unwrap_or_default(), node.floats("prob_b")?.unwrap_or_default()) {
        (a, b) if a.is_empty() && b.is_empty() => None,
        (a, b) => {
            node.same_length("prob_a", a.len(), pairs)?;
            node.same_length("prob_b", b.len(), pairs)?;
            Some((a, b))
        }
    };
    let vectors = required(node, "support_vectors")?;
    let features = vectors.len() / n_vectors;
    node.same_length("support_vectors", vectors.len(), features * n_vectors)?;
    let frame = Frame::new(node, features)?;
    let (height, is_mixed, words) = (frame.height, frame.is_mixed, labels.words());
    let label_kind = labels.kind();
    let (likeness, post) = (Likeness::read(node)?, Post::read(node)?);
    let kernel =
        Classifier { frame, likeness, vectors, n_vectors, starts, coefficients, rho, probabilities, labels, post };
    let made = [
        Fact::new(label_kind, Some(vec![height])).mixed_if(is_mixed),
        Fact::new(Kind::F32, Some(vec![height, Size::Fixed(kernel.width())])).mixed_if(is_mixed),
    ];
    let mut compiled = Compiled::new(kernel, made);
    compiled.classes = Some(words);
    Ok(compiled)
}
