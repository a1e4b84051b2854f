//! Which profile suits a file: a deterministic look at its head and its size.

use crate::params::Profile;

/// How much of a file's beginning [`detect`] looks at, in bytes.
pub const HEAD_LEN: usize = 64 << 10;

/// Text below this size, in bytes, is cut like anything else: it makes few chunks anyway.
const TEXT_MIN_SIZE: u64 = 4 << 20;

/// Below this size, in bytes, a boot sector's signature is no sign of a disk image.
const DISK_MIN_SIZE: u64 = 16 << 20;

/// On average at least one newline in so many bytes.
const LINE_MAX_MEAN: usize = 4096;

/// Picks the profile for a file from its first [`HEAD_LEN`] bytes (all of it, if shorter; more is not
/// looked at) and from its size in bytes, `None` for a stream.
///
/// The same head and size give the same answer for ever. The head must be filled up to its full length
/// or to the end of the data first: a short read would make the answer depend on luck.
pub fn detect(head: &[u8], size: Option<u64>) -> Profile {
    let head = &head[..head.len().min(HEAD_LEN)];
    if is_sqlite(head) || is_postgres_heap(head) || is_innodb(head) || is_disk_image(head, size) {
        Profile::Pages
    } else if size.is_none_or(|size| size >= TEXT_MIN_SIZE) && is_text(head) {
        Profile::Text
    } else {
        Profile::General
    }
}

fn is_sqlite(head: &[u8]) -> bool {
    head.starts_with(b"SQLite format 3\0")
}

/// Eight pages of 8 KiB, each empty or with a sane `PageHeaderData` of layout version 4
/// (PostgreSQL 8.3 and later, little-endian), the first not empty.
fn is_postgres_heap(head: &[u8]) -> bool {
    const PAGE: usize = 8 << 10;
    let sane = |page: &[u8]| {
        let [lower, upper, special] = [12, 14, 16].map(|at| usize::from(le_u16(page, at)));
        le_u16(page, 18) == 0x2004 && 24 <= lower && lower <= upper && upper <= special && special <= PAGE
    };
    head.len() == HEAD_LEN && sane(&head[..PAGE]) && head.chunks(PAGE).all(|page| sane(page) || is_zero(page))
}

/// A tablespace of InnoDB: the first page is of type `FIL_PAGE_TYPE_FSP_HDR`, and every page of the head
/// is empty or carries its own number and the space id of the first.
fn is_innodb(head: &[u8]) -> bool {
    const FSP_HDR: u16 = 8;
    head.len() == HEAD_LEN
        && u16::from_be_bytes([head[24], head[25]]) == FSP_HDR
        && [4 << 10, 8 << 10, 16 << 10, 32 << 10].into_iter().any(|page_len| {
            head.chunks(page_len).enumerate().all(|(number, page)| {
                (be_u32(page, 4) as usize == number && be_u32(page, 34) == be_u32(head, 34))
                    || (number > 0 && is_zero(page))
            })
        })
}

/// A boot sector's signature, or the header of a GUID partition table.
fn is_disk_image(head: &[u8], size: Option<u64>) -> bool {
    size.is_some_and(|size| size >= DISK_MIN_SIZE)
        && (head.get(510..512) == Some(&[0x55, 0xaa]) || head.get(512..520) == Some(b"EFI PART"))
}

/// No NUL, at least 97 % printable ASCII, white space or well-formed UTF-8 beyond ASCII, and newlines.
fn is_text(head: &[u8]) -> bool {
    let (mut text, mut newlines) = (0, 0);
    for part in head.utf8_chunks() {
        for &byte in part.valid().as_bytes() {
            match byte {
                0 => return false,
                b'\n' => newlines += 1,
                b'\t' | b'\r' | 0x0c | 0x20..=0x7e | 0x80.. => text += 1,
                _ => {}
            }
        }
    }
    newlines > 0 && head.len() <= newlines * LINE_MAX_MEAN && (text + newlines) * 100 >= head.len() * 97
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

fn le_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
