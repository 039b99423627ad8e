//! Rotation, uniform scale and shift, found from pairs of points. Arithmetic in f64.

/// A similarity transform without a mirror: `x' = a x - b y + tx`, `y' = b x + a y + ty`. Always invertible.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    a: f64,
    b: f64,
    tx: f64,
    ty: f64,
}

impl Similarity {
    /// Changes nothing.
    pub const IDENTITY: Self = Self { a: 1.0, b: 0.0, tx: 0.0, ty: 0.0 };

    /// The transform of these numbers, or `None` where it has no inverse: scale 0, or a number that is not finite.
    pub fn new(a: f64, b: f64, tx: f64, ty: f64) -> Option<Self> {
        let square = a * a + b * b;
        // A subnormal square would make the inverse infinite.
        let usable = square.is_normal() && square.recip().is_finite() && tx.is_finite() && ty.is_finite();
        usable.then_some(Self { a, b, tx, ty })
    }

    /// The transform that brings the points `from` nearest to `to`: the least sum of squared distances.
    ///
    /// `None` when the lists differ in length, hold fewer than two points or one that is not finite, or when either list is
    /// one point repeated: then no scale fits.
    ///
    /// The closed form for two dimensions: with both lists around their own means, `a` and `b` are the projections of the
    /// targets on the points and on the points turned by a right angle.
    pub fn estimate(from: &[[f64; 2]], to: &[[f64; 2]]) -> Option<Self> {
        if from.len() != to.len() || from.len() < 2 {
            return None;
        }
        let (mean_from, mean_to) = (mean(from), mean(to));
        let (mut square, mut along, mut across) = (0.0, 0.0, 0.0);
        for (p, q) in from.iter().zip(to) {
            let (px, py) = (p[0] - mean_from[0], p[1] - mean_from[1]);
            let (qx, qy) = (q[0] - mean_to[0], q[1] - mean_to[1]);
            square += px * px + py * py;
            along += px * qx + py * qy;
            across += px * qy - py * qx;
        }
        let (a, b) = (along / square, across / square);
        let tx = mean_to[0] - (a * mean_from[0] - b * mean_from[1]);
        let ty = mean_to[1] - (b * mean_from[0] + a * mean_from[1]);
        Self::new(a, b, tx, ty)
    }

    /// Where the point goes.
    pub fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [self.a * x - self.b * y + self.tx, self.b * x + self.a * y + self.ty]
    }

    /// The transform back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let square = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / square, -self.b / square);
        Self { a, b, tx: -(a * self.tx - b * self.ty), ty: -(b * self.tx + a * self.ty) }
    }

    /// How much longer things become.
    pub fn scale(&self) -> f64 {
        self.a.hypot(self.b)
    }

    /// The numbers `a`, `b`, `tx`, `ty`.
    pub fn coefficients(&self) -> [f64; 4] {
        [self.a, self.b, self.tx, self.ty]
    }
}

fn mean(points: &[[f64; 2]]) -> [f64; 2] {
    let mut sum = [0.0; 2];
    let mut count = 0.0;
    for [x, y] in points {
        sum = [sum[0] + x, sum[1] + y];
        count += 1.0;
    }
    [sum[0] / count, sum[1] / count]
}
