//! PostgreSQL's protocol, version 3.0, as far as a dump and a restore need it: logging in, simple queries, COPY both ways. It
//! blocks, and looks up from a silent server from time to time to see whether it shall stop.

use std::fmt;
use std::io;

use thiserror::Error;

use super::login;
use super::settings::Settings;
use super::transport::Transport;
use crate::Stop;

/// Bytes read at a time.
const READ: usize = 256 << 10;
/// Bytes that are collected before they are sent.
const WRITE: usize = 128 << 10;
/// The longest message that is taken whole. Rows of a COPY are not.
const MESSAGE_MAX: usize = 256 << 20;

/// The message that ends a session.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// What the server says when it refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// SQLSTATE.
    pub code: String,
    /// In words.
    pub message: String,
    /// More words.
    pub detail: String,
    /// What to do.
    pub hint: String,
    /// Where in a COPY, for one.
    pub context: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        for (name, text) in [("", &self.detail), ("hint: ", &self.hint), ("", &self.context)] {
            if !text.is_empty() {
                write!(f, " ({name}{})", text.replace('\n', "; "))?;
            }
        }
        write!(f, " [{}]", self.code)
    }
}

/// Why talking to a server failed.
#[derive(Debug, Error)]
pub enum WireError {
    /// The connection.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server's refusal.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// Bytes that make no sense.
    #[error("the server's answer is not understood: {0}")]
    Protocol(String),
    /// The password, or the way in which it is asked for.
    #[error("{0}")]
    Login(String),
}

impl WireError {
    /// Whether the server refused with this SQLSTATE.
    pub fn has_code(&self, code: &str) -> bool {
        matches!(self, Self::Server(error) if error.code == code)
    }

    pub(super) fn protocol(why: impl Into<String>) -> Self {
        Self::Protocol(why.into())
    }
}

impl From<WireError> for io::Error {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Io(error) => error,
            error => Self::other(error.to_string()),
        }
    }
}

/// A value, or NULL.
pub type Value = Option<String>;

