//! What is to be protected, where to, and whether that is enough.
//!
//! [`Config`] is a judged `snap.toml`: datasets with their objectives and [`Retention`], the copies with their keys.
//! [`ResolvedCopies`] are those that a run is about. [`policy::judge`] says of a dataset how many copies hold its newest
//! snapshot and what they have in common; [`policy::Machine`] gathers what is judged by.
//!
//! ```
//! use snap_ops::Config;
//!
//! let text = "[repository]\nuri = \"backup\"\n\n[dataset.home]\nsource = \"/home\"\nretention = { daily = 14 }\n";
//! let config = Config::parse(text, "/etc/snap/snap.toml".as_ref())?;
//! assert_eq!(config.copies[0].uri.expose(), "/etc/snap/backup");
//! assert_eq!(config.dataset("home").and_then(|it| it.retention.as_ref()).map(|it| it.daily), Some(14));
//!
//! let error = Config::parse("[repository]\nurl = \"backup\"\n", "/etc/snap/snap.toml".as_ref()).unwrap_err();
//! assert!(error.to_string().starts_with("/etc/snap/snap.toml:2: unknown key `url`; did you mean `uri`?"));
//! # Ok::<(), snap_ops::ConfigError>(())
//! ```
//!
//! What is not here: opening repositories, and where the configuration is looked for. This crate reads no environment;
//! variables that credentials name are asked of the caller.

mod config;
mod copies;
mod interval;
mod names;
pub mod policy;
mod price;
mod retention;
mod secret;

pub use config::{Alerts, App, Config, ConfigError, Dataset, DatasetSource, EXAMPLE, Problem, Unread};
pub use copies::{KeyConfig, KeyRef, LockConfig, MAIN_COPY, ResolvedCopies, ResolvedCopy};
pub use interval::Interval;
pub use names::{DATASET_RULE, did_you_mean, is_dataset_name};
pub use price::Price;
pub use retention::Retention;
pub use secret::{Credentials, SecretError, SecretRef, SecretText, SecretUri};
