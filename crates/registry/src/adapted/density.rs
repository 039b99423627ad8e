//! How many tokens a text will be, before it is cut into any.

use std::sync::atomic::{AtomicU32, Ordering};

/// How much each request changes what is known.
const RATE: f32 = 1.0 / 16.0;

/// The tokens in a byte of text, learned from the requests to one model; nothing at first.
#[derive(Debug, Default)]
pub(super) struct Density(AtomicU32);

impl Density {
    /// About how many tokens so many bytes of text are, of which no more than `most` are kept: what is longer is cut off. Zero as
    /// long as nothing is known.
    #[expect(clippy::cast_precision_loss, reason = "a guess needs no more")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, as it should")]
    pub(super) fn tokens(&self, bytes: usize, most: usize) -> usize {
        ((f32::from_bits(self.0.load(Ordering::Relaxed)) * bytes as f32) as usize).min(most)
    }

    /// Learns from a request. Where two do so at once, what one of them says may be lost.
    #[expect(clippy::cast_precision_loss, reason = "a guess needs no more")]
    pub(super) fn learn(&self, tokens: usize, bytes: usize) {
        let (known, new) = (f32::from_bits(self.0.load(Ordering::Relaxed)), tokens as f32 / bytes.max(1) as f32);
        let density = if known > 0.0 { known + RATE * (new - known) } else { new };
        self.0.store(density.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Density;

    #[test]
    fn tokens_are_foreseen_once_some_texts_were_cut() {
        let density = Density::default();
        assert_eq!(density.tokens(1000, 512), 0);
        density.learn(25, 100);
        assert_eq!(density.tokens(1000, 512), 250);
        (0..100).for_each(|_| density.learn(50, 100));
        assert!((490..=500).contains(&density.tokens(1000, 512)), "{}", density.tokens(1000, 512));
        assert_eq!(density.tokens(1_000_000, 512), 512, "a long text is cut off");
        density.learn(2, 0);
        assert!(density.tokens(1000, 512) >= 490);
    }
}
