//! Real servers for tests, each with its own port and its own temporary directory, gone when dropped.
//!
//! [`S3Server`] serves S3 from within the test process, can be told to fail ([`S3Faults`]), and enforces a policy for
//! each user ([`S3Server::add_user`]); its bucket may keep versions and locks ([`Keeping`]).
//! [`SftpServer`] runs the machine's own `sshd`, [`PostgresServer`] its PostgreSQL. What a server needs and the machine lacks makes the test fail
//! with the name of the missing package; nothing is skipped.
//!
//! ```
//! let server = snap_testkit::S3Server::start();
//! assert!(server.uri("prefix").starts_with("s3://"));
//! ```
//!
//! What is not here: anything of snap. A test hands [`S3Server::uri`] and [`S3Server::credentials`], or
//! [`SftpServer::uri`], to the program or library under test.

mod guard;
mod policy;
mod postgres;
mod s3;
mod sftp;
mod versions;

pub use postgres::PostgresServer;
pub use s3::{S3Faults, S3Server};
pub use sftp::SftpServer;
pub use versions::Keeping;