/// A connection that is logged in.
pub struct Connection {
    transport: Transport,
    /// `input[start..end]` was read and not taken.
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Connects to a database and logs in.
    pub fn open(settings: &Settings, database: &str, stop: Stop) -> Result<Self, WireError> {
        let transport = Transport::open(settings, stop)?;
        let mut connection =
            Self { transport, input: vec![0; READ], start: 0, end: 0, output: Vec::with_capacity(WRITE) };
        login::log_in(&mut connection, settings, database)?;
        Ok(connection)
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Puts a message into the output. `kind` 0 is the first message, which has none.
    pub(super) fn put(&mut self, kind: u8, body: &[u8]) -> Result<(), WireError> {
        if self.output.len() + body.len() > WRITE {
            self.flush()?;
        }
        if kind != 0 {
            self.output.push(kind);
        }
        let length =
            u32::try_from(body.len() + 4).map_err(|_| WireError::protocol("a message too long to send"))?;
        self.output.extend_from_slice(&length.to_be_bytes());
        if body.len() > WRITE {
            self.flush()?;
            return Ok(self.transport.write_all(body)?);
        }
        self.output.extend_from_slice(body);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), WireError> {
        self.transport.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Reads on, if less than `want` bytes are there; `want` is small.
    fn need(&mut self, want: usize) -> Result<(), WireError> {
        while self.end - self.start < want {
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            } else if self.input.len() - self.start < want {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let read = self.transport.read(&mut self.input[self.end..])?;
            if read == 0 {
                return Err(
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into()
                );
            }
            self.end += read;
        }
        Ok(())
    }

    /// Kind and length of the next message.
    fn header(&mut self) -> Result<(u8, usize), WireError> {
        self.need(5)?;
        let head = &self.input[self.start..self.start + 5];
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let kind = head[0];
        self.start += 5;
        let length = (length as usize).checked_sub(4);
        Ok((kind, length.ok_or_else(|| WireError::protocol("a message shorter than its length"))?))
    }

    /// Up to so many bytes of the message that is being read.
    fn some(&mut self, left: usize, out: &mut [u8]) -> Result<usize, WireError> {
        self.need(1)?;
        let count = left.min(out.len()).min(self.end - self.start);
        out[..count].copy_from_slice(&self.input[self.start..self.start + count]);
        self.start += count;
        Ok(count)
    }

    fn body(&mut self, length: usize) -> Result<Vec<u8>, WireError> {
        if length > MESSAGE_MAX {
            return Err(WireError::protocol(format!("a message of {length} bytes")));
        }
        let mut body = vec![0; length];
        let mut read = 0;
        while read < length {
            read += self.some(length - read, &mut body[read..])?;
        }
        Ok(body)
    }

    /// The next message that means something here: notices and changed parameters pass by, refusals are errors.
    pub(super) fn message(&mut self) -> Result<(u8, Vec<u8>), WireError> {
        loop {
            let (kind, length) = self.header()?;
            let body = self.body(length)?;
            match kind {
                b'N' | b'S' | b'A' => {}
                b'E' => return Err(WireError::Server(Box::new(server_error(&body)))),
                _ => return Ok((kind, body)),
            }
        }
    }

    /// Reads until the server waits for a query again; an error on the way comes out at the end.
    fn until_ready(
        &mut self,
        mut each: impl FnMut(u8, &[u8]) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let mut failure = None;
        loop {
            match self.message() {
                Ok((b'Z', _)) => return failure.map_or(Ok(()), Err),
                Ok((kind, body)) => {
                    if failure.is_none() {
                        failure = each(kind, &body).err();
                    }
                }
                // The server's own refusal is followed by its readiness, unless that ends the session.
                Err(WireError::Server(error)) if !error.code.starts_with("57P") => {
                    failure.get_or_insert(WireError::Server(error));
                }
                Err(error) => return Err(failure.unwrap_or(error)),
            }
        }
    }

    /// Runs statements and returns the rows of all of them.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Vec<Value>>, WireError> {
        self.put_text(b'Q', sql)?;
        self.flush()?;
        let mut rows = Vec::new();
        self.until_ready(|kind, body| {
            match kind {
                b'D' => rows.push(row(body)?),
                b'G' | b'H' | b'W' => return Err(WireError::protocol("a COPY where none was expected")),
                _ => {}
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// Runs statements whose rows are of no interest.
    pub fn execute(&mut self, sql: &str) -> Result<(), WireError> {
        self.query(sql).map(drop)
    }

    fn put_text(&mut self, kind: u8, text: &str) -> Result<(), WireError> {
        if text.contains('\0') {
            return Err(WireError::protocol("a statement with a NUL"));
        }
        let mut body = text.as_bytes().to_vec();
        body.push(0);
        self.put(kind, &body)
    }

    /// Begins a `COPY … TO STDOUT`, which other statements may precede.
    pub fn copy_out(&mut self, sql: &str) -> Result<(), WireError> {
        self.put_text(b'Q', sql)?;
        self.flush()?;
        self.until_copy(b'H')
    }

    fn until_copy(&mut self, wanted: u8) -> Result<(), WireError> {
        loop {
            match self.message() {
                Ok((kind, _)) if kind == wanted => return Ok(()),
                Ok((b'Z', _)) => return Err(WireError::protocol("no COPY where one was expected")),
                Ok(_) => {}
                Err(WireError::Server(error)) => {
                    self.until_ready(|_, _| Ok(()))?;
                    return Err(WireError::Server(error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes of a COPY that was begun; `left` is what is left of the message at hand, 0 at first. Returns 0 at the end, when
    /// [`Connection::copied`] is due.
    pub fn copy_read(&mut self, left: &mut usize, out: &mut [u8]) -> Result<usize, WireError> {
        let mut filled = 0;
        while filled < out.len() {
            if *left > 0 {
                let count = self.some(*left, &mut out[filled..])?;
                (filled, *left) = (filled + count, *left - count);
                continue;
            }
            match self.header()? {
                (b'd', length) => *left = length,
                (b'c', _) => {
                    // Nothing more of it comes: this is put back for whoever asks again.
                    self.start -= 5;
                    return Ok(filled);
                }
                (kind, length) => {
                    let body = self.body(length)?;
                    match kind {
                        b'N' | b'S' | b'A' => {}
                        b'E' => return Err(WireError::Server(Box::new(server_error(&body)))),
                        _ => return Err(WireError::protocol(format!("message {kind} within a COPY"))),
                    }
                }
            }
        }
        Ok(filled)
    }

    /// Ends a COPY, and says how many rows it had.
    pub fn copied(&mut self) -> Result<u64, WireError> {
        let mut rows = None;
        self.until_ready(|kind, body| {
            if kind == b'C' {
                let tag = String::from_utf8_lossy(body);
                let count = tag.trim_end_matches('\0').strip_prefix("COPY ").map(str::parse);
                rows = count.and_then(Result::ok).or(rows);
            }
            Ok(())
        })?;
        rows.ok_or_else(|| WireError::protocol("no row count after a COPY"))
    }

    /// Begins a `COPY … FROM STDIN`, which other statements may precede. Bytes follow by [`Connection::copy_write`], then
    /// [`Connection::copy_end`].
    pub fn copy_in(&mut self, sql: &str) -> Result<(), WireError> {
        self.put_text(b'Q', sql)?;
        self.flush()?;
        self.until_copy(b'G')
    }

    /// Sends bytes of a COPY.
    pub fn copy_write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.put(b'd', bytes)
    }

    /// Ends a COPY to the server, and says how many rows were taken.
    pub fn copy_end(&mut self) -> Result<u64, WireError> {
        self.put(b'c', b"")?;
        self.flush()?;
        self.copied()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.transport.write_once(&TERMINATE);
    }
}

/// The fields of an error.
pub(super) fn server_error(body: &[u8]) -> ServerError {
    let mut error = ServerError::default();
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else { continue };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => error.code = text,
            b'M' => error.message = text,
            b'D' => error.detail = text,
            b'H' => error.hint = text,
            b'W' => error.context = text,
            _ => {}
        }
    }
    error
}

fn row(body: &[u8]) -> Result<Vec<Value>, WireError> {
    let short = || WireError::protocol("a row that ends early");
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(short)?;
    let mut out = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        rest = after;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            out.push(None);
            continue;
        };
        let (value, after) = rest.split_at_checked(length).ok_or_else(short)?;
        rest = after;
        let text = String::from_utf8(value.to_vec()).map_err(|error| {
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            WireError::protocol(format!("{text:?} is not UTF-8"))
        })?;
        out.push(Some(text));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_apart() {
        let body = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(row(body).unwrap(), [Some("ab".to_owned()), None, Some(String::new())]);
        for cut in 0..body.len() {
            assert!(row(&body[..cut]).is_err(), "{cut}");
        }
        assert!(row(b"\0\x01\0\0\0\x01\xff").is_err());
    }

    #[test]
    fn errors_are_told_in_full() {
        let body = b"SERROR\0C42501\0Mpermission denied for table t\0Hask\0\0";
        assert_eq!(server_error(body).to_string(), "permission denied for table t (hint: ask) [42501]");
    }
}
