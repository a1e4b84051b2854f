//! What cuts and profiles owe, whatever a file holds.
//!
//! Each function takes one input, asserts the properties, and returns whether there was enough of it to say something.

use snap_chunker::{Chunker, CutKey, HEAD_LEN, Params, Profile};

/// Small numbers out of the front of an input; zeros when it has no more.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> usize {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        usize::from(*first)
    }

    fn word(&mut self) -> usize {
        self.byte() << 8 | self.byte()
    }
}

/// Cuts: nothing lost, lengths between the minimum and the maximum, and the same however the file is fed and whatever
/// the chunker did before.
pub fn chunker(data: &[u8]) -> bool {
    let mut choices = Choices(data);
    let profile = [None, None, Some(Profile::Text), Some(Profile::Pages)][choices.byte() % 4];
    let (min, normal, max) = (64 + choices.byte(), choices.word(), choices.word());
    let (normal, bits) = (min + 1 + normal % 8192, 1 + choices.byte() % 8);
    let max = normal + 1 + max;
    let steps: [usize; 3] = std::array::from_fn(|_| 1 + choices.word());
    let (times, key) = (1 + choices.word() % 300, CutKey::new([choices.byte() as u8; 32]));
    let (given_up, content) = (choices.word(), choices.0);
    // More than the largest chunk of a profile; for small chunks less will do.
    let enough = if profile.is_some() { 128 << 10 } else { 24 << 10 };
    let file = content.repeat(times.min(enough / content.len().max(1) + 1));

    let (mut chunker, min, max) = match profile {
        Some(profile) => {
            let min = profile.params().map_or(64 << 10, |params| params.min());
            (Chunker::new(&key, profile), min as usize, profile.max_len())
        }
        None => {
            let Ok(params) = Params::new(min as u32, normal as u32, max as u32, bits as u32) else {
                return false;
            };
            (Chunker::with_params(&key, params), min, max)
        }
    };
    assert_eq!(chunker.max_len(), max);

    let mut whole = Vec::new();
    assert_eq!(chunker.cut(&file, true, &mut whole), file.len());
    let length: usize = whole.iter().map(|len| *len as usize).sum();
    assert_eq!(length, file.len());
    if let Some((last, others)) = whole.split_last() {
        assert!(others.iter().all(|len| (min..=max).contains(&(*len as usize))));
        assert!((1..=max).contains(&(*last as usize)));
    }

    assert_eq!(in_steps(&mut chunker, &file, &steps), whole, "in steps");
    let mut ignored = Vec::new();
    chunker.cut(&file[..given_up.min(file.len())], false, &mut ignored);
    assert!(whole.starts_with(&ignored), "a cut hangs on what lies behind it");
    chunker.reset();
    assert_eq!(in_steps(&mut chunker, &file, &steps[1..]), whole, "after a reset");

    // From any cut on, the rest is cut as if it were a file.
    let skipped = whole.len() / 2;
    let at: usize = whole[..skipped].iter().map(|len| *len as usize).sum();
    let mut rest = Vec::new();
    chunker.cut(&file[at..], true, &mut rest);
    assert_eq!(rest, whole[skipped..], "a cut hangs on the chunk before it");
    true
}

fn in_steps(chunker: &mut Chunker, file: &[u8], steps: &[usize]) -> Vec<u32> {
    let (mut cuts, mut start, mut end) = (Vec::new(), 0, 0);
    for step in steps.iter().cycle() {
        end = file.len().min(end + step);
        start += chunker.cut(&file[start..end], end == file.len(), &mut cuts);
        assert!(end - start < chunker.max_len(), "a complete chunk is left lying");
        if end == file.len() {
            break;
        }
    }
    assert_eq!(start, file.len());
    cuts
}

/// Profile of a file: hangs on the head and the size alone, and breaks none of the rules' simpler consequences.
pub fn detect(data: &[u8]) -> bool {
    let mut choices = Choices(data);
    let size = match choices.byte() % 3 {
        0 => None,
        1 => Some(choices.word() as u64),
        _ => Some((choices.word() as u64) << 16),
    };
    let (long, content) = (choices.byte() % 2 == 1, choices.0);
    // Eight or more like pages, each with its number where InnoDB has it.
    let head: Vec<u8> = if long && !content.is_empty() {
        let page_len = [4 << 10, 8 << 10, 16 << 10, 32 << 10][content.len() % 4];
        let mut page = content.to_vec();
        page.resize(page_len, content[0]);
        let mut head = page.repeat(HEAD_LEN / page_len);
        if content[0] % 2 == 1 {
            for (number, page) in head.chunks_mut(page_len).enumerate() {
                page[7] = page[7].wrapping_add(number as u8);
            }
        }
        head
    } else {
        content[..content.len().min(HEAD_LEN)].to_vec()
    };

    let profile = snap_chunker::detect(&head, size);
    assert_eq!(snap_chunker::detect(&head, size), profile);
    if head.len() == HEAD_LEN {
        let more = [&head[..], b"SQLite format 3\0\n\0"].concat();
        assert_eq!(snap_chunker::detect(&more, size), profile, "what lies behind the head counts");
    }
    if head.starts_with(b"SQLite format 3\0") {
        assert_eq!(profile, Profile::Pages);
    }
    match profile {
        Profile::Text => {
            assert!(head.contains(&b'\n') && !head.contains(&0));
            assert!(size.is_none_or(|size| size >= 4 << 20));
        }
        Profile::Pages => {
            let image = size.is_some_and(|size| size >= 16 << 20);
            assert!(head.starts_with(b"SQLite") || head.len() == HEAD_LEN || image);
        }
        _ => {}
    }
    assert_eq!(Profile::from_code(profile.code()), Some(profile));
    !head.is_empty()
}
