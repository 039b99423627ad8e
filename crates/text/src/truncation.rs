//! How much is kept of texts that are too long.

use millrace_core::Truncation;

/// How many tokens are kept of two texts with `first` and `second` tokens when there is room for `most`: the longer one loses
/// until both are alike, then both; an odd place goes to the second unless the first was longer. This is what the library's
/// strategy `longest_first` gives.
pub(crate) fn shares(first: usize, second: usize, most: usize) -> (usize, usize) {
    if first + second <= most {
        return (first, second);
    }
    let shorter = first.min(second).min(most / 2);
    if first > second { (most - shorter, shorter) } else { (shorter, most - shorter) }
}

/// The `keep` tokens of `ids` that are left, from the end that is kept.
pub(crate) fn kept(ids: &[u32], keep: usize, truncation: Truncation) -> &[u32] {
    match truncation {
        Truncation::Left => &ids[ids.len().saturating_sub(keep)..],
        Truncation::Right | Truncation::Refuse => &ids[..keep.min(ids.len())],
    }
}

/// The part of `text` that is cut into tokens when at most `most` of its characters are: from the end that is kept.
pub(crate) fn cut_text(text: &str, most: usize, truncation: Truncation) -> &str {
    let at = match truncation {
        Truncation::Left => text.char_indices().rev().nth(most.saturating_sub(1)).map(|(at, _)| at..text.len()),
        Truncation::Right | Truncation::Refuse => text.char_indices().nth(most).map(|(at, _)| 0..at),
    };
    at.map_or(text, |range| &text[range])
}

#[cfg(test)]
mod tests {
    use millrace_core::Truncation;
    use proptest::prelude::*;
    use tokenizers::utils::truncation::{TruncationParams, truncate_encodings};

    use super::{cut_text, kept, shares};

    fn encoding(tokens: usize) -> tokenizers::Encoding {
        let ids: Vec<u32> = (0..).take(tokens).collect();
        tokenizers::Encoding::new(
            ids,
            vec![0; tokens],
            vec![String::new(); tokens],
            vec![None; tokens],
            vec![(0, 0); tokens],
            vec![0; tokens],
            vec![1; tokens],
            Vec::new(),
            Default::default(),
        )
    }

    proptest! {
        #[test]
        fn two_texts_lose_what_the_library_would_take(first in 0_usize..40, second in 0_usize..40, most in 1_usize..60) {
            let params = TruncationParams { max_length: most, ..Default::default() };
            let (one, two) = truncate_encodings(encoding(first), Some(encoding(second)), &params).unwrap();
            prop_assert_eq!(shares(first, second, most), (one.len(), two.unwrap().len()));
        }

        #[test]
        fn what_is_kept_of_a_text_is_one_end_of_it(text in ".{0,20}", most in 1_usize..25) {
            let right = cut_text(&text, most, Truncation::Right);
            let left = cut_text(&text, most, Truncation::Left);
            let expected = text.chars().count().min(most);
            prop_assert!(text.starts_with(right) && text.ends_with(left));
            prop_assert_eq!((right.chars().count(), left.chars().count()), (expected, expected));
        }
    }

    #[test]
    fn tokens_are_kept_from_the_end_that_is_asked_for() {
        let ids = [1, 2, 3, 4];
        assert_eq!(kept(&ids, 3, Truncation::Right), [1, 2, 3]);
        assert_eq!(kept(&ids, 3, Truncation::Left), [2, 3, 4]);
        assert_eq!(kept(&ids, 9, Truncation::Left), ids);
        assert!(kept(&ids, 0, Truncation::Left).is_empty());
    }
}
