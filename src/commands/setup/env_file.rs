//! The environment file of the units. It wins over the config, so what it says of an account or of how to serve is turned into
//! comments where the config says it from now on.

use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::Result;

use super::messages;
use super::step::SetupStep;
use crate::config::edit;
use crate::error::Exit;
use crate::message::cannot;
use crate::os::fault::{Operation, explained};

/// The variables of the one account that a unit without a config has.
pub(super) const ACCOUNT: [&str; 7] = [
    "WXTOKEN_APPID",
    "WXTOKEN_API",
    "WXTOKEN_BASE_URL",
    "WXTOKEN_CA_FILE",
    "WXTOKEN_SECRET_FILE",
    "WXTOKEN_SECRET",
    "WXTOKEN_FILE",
];

/// Those by which the config, or tokens, are looked for elsewhere than where they are put.
pub(super) const ELSEWHERE: [&str; 2] = ["WXTOKEN_CONFIG", "WXTOKEN_DIR"];

/// Those of where to serve, and whom.
const SERVE: [&str; 2] = ["WXTOKEN_LISTEN", "WXTOKEN_ALLOW"];

/// The environment file.
#[derive(Default)]
pub(super) struct EnvFile {
    path: PathBuf,
    text: String,
}

impl EnvFile {
    /// Reads the file at `path`; one that is not there is empty. Fails if it cannot be read as it is.
    pub(super) fn read(path: PathBuf) -> Result<EnvFile> {
        let text = match fs::read_to_string(&path) {
            Err(err) if err.kind() == ErrorKind::NotFound => String::new(),
            text => text.map_err(|err| {
                let what = cannot("read", "读取", path.display());
                Exit::Usage.error(format!("{what}: {}", explained(&err, &path, Operation::Reading)))
            })?,
        };
        Ok(EnvFile { path, text })
    }

    /// Fails if the units would look for the config or for tokens elsewhere than where they are put.
    pub(super) fn check(&self) -> Result<()> {
        let other = ELSEWHERE.into_iter().find(|it| self.value(it).is_some());
        match other {
            None => Ok(()),
            Some(name) => {
                let values: [&dyn Display; 2] = [&name, &self.path.display()];
                Err(Exit::Usage.error(messages::VARIABLE_OF_UNITS.with(values)))
            }
        }
    }

    /// Fails if the file is no longer as it was read.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() || EnvFile::read(self.path.clone())?.text == self.text {
            return Ok(());
        }
        Err(edit::changed_meanwhile(&self.path))
    }

    /// Returns the value of a variable that is set and not empty, without quotes.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        value_in(&self.text, name)
    }

    /// Returns the step that turns what it says of the account into comments, and with `serves` what it says of serving. The
    /// AppSecret is removed: the secret file has it.
    pub(super) fn overridden(&self, serves: bool) -> Option<SetupStep> {
        let is_meant = |line: &str| {
            let name = line.split('=').next().unwrap_or_default().trim();
            ACCOUNT.contains(&name) || (serves && SERVE.contains(&name))
        };
        let lines = self.text.split_inclusive('\n');
        let is_secret =
            |line: &str| line.split('=').next().is_some_and(|it| it.trim() == "WXTOKEN_SECRET");
        let lines = lines.filter(|line| !is_secret(line));
        let text = lines.map(|line| match is_meant(line) {
            true => format!("#{line}"),
            false => line.to_owned(),
        });
        let text: String = text.collect();
        let is_changed = text != self.text;
        is_changed.then(|| SetupStep::text(self.path.clone(), 0o644, text)).flatten()
    }
}

/// Returns the value of a variable that a text sets, and that is not empty, without quotes.
pub(super) fn value_in<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let value = text.lines().rev().find_map(|line| {
        let (found, value) = line.trim().split_once('=')?;
        (found.trim() == name).then(|| value.trim().trim_matches(['"', '\'']))
    });
    value.filter(|value| !value.is_empty())
}
