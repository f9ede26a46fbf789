//! The environment file of the units. It wins over the config, so what it says of an account or of how to serve is turned into
//! comments where the config says it from now on.

use std::fs;
use std::path::PathBuf;

use super::step::SetupStep;

/// The variables of the one account that a unit without a config has.
const ACCOUNT: [&str; 7] = [
    "WXTOKEN_APPID",
    "WXTOKEN_API",
    "WXTOKEN_BASE_URL",
    "WXTOKEN_CA_FILE",
    "WXTOKEN_SECRET_FILE",
    "WXTOKEN_SECRET",
    "WXTOKEN_FILE",
];

/// Those of where to serve, and whom.
const SERVE: [&str; 2] = ["WXTOKEN_LISTEN", "WXTOKEN_ALLOW"];

/// The environment file.
#[derive(Default)]
pub(super) struct EnvFile {
    path: PathBuf,
    text: String,
}

impl EnvFile {
    /// Reads the file at `path`; one that is not there is empty.
    pub(super) fn read(path: PathBuf) -> EnvFile {
        let text = fs::read_to_string(&path).unwrap_or_default();
        EnvFile { path, text }
    }

    /// Returns the value of a variable that is set and not empty, without quotes.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let value = self.text.lines().rev().find_map(|line| {
            let (found, value) = line.trim().split_once('=')?;
            (found == name).then(|| value.trim().trim_matches(['"', '\'']))
        });
        value.filter(|value| !value.is_empty())
    }

    /// Returns the step that turns what it says of the account into comments, and with `serves` what it says of serving. The
    /// AppSecret is removed: the secret file has it.
    pub(super) fn overridden(&self, serves: bool) -> Option<SetupStep> {
        let is_meant = |line: &str| {
            let name = line.trim().split('=').next().unwrap_or_default();
            ACCOUNT.contains(&name) || (serves && SERVE.contains(&name))
        };
        let lines = self.text.split_inclusive('\n');
        let is_secret = |line: &str| line.trim().starts_with("WXTOKEN_SECRET=");
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
