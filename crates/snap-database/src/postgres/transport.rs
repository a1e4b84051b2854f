//! The bytes of a connection: a socket of either kind, with TLS or without.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::settings::{Host, Settings, TlsMode};
use super::tls::{self, TlsStream};
use super::wire::WireError;
use crate::Stop;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a silent server may keep a signal waiting.
const LOOK: Duration = Duration::from_millis(200);
/// Code of the request for TLS.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
}

pub(super) struct Transport {
    socket: Socket,
    stop: Stop,
}

impl Transport {
    pub(super) fn open(settings: &Settings, stop: Stop) -> Result<Self, WireError> {
        let at = |error: io::Error| io::Error::new(error.kind(), format!("cannot reach {settings}: {error}"));
        let socket = match &settings.host {
            Host::Socket(directory) => {
                let path = directory.join(format!(".s.PGSQL.{}", settings.port));
                let stream = UnixStream::connect(&path).map_err(at)?;
                stream.set_read_timeout(Some(LOOK))?;
                stream.set_write_timeout(Some(LOOK))?;
                Socket::Unix(stream)
            }
            Host::Name(name) => Socket::Tcp(connect(name, settings.port).map_err(at)?),
        };
        let mut transport = Self { socket, stop };
        if settings.tls != TlsMode::Disable && matches!(transport.socket, Socket::Tcp(_)) {
            transport = transport.with_tls(settings)?;
        }
        Ok(transport)
    }

    /// Asks for TLS; a server that has none says so.
    fn with_tls(mut self, settings: &Settings) -> Result<Self, WireError> {
        self.write_all(&SSL_REQUEST)?;
        let mut answer = [0];
        if self.read(&mut answer)? == 0 {
            return Err(WireError::protocol("the server closed the connection when asked for TLS"));
        }
        match (answer[0], self.socket) {
            (b'S', Socket::Tcp(socket)) => {
                let Host::Name(name) = &settings.host else { unreachable!("a TCP connection has a host") };
                let socket = Socket::Tls(Box::new(tls::start(socket, name, settings)?));
                Ok(Self { socket, stop: self.stop })
            }
            (b'N', socket) if settings.tls == TlsMode::Prefer => Ok(Self { socket, stop: self.stop }),
            (b'N', _) => Err(WireError::Login(format!("{settings} has no TLS, and sslmode asks for it"))),
            _ => Err(WireError::protocol("what it says to the request for TLS")),
        }
    }

    /// Whether what is sent is encrypted, or does not leave the machine.
    pub(super) fn is_private(&self) -> bool {
        match &self.socket {
            Socket::Tcp(socket) => socket.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()),
            Socket::Unix(_) | Socket::Tls(_) => true,
        }
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let outcome = match &mut self.socket {
                Socket::Unix(socket) => socket.read(out),
                Socket::Tcp(socket) => socket.read(out),
                Socket::Tls(socket) => socket.read(out),
            };
            match outcome {
                Err(error) if is_pause(&error) => self.check_stop()?,
                outcome => return outcome,
            }
        }
    }

    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let outcome = match &mut self.socket {
                Socket::Unix(socket) => socket.write(bytes),
                Socket::Tcp(socket) => socket.write(bytes),
                Socket::Tls(socket) => socket.write(bytes),
            };
            match outcome {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_pause(&error) => self.check_stop()?,
                Err(error) => return Err(error),
            }
        }
        // Sockets have no buffer of their own, TLS has.
        loop {
            let Socket::Tls(socket) = &mut self.socket else { return Ok(()) };
            match socket.flush() {
                Err(error) if is_pause(&error) => self.check_stop()?,
                outcome => return outcome,
            }
        }
    }

    /// Says something to a server that may not listen any more.
    pub(super) fn write_once(&mut self, bytes: &[u8]) {
        let _ = match &mut self.socket {
            Socket::Unix(socket) => socket.write(bytes),
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Tls(socket) => socket.write(bytes).and_then(|written| socket.flush().map(|()| written)),
        };
    }

    fn check_stop(&self) -> io::Result<()> {
        // Not `Interrupted`, which is tried again.
        if (self.stop)() { Err(io::Error::other("interrupted")) } else { Ok(()) }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn connect(name: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (name, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LOOK))?;
                stream.set_write_timeout(Some(LOOK))?;
                // A server that is gone without a word is noticed.
                rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
                rustix::net::sockopt::set_tcp_keepidle(&stream, Duration::from_secs(60))?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
