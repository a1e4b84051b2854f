use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::CryptoError;

/// Cost of stretching a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StretchParams {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for StretchParams {
    /// 64 MiB, 3 passes, 1 lane: RFC 9106's second recommended option but for the lanes, which only help an
    /// attacker with more cores than the machine that is backed up.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 }
    }
}

/// Argon2id version 0x13 of `password`, 32 bytes. The caller has bounded the parameters.
pub fn stretch(
    password: &[u8],
    salt: &[u8],
    params: StretchParams,
) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
    let params = Params::new(params.memory_kib, params.passes, params.lanes, Some(32));
    let params = params.map_err(|_| CryptoError::Parameters)?;
    let mut out = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, out.as_mut_slice())
        .map_err(|_| CryptoError::Parameters)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_matters() {
        let cheap = StretchParams { memory_kib: 32, passes: 1, lanes: 1 };
        let base = stretch(b"password", b"saltsalt", cheap).unwrap();
        assert_ne!(*base, *stretch(b"passwore", b"saltsalt", cheap).unwrap());
        assert_ne!(*base, *stretch(b"password", b"saltsals", cheap).unwrap());
        assert_ne!(*base, *stretch(b"password", b"saltsalt", StretchParams { passes: 2, ..cheap }).unwrap());
        assert_eq!(
            stretch(b"p", b"saltsalt", StretchParams { passes: 0, ..cheap }).err(),
            Some(CryptoError::Parameters)
        );
    }
}
