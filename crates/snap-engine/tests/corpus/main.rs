//! What is fuzzed above the format (`fuzz/`), over the committed corpus: every sample whole, truncated and damaged.

#[path = "../../../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../../../fuzz/src/cuts.rs"]
mod cuts;
#[path = "../../../../fuzz/src/names.rs"]
mod names;

#[test]
fn object_name() {
    corpus::run("object_name", names::object_name, 1000);
}

#[test]
fn selector() {
    corpus::run("selector", names::selector, 1000);
}

#[test]
fn chunker() {
    corpus::run("chunker", cuts::chunker, 50);
}

#[test]
fn detect() {
    corpus::run("detect", cuts::detect, 50);
}
