//! Signed boxes (`docs/format.md` §5), and the signed inner part that packs have too.

use snap_crypto::{SignatureKey, hash, verify};
use snap_format::{Codec, EpochId, HEAD_LEN, Head, Inner, ObjectKind, RepoId, Role, SlotId};

use crate::compress::compress_payload;
use crate::keyring::Member;
use crate::{Finding, FindingCode, Keyring, RepoError, Result};

fn signed_message(repository: RepoId, head: &[u8; HEAD_LEN], slot: SlotId, payload: &[u8]) -> Vec<u8> {
    [b"snap v0 box".as_slice(), &repository.0, head, &slot.0, &hash(payload)].concat()
}

pub(crate) fn signed_inner(
    keyring: &Keyring,
    signer: &SignatureKey,
    head: &[u8; HEAD_LEN],
    payload: &[u8],
    padding: impl FnOnce(usize) -> usize,
) -> Vec<u8> {
    let signature = signer.sign(&signed_message(keyring.repository, head, keyring.slot, payload));
    let packed = compress_payload(payload);
    let (codec, stored) = packed.as_deref().map_or((Codec::Raw, payload), |packed| (Codec::Zstd, packed));
    let plain_len = u32::try_from(payload.len()).expect("payloads stay below 64 MiB");
    let inner = Inner { slot: keyring.slot, signature, codec, plain_len, stored };
    inner.encode(padding(snap_format::INNER_FIXED_LEN + stored.len()))
}

/// Who signed, and what.
pub(crate) struct Opened {
    pub(crate) slot: SlotId,
    pub(crate) member: Member,
    pub(crate) epoch: EpochId,
    pub(crate) payload: Vec<u8>,
}

/// Opens the sealed, signed part of `object`; checks that the signer may write such a thing (F12).
pub(crate) fn open_inner(
    keyring: &Keyring,
    object: &str,
    head: &[u8; HEAD_LEN],
    epoch: EpochId,
    ad: &[u8],
    sealed: &[u8],
) -> Result<Opened> {
    let forged = |why: String| RepoError::from(Finding::new(FindingCode::Forged, object, why));
    let open =
        keyring.epochs.get(&epoch).ok_or_else(|| forged(format!("sealed under an unknown epoch {epoch}")))?;
    let plain =
        open.index.open(ad, sealed).map_err(|_| RepoError::corrupt(object, "it does not authenticate"))?;
    let inner = Inner::decode(&plain).map_err(|error| RepoError::format(object, error))?;
    let payload = match inner.codec {
        Codec::Raw => inner.stored.to_vec(),
        Codec::Zstd => zstd::bulk::decompress(inner.stored, inner.plain_len as usize)
            .ok()
            .filter(|payload| payload.len() == inner.plain_len as usize)
            .ok_or_else(|| RepoError::corrupt(object, "its payload does not decompress"))?,
    };
    let member = keyring
        .member(epoch, inner.slot)
        .ok_or_else(|| forged(format!("signed by the slot {}, which its epoch does not know", inner.slot)))?;
    let message = signed_message(keyring.repository, head, inner.slot, &payload);
    verify(&member.verify, &message, &inner.signature)
        .map_err(|_| forged(format!("the signature of the slot {} does not fit", inner.slot)))?;
    Ok(Opened { slot: inner.slot, member: member.clone(), epoch, payload })
}

/// Makes a signed box under the head epoch.
pub(crate) fn seal_box(keyring: &Keyring, kind: ObjectKind, payload: &[u8]) -> Result<Vec<u8>> {
    let head = Head { kind, epoch: keyring.head }.encode();
    let inner = signed_inner(keyring, &keyring.signer, &head, payload, |_| 0);
    let mut out = head.to_vec();
    keyring.head().index.seal_into(&box_ad(keyring.repository, &head), &inner, &mut out)?;
    Ok(out)
}

fn box_ad(repository: RepoId, head: &[u8; HEAD_LEN]) -> Vec<u8> {
    [repository.0.as_slice(), head].concat()
}

/// Opens a signed box that must be of `kind`.
pub(crate) fn open_box(keyring: &Keyring, object: &str, kind: ObjectKind, bytes: &[u8]) -> Result<Opened> {
    let head = Head::decode(bytes).map_err(|error| RepoError::format(object, error))?;
    if head.kind != kind {
        let why = format!("it is of kind {:?}, not {kind:?}", head.kind);
        return Err(RepoError::from(Finding::new(FindingCode::Misnamed, object, why)));
    }
    let head_bytes = head.encode();
    let ad = box_ad(keyring.repository, &head_bytes);
    let opened = open_inner(keyring, object, &head_bytes, head.epoch, &ad, &bytes[HEAD_LEN..])?;
    let may_sign = match (kind, opened.member.role) {
        (_, Role::Owner) | (ObjectKind::Record, _) => true,
        (ObjectKind::Mark | ObjectKind::SnapshotBundle, _) | (_, Role::Restore) => false,
        (_, Role::Backup) => true,
    };
    if may_sign {
        Ok(opened)
    } else {
        let why = format!("signed by the slot {}, whose role is {}", opened.slot, opened.member.role);
        Err(RepoError::from(Finding::new(FindingCode::Forged, object, why)))
    }
}
