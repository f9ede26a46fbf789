//! What holds for every input from outside, whatever is in it. Each module checks one kind of input; its `check` panics if
//! a property does not hold.
//!
//! `.ci/fuzz` calls them with inputs that libFuzzer makes, and `cargo test` with those in `tests/fuzz/corpus`. They are a
//! module of wxtoken itself, so that they reach what it does not make public.

// The targets are another crate, which a test of wxtoken does not know.
#![allow(unreachable_pub)]
// All of it is a test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

pub mod access_lists;
pub mod addresses;
pub mod command_line;
pub mod config;
pub mod document;
pub mod forwarded;
pub mod gateway;
pub mod gateway_answer;
pub mod log_text;
pub mod pem;
pub mod record;
pub mod redis_answer;
pub mod redis_value;
pub mod request;
pub mod upstream_answer;

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// The longest word that a message may repeat: a shorter one is no secret, key or token.
const MAX_WORD: usize = 28;

/// Asserts that a message repeats no word of the input that is long enough for a secret.
fn assert_tells_no_secret(message: &str, input: &[u8]) {
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let words = input.split(|byte| !is_of_word(byte)).filter(|word| word.len() > MAX_WORD);
    for word in words {
        let word = String::from_utf8_lossy(word);
        assert!(!message.contains(&*word), "{message:?} repeats {word}");
    }
}

/// A directory that only this user can enter, removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        // Other tests of this process may read what is logged.
        #[cfg(fuzzing)]
        crate::log::set_level(true, 0);
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("wxtoken-fuzz-{}-{number}", process::id()));
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        Scratch(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file that only this user can read, and returns its path.
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a check with each input of its corpus.
#[cfg(test)]
mod corpus {
    use std::fs;
    use std::path::Path;

    fn run(name: &str, check: fn(&[u8])) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
        let mut inputs: Vec<_> = fs::read_dir(&dir).unwrap().map(|it| it.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} is empty", dir.display());
        for input in inputs {
            // The last line says which input failed.
            println!("{}", input.display());
            check(&fs::read(&input).unwrap());
        }
    }

    macro_rules! tests {
        ($($name:ident)*) => {
            $(
                #[test]
                fn $name() {
                    run(stringify!($name), super::$name::check);
                }
            )*

            #[test]
            fn every_corpus_is_tested() {
                let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
                let entries = fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name());
                let mut found: Vec<_> = entries.map(|it| it.into_string().unwrap()).collect();
                found.sort();
                assert_eq!(found, [$(stringify!($name)),*]);
            }
        };
    }

    tests! {
        access_lists addresses command_line config document forwarded gateway gateway_answer log_text pem record redis_answer redis_value
        request upstream_answer
    }
}
