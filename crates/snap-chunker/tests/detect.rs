//! What kind of file gets which profile.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;

use common::stream;
use proptest::prelude::*;
use snap_chunker::Profile::{General, Pages, Text};
use snap_chunker::{HEAD_LEN, detect};

const MIB: u64 = 1 << 20;
const LARGE: Option<u64> = Some(100 * MIB);

fn dump(line: &str) -> Vec<u8> {
    line.bytes().cycle().take(HEAD_LEN).collect()
}

fn postgres_page() -> Vec<u8> {
    let mut page = stream("heap page", 8192);
    page[12..14].copy_from_slice(&200u16.to_le_bytes());
    page[14..16].copy_from_slice(&300u16.to_le_bytes());
    page[16..18].copy_from_slice(&8192u16.to_le_bytes());
    page[18..20].copy_from_slice(&0x2004u16.to_le_bytes());
    page
}

fn innodb_head(page_len: usize) -> Vec<u8> {
    let mut head = stream("tablespace", HEAD_LEN);
    for (number, page) in head.chunks_mut(page_len).enumerate() {
        page[4..8].copy_from_slice(&(number as u32).to_be_bytes());
        page[34..38].copy_from_slice(&77u32.to_be_bytes());
    }
    head[24..26].copy_from_slice(&8u16.to_be_bytes());
    head
}

#[test]
fn large_text_and_text_of_unknown_size() {
    let head = dump("1\tAda\t2024-01-01 00:00:00+00\t\\N\n");
    assert_eq!(detect(&head, LARGE), Text);
    assert_eq!(detect(&head, None), Text);
    assert_eq!(detect(&head, Some(4 * MIB)), Text);
    assert_eq!(detect(&head, Some(4 * MIB - 1)), General);
    assert_eq!(detect(b"-- a short stream\n", None), Text);
}

#[test]
fn text_beyond_ascii_even_cut_inside_a_character() {
    let head = dump("Zo\u{eb}, \u{6771}\u{4eac}, \u{1f600}\n");
    for short in 0..20 {
        assert_eq!(detect(&head[..HEAD_LEN - short], LARGE), Text);
    }
}

#[test]
fn a_few_odd_bytes_do_not_make_text_binary_but_one_nul_does() {
    let mut head = dump("a line of an ordinary text file\r\n");
    for odd in (0..HEAD_LEN).step_by(40) {
        head[odd] = 0xe4; // Latin-1
    }
    assert_eq!(detect(&head, LARGE), Text);
    for odd in (0..HEAD_LEN).step_by(20) {
        head[odd] = 0x01;
    }
    assert_eq!(detect(&head, LARGE), General);
    let mut head = dump("a line of an ordinary text file\n");
    head[40_000] = 0;
    assert_eq!(detect(&head, LARGE), General);
}

#[test]
fn lines_must_be_of_moderate_length() {
    assert_eq!(detect(&dump("no newline anywhere "), LARGE), General);
    let line = |len: usize| dump(&format!("{}\n", "x".repeat(len - 1)));
    assert_eq!(detect(&line(4096), LARGE), Text);
    assert_eq!(detect(&line(8192), LARGE), General);
}

#[test]
fn sqlite() {
    let mut head = stream("sqlite", HEAD_LEN);
    head[..16].copy_from_slice(b"SQLite format 3\0");
    assert_eq!(detect(&head, LARGE), Pages);
    assert_eq!(detect(&head[..100], None), Pages);
}

#[test]
fn postgres_heap() {
    let page = postgres_page();
    let head = page.repeat(8);
    assert_eq!(detect(&head, LARGE), Pages);
    let mut with_new_page = head.clone();
    with_new_page[8192 * 3..8192 * 4].fill(0);
    assert_eq!(detect(&with_new_page, LARGE), Pages);
    with_new_page[..8192].fill(0);
    assert_eq!(detect(&with_new_page, LARGE), General, "the first page is empty");
    let mut odd = head.clone();
    odd[8192 * 7 + 18] = 5;
    assert_eq!(detect(&odd, LARGE), General, "one page is of another layout");
    assert_eq!(detect(&head[..8192 * 7], Some(8192 * 7)), General, "too short to tell");
}

#[test]
fn innodb() {
    for page_len in [4096, 8192, 16_384, 32_768] {
        let head = innodb_head(page_len);
        assert_eq!(detect(&head, LARGE), Pages);
        let mut with_free_page = head.clone();
        with_free_page[page_len..2 * page_len].fill(0);
        assert_eq!(detect(&with_free_page, LARGE), Pages);
        let mut foreign = head.clone();
        foreign[page_len + 34] ^= 1;
        assert_eq!(detect(&foreign, LARGE), General, "a page of another space");
    }
    let mut other_type = innodb_head(16_384);
    other_type[25] = 9;
    assert_eq!(detect(&other_type, LARGE), General);
}

#[test]
fn disk_images() {
    let mut mbr = vec![0; HEAD_LEN];
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut gpt = vec![0; HEAD_LEN];
    gpt[512..520].copy_from_slice(b"EFI PART");
    for head in [mbr, gpt] {
        assert_eq!(detect(&head, Some(16 * MIB)), Pages);
        assert_eq!(detect(&head, Some(16 * MIB - 1)), General);
        assert_eq!(detect(&head, None), General);
    }
}

#[test]
fn anything_else() {
    assert_eq!(detect(&[], None), General);
    assert_eq!(detect(&[], Some(0)), General);
    assert_eq!(detect(&vec![0; HEAD_LEN], LARGE), General);
    assert_eq!(detect(&stream("anything", HEAD_LEN), LARGE), General);
}

proptest! {
    #[test]
    fn any_head_has_an_answer_which_hangs_on_the_head_alone(
        head in prop::collection::vec(any::<u8>(), 0..2000),
        size in any::<Option<u64>>(),
    ) {
        detect(&head, size);
        let mut long = head.repeat(HEAD_LEN / head.len().max(1) + 1);
        if long.len() >= HEAD_LEN {
            let answer = detect(&long[..HEAD_LEN], size);
            long.extend_from_slice(&head);
            prop_assert_eq!(detect(&long, size), answer);
        }
    }
}
