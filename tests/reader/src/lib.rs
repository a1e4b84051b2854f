//! A reader of the repository format, written from `docs/format.md` alone. It shares no code with `snap`: that
//! it restores what `snap` wrote shows that the page suffices. Section and invariant numbers are the page's.

pub mod cbor;
pub mod crypto;
pub mod epochs;
pub mod pack;
pub mod repo;
pub mod restore;
pub mod snapshot;
pub mod tree;
pub mod verify;
