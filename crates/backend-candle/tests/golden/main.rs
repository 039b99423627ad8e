//! Every family against `transformers` in double precision: the models and cases of `fixtures/generate/make_huggingface.py`.

#![cfg(test)]

mod support;
mod text;
mod vision;
