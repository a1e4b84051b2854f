//! Content-defined cuts: where a file is split into chunks, as a pure function of a key, of parameters
//! and of the bytes.
//!
//! Chunks that end where the *content* says keep their bytes when something is inserted before them, so
//! a changed file shares most of its chunks with its last version. A [`Profile`] names the sizes,
//! [`detect`] picks one for a file, and a [`Chunker`] cuts under a secret [`CutKey`].
//!
//! The rule, which `docs/format.md` states in full: the gear hash of the last [`WINDOW`] bytes (public,
//! cheap, as in FastCDC) names *candidates*; keyed BLAKE3 of those 64 bytes decides among them, against
//! one threshold below the normal size and another from there on; at the maximum a cut falls anyway. A
//! keyed gear table alone would be no defence: rolling hashes are linear in their key, and chunk lengths
//! give it away (Alexeev and others, eprint 2025/532; Truong and others, eprint 2025/558).
//!
//! ```
//! use snap_chunker::{Chunker, CutKey, Profile, detect};
//!
//! let file = vec![7; 3 << 20];
//! let profile = detect(&file[..64 << 10], Some(file.len() as u64));
//! assert_eq!(profile, Profile::General);
//!
//! let mut chunker = Chunker::new(&CutKey::new([1; 32]), profile);
//! let mut cuts = Vec::new();
//! let consumed = chunker.cut(&file, true, &mut cuts);
//! assert_eq!(consumed, file.len());
//! assert_eq!(cuts.iter().map(|&len| len as usize).sum::<usize>(), file.len());
//! ```
//!
//! What a crafted file costs: at worst one keyed hash a byte between the minimum and the normal size, if
//! its maker may watch the cuts and adapt (benchmark `cut`); at the maximum a chunk ends whatever it holds.
//!
//! Not here: reading files, hashing chunks to ids, holes (they are extents of the node and never reach
//! the chunker), deriving the key, remembering a file's profile.

mod chunker;
mod detect;
mod gear;
mod params;
mod prf;
mod scan;
mod selftest;

pub use chunker::Chunker;
pub use detect::{HEAD_LEN, detect};
pub use params::{Params, ParamsError, Profile};
pub use prf::CutKey;
pub use selftest::self_test;

/// How many bytes decide whether a position is a candidate, and feed the keyed function, in bytes.
pub const WINDOW: usize = 64;
