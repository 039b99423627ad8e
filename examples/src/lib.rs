//! Examples live beside this folder as `[[example]]` targets. This library only compiles and runs what `docs/` shows.

#[cfg(doctest)]
mod docs {
    #[doc = include_str!("../../docs/embedding.md")]
    mod embedding {}
    #[doc = include_str!("../../docs/writing-a-backend.md")]
    mod writing_a_backend {}
}
