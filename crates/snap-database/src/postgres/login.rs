//! Logging in: who, to what, and the password in whichever way the server asks for it.

use postgres_protocol::authentication::{md5_hash, sasl};

use super::settings::Settings;
use super::wire::{Connection, WireError};

const VERSION_3_0: [u8; 4] = [0, 3, 0, 0];

/// The server's question, by its number.
mod ask {
    pub(super) const OK: u32 = 0;
    pub(super) const CLEARTEXT: u32 = 3;
    pub(super) const MD5: u32 = 5;
    pub(super) const SASL: u32 = 10;
    pub(super) const SASL_CONTINUE: u32 = 11;
    pub(super) const SASL_FINAL: u32 = 12;
}

pub(super) fn log_in(
    connection: &mut Connection,
    settings: &Settings,
    database: &str,
) -> Result<(), WireError> {
    let mut first = VERSION_3_0.to_vec();
    let parameters = [
        ("user", settings.user.as_str()),
        ("database", database),
        ("application_name", "snap"),
        ("client_encoding", "UTF8"),
    ];
    for (name, value) in parameters {
        for text in [name, value] {
            if text.contains('\0') {
                return Err(WireError::Login(format!("the {name} has a NUL in it")));
            }
            first.extend_from_slice(text.as_bytes());
            first.push(0);
        }
    }
    first.push(0);
    connection.put(0, &first)?;
    connection.flush()?;
    let mut scram: Option<sasl::ScramSha256> = None;
    loop {
        let (kind, body) = connection.message()?;
        match kind {
            b'R' => {
                let (code, rest) =
                    body.split_first_chunk::<4>().ok_or_else(|| WireError::protocol("a short question"))?;
                match u32::from_be_bytes(*code) {
                    ask::OK if scram.is_none() => {}
                    ask::OK => {
                        return Err(WireError::Login(
                            "the server did not prove that it knows the password".into(),
                        ));
                    }
                    ask::CLEARTEXT => {
                        if !connection.transport().is_private() {
                            let why =
                                "the server asks for the password in the clear: use TLS (sslmode=require)";
                            return Err(WireError::Login(why.into()));
                        }
                        answer(connection, settings.password_for(database)?.as_bytes())?;
                    }
                    ask::MD5 => {
                        let salt =
                            rest.first_chunk::<4>().ok_or_else(|| WireError::protocol("a short salt"))?;
                        let password = settings.password_for(database)?;
                        let hash = md5_hash(settings.user.as_bytes(), password.as_bytes(), *salt);
                        answer(connection, hash.as_bytes())?;
                    }
                    ask::SASL => scram = Some(begin_scram(connection, settings, database, rest)?),
                    ask::SASL_CONTINUE => {
                        let scram =
                            scram.as_mut().ok_or_else(|| WireError::protocol("SCRAM out of order"))?;
                        scram.update(rest)?;
                        connection.put(b'p', scram.message())?;
                        connection.flush()?;
                    }
                    ask::SASL_FINAL => {
                        let mut scram =
                            scram.take().ok_or_else(|| WireError::protocol("SCRAM out of order"))?;
                        scram.finish(rest)?;
                    }
                    other => {
                        let why =
                            format!("the server asks for a login of kind {other}, which snap does not know");
                        return Err(WireError::Login(why));
                    }
                }
            }
            b'K' | b'v' => {}
            b'Z' => return Ok(()),
            kind => return Err(WireError::protocol(format!("message {kind} while logging in"))),
        }
    }
}

fn answer(connection: &mut Connection, password: &[u8]) -> Result<(), WireError> {
    let mut body = password.to_vec();
    body.push(0);
    connection.put(b'p', &body)?;
    connection.flush()
}

fn begin_scram(
    connection: &mut Connection,
    settings: &Settings,
    database: &str,
    mechanisms: &[u8],
) -> Result<sasl::ScramSha256, WireError> {
    let name = sasl::SCRAM_SHA_256;
    if !mechanisms.split(|byte| *byte == 0).any(|offered| offered == name.as_bytes()) {
        return Err(WireError::Login("the server offers no SCRAM-SHA-256".into()));
    }
    let password = settings.password_for(database)?;
    let scram = sasl::ScramSha256::new(password.as_bytes(), sasl::ChannelBinding::unsupported());
    let mut body = name.as_bytes().to_vec();
    body.push(0);
    let message = scram.message();
    body.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(message);
    connection.put(b'p', &body)?;
    connection.flush()?;
    Ok(scram)
}
