//! Examples live beside this folder as `[[example]]` targets. This library only compiles and runs what `docs/` shows.

#[cfg(doctest)]
mod docs {
    #[doc = include_str!("../../docs/embedding.md")]
    mod embedding {}
    #[doc = include_str!("../../docs/writing-a-backend.md")]
    mod writing_a_backend {}
    #[doc = include_str!("../../docs/writing-a-pipeline.md")]
    mod writing_a_pipeline {}
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Pieces in `docs/writing-a-pipeline.md` that begin with a path stand in that file, up to indentation.
    #[test]
    fn pieces_of_the_face_crate_are_what_it_says() {
        let page = include_str!("../../docs/writing-a-pipeline.md");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let words = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
        let pieces = page.split("```rust,ignore\n// ").skip(1).map(|rest| rest.split("```").next().unwrap_or(rest));
        let mut count = 0;
        for (path, piece) in pieces.filter_map(|piece| piece.split_once('\n')) {
            let file = fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(words(&file).contains(words(piece).trim()), "{path} does not hold:\n{piece}");
            count += 1;
        }
        assert_eq!(count, page.matches("```rust,ignore").count(), "each piece says where it stands");
        assert!(count > 5);
    }

    /// So do the names of tests that the page sends its readers to.
    #[test]
    fn tests_that_the_page_names_are_there() {
        let page = include_str!("../../docs/writing-a-pipeline.md");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/face/tests/it");
        let files = fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
        let tests = files.collect::<String>();
        let (_, table) = page.split_once("| claim | test |").unwrap();
        let names = table.split('`').skip(1).step_by(2).filter(|name| name.contains('_') && !name.contains(['.', '/']));
        let mut count = 0;
        for name in names {
            assert!(tests.contains(&format!("fn {name}()")), "{name}");
            count += 1;
        }
        assert!(count >= 5, "{count}");
    }
}
