//! The pure rooms of asr-edge, built without the rest of it. That they build here shows that they are pure.
//!
//! Where a room is more than its pure files, a stand-in for it takes these alone and gives them a door. `config` looks
//! at files: those that it reads whole come from memory here.

pub mod choices;
pub mod reference;

#[path = "../src"]
mod rooms {
    pub mod answer;
    pub mod config;
    pub mod translate;

    pub mod accept {
        pub mod forwarded;
        pub mod peek;
        pub mod proxy_protocol;
    }

    pub mod base {
        pub mod secret;

        /// Files in memory: there are those that were put there, and no others.
        pub mod file {
            use std::cell::RefCell;
            use std::io;
            use std::path::{Path, PathBuf};

            thread_local! {
                static FILES: RefCell<Vec<(PathBuf, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
            }

            /// Puts a file there, in place of one of that name.
            pub fn put(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
                let path = path.into();
                FILES.with_borrow_mut(|files| {
                    files.retain(|(name, _)| *name != path);
                    files.push((path, bytes.into()));
                });
            }

            /// As in the room itself.
            pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
                let bytes = FILES.with_borrow(|files| {
                    files.iter().find(|(name, _)| name == path).map(|(_, bytes)| bytes.clone())
                });
                match bytes {
                    None => Err(io::Error::from_raw_os_error(2)),
                    Some(bytes) if bytes.len() as u64 > max_bytes => Err(io::ErrorKind::FileTooLarge.into()),
                    Some(bytes) => Ok(bytes),
                }
            }

            /// As in the room itself.
            pub const fn open_to_others(_: &Path) -> bool {
                false
            }
        }
    }

    #[path = "authenticate/keys"]
    pub mod keys {
        mod entry;
        mod key_file;

        use std::time::SystemTime;

        pub use key_file::KeyFileFault;

        use crate::base::secret::Secret;

        /// The keys of a file.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Keys(Vec<entry::Entry>);

        impl Keys {
            /// Those that a text holds.
            pub fn parse(text: &[u8]) -> Result<Self, KeyFileFault> {
                key_file::parse(text).map(Self)
            }

            /// Whose key this is.
            pub fn whose(&self, key: &[u8], now: SystemTime) -> Option<&str> {
                entry::whose(self.0.iter(), key, now).map(|name| &**name)
            }

            /// One more key, without an end.
            pub fn and(mut self, name: &str, key: &[u8]) -> Self {
                self.0.push(entry::Entry::new(name, key));
                self
            }

            /// Name by name: the hash, and whether the key is taken at that moment.
            pub fn each(&self, now: SystemTime) -> impl Iterator<Item = (&str, &[u8; 32], bool)> {
                self.0.iter().map(move |entry| (&*entry.name, &entry.sha256, entry.is_taken_at(now)))
            }
        }

        /// The text with one more key.
        pub fn with(
            text: &[u8],
            name: &str,
            key: &Secret<String>,
            created: &str,
        ) -> Result<Vec<u8>, KeyFileFault> {
            key_file::with(text, name, key, created)
        }
    }

    #[path = "upstream/credential"]
    #[allow(dead_code, reason = "nothing is watched or sent")]
    pub mod credential {
        mod auth_file;
        mod claims;
        mod login;

        pub use login::{Login, LoginFault};

        use crate::base::secret::Secret;

        /// The login that the text of an auth file gives.
        pub fn of_file(text: &[u8], account: Option<&str>) -> Result<Login, LoginFault> {
            auth_file::login(text, account)
        }

        /// The login that a token given by hand makes.
        pub fn of_token(token: &Secret<String>, account: Option<&str>) -> Result<Login, LoginFault> {
            Login::new(token, account)
        }
    }

    #[path = "translate"]
    #[allow(dead_code, reason = "only the heads of parts are looked at")]
    pub mod part {
        mod asked;
        mod disposition;
        mod parameters;
        mod refusal;

        pub use refusal::Refusal;

        /// The field name that a part's header block gives, and whether its text would have to be decoded first: from
        /// another charset, from a transfer encoding.
        pub fn head(block: &[u8]) -> Result<(Vec<u8>, bool, bool), Refusal> {
            let head = disposition::Head::parse(block.to_vec())?;
            Ok((head.name, head.foreign_charset, head.encoded))
        }
    }
}

pub use rooms::accept::{forwarded, peek, proxy_protocol};
pub use rooms::{accept, answer, base, config, credential, keys, part, translate};
