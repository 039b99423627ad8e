//! What somebody meant who wrote a word that does not exist.

/// Longer words are nobody's typing mistake, and the comparison is quadratic.
const LONGEST: usize = 64;

/// The known word nearest to `word`, if at most a quarter of its letters are wrong: for "did you mean …?".
///
/// What counts is letters to insert, delete, replace or swap with their neighbour (the optimal string alignment distance),
/// small or large.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let near = known.into_iter().map(|candidate| (distance(word, candidate), candidate)).min()?;
    (near.0 <= near.1.len() / 4).then_some(near.1)
}

fn distance(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > LONGEST {
        return usize::MAX;
    }
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // Three rows of the table: a swap looks two back.
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, right) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(!left.eq_ignore_ascii_case(right));
            let mut best = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left.eq_ignore_ascii_case(&b[j - 1]) && a[i - 1].eq_ignore_ascii_case(right) {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn letters_inserted_deleted_replaced_or_swapped_count_one_each() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "ab", 1),
            ("ab", "ba", 1),
            ("aB", "bA", 1),
            ("Abc", "aBC", 0),
            ("verisons", "versions", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_a_near_word_is_meant() {
        let known = ["max_batch_size", "enabled", "k"];
        assert_eq!(nearest("max_batchsize", known), Some("max_batch_size"));
        assert_eq!(nearest("enable", known), Some("enabled"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("min_face", ["max_faces", "factor"]), None, "another word and no slip");
        assert_eq!(nearest(&"k".repeat(1 << 20), known), None);
        assert_eq!(nearest("x", []), None);
    }
}
